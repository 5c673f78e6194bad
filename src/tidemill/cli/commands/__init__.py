"""Commands, one function each: its signature is its options, its docstring its help text.

Every start of the command line imports all of these modules, also for ``--help``. So they import at their top only the
standard library, typer and each other; a function imports what its command needs.
"""
