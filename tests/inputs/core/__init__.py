"""Input classes: what every public function of the tensor core is called with, and what has to come of it.

``subjects`` says how each function is called, ``results`` and ``errors`` hold the classes, ``outcomes`` runs a case.
The tests in ``tests/hardening`` and the table of ``tests/inputs/write_core_table.py`` use the same definitions.
"""
