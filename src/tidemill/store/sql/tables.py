"""Permanent tables and views, which ``tidemill apply`` creates.

For example a rollup::

    CREATE TABLE IF NOT EXISTS `data`.`clicks_by_page` (
        `_group` BINARY(32) NOT NULL,
        `page` VARCHAR(20),
        `clicks` BIGINT NOT NULL,
        `_rows` BIGINT NOT NULL,
        PRIMARY KEY (`_group`),
        KEY `by_keys` (`page`)
    ) DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin COMMENT 'definition d3bc3929b016c329c10da6daada8c170';
"""

from __future__ import annotations

from tidemill.spec.checks.models import scored_columns
from tidemill.spec.checks.rollups import parse_measure
from tidemill.spec.schema import Model, Pipeline, Rollup, Table
from tidemill.store.sql.capabilities import Capabilities, TableUse
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import (
    SYSTEM_COLUMNS,
    columns_of,
    deletion_markers,
    in_schema,
    quote,
    rollup_cursor,
    rollup_definition,
    table_definition,
)


class TableStatements(Capabilities):
    """The statements of ``tidemill apply``."""

    __slots__ = ()

    def create_table(self, schema: str, name: str, table: Table) -> str:
        """DDL of an operational table."""
        columns = [f"{quote(column)} {kind}" for column, kind in (table.columns | SYSTEM_COLUMNS).items()]
        indexes = [f"KEY {quote('by_' + '_'.join(index))} ({columns_of(index)})" for index in table.indexes]
        items = [*columns, *self.key_items(table.key, TableUse.ROWS), *indexes]
        return self._create(TableUse.ROWS, schema, name, items) + f" COMMENT '{table_definition(table)}'"

    def create_rollup(self, schema: str, name: str, rollup: Rollup, table: Table) -> str:
        """DDL of a rollup. ``_group`` is a digest of the group's keys: a primary key must not contain NULL."""
        items = [
            *self.rollup_columns(rollup, table),
            *self.key_items(["_group"], TableUse.COUNTS),
            f"KEY `by_keys` ({columns_of(rollup.by)})",
        ]
        return self._create(TableUse.COUNTS, schema, name, items) + f" COMMENT '{rollup_definition(rollup)}'"

    def rollup_columns(self, rollup: Rollup, table: Table) -> list[str]:
        """The columns of a rollup, and of its differences."""
        measures = {m: parse_measure(m, expr, table.columns).type for m, expr in rollup.measures.items()}
        return [
            "`_group` BINARY(32) NOT NULL",
            *(f"{quote(column)} {key.type}" for column, key in rollup.by.items()),
            *(f"{quote(measure)} {kind} NOT NULL" for measure, kind in measures.items()),
            "`_rows` BIGINT NOT NULL",
        ]

    def create_rollup_cursor(self, schema: str, name: str, table: Table) -> str:
        """DDL of the table that holds a rollup's cursor: no row, or one."""
        columns = [f"{quote(column)} {table.columns[column]}" for column in table.key]
        items = [*columns, *self.key_items(table.key, TableUse.CURSOR)]
        return self._create(TableUse.CURSOR, schema, rollup_cursor(name), items, lines=False)

    def create_deletion_markers(self, schema: str, name: str, table: Table) -> str:
        """DDL of the table that records the deleted keys of a table."""
        system = {column: SYSTEM_COLUMNS[column] for column in ("_commit", "_partition", "_offset")}
        keys = {column: table.columns[column] for column in table.key}
        columns = [f"{quote(column)} {kind}" for column, kind in (keys | system).items()]
        items = [*columns, *self.key_items(table.key, TableUse.COUNTS)]
        return self._create(TableUse.COUNTS, schema, deletion_markers(name), items, lines=False)

    def create_scores(self, schema: str, name: str, model: Model, table: Table) -> str:
        """DDL of a table of scores: one row for each scored row and model version."""
        scored = self.column_comment("commit that wrote the row as it was scored")
        as_of = self.column_comment("newest commit when its scoring began")
        columns = [f"{quote(column)} {table.columns[column]}" for column in model.key]
        columns += [
            "`model_version` INT UNSIGNED NOT NULL",
            "`score` DOUBLE",
            f"`scored_commit` BIGINT UNSIGNED NOT NULL{scored}",
            f"`as_of_commit` BIGINT UNSIGNED NOT NULL{as_of}",
            *self.key_items(["model_version", *model.key], TableUse.ROWS),
        ]
        return self._create(TableUse.ROWS, schema, name, columns)

    def create_scored_view(self, control: str, schema: str, pipeline: Pipeline, name: str) -> str:
        """DDL of the view ``<table>_scored``: every row with the scores of the published versions, NULL where there are
        none yet."""
        models = {model: its for model, its in pipeline.models.items() if its.table == name}
        columns, joins = ["t.*"], [f" FROM {in_schema(schema, name)} AS t"]
        for index, (model, its) in enumerate(models.items()):
            m, s = f"m{index}", f"s{index}"
            columns += [f"{s}.{quote(c)} AS {quote(shown)}" for c, shown in scored_columns(its).items()]
            joins.append(
                f" JOIN {in_schema(control, 'models')} AS {m}"
                f" ON {m}.`pipeline` = '{pipeline.name}' AND {m}.`model` = '{model}'"
                f" LEFT JOIN {in_schema(schema, its.score.table)} AS {s}"
                f" ON {s}.`model_version` = {m}.`published_version` AND {equal(its.key, s, 't')}"
            )
        view = in_schema(schema, f"{name}_scored")
        return f"CREATE OR REPLACE VIEW {view} AS SELECT {', '.join(columns)}{''.join(joins)}"

    def empty(self, schema: str, name: str) -> str:
        """Delete all rows of a table, within the transaction."""
        return f"DELETE FROM {in_schema(schema, name)}"

    def first_row(self, schema: str, name: str) -> str:
        """One row if the table has any."""
        return f"SELECT 1 FROM {in_schema(schema, name)} LIMIT 1"

    def count_rows(self, schema: str, name: str) -> str:
        """How many rows a table has."""
        return f"SELECT COUNT(*) FROM {in_schema(schema, name)}"

    def offsets_in(self, schema: str, name: str) -> str:
        """The offsets in a stage or in a temporary table of keys."""
        return f"SELECT `_offset` FROM {in_schema(schema, name)}"

    def _create(self, use: TableUse, schema: str, name: str, items: list[str], *, lines: bool = True) -> str:
        body = "(\n    " + ",\n    ".join(items) + "\n)" if lines else "(" + ", ".join(items) + ")"
        return f"CREATE {self.create_keyword(use)} IF NOT EXISTS {in_schema(schema, name)} {body}{self.table_options()}"
