"""SingleStore 8.5 and later. Generated from its documentation; not executed.

What the statements rest on, as the documentation of 7.3 to 9.1 says it:

- a table without ROWSTORE is a columnstore; a unique key holds all columns of the shard key, and a primary key is the
  shard key where none is declared: stage and table have one key, so that they meet on one partition;
- columns of the key are not changed by an upsert, not even to the values they have: ``_commit`` is;
- an upsert counts 0 for a row that it does not change. Whether it locks such a row is not said: the known rows are
  locked by a SELECT … FOR UPDATE after it;
- locks are exclusive, taken by writes, and held until the transaction ends; there is no detection of deadlocks, the
  time-out (1205) ends them;
- READ COMMITTED is the only isolation level;
- one transaction writes to one database: control plane and tables share one;
- a subquery that does not compare shard keys for equality is refused unless its table is a reference table: cursors
  are. Reference tables have a primary key, and are written over the master aggregator;
- ``time_zone`` cannot be set by a session: the servers' ``default_time_zone`` must be +00:00;
- DELETE has a LIMIT and no ORDER BY;
- there is no CHECK; QUOTE, MD5, UNHEX and CRC32 are there;
- AUTO_INCREMENT rises on each aggregator by itself: all connections go to one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from tidemill.spec.schema import Model, Table
from tidemill.store.sql.base import Dialect
from tidemill.store.sql.capabilities import Use
from tidemill.store.sql.control_ddl import (
    one_change_each,
    with_current_timestamp,
    without_checks,
    without_column_comments,
)
from tidemill.store.sql.identifiers import columns_of, in_schema, quote


class SingleStore(Dialect):
    """Tables on many partitions, found by the hash of their key."""

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
        """A transaction, each of whose statements reads what is committed by then."""
        return ("START TRANSACTION",)

    def control(self, statement: str) -> tuple[str, ...]:
        """As reference tables, which may have unique keys beside the primary one; without CHECK."""
        text = without_column_comments(with_current_timestamp(statement))
        text = text.replace("CREATE TABLE", "CREATE ROWSTORE REFERENCE TABLE") if "CREATE TABLE" in text else text
        kept = (without_checks(each) for each in one_change_each(text))
        return tuple(each for each in kept if each)

    def table_word(self, use: Use) -> str:
        """Hot rows in memory, all others in columns."""
        words = {Use.ROWS: "TABLE", Use.COUNTS: "ROWSTORE TABLE", Use.CURSOR: "ROWSTORE REFERENCE TABLE"}
        return words[use]

    def key_items(self, key: Sequence[str], use: Use) -> list[str]:
        """A columnstore keeps its rows sorted by the key, too: rollups are built in its order."""
        listed = columns_of(key)
        if use is Use.ROWS:
            return [f"PRIMARY KEY ({listed})", f"SHARD KEY ({listed})", f"SORT KEY ({listed})"]
        return [f"PRIMARY KEY ({listed})"]

    def table_options(self) -> str:
        """The collation, whatever the database's."""
        return f" COLLATE {self.collation}"

    def column_comment(self, text: str) -> str:
        """None: columns have no comments."""
        return ""

    def temporary(self, table: str, body: str) -> tuple[str, ...]:
        """Two statements, which commit nothing."""
        return (f"DROP TEMPORARY TABLE IF EXISTS {table}", f"CREATE ROWSTORE TEMPORARY TABLE {table} {body}")

    def untouched(self, schema: str, name: str, key: Sequence[str]) -> str:
        """By the commit, which every row carries and no key holds."""
        return f"{quote('_commit')} = {self.own(schema, name, '_commit')}"

    def own(self, schema: str, name: str, column: str) -> str:
        """By the table's name alone."""
        return f"{quote(name)}.{quote(column)}"

    def lock_known(self, schema: str, name: str, table: Table) -> tuple[str, ...]:
        """The known rows of the batch."""
        return (self.lock_rows(self.staged(schema, name, table), "t.`_commit` <> %(commit)s"),)

    def lock_rows(self, source: str, condition: str) -> str:
        """Row by row: an aggregate would lock nothing that the documentation speaks of."""
        return f"SELECT t.`_offset` FROM {source} WHERE {condition} FOR UPDATE"

    def remove_scores(self, schema: str, scores: str, model: Model) -> str:
        """In whatever order: a DELETE has a LIMIT, and takes no ORDER BY."""
        return f"DELETE FROM {in_schema(schema, scores)} WHERE `model_version` = %(version)s LIMIT %(rows)s"
