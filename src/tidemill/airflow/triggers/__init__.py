"""What waits for streams, commits and people without a worker slot.

Runs in the triggerer; one query every 2 s serves all triggers of a process.
"""
