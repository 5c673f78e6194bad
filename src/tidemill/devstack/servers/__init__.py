"""How each embedded server is prepared, started and asked whether it serves.

Runs in the process of ``./tidemill up`` or of a test.
"""
