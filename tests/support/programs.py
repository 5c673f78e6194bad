"""Small programs in the place of those that the product starts."""

from __future__ import annotations

import sys
from pathlib import Path


def write_program(path: Path, text: str) -> None:
    """Write an executable Python program.

    A shell starts it: what a first line names after ``#!`` may not have a blank, which the path of the checkout may.
    """
    path.write_text(f"""#!/bin/sh
''''exec "{sys.executable}" "$0" "$@" # '''
{text}""")
    path.chmod(0o755)
