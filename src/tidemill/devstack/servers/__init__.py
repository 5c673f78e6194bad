"""How each embedded server is prepared, started and probed.

Runs in the process of ``./tidemill up`` or of a test.
"""
