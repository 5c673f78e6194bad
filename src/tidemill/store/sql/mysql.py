"""MySQL 8.0.19 and later. Generated from its reference manual; not executed.

For example, the added differences of a rollup come from a derived table ``n``::

    INSERT INTO `data`.`clicks_by_page`
    SELECT *
    FROM (SELECT *
        FROM `data`.`_delta_clicks_by_page`) AS n
    ORDER BY `_group`
    ON DUPLICATE KEY UPDATE `data`.`clicks_by_page`.`clicks` = `data`.`clicks_by_page`.`clicks` + n.`clicks`,
        `data`.`clicks_by_page`.`_rows` = `data`.`clicks_by_page`.`_rows` + n.`_rows`;

What the statements rely on, with the first version whose manual documents it:

- a statement may name a temporary table once (still so in 8.4): two statements gather the differences of a rollup, one
  for the new rows and one for the old;
- CREATE OR REPLACE does not exist for tables; DROP TEMPORARY TABLE commits nothing;
- VALUES() in an upsert is deprecated (8.0.20): the rows come from a derived table with a name, whose columns are named
  with it (8.0.19). It may group where a bare query of an upsert may not;
- ``tx_isolation`` was removed (8.0.3); FOR SHARE (8.0.1); CHECK is enforced (8.0.16);
- a column takes a function as its default in parentheses only (8.0.13), except CURRENT_TIMESTAMP;
- ``utf8mb4_0900_bin`` compares by code point and does not pad (8.0.17);
- EXCEPT was added in 8.0.31, so rollups are compared without it;
- an upsert counts 0 for a row that it sets to the values it has, and locks it all the same;
- LOAD DATA LOCAL converts a bad value, with a warning: according to the manual always, according to the server's source
  only without REPLACE. A load that warns counts as refused, so it does not matter which of the two is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from tidemill.spec.schema import Rollup
from tidemill.store.sql.base import Dialect
from tidemill.store.sql.control_ddl import with_current_timestamp
from tidemill.store.sql.identifiers import columns_of, delta, in_schema, quote


class MySQL(Dialect):
    """Statements that name a stage once, and upserts that name their rows."""

    __slots__ = ()
    name: ClassVar[str] = "mysql"
    versions: ClassVar[str] = "MySQL 8.0.19 and later"
    collation: ClassVar[str] = "utf8mb4_0900_bin"
    share_lock: ClassVar[str] = "FOR SHARE"

    def session(self) -> str:
        """One SET statement."""
        return (
            "SET SESSION time_zone = '+00:00', transaction_isolation = 'READ-COMMITTED', sql_mode = 'STRICT_ALL_TABLES,"
            "NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"
        )

    def control(self, statement: str) -> tuple[str, ...]:
        """With CURRENT_TIMESTAMP for a default."""
        return (with_current_timestamp(statement),)

    def by_key(self, query: str) -> str:
        """Without block nested loops, and without the hash join that replaces them."""
        return query.replace("SELECT", "SELECT /*+ NO_BNL() */", 1)

    def table_options(self) -> str:
        """The collation, whatever default the schema has: MySQL's own default ignores case."""
        return f" DEFAULT CHARACTER SET utf8mb4 COLLATE {self.collation}"

    def create_temporary(self, table: str, body: str) -> tuple[str, ...]:
        """Two statements, which commit nothing."""
        return (f"DROP TEMPORARY TABLE IF EXISTS {table}", f"CREATE TEMPORARY TABLE {table} {body}")

    def inserted_value(self, column: str) -> str:
        """By the name of the rows that :meth:`upsert` gives them."""
        return f"n.{quote(column)}"

    def upsert(self, target: str, columns: Iterable[str], query: str, changes: str, *, order: str = "") -> str:
        """The query becomes a derived table ``n`` with the target's column names."""
        listed = columns_of(columns)
        named = f"n ({listed})" if listed else "n"
        return super().upsert(target, columns, f"SELECT * FROM ({query}) AS {named}", changes, order=order)

    def gather_differences(self, schema: str, name: str, rollup: Rollup, changes: tuple[str, ...]) -> tuple[str, ...]:
        """One statement for each query: the second one adds to what the first one has gathered."""
        first, *more = changes
        own = {m: self.target_column(schema, delta(name), m) for m in [*rollup.measures, "_rows"]}
        added = ", ".join(f"{column} = {column} + {self.inserted_value(m)}" for m, column in own.items())
        target, columns = in_schema(schema, delta(name)), self.delta_columns(rollup)
        return (
            *super().gather_differences(schema, name, rollup, (first,)),
            *(self.upsert(target, columns, self.sum_by_group(rollup, query), added) for query in more),
        )
