"""Input classes of what reads and scores: metrics, annotations, the evaluate command, the example's files.

``outcomes`` says what a class is and runs it; the other files hold the classes. The tests in
``tests/hardening_readers`` and the table of ``tests/inputs/write_reader_table.py`` use the same definitions.
"""
