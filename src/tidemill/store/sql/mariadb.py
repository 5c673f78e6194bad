"""MariaDB 11.4 and later, which the embedded stack and the tests run.

One statement replaces a temporary table, and a statement may name a temporary table several times. For example::

    CREATE OR REPLACE TEMPORARY TABLE `data`.`_delta_clicks_by_page` LIKE `data`.`clicks_by_page`;
"""

from __future__ import annotations

from typing import ClassVar

from tidemill.spec.schema import Rollup, Table
from tidemill.store.sql import identifiers
from tidemill.store.sql.base import Dialect
from tidemill.store.sql.identifiers import columns_of, in_schema


class MariaDB(Dialect):
    """The dialect that all tests of the database execute."""

    __slots__ = ()
    name: ClassVar[str] = "mariadb"
    versions: ClassVar[str] = "MariaDB 11.4 and later"
    collation: ClassVar[str] = "utf8mb4_nopad_bin"
    executed: ClassVar[bool] = True
    warns_per_row: ClassVar[bool] = True
    share_lock: ClassVar[str] = "LOCK IN SHARE MODE"
    jdbc_session: ClassVar[str] = "time_zone='+00:00',join_cache_level=0"

    def session(self) -> str:
        """One SET statement."""
        return (
            "SET SESSION time_zone = '+00:00', tx_isolation = 'READ-COMMITTED', sql_mode = 'STRICT_ALL_TABLES,"
            "NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',"
            f" idle_write_transaction_timeout = {identifiers.IDLE_SECONDS}"
        )

    def control(self, statement: str) -> tuple[str, ...]:
        """Unchanged: ``sql/control`` is written for MariaDB."""
        return (statement,)

    def table_options(self) -> str:
        """The collation, whatever default the schema has."""
        return f" DEFAULT CHARACTER SET utf8mb4 COLLATE {self.collation}"

    def by_key(self, query: str) -> str:
        """Without a join buffer."""
        return f"SET STATEMENT join_cache_level = 0 FOR {query}"

    def create_temporary(self, table: str, body: str) -> tuple[str, ...]:
        """One statement, which commits nothing."""
        return (f"CREATE OR REPLACE TEMPORARY TABLE {table} {body}",)

    def create_delta(self, schema: str, name: str, rollup: Rollup, table: Table) -> tuple[str, ...]:
        """Created like the rollup, whatever its columns are."""
        return self.create_temporary(in_schema(schema, identifiers.delta(name)), f"LIKE {in_schema(schema, name)}")

    def compare_rollup(self, schema: str, name: str, rollup: Rollup, table: Table) -> str:
        """With EXCEPT, in both directions."""
        columns = columns_of([*rollup.by, *rollup.measures, "_rows"])
        kept = f"SELECT {columns} FROM {in_schema(schema, name)}"
        query = f"SELECT {columns} FROM ({self.recompute_rollup(schema, rollup, table)}) AS q"
        return f"SELECT COUNT(*) FROM ((({kept}) EXCEPT ({query})) UNION ALL (({query}) EXCEPT ({kept}))) AS difference"
