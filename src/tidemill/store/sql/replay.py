"""Statements of a replay: the rows that a newer pipeline version does not produce any more, or rewrites.

For example, the first rows of older pipeline versions whose records are in one of two ranges::

    SELECT `code`, `_partition`, `_offset`
    FROM `data`.`clicks`
    WHERE `_pipeline_version` < %(pipeline_version)s AND `_commit` > %(since_commit)s AND ((`_partition` = %(p0)s
        AND `_offset` >= %(a0)s AND `_offset` < %(b0)s) OR (`_partition` = %(p1)s AND `_offset` >= %(a1)s
        AND `_offset` < %(b1)s))
    ORDER BY `code`
    LIMIT %(rows)s;

The parameters ``k0``, ``k1``, … are the key that a walk in key order has reached.
"""

from __future__ import annotations

from tidemill.spec.schema import Table
from tidemill.store.sql.deletes import DeleteStatements
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import columns_of, deletion_markers, in_schema, quote, stage

STILL_OUTDATED = (
    "t.`_partition` = %(partition)s AND t.`_offset` = k.`_offset` AND t.`_commit` > %(since_commit)s"
    " AND t.`_pipeline_version` < %(pipeline_version)s"
)
"""Which of the rows that were found are still unchanged: the stream may have written to them since."""


class ReplayStatements(DeleteStatements):
    """The statements of a replay besides those of every write."""

    __slots__ = ()

    def outdated_rows(self, schema: str, name: str, table: Table, ranges: int, *, after: bool) -> str:
        """The next rows of older pipeline versions whose records are in one of several ranges, in key order.

        Parameters: ``since_commit``, ``pipeline_version``, ``rows``; ``p0``, ``a0``, ``b0`` … for partition, start and
        end of each range; ``k0`` … for the key after which to begin.
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
        """How many rows of older pipeline versions the staged rows would rewrite: same record, same key."""
        return (
            f"SELECT COUNT(*) FROM {self.staged_join(schema, name, table)}"
            " WHERE t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s"
            " AND t.`_pipeline_version` < %(pipeline_version)s"
        )

    def deleted_concurrently(self, schema: str, name: str, table: Table) -> str:
        """Whether a later record has deleted the key of a staged row; waits for a transaction that is about to."""
        return (
            f"SELECT 1 FROM {in_schema(schema, stage(name))} AS s"
            f" {self.join} {in_schema(schema, deletion_markers(name))} AS d ON {equal(table.key, 'd', 's')}"
            " WHERE d.`_partition` = %(partition)s AND d.`_offset` >= s.`_offset` AND d.`_commit` > %(since_commit)s"
            f" LIMIT 1 {self.share_lock}"
        )


def _beyond(table: Table) -> str:
    """Whether a row's key comes after ``k0``, ``k1``, …; the first condition alone is a range of the index."""
    ways = []
    for index, column in enumerate(table.key):
        same = [f"{quote(c)} = %(k{i})s" for i, c in enumerate(table.key[:index])]
        ways.append("(" + " AND ".join([*same, f"{quote(column)} > %(k{index})s"]) + ")")
    return f"{quote(table.key[0])} >= %(k0)s AND ({' OR '.join(ways)})"
