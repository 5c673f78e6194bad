"""TiDB 7.6 and later. Generated from its documentation; not executed.

For example, a replay takes an exclusive lock where MariaDB takes a shared one::

    SELECT 1
    FROM `data`.`_stage_clicks` AS s
    STRAIGHT_JOIN `data`.`_deleted_clicks` AS d ON d.`code` = s.`code`
    WHERE d.`_partition` = %(partition)s AND d.`_offset` >= s.`_offset` AND d.`_commit` > %(since_commit)s
    LIMIT 1
    FOR UPDATE;

What the statements rely on, with the first version whose documentation or source states it:

- a statement may name a local temporary table several times; such a table is declared by its columns, is kept in the
  memory of its TiDB server, and holds 64 MB unless ``tidb_tmp_table_max_size`` allows more (5.3);
- ``tidb_txn_mode`` makes transactions pessimistic; a pessimistic one may be READ COMMITTED, and each of its statements
  then reads what is committed by then;
- an upsert locks a row that it leaves as it is while ``tidb_lock_unchanged_keys`` is on (7.1.1);
- there are no shared locks: LOCK IN SHARE MODE is refused, does nothing, or locks exclusively (8.3), depending on
  variables. The statements use FOR UPDATE instead;
- LOAD DATA is part of the transaction (7.6); LOCAL converts a bad value with a warning, with REPLACE or without, and is
  strict only in some versions: warnings must be counted;
- a table cannot be created from a query, so the check of features over time cannot keep its snapshot here;
- a default is a constant or CURRENT_TIMESTAMP; one ALTER TABLE may not change one thing twice;
- AUTO_INCREMENT rises over all TiDB servers with ``AUTO_ID_CACHE 1`` only (6.4), and commits must;
- CHECK is parsed and not enforced unless ``tidb_enable_check_constraint`` is on (7.2), which is a global setting;
- START TRANSACTION READ ONLY needs ``tidb_enable_noop_functions``;
- ``utf8mb4_0900_bin`` was added in 7.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tidemill.errors import StoreError
from tidemill.spec.schema import Model
from tidemill.store.sql.base import Dialect
from tidemill.store.sql.capabilities import TableUse
from tidemill.store.sql.control_ddl import one_change_each, with_current_timestamp
from tidemill.store.sql.identifiers import IDLE_SECONDS, columns_of


class TiDB(Dialect):
    """Rows are clustered by their key, and all locks are exclusive."""

    __slots__ = ()
    name: ClassVar[str] = "tidb"
    versions: ClassVar[str] = "TiDB 7.6 and later"
    collation: ClassVar[str] = "utf8mb4_0900_bin"
    share_lock: ClassVar[str] = "FOR UPDATE"

    def session(self) -> str:
        """One SET statement."""
        return (
            "SET SESSION time_zone = '+00:00', transaction_isolation = 'READ-COMMITTED', sql_mode = 'STRICT_ALL_TABLES,"
            "NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',"
            " tidb_txn_mode = 'pessimistic', tidb_lock_unchanged_keys = ON,"
            " tidb_constraint_check_in_place_pessimistic = ON, tidb_tmp_table_max_size = 536870912,"
            f" tidb_idle_transaction_timeout = {IDLE_SECONDS}"
        )

    def snapshot_read(self) -> tuple[str, ...]:
        """Without READ ONLY."""
        return ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT")

    def control(self, statement: str) -> tuple[str, ...]:
        """With CURRENT_TIMESTAMP for a default, one change at a time, and ids that rise over all servers."""
        text = with_current_timestamp(statement)
        if "AUTO_INCREMENT" in text:
            text = text.rstrip() + " AUTO_ID_CACHE 1"
        return one_change_each(text)

    def key_items(self, key: Sequence[str], use: TableUse) -> list[str]:
        """Clusters the rows by their key explicitly, because a server's default may be something else."""
        return [] if use is TableUse.CURSOR else [f"PRIMARY KEY ({columns_of(key)}) /*T![clustered_index] CLUSTERED */"]

    def table_options(self) -> str:
        """The collation, whatever default the schema has."""
        return f" DEFAULT CHARACTER SET utf8mb4 COLLATE {self.collation}"

    def create_temporary(self, table: str, body: str) -> tuple[str, ...]:
        """Two statements, outside of a transaction."""
        return (f"DROP TEMPORARY TABLE IF EXISTS {table}", f"CREATE TEMPORARY TABLE {table} {body}")

    def create_snapshot(self, schema: str, name: str, model: Model) -> tuple[str, ...]:
        """Not supported: TiDB cannot create a table from a query.

        Raises:
            StoreError: always.
        """
        raise StoreError("TM-STORE-NO-TABLE-FROM-QUERY", value=name)
