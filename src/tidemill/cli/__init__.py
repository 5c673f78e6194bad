"""The command line: options, then settings, then one call.

Runs as ``./tidemill`` or ``python -m tidemill``, in a process of its own that ends with the command. ``commands/``
holds the options and help texts, and imports nothing at its top that a help text does not need; the modules beside it
do the work of those commands that no other room does.
"""
