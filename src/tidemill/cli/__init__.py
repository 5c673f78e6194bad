"""The command line: options, then settings, then one call.

Runs as ``./tidemill`` or ``python -m tidemill``. Each command imports only what it needs.
"""
