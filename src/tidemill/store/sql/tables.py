"""Lasting tables and views: what ``tidemill apply`` makes."""

from __future__ import annotations

from tidemill.spec.checks.models import scored_columns
from tidemill.spec.checks.rollups import parse_measure
from tidemill.spec.schema import Model, Pipeline, Rollup, Table
from tidemill.store.sql.capabilities import Hooks, Use
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import (
    SYSTEM_COLUMNS,
    columns_of,
    cursor_of,
    definition,
    deleted,
    in_schema,
    quote,
    table_definition,
)


class Tables(Hooks):
    """The statements of ``apply``."""

    __slots__ = ()

    def create_table(self, schema: str, name: str, table: Table) -> str:
        """DDL of an operational table."""
        columns = [f"{quote(column)} {kind}" for column, kind in (table.columns | SYSTEM_COLUMNS).items()]
        indexes = [f"KEY {quote('by_' + '_'.join(index))} ({columns_of(index)})" for index in table.indexes]
        items = [*columns, *self.key_items(table.key, Use.ROWS), *indexes]
        return self._create(Use.ROWS, schema, name, items) + f" COMMENT '{table_definition(table)}'"

    def create_rollup(self, schema: str, name: str, rollup: Rollup, table: Table) -> str:
        """DDL of a rollup. ``_group`` is the digest of the group's keys: unlike a key, it tells NULLs apart."""
        items = [
            *self.rollup_columns(rollup, table),
            *self.key_items(["_group"], Use.COUNTS),
            f"KEY `by_keys` ({columns_of(rollup.by)})",
        ]
        return self._create(Use.COUNTS, schema, name, items) + f" COMMENT '{definition(rollup)}'"

    def rollup_columns(self, rollup: Rollup, table: Table) -> list[str]:
        """The columns of a rollup, and of its differences."""
        measures = {m: parse_measure(m, expr, table.columns).type for m, expr in rollup.measures.items()}
        return [
            "`_group` BINARY(16) NOT NULL",
            *(f"{quote(column)} {key.type}" for column, key in rollup.by.items()),
            *(f"{quote(measure)} {kind} NOT NULL" for measure, kind in measures.items()),
            "`_rows` BIGINT NOT NULL",
        ]

    def create_built(self, schema: str, name: str, table: Table) -> str:
        """DDL of a rollup's cursor: no row, or one."""
        columns = [f"{quote(column)} {table.columns[column]}" for column in table.key]
        items = [*columns, *self.key_items(table.key, Use.CURSOR)]
        return self._create(Use.CURSOR, schema, cursor_of(name), items, lines=False)

    def create_deleted(self, schema: str, name: str, table: Table) -> str:
        """DDL of the memory of deleted keys."""
        system = {column: SYSTEM_COLUMNS[column] for column in ("_commit", "_partition", "_offset")}
        keys = {column: table.columns[column] for column in table.key}
        columns = [f"{quote(column)} {kind}" for column, kind in (keys | system).items()]
        items = [*columns, *self.key_items(table.key, Use.COUNTS)]
        return self._create(Use.COUNTS, schema, deleted(name), items, lines=False)

    def create_scores(self, schema: str, name: str, model: Model, table: Table) -> str:
        """DDL of a table of scores: one row per row scored and model version."""
        scored = self.column_comment("commit that wrote the row as it was scored")
        as_of = self.column_comment("newest commit when its scoring began")
        columns = [f"{quote(column)} {table.columns[column]}" for column in model.key]
        columns += [
            "`model_version` INT UNSIGNED NOT NULL",
            "`score` DOUBLE NOT NULL",
            f"`scored_commit` BIGINT UNSIGNED NOT NULL{scored}",
            f"`as_of_commit` BIGINT UNSIGNED NOT NULL{as_of}",
            *self.key_items(["model_version", *model.key], Use.ROWS),
        ]
        return self._create(Use.ROWS, schema, name, columns)

    def create_scored_view(self, control: str, schema: str, pipeline: Pipeline, name: str) -> str:
        """DDL of ``<table>_scored``: every row with the published versions' scores, NULL where it has none yet."""
        models = {model: its for model, its in pipeline.models.items() if its.table == name}
        columns, joins = ["t.*"], [f" FROM {in_schema(schema, name)} AS t"]
        for place, (model, its) in enumerate(models.items()):
            m, s = f"m{place}", f"s{place}"
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
        """Remove all rows of a table, within the transaction."""
        return f"DELETE FROM {in_schema(schema, name)}"

    def first_row(self, schema: str, name: str) -> str:
        """One row if the table has any."""
        return f"SELECT 1 FROM {in_schema(schema, name)} LIMIT 1"

    def count_rows(self, schema: str, name: str) -> str:
        """How many rows a table has."""
        return f"SELECT COUNT(*) FROM {in_schema(schema, name)}"

    def offsets_in(self, schema: str, name: str) -> str:
        """The offsets in a stage, or in the keys that are to leave a table."""
        return f"SELECT `_offset` FROM {in_schema(schema, name)}"

    def _create(self, use: Use, schema: str, name: str, items: list[str], *, lines: bool = True) -> str:
        body = "(\n    " + ",\n    ".join(items) + "\n)" if lines else "(" + ", ".join(items) + ")"
        return f"CREATE {self.table_word(use)} IF NOT EXISTS {in_schema(schema, name)} {body}{self.table_options()}"
