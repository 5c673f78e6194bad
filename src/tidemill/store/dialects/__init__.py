"""One module per database that speaks the MySQL protocol: every generated statement comes from one of them.

The statements stand once, in the order in which they run: ``tables`` (what ``apply`` makes), ``write`` (one batch
into one table), ``rollups``, ``removal`` and ``learning``. ``hooks`` names the points at which databases differ;
``mariadb``, ``mysql``, ``tidb`` and ``singlestore`` answer there. What comes out is kept in
``tests/unit/store/golden``.
"""

from __future__ import annotations

from tidemill.errors import ConfigError
from tidemill.store.dialects.base import Dialect
from tidemill.store.dialects.mariadb import MariaDB
from tidemill.store.dialects.mysql import MySQL
from tidemill.store.dialects.singlestore import SingleStore
from tidemill.store.dialects.tidb import TiDB

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
        raise ConfigError(
            "no such database dialect", value=name, remedy=f"set TIDEMILL_DB_DIALECT to one of {', '.join(DIALECTS)}"
        ) from None
