"""Generates every statement for a database that speaks the MySQL protocol; one dialect for each database.

Statements are built by ``tables`` (what ``apply`` creates), ``merge`` (one batch into one table), ``rollups``,
``deletes``, ``scores``, ``as_of``, ``replay`` and ``maintenance``. ``capabilities`` names the points at which the
databases differ; ``mariadb``, ``mysql``, ``tidb`` and ``singlestore`` answer there. Each module opens with an example
of what it renders; ``tests/unit/store/sql/golden`` has all statements.
"""

from __future__ import annotations

from tidemill.errors import ConfigError
from tidemill.store.sql.base import Dialect
from tidemill.store.sql.mariadb import MariaDB
from tidemill.store.sql.mysql import MySQL
from tidemill.store.sql.singlestore import SingleStore
from tidemill.store.sql.tidb import TiDB

__all__ = ["DIALECTS", "Dialect", "dialect"]

DIALECTS: dict[str, Dialect] = {each.name: each for each in (MariaDB(), MySQL(), TiDB(), SingleStore())}
"""Every dialect, as ``TIDEMILL_DB_DIALECT`` names it."""


def dialect(name: str) -> Dialect:
    """The dialect of a database.

    Raises:
        ConfigError: no such dialect.
    """
    try:
        return DIALECTS[name]
    except KeyError:
        raise ConfigError("TM-STORE-UNKNOWN-DIALECT", value=name, known=", ".join(DIALECTS)) from None
