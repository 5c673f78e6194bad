"""SingleStore 8.5 and later. Generated from its documentation; not executed.

For example, the existing rows of a batch are locked by a statement of their own::

    SELECT t.`_offset`
    FROM `data`.`_stage_clicks` AS s
    JOIN `data`.`clicks` AS t ON t.`code` = s.`code`
    WHERE t.`_commit` <> %(commit)s
    FOR UPDATE;

What the statements rely on, according to the documentation of 7.3 to 9.1:

- a table without ROWSTORE is a columnstore; a unique key contains all columns of the shard key, and a primary key is
  the shard key if none is declared: stage and table have the same key, so their rows are on the same partition;
- columns of the key are not changed by an upsert, not even to the values they have: ``_commit`` is;
- an upsert counts 0 for a row that it does not change. Whether it locks such a row is not documented: a
  SELECT … FOR UPDATE after it locks the existing rows;
- locks are exclusive, taken by writes, and held until the transaction ends; there is no detection of deadlocks, the
  time-out (1205) ends them;
- READ COMMITTED is the only isolation level;
- one transaction writes to one database: control plane and tables share it;
- a subquery that does not compare shard keys for equality is refused unless its table is a reference table: cursors
  are. Reference tables have a primary key, and are written over the master aggregator;
- ``time_zone`` cannot be set by a session: the servers' ``default_time_zone`` must be +00:00;
- DELETE has a LIMIT and no ORDER BY;
- there is no CHECK; QUOTE, SHA2, UNHEX and CRC32 exist;
- AUTO_INCREMENT rises on each aggregator separately: all connections use the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tidemill.spec.schema import Model, Table
from tidemill.store.sql.base import Dialect
from tidemill.store.sql.capabilities import TableUse
from tidemill.store.sql.control_ddl import (
    one_change_each,
    with_current_timestamp,
    without_checks,
    without_column_comments,
)
from tidemill.store.sql.identifiers import columns_of, in_schema, quote


class SingleStore(Dialect):
    """Tables whose rows are distributed over partitions by the hash of their key."""

    __slots__ = ()
    name: ClassVar[str] = "singlestore"
    versions: ClassVar[str] = "SingleStore 8.5 and later"
    collation: ClassVar[str] = "utf8mb4_bin"
    jdbc_session: ClassVar[str] = ""
    share_lock: ClassVar[str] = "FOR UPDATE"
    join: ClassVar[str] = "JOIN"
    deletes_in_order: ClassVar[bool] = False

    def session(self) -> str:
        """One SET statement; the time zone is the servers' own."""
        return "SET SESSION sql_mode = 'STRICT_ALL_TABLES'"

    def snapshot_read(self) -> tuple[str, ...]:
        """A transaction in which each statement reads what is committed by then."""
        return ("START TRANSACTION",)

    def control(self, statement: str) -> tuple[str, ...]:
        """As reference tables, which may have unique keys besides the primary key; without CHECK."""
        text = without_column_comments(with_current_timestamp(statement))
        text = text.replace("CREATE TABLE", "CREATE ROWSTORE REFERENCE TABLE") if "CREATE TABLE" in text else text
        kept = (without_checks(each) for each in one_change_each(text))
        return tuple(each for each in kept if each)

    def create_keyword(self, use: TableUse) -> str:
        """Rows that every commit changes are kept in memory, all others in columns."""
        words = {TableUse.ROWS: "TABLE", TableUse.COUNTS: "ROWSTORE TABLE", TableUse.CURSOR: "ROWSTORE REFERENCE TABLE"}
        return words[use]

    def key_items(self, key: Sequence[str], use: TableUse) -> list[str]:
        """A columnstore is sorted by the key, too: rollups are backfilled in its order."""
        listed = columns_of(key)
        if use is TableUse.ROWS:
            return [f"PRIMARY KEY ({listed})", f"SHARD KEY ({listed})", f"SORT KEY ({listed})"]
        return [f"PRIMARY KEY ({listed})"]

    def table_options(self) -> str:
        """The collation, whatever default the database has."""
        return f" COLLATE {self.collation}"

    def column_comment(self, text: str) -> str:
        """None: columns have no comments."""
        return ""

    def create_temporary(self, table: str, body: str) -> tuple[str, ...]:
        """Two statements, which commit nothing."""
        return (f"DROP TEMPORARY TABLE IF EXISTS {table}", f"CREATE ROWSTORE TEMPORARY TABLE {table} {body}")

    def keep_row(self, schema: str, name: str, key: Sequence[str]) -> str:
        """Assigns ``_commit``, which every row has and no key contains."""
        return f"{quote('_commit')} = {self.target_column(schema, name, '_commit')}"

    def target_column(self, schema: str, name: str, column: str) -> str:
        """Qualified by the table's name alone."""
        return f"{quote(name)}.{quote(column)}"

    def lock_existing(self, schema: str, name: str, table: Table) -> tuple[str, ...]:
        """Lock the existing rows of the batch."""
        return (self.lock_rows(self.staged_join(schema, name, table), "t.`_commit` <> %(commit)s"),)

    def lock_rows(self, source: str, condition: str) -> str:
        """Selects the rows themselves: the documentation does not promise that an aggregate locks them."""
        return f"SELECT t.`_offset` FROM {source} WHERE {condition} FOR UPDATE"

    def remove_scores(self, schema: str, scores: str, model: Model) -> str:
        """In no particular order: a DELETE has a LIMIT, and takes no ORDER BY."""
        return f"DELETE FROM {in_schema(schema, scores)} WHERE `model_version` = %(version)s LIMIT %(rows)s"
