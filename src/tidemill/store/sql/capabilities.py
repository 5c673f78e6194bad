"""The points at which the databases differ, each with the answer that most of them give.

A dialect overrides these answers; the statements themselves are defined once, in the other modules of this package.
The same temporary table on two databases::

    >>> from tidemill.store.sql import dialect
    >>> dialect("mariadb").create_temporary("`data`.`_stage_clicks`", "(`code` CHAR(12))")
    ('CREATE OR REPLACE TEMPORARY TABLE `data`.`_stage_clicks` (`code` CHAR(12))',)
    >>> for statement in dialect("mysql").create_temporary("`data`.`_stage_clicks`", "(`code` CHAR(12))"):
    ...     print(statement)
    DROP TEMPORARY TABLE IF EXISTS `data`.`_stage_clicks`
    CREATE TEMPORARY TABLE `data`.`_stage_clicks` (`code` CHAR(12))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import ClassVar

from tidemill.store.sql.identifiers import columns_of, quote


class TableUse(Enum):
    """What a permanent table is for."""

    ROWS = "rows"
    """Many rows, kept for long: operational tables and scores."""
    COUNTS = "counts"
    """Few rows, changed by every commit: rollups and deletion markers."""
    CURSOR = "cursor"
    """No row or one, compared with every row of another table."""


class Capabilities:
    """What the generated statements need to know about their database."""

    name: ClassVar[str]
    """As ``TIDEMILL_DB_DIALECT`` names it."""
    versions: ClassVar[str]
    """Which versions its statements are for."""
    collation: ClassVar[str]
    """Compares text by code point; trailing blanks count where the database supports that."""
    executed: ClassVar[bool] = False
    """True if the project's tests execute the statements; False if they are written from the manuals alone."""
    warns_per_row: ClassVar[bool] = False
    """Whether a LOAD DATA without REPLACE warns about every row that does not fit, with its number. Where that is not
    known, the rows of a refused load are tried one by one."""
    deletes_in_order: ClassVar[bool] = True
    """Whether a DELETE with a LIMIT takes an ORDER BY."""
    jdbc_session: ClassVar[str] = "time_zone='+00:00'"
    """Session variables of a JDBC connection, in the syntax of the driver's ``sessionVariables``; empty for none."""
    share_lock: ClassVar[str]
    """Ends a SELECT that locks its rows against changes until the transaction ends."""
    join: ClassVar[str] = "STRAIGHT_JOIN"
    """Joins a small table on the left to a large table on the right by the key of the large one."""

    __slots__ = ()

    def session(self) -> str:
        """The first statement of a connection: UTC, READ COMMITTED, and a value that does not fit is an error."""
        raise NotImplementedError

    def snapshot_read(self) -> tuple[str, ...]:
        """Begin a transaction that reads all tables as of one point in time."""
        return (
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        )

    def control(self, statement: str) -> tuple[str, ...]:
        """A statement of ``sql/control`` in this database's syntax: one statement, or several to be run one by one."""
        raise NotImplementedError

    def create_keyword(self, use: TableUse) -> str:
        """What follows CREATE for a permanent table."""
        return "TABLE"

    def key_items(self, key: Sequence[str], use: TableUse) -> list[str]:
        """How a permanent table declares its key."""
        return [] if use is TableUse.CURSOR else [f"PRIMARY KEY ({columns_of(key)})"]

    def table_options(self) -> str:
        """What follows the column list of every table; may be empty."""
        raise NotImplementedError

    def column_comment(self, text: str) -> str:
        """A comment that follows a column's type."""
        return f" COMMENT '{text}'"

    def create_temporary(self, table: str, body: str) -> tuple[str, ...]:
        """Create a temporary table; replaces one of the same name.

        Args:
            table: its full name, quoted.
            body: columns and keys in parentheses, optionally followed by a query.
        """
        raise NotImplementedError

    def keep_row(self, schema: str, name: str, key: Sequence[str]) -> str:
        """The assignment with which an upsert locks an existing row and does not change it."""
        return f"{quote(key[0])} = {self.target_column(schema, name, key[0])}"

    def target_column(self, schema: str, name: str, column: str) -> str:
        """A column of the existing row in an upsert's assignments."""
        return f"{quote(schema)}.{quote(name)}.{quote(column)}"

    def inserted_value(self, column: str) -> str:
        """The value that the upsert would have inserted."""
        return f"VALUES({quote(column)})"

    def upsert(self, target: str, columns: Iterable[str], query: str, changes: str, *, order: str = "") -> str:
        """Insert the rows of a query; update the existing rows of the same keys.

        Args:
            target: the table's full name, quoted.
            columns: of the target, in the order of the query; none for all columns in the table's order.
            query: a SELECT without an order.
            changes: assignments, made of :meth:`target_column` and :meth:`inserted_value`.
            order: the columns that the rows are sorted by before they are inserted; empty for no order.
        """
        listed = columns_of(columns)
        into = f"INSERT INTO {target} ({listed})" if listed else f"INSERT INTO {target}"
        ordered = f" ORDER BY {order}" if order else ""
        return f"{into} {query}{ordered} ON DUPLICATE KEY UPDATE {changes}"

    def by_key(self, query: str) -> str:
        """A SELECT that joins by index wherever there is one.

        With a join buffer the optimizer sometimes compares every row of both sides instead: a batch then takes
        seconds, and longer as the tables grow.
        """
        return query

    def lock_rows(self, source: str, condition: str) -> str:
        """Lock the rows of a join that meet a condition."""
        return f"SELECT COUNT(*) FROM {source} WHERE {condition} FOR UPDATE"
