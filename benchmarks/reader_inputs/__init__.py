"""Input classes of what reads and scores: metrics, annotations, the evaluate command, the example's files.

``outcomes`` says what a class is and runs it; the other files hold the classes. The tests in
``tests/hardening_readers`` and the table of ``benchmarks/inputs_readers.py`` use the same definitions.
"""
