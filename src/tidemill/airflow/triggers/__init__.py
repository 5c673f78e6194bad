"""Triggers that wait for streams, commits and people without occupying a worker slot.

Runs in the triggerer; one query every 2 s serves all triggers on streams of a process.
"""
