"""Where the project's own files are that are no Python modules of the package: SQL, DAG files, Spark entries, plugins.

In a checkout they are its top-level folders; a wheel carries copies of them as package data. The package decides by
where it is itself, and not by the working directory, which may belong to another project with a ``dags/`` of its own.
"""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("dags", "plugins", "spark_jobs", "sql")
"""Names of the folders, in a checkout as in the wheel."""

_PACKAGE = Path(__file__).resolve().parent
_PACKAGED = _PACKAGE / "_project"


def checkout() -> Path | None:
    """The folder of the checkout that the package is part of; None where it is installed from a wheel."""
    root = _PACKAGE.parents[1]
    return root if (root / "sql" / "control").is_dir() and _PACKAGE.parent.name == "src" else None


def resource_folder(name: str) -> Path:
    """One of the folders.

    Args:
        name: one of ``FOLDERS``.
    """
    root = checkout()
    return (_PACKAGED if root is None else root) / name
