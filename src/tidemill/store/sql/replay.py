"""Statements of a replay: the rows that a newer pipeline version does not make any more, or writes again.

``k0``, ``k1``, … are the key that a walk in key order has reached.
"""

from __future__ import annotations

from tidemill.spec.schema import Table
from tidemill.store.sql.deletes import Removal
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import columns_of, deleted, in_schema, quote, stage

STILL_OUTDATED = (
    "t.`_partition` = %(partition)s AND t.`_offset` = g.`_offset` AND t.`_commit` > %(since_commit)s"
    " AND t.`_pipeline_version` < %(pipeline_version)s"
)
"""Which of the rows that were found still are as they were: a stream may have written them since."""


class Replay(Removal):
    """The statements that a replay has beside those of every write."""

    __slots__ = ()

    def outdated_rows(self, schema: str, name: str, table: Table, ranges: int, *, after: bool) -> str:
        """The next rows of older pipeline versions whose records are in one of several ranges, in key order.

        Parameters: ``since_commit``, ``pipeline_version``, ``rows``; ``p0``, ``a0``, ``b0`` … for partition, start and
        end of each range; ``k0`` … for the key that they come after.
        """
        keys = columns_of(table.key)
        inside = " OR ".join(
            f"(`_partition` = %(p{i})s AND `_offset` >= %(a{i})s AND `_offset` < %(b{i})s)" for i in range(ranges)
        )
        begin = f"{_beyond(table)} AND " if after else ""
        return (
            f"SELECT {keys}, `_partition`, `_offset` FROM {in_schema(schema, name)}"
            f" WHERE {begin}`_pipeline_version` < %(pipeline_version)s AND `_commit` > %(since_commit)s AND ({inside})"
            f" ORDER BY {keys} LIMIT %(rows)s"
        )

    def count_rewritable(self, schema: str, name: str, table: Table) -> str:
        """How many rows of older versions the staged rows would rewrite: the same record, under the same key."""
        return (
            f"SELECT COUNT(*) FROM {self.staged(schema, name, table)}"
            " WHERE t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s"
            " AND t.`_pipeline_version` < %(pipeline_version)s"
        )

    def deleted_meanwhile(self, schema: str, name: str, table: Table) -> str:
        """Whether a staged row's key was deleted by a later record: waits for whoever is about to delete it."""
        return (
            f"SELECT 1 FROM {in_schema(schema, stage(name))} AS s"
            f" {self.join} {in_schema(schema, deleted(name))} AS d ON {equal(table.key, 'd', 's')}"
            " WHERE d.`_partition` = %(partition)s AND d.`_offset` >= s.`_offset` AND d.`_commit` > %(since_commit)s"
            f" LIMIT 1 {self.share_lock}"
        )


def _beyond(table: Table) -> str:
    """Whether a row's key comes after ``k0``, ``k1``, …; the first condition alone is a range of the index."""
    ways = []
    for place, column in enumerate(table.key):
        same = [f"{quote(c)} = %(k{i})s" for i, c in enumerate(table.key[:place])]
        ways.append("(" + " AND ".join([*same, f"{quote(column)} > %(k{place})s"]) + ")")
    return f"{quote(table.key[0])} >= %(k0)s AND ({' OR '.join(ways)})"
