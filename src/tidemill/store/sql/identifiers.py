"""The names that statements share: quoted identifiers, the tables beside a table, what every row carries."""

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
"""What every row carries: the commit that wrote it, the coordinates of its record, the version that made it."""

IDLE_SECONDS = 60
"""After so long without a word in the middle of a transaction that has written, a server gives the connection up. A
driver that is frozen there, or whose machine is gone, would else hold its locks against the one that follows it."""
NO_PARTITION = 2**32 - 1
"""As ``_partition`` of a record that a topic held which is no more: Kafka gives no partition this number. A row of it
is never taken for one of the topic that is there now, whatever its offset."""

SCORE_COLUMNS = ("model_version", "score", "scored_commit", "as_of_commit")
"""What a table of scores holds beside the key."""

OLDER_THAN_TOMBSTONE = (
    "NOT (t.`_partition` = %(partition)s AND t.`_offset` > g.`_offset` AND t.`_commit` > %(since_commit)s)"
)
"""Which rows a tombstone deletes: all but those of a later record of its partition, which a replay may find."""


def quote(name: str) -> str:
    """An identifier, quoted."""
    return "`" + name.replace("`", "``") + "`"


def columns_of(names: Iterable[str], prefix: str = "") -> str:
    """Identifiers, quoted and with commas between."""
    return ", ".join(prefix + quote(name) for name in names)


def in_schema(schema: str, name: str) -> str:
    """A table's full name, quoted."""
    return f"{quote(schema)}.{quote(name)}"


def stage(name: str) -> str:
    """Name of a table's stage."""
    return f"_stage_{name}"


def delta(name: str) -> str:
    """Name of a rollup's differences."""
    return f"_delta_{name}"


def cursor_of(name: str) -> str:
    """Name of the table that holds a rollup's cursor: the greatest key of its table that it counts."""
    return f"_built_{name}"


def locked(name: str) -> str:
    """Name of the temporary table with the keys whose rows are locked to leave a table."""
    return f"_held_{name}"


def tombstones(name: str) -> str:
    """Name of the temporary table with the keys that are to leave a table."""
    return f"_gone_{name}"


def deleted(name: str) -> str:
    """Name of the table that remembers a table's deleted keys, so that no older record brings them back."""
    return f"_deleted_{name}"


def pending(scores: str) -> str:
    """Name of the table where scores wait until they are published."""
    return f"{scores}_pending"


def snapshot(name: str) -> str:
    """Name of a model's snapshot of features."""
    return f"_features_{name}"


def table_definition(table: Table) -> str:
    """What a table remembers of its declaration: under another one its rows would be others, or would not fit."""
    parts = json.dumps([table.kind, table.key, list(table.columns.items())])
    return "definition " + hashlib.sha256(parts.encode()).hexdigest()[:32]


def definition(rollup: Rollup) -> str:
    """What a rollup's table remembers of its declaration: under another one its numbers would mean another thing."""
    return "definition " + hashlib.sha256(rollup.model_dump_json().encode()).hexdigest()[:32]
