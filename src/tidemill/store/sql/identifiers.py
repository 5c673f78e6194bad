"""Names that statements share: quoted identifiers, tables that accompany a table, system columns.

For example::

    >>> in_schema("data", stage("orders")), in_schema("data", rollup_cursor("orders_by_hour"))
    ('`data`.`_stage_orders`', '`data`.`_cursor_orders_by_hour`')
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from tidemill.spec.schema import Rollup, Table

SYSTEM_COLUMNS = {
    "_commit": "BIGINT UNSIGNED NOT NULL",
    "_partition": "INT UNSIGNED NOT NULL",
    "_offset": "BIGINT UNSIGNED NOT NULL",
    "_pipeline_version": "INT UNSIGNED NOT NULL",
}
"""Of every row: the commit that wrote it, the coordinates of its record, the pipeline version that produced it."""

IDLE_SECONDS = 60
"""The server closes a connection that is idle for so long in the middle of a transaction that has written. Otherwise a
driver that is frozen there, or whose machine has failed, would keep its locks against its successor."""
NO_PARTITION = 2**32 - 1
"""``_partition`` of a record from a topic that no longer exists; Kafka never assigns this number. Such a row is never
mistaken for a record of the present topic, whatever its offset."""

SCORE_COLUMNS = ("model_version", "score", "scored_commit", "as_of_commit")
"""Columns of a table of scores besides the key."""

OLDER_THAN_TOMBSTONE = (
    "NOT (t.`_partition` = %(partition)s AND t.`_offset` > k.`_offset` AND t.`_commit` > %(since_commit)s)"
)
"""Which rows a tombstone deletes: all except those of a later record of its partition, which a replay may meet."""


def quote(name: str) -> str:
    """An identifier, quoted."""
    return "`" + name.replace("`", "``") + "`"


def columns_of(names: Iterable[str], prefix: str = "") -> str:
    """Identifiers, quoted and separated by commas."""
    return ", ".join(prefix + quote(name) for name in names)


def in_schema(schema: str, name: str) -> str:
    """A table's full name, quoted."""
    return f"{quote(schema)}.{quote(name)}"


def stage(name: str) -> str:
    """Name of the temporary table that a batch is loaded into."""
    return f"_stage_{name}"


def delta(name: str) -> str:
    """Name of the temporary table with the differences of a rollup."""
    return f"_delta_{name}"


def rollup_cursor(name: str) -> str:
    """Name of the table that holds a rollup's cursor: the greatest key of its table that the rollup counts."""
    return f"_cursor_{name}"


def locked_keys(name: str) -> str:
    """Name of the temporary table with the keys whose rows are locked in order to be deleted."""
    return f"_locked_{name}"


def tombstones(name: str) -> str:
    """Name of the temporary table with the keys whose rows are to be deleted: by a tombstone of Kafka, by retention, or
    because no record produces the row any more."""
    return f"_tombstones_{name}"


def deletion_markers(name: str) -> str:
    """Name of the table that records the deleted keys of a table, so that no older record restores them."""
    return f"_deleted_{name}"


def pending(scores: str) -> str:
    """Name of the table that holds scores until they are published."""
    return f"{scores}_pending"


def snapshot(name: str) -> str:
    """Name of a model's snapshot of features."""
    return f"_features_{name}"


def table_definition(table: Table) -> str:
    """A digest of the declaration, kept as the table's comment. With another key, kind or column type the existing rows
    would be wrong or would not fit."""
    parts = json.dumps([table.kind, table.key, list(table.columns.items())])
    return "definition " + hashlib.sha256(parts.encode()).hexdigest()[:32]


def rollup_definition(rollup: Rollup) -> str:
    """A digest of the declaration, kept as the comment of the rollup's table. With another one the existing numbers
    would mean something else; so would the groups of another kind of digest."""
    parts = json.dumps(["sha256", rollup.model_dump_json()])
    return "definition " + hashlib.sha256(parts.encode()).hexdigest()[:32]
