"""Statements of models: reading the feature query, writing and publishing scores, comparing features over time.

For example, a commit writes the scores of its rows::

    INSERT INTO `data`.`order_scores` (`shop`, `id`, `model_version`, `score`, `scored_commit`, `as_of_commit`)
    SELECT `shop`, `id`, `model_version`, `score`, `scored_commit`, `as_of_commit`
    FROM `data`.`_stage_order_scores`
    ORDER BY `model_version`, `shop`, `id`
    ON DUPLICATE KEY UPDATE `score` = VALUES(`score`), `scored_commit` = VALUES(`scored_commit`),
        `as_of_commit` = VALUES(`as_of_commit`);

A feature query is the author's text and may contain any ``%``, so statements that include it bind no parameters: the
numbers and times in them are literals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import pairwise

from tidemill.spec.feature_query import FeatureQuery
from tidemill.spec.schema import Model, Table
from tidemill.store.sql.capabilities import Capabilities
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import SCORE_COLUMNS, columns_of, in_schema, pending, quote, snapshot, stage

_WHOLE = ("TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT")
_TEXT = ("CHAR", "VARCHAR", "TEXT")


class ScoreStatements(Capabilities):
    """The statements of one model."""

    __slots__ = ()

    def is_whole_number(self, kind: str) -> bool:
        """Whether a column definition is of an integer type."""
        return kind.upper().startswith(_WHOLE)

    def feature_rows(self, sql: str, model: Model, table: Table) -> str:
        """The feature query in a form that JDBC does not alter: ``<key>, _known_us, <features>, _label, _commit``.

        Times are converted to µs since 1970, because the JDBC driver would shift a DATETIME by its machine's time zone;
        keys that are neither integers nor text are converted to text.
        """
        known_us = f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', f.{quote(model.known_at)}) AS `_known_us`"
        label = f"f.{quote(model.label)} AS `_label`" if model.label else "NULL AS `_label`"
        named = [f"f.{quote(name)}" for name in model.query.features]
        columns = ", ".join([*_keys(model, table), known_us, *named, label, _COMMIT])
        return f"SELECT {columns} FROM {_derived(sql)} AS f"

    def with_rollups_by_key(self, query: FeatureQuery, rollups: Collection[str]) -> str:
        """A feature query that joins rollups by the index on their keys.

        The optimizer's statistics of a table that is being loaded may be wrong by the size of the table: it then
        ignores the index and scans a whole rollup for each row.
        """
        sql = query.sql
        for each in reversed(query.tables):
            if each.name in rollups and not each.has_hint:
                sql = f"{sql[: each.alias_end]} FORCE INDEX (`by_keys`){sql[each.alias_end :]}"
        return sql

    def committed_features(
        self, schema: str, sql: str, model: Model, table: Table, features: Iterable[str], commit: int
    ) -> str:
        """Key, features and ``_commit`` of the rows that a commit has written, joined from the stage of its table. Runs
        in the commit's transaction."""
        columns = ", ".join([*_keys(model, table), *(f"f.{quote(name)}" for name in features), _COMMIT])
        return self.by_key(
            f"SELECT {columns} FROM {in_schema(schema, stage(model.table))} AS s"
            f" {self.join} {_derived(sql)} AS f ON {equal(model.key, 'f', 's')} WHERE f.`_commit` = {int(commit)}"
        )

    def create_score_stage(self, schema: str, model: Model, table: Table) -> tuple[str, ...]:
        """A temporary table for the scores of one commit."""
        columns = [f"{quote(key)} {table.columns[key]}" for key in model.key]
        columns += ["`model_version` INT UNSIGNED NOT NULL", "`score` DOUBLE"]
        columns += [f"{quote(name)} BIGINT UNSIGNED NOT NULL" for name in ("scored_commit", "as_of_commit")]
        body = f"({', '.join(columns)}, PRIMARY KEY (`model_version`, {columns_of(model.key)})){self.table_options()}"
        return self.create_temporary(in_schema(schema, stage(model.score.table)), body)

    def upsert_scores(self, schema: str, model: Model) -> str:
        """Write the staged scores to the table that readers see, in order of key. REPLACE would lock the gaps between
        them, where other partitions insert theirs."""
        columns = [*model.key, *SCORE_COLUMNS]
        changes = ", ".join(f"{quote(c)} = {self.inserted_value(c)}" for c in SCORE_COLUMNS if c != "model_version")
        query = f"SELECT {columns_of(columns)} FROM {in_schema(schema, stage(model.score.table))}"
        order = columns_of(["model_version", *model.key])
        return self.upsert(in_schema(schema, model.score.table), columns, query, changes, order=order)

    def unscored(self, schema: str, rows: str, model: Model, version: int) -> str:
        """Those of ``rows`` whose present state a model version has not scored, neither published nor pending.

        It compares each row's own commit and not a range of commits: ids are assigned before transactions end.
        """
        missing = [
            f"NOT EXISTS (SELECT 1 FROM {in_schema(schema, scores)} AS s WHERE s.`model_version` = {int(version)}"
            f" AND {equal(model.key, 's', 'r')} AND s.`scored_commit` = r.`_commit`)"
            for scores in (model.score.table, pending(model.score.table))
        ]
        return f"SELECT r.* FROM ({rows}) AS r WHERE {' AND '.join(missing)}"

    def next_cut(self, schema: str, name: str, column: str, step: int, after: int | None) -> str:
        """The value of an integer key column that ``step`` rows precede, counted from ``after``."""
        since = "" if after is None else f" WHERE {quote(column)} >= {int(after)}"
        return (
            f"SELECT {quote(column)} FROM {in_schema(schema, name)}{since}"
            f" ORDER BY {quote(column)} LIMIT 1 OFFSET {int(step)}"
        )

    def key_ranges(self, column: str, cuts: Sequence[int]) -> list[str]:
        """Conditions that split a read at values of an integer column into disjoint parts that cover all rows."""
        key = quote(column)
        slices = []
        for start, end in pairwise([None, *cuts, None]):
            inside = [f"{key} >= {start}"] * (start is not None) + [f"{key} < {end}"] * (end is not None)
            slices.append(" AND ".join(inside) or "1 = 1")
        return slices

    def key_digests(self, key: Sequence[str], parts: int) -> list[str]:
        """Conditions that split a read by a digest of the key, whatever its type, into parts of about the same size."""
        digest = f"CRC32({quote(key[0])})" if len(key) == 1 else f"CRC32(CONCAT_WS(',', {columns_of(key)}))"
        return [f"{digest} % {parts} = {part}" for part in range(parts)]

    def publish_scores(self, schema: str, model: Model) -> str:
        """Copy the pending scores of one version, ``%(version)s``, to the table that readers see.

        If the stream scores, too, it may have scored a row again since: a score of the row's present state stays.
        """
        source = f"{in_schema(schema, pending(model.score.table))} AS p WHERE p.`model_version` = %(version)s"
        return self._publish(schema, model, source)

    def publish_part(self, schema: str, model: Model) -> str:
        """The same for the first ``%(rows)s`` rows in order of key, which :meth:`remove_scores` then deletes."""
        order = columns_of(["model_version", *model.key])
        first = (
            f"SELECT * FROM {in_schema(schema, pending(model.score.table))} WHERE `model_version` = %(version)s"
            f" ORDER BY {order} LIMIT %(rows)s"
        )
        return self._publish(schema, model, f"({first}) AS p WHERE p.`model_version` = %(version)s")

    def _publish(self, schema: str, model: Model, source: str) -> str:
        columns = [*model.key, *SCORE_COLUMNS]
        changes = ", ".join(f"{quote(c)} = {self.inserted_value(c)}" for c in SCORE_COLUMNS if c != "model_version")
        target = in_schema(schema, model.score.table)
        query = f"SELECT {columns_of(columns, 'p.')} FROM {source}"
        if model.score.live:
            query += (
                f" AND NOT EXISTS (SELECT 1 FROM {target} AS s JOIN {in_schema(schema, model.table)} AS t"
                f" ON {equal(model.key, 't', 's')} AND t.`_commit` = s.`scored_commit`"
                f" WHERE s.`model_version` = p.`model_version` AND {equal(model.key, 's', 'p')}"
                " AND s.`scored_commit` <> p.`scored_commit`)"
            )
        return self.upsert(target, columns, query, changes, order=columns_of(model.key, "p."))

    def clear_pending(self, schema: str, model: Model) -> str:
        """Delete the pending scores of a version, ``%(version)s``, and of all earlier versions."""
        return f"DELETE FROM {in_schema(schema, pending(model.score.table))} WHERE `model_version` <= %(version)s"

    def count_pending(self, schema: str, model: Model) -> str:
        """How many scores of a version, ``%(version)s``, are pending."""
        source = in_schema(schema, pending(model.score.table))
        return f"SELECT COUNT(*) FROM {source} WHERE `model_version` = %(version)s"

    def count_scores(self, schema: str, model: Model) -> str:
        """How many scores of a version, ``%(version)s``, readers can see. NULL is none."""
        return f"SELECT COUNT(`score`) FROM {in_schema(schema, model.score.table)} WHERE `model_version` = %(version)s"

    def unscored_rows(self, schema: str, model: Model) -> str:
        """How many rows have no number as score of a version, ``%(version)s``, and the key of one of them."""
        source = f"{in_schema(schema, model.score.table)} WHERE `model_version` = %(version)s AND `score` IS NULL"
        return f"SELECT {columns_of(model.key)}, COUNT(*) OVER () FROM {source} LIMIT 1"

    def create_snapshot(self, schema: str, name: str, model: Model) -> tuple[str, ...]:
        """An empty temporary table with the columns of the feature query.

        Raises:
            StoreError: the database cannot create a table from a query.
        """
        query = f"SELECT f.* FROM {_derived(model.query.sql)} AS f WHERE FALSE"
        body = f"(PRIMARY KEY ({columns_of(model.key)})) AS {query}"
        return self.create_temporary(in_schema(schema, snapshot(name)), body)

    def extend_snapshot(self, schema: str, name: str, model: Model, known_until: datetime) -> str:
        """Add the rows whose time is not after ``known_until``; rows that are in the snapshot stay as they are."""
        query = f"SELECT k.* FROM ({_known(model, known_until)}) AS k"
        untouched = self.keep_row(schema, snapshot(name), model.key)
        return f"INSERT INTO {in_schema(schema, snapshot(name))} {query} ON DUPLICATE KEY UPDATE {untouched}"

    def compare_snapshot(self, schema: str, name: str, model: Model, columns: Iterable[str]) -> str:
        """One row: for each column the number of rows in which its value has changed; last, the number of rows that
        no longer exist."""
        exists = f"n.{quote(model.key[0])} IS NOT NULL"
        changed = [f"COALESCE(SUM({exists} AND NOT (n.{quote(c)} <=> s.{quote(c)})), 0)" for c in columns]
        missing = f"COALESCE(SUM(NOT {exists}), 0)"
        return (
            f"SELECT {', '.join([*changed, missing])} FROM {in_schema(schema, snapshot(name))} AS s"
            f" LEFT JOIN {_derived(model.query.sql)} AS n ON {equal(model.key, 'n', 's')}"
        )

    def count_missing(self, schema: str, name: str, model: Model, known_until: datetime) -> str:
        """How many rows with a time not after ``known_until`` the query now returns that are not in the snapshot."""
        source = in_schema(schema, snapshot(name))
        return (
            f"SELECT COUNT(*) FROM ({_known(model, known_until)}) AS k"
            f" WHERE NOT EXISTS (SELECT 1 FROM {source} AS s WHERE {equal(model.key, 's', 'k')})"
        )


_COMMIT = "CAST(f.`_commit` AS SIGNED) AS `_commit`"


def _keys(model: Model, table: Table) -> list[str]:
    return [f"{_plain(table.columns[key], 'f.' + quote(key))} AS {quote(key)}" for key in model.key]


def _derived(sql: str) -> str:
    """A query file as a derived table. The parenthesis is on its own line: the file may end in a comment."""
    return f"(\n{sql.strip().removesuffix(';')}\n)"


def _plain(kind: str, expression: str) -> str:
    return expression if kind.upper().startswith((*_WHOLE, *_TEXT)) else f"CAST({expression} AS CHAR)"


def _known(model: Model, known_until: datetime) -> str:
    until = known_until.isoformat(sep=" ", timespec="microseconds")
    return f"SELECT f.* FROM {_derived(model.query.sql)} AS f WHERE f.{quote(model.known_at)} <= '{until}'"
