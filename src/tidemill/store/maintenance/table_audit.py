"""Compares the tables with the ledger and the rollups with the tables, within the snapshot of a verification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill.config import Settings
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import dialect_of
from tidemill.store.sql.identifiers import NO_PARTITION

_GROUPS = 1_000
"""Rows of a comparison that are fetched; the exact number of more differing groups is of no use."""

_UNEQUAL = """
SELECT c.id, c.partition_id, t.table_name FROM commits AS c JOIN commit_tables AS t ON t.commit_id = c.id
WHERE {scope} AND c.until_offset <> c.from_offset + c.gap_rows + c.lost_rows + c.unselected_rows
    + c.quarantined_rows + t.written_rows + t.duplicate_rows + t.stale_rows + t.filtered_rows
ORDER BY c.id, t.table_name LIMIT 1
"""
_UNCOUNTED = """
SELECT c.id, c.partition_id FROM commits AS c
JOIN pipelines AS p ON p.pipeline = c.stream AND p.version = c.pipeline_version AND p.digest = %(digest)s
LEFT JOIN commit_tables AS t ON t.commit_id = c.id AND t.table_name = %(table)s
WHERE {scope} AND t.commit_id IS NULL
    AND c.until_offset > c.from_offset + c.gap_rows + c.lost_rows + c.unselected_rows + c.quarantined_rows
ORDER BY c.id LIMIT 1
"""
_STRAY = """
SELECT t.commit_id, t.table_name FROM commit_tables AS t LEFT JOIN commits AS c ON c.id = t.commit_id
WHERE t.table_name IN %(tables)s AND c.id IS NULL ORDER BY t.commit_id LIMIT 1
"""
_GENERATION = "SELECT generation, since_commit FROM topics WHERE stream = %(stream)s AND topic = %(topic)s"
_BEGINNINGS = """
SELECT partition_id, MIN(from_offset) FROM commits
WHERE stream = %(stream)s AND topic = %(topic)s AND generation = %(generation)s GROUP BY partition_id
"""
_SUMMED_BEGINNINGS = """
SELECT partition_id, from_offset FROM ledger_sums
WHERE stream = %(stream)s AND topic = %(topic)s AND generation = %(generation)s
"""

Scope = tuple[str, dict[str, Any]]
"""A condition on rows ``c`` of ``commits``, and its values."""


@dataclass(frozen=True)
class TableAudit:
    """The result of a comparison."""

    differences: tuple[str, ...]
    notes: tuple[str, ...]


def audit_tables(
    cursor: Any,
    settings: Settings,
    pipeline: Pipeline,
    positions: dict[int, int],
    scopes: Sequence[Scope],
    *,
    whole: bool,
) -> TableAudit:
    """Compare tables with the ledger and rollups with tables, inside the caller's snapshot.

    Args:
        cursor: of the control schema.
        settings: names of the schemas.
        pipeline: declares the tables.
        positions: of the stream, by partition of the pipeline's topic.
        scopes: the commits whose counts by table are compared.
        whole: whether these are all commits.
    """
    notes: list[str] = []
    differences = [
        *(found for scope in scopes for found in _commit_tables(cursor, pipeline, scope)),
        *(_stray(cursor, pipeline) if whole else ()),
        *_rows(cursor, settings, pipeline, positions, whole=whole),
        *_rollups(cursor, settings, pipeline, notes),
    ]
    return TableAudit(tuple(differences), tuple(notes))


def _commit_tables(cursor: Any, pipeline: Pipeline, scope: Scope) -> Iterator[str]:
    """Every record that was not quarantined counts once in each of several tables."""
    condition, values = scope[0], {**scope[1], "digest": pipeline.digest}
    cursor.execute(_UNEQUAL.format(scope=condition), values)
    for commit, partition, table in cursor.fetchall():
        yield f"partition {partition}: commit {commit} does not add up for table {table}"
    for name in pipeline.tables if len(pipeline.tables) > 1 else ():
        cursor.execute(_UNCOUNTED.format(scope=condition), values | {"table": name})
        for commit, partition in cursor.fetchall():
            yield f"partition {partition}: commit {commit} has no counts of table {name}"


def _stray(cursor: Any, pipeline: Pipeline) -> Iterator[str]:
    cursor.execute(_STRAY, {"tables": tuple(pipeline.tables)})
    for commit, table in cursor.fetchall():
        yield f"table {table}: counts of commit {commit}, which the ledger does not know"


def _rows(
    cursor: Any, settings: Settings, pipeline: Pipeline, positions: dict[int, int], *, whole: bool
) -> Iterator[str]:
    """No row is newer than the ledger, and each comes from an offset that the ledger covers."""
    values: dict[str, Any] = {"stream": pipeline.name, "topic": pipeline.source.topic}
    cursor.execute(_GENERATION, values)
    generation, values["since_commit"] = cursor.fetchone() or (1, 0)
    cursor.execute(_BEGINNINGS if whole else _SUMMED_BEGINNINGS, values | {"generation": generation})
    begins = {int(partition): int(offset) for partition, offset in cursor.fetchall()}
    cursor.execute("SELECT COALESCE(MAX(id), 0) FROM commits WHERE stream = %(stream)s", values)
    (newest,) = cursor.fetchone()
    for name in pipeline.tables:
        cursor.execute(dialect_of(cursor.connection).row_bounds(settings.db_data, name), values)
        for partition, first, last, commit in cursor.fetchall():
            of = "an earlier generation of the topic" if partition == NO_PARTITION else f"partition {partition}"
            where = f"table {name}: a row of {of}"
            if commit > newest:
                yield f"{where} has commit {commit}, the ledger's newest is {newest}"
            if first is not None and first < begins.get(partition, first + 1):
                ledger = f"begins at {begins[partition]}" if partition in begins else "has no commit of it"
                yield f"{where} has offset {first}, the ledger {ledger}"
            if last is not None and last >= positions.get(partition, last + 1):
                yield f"{where} has offset {last}, the stream's position is {positions[partition]}"


def _rollups(cursor: Any, settings: Settings, pipeline: Pipeline, notes: list[str]) -> Iterator[str]:
    cursor.execute("SELECT rollup, state, rows_built FROM rollups WHERE pipeline = %s", (pipeline.name,))
    states = {str(rollup): (str(state), int(rows)) for rollup, state, rows in cursor.fetchall()}
    for name, rollup in pipeline.rollups.items():
        state, rows = states.get(name, ("ready", 0))
        if state == "building":
            notes.append(f"rollup {name} is being backfilled, {rows} rows of {rollup.of} are counted: not compared")
        elif state == "abandoned":
            notes.append(f"rollup {name} is not declared by the applied version of the pipeline: not compared")
        else:
            table = pipeline.tables[rollup.of]
            d = dialect_of(cursor.connection)
            cursor.execute(d.differing_groups(settings.db_data, name, rollup, table, _GROUPS))
            groups = cursor.fetchall()
            if groups:
                measures = [*rollup.measures, "_rows"]
                yield f"rollup {name}: {_first_difference(groups, list(rollup.by), measures, rollup.of)}"


def _first_difference(rows: Any, keys: list[str], measures: list[str], table: str) -> str:
    """The first differing group and how many there are, as a clause."""
    groups: dict[tuple[Any, ...], dict[str, tuple[Any, ...]]] = {}
    for side, *values in rows:
        groups.setdefault(tuple(values[: len(keys)]), {})["kept" if side > 0 else "counted"] = tuple(
            values[len(keys) :]
        )
    group, sides = next(iter(groups.items()))
    where = ", ".join(f"{name} = {_written(value)}" for name, value in zip(keys, group, strict=True))
    if "kept" not in sides:
        difference = f"is missing, {table} gives {measures[0]} = {_written(sides['counted'][0])}"
    elif "counted" not in sides:
        difference = f"has {measures[0]} = {_written(sides['kept'][0])}, {table} has no row of it"
    else:
        name, kept, counted = next(
            (name, kept, counted)
            for name, kept, counted in zip(measures, sides["kept"], sides["counted"], strict=True)
            if kept != counted
        )
        difference = f"has {name} = {_written(kept)}, {table} gives {_written(counted)}"
    more = "at least " if len(rows) == _GROUPS else ""
    many = f"; {more}{len(groups)} groups differ" if len(groups) > 1 else ""
    return f"group {where} {difference}{many}"


def _written(value: Any) -> str:
    if isinstance(value, str):
        return repr(value)
    return "NULL" if value is None else str(value)
