"""The points at which the databases differ, each with the answer that most of them give.

A dialect is these answers; the statements themselves stand once, in the other modules of this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import ClassVar

from tidemill.store.sql.identifiers import columns_of, quote


class Use(Enum):
    """What a lasting table is for."""

    ROWS = "rows"
    """Many rows, kept for long: operational tables and scores."""
    COUNTS = "counts"
    """Few rows, changed by every commit: rollups and marks of deletion."""
    CURSOR = "cursor"
    """No row or one, compared with every row of another table."""


class Hooks:
    """What a statement asks its dialect."""

    name: ClassVar[str]
    """As ``TIDEMILL_DB_DIALECT`` names it."""
    versions: ClassVar[str]
    """Which versions its statements are for."""
    collation: ClassVar[str]
    """Compares text by its characters' numbers, trailing blanks and all where the database can."""
    executed: ClassVar[bool] = False
    """Whether the statements are run by the project's tests, or written from the manuals alone."""
    tells_rows: ClassVar[bool] = False
    """Whether the warnings of a LOAD DATA without REPLACE tell every row that does not fit. Where that is not known,
    the rows of a refused load are tried one by one."""
    deletes_in_order: ClassVar[bool] = True
    """Whether a DELETE may say which rows are the first ones that its LIMIT counts."""
    jdbc_session: ClassVar[str] = "time_zone='+00:00'"
    """Variables that a session over JDBC begins with, as the driver's ``sessionVariables``; empty for none."""
    share_lock: ClassVar[str]
    """Ends a SELECT whose rows nobody may change until the transaction ends."""
    join: ClassVar[str] = "STRAIGHT_JOIN"
    """Joins a small table on the left to a large one on the right, by the key of the latter."""

    __slots__ = ()

    def session(self) -> str:
        """What a connection begins with: UTC, READ COMMITTED, and what does not fit is an error."""
        raise NotImplementedError

    def snapshot_read(self) -> tuple[str, ...]:
        """Begin a transaction that reads all tables as of one moment."""
        return (
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        )

    def control(self, statement: str) -> tuple[str, ...]:
        """A statement of ``sql/control`` as this database takes it: one, or several to be run one by one."""
        raise NotImplementedError

    def table_word(self, use: Use) -> str:
        """What follows CREATE for a lasting table."""
        return "TABLE"

    def key_items(self, key: Sequence[str], use: Use) -> list[str]:
        """How a lasting table declares its key."""
        return [] if use is Use.CURSOR else [f"PRIMARY KEY ({columns_of(key)})"]

    def table_options(self) -> str:
        """What follows the columns of every table, or nothing."""
        raise NotImplementedError

    def column_comment(self, text: str) -> str:
        """What follows a column's type to say what it is for."""
        return f" COMMENT '{text}'"

    def temporary(self, table: str, body: str) -> tuple[str, ...]:
        """Make a temporary table in place of one of its name.

        Args:
            table: its full name, quoted.
            body: columns and keys in parentheses, or these and a query.
        """
        raise NotImplementedError

    def untouched(self, schema: str, name: str, key: Sequence[str]) -> str:
        """The assignment by which an upsert leaves a known row as it is, but locks it."""
        return f"{quote(key[0])} = {self.own(schema, name, key[0])}"

    def own(self, schema: str, name: str, column: str) -> str:
        """A column of an upsert's target."""
        return f"{quote(schema)}.{quote(name)}.{quote(column)}"

    def incoming(self, column: str) -> str:
        """The value that an upsert would have inserted."""
        return f"VALUES({quote(column)})"

    def upsert(self, target: str, columns: Iterable[str], query: str, changes: str, *, order: str = "") -> str:
        """Insert the rows of a query, or change those of known keys.

        Args:
            target: the table's full name, quoted.
            columns: of the target, as the query gives them; none for all in their order.
            query: a SELECT without an order.
            changes: assignments, made of :meth:`own` and :meth:`incoming`.
            order: the columns in whose order rows are taken, or nothing.
        """
        listed = columns_of(columns)
        into = f"INSERT INTO {target} ({listed})" if listed else f"INSERT INTO {target}"
        ordered = f" ORDER BY {order}" if order else ""
        return f"{into} {query}{ordered} ON DUPLICATE KEY UPDATE {changes}"

    def by_key(self, query: str) -> str:
        """A SELECT whose joins are to go by key wherever there is one.

        An optimizer that has a buffer for joins would now and then rather compare every row of both sides: a batch
        then takes seconds, and longer as the tables grow.
        """
        return query

    def lock_rows(self, source: str, condition: str) -> str:
        """Lock the rows of a join that meet a condition."""
        return f"SELECT COUNT(*) FROM {source} WHERE {condition} FOR UPDATE"
