"""Every statement that is generated for a database, under the same method name in each dialect.

For example::

    >>> from tidemill.store.sql import dialect
    >>> dialect("mariadb").count_rows("data", "orders")
    'SELECT COUNT(*) FROM `data`.`orders`'
"""

from __future__ import annotations

from tidemill.store.sql.as_of import AsOfStatements
from tidemill.store.sql.maintenance import MaintenanceStatements
from tidemill.store.sql.replay import ReplayStatements
from tidemill.store.sql.scores import ScoreStatements


class Dialect(MaintenanceStatements, ReplayStatements, AsOfStatements, ScoreStatements):
    """One database that speaks MySQL's protocol. It has no state and sends nothing: it only returns statements.

    Names are quoted; values are bound as parameters (``%(commit)s``).
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
