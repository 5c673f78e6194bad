"""The write path of one table, in the order it runs (``%(commit)s`` and the like are the row's system columns):

stage    a temporary table keyed as the table is, loaded in rising order of version, so that of one batch the newest
         row of a key stays
claim    rows of new keys go in whole, carrying this commit; rows of known keys are only locked. In key order
move     each rollup by the new rows less the old rows they will replace, in order of group (``rollups``)
update   the known rows to which the batch holds something newer

All of it starts from the staged rows, with a join whose order is fixed: an optimizer would rather scan a table that
looks small, and the cost of a batch would grow with history.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidemill.spec.schema import Table, TableKind
from tidemill.store.sql.capabilities import Hooks
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import SYSTEM_COLUMNS, columns_of, in_schema, quote, stage


class WritePath(Hooks):
    """The statements of one batch and one table."""

    __slots__ = ()

    def create_stage(self, schema: str, name: str, table: Table, *, keyed: bool = True) -> tuple[str, ...]:
        """A temporary table for the rows of one batch; without a key where rows are only checked."""
        columns = [f"{quote(column)} {kind}" for column, kind in table.columns.items()]
        keys = [f"PRIMARY KEY ({columns_of(table.key)})"] if keyed else []
        body = ", ".join([*columns, "`_offset` BIGINT UNSIGNED NOT NULL", *keys])
        return self.temporary(in_schema(schema, stage(name)), f"({body}){self.table_options()}")

    def load(self, schema: str, name: str, columns: Iterable[str], *, lenient: bool = False) -> str:
        """Bulk load from a file of the client.

        With REPLACE, because without it bad values become other values, with a warning for each: which is what
        ``lenient`` is for.
        """
        replace = "" if lenient else " REPLACE"
        return (
            f"LOAD DATA LOCAL INFILE %(file)s{replace} INTO TABLE {in_schema(schema, name)}"
            f" CHARACTER SET utf8mb4 ({columns_of(columns)})"
        )

    def claim(self, schema: str, name: str, table: Table) -> str:
        """Insert the rows of new keys; lock those of known ones."""
        return (
            f"INSERT INTO {in_schema(schema, name)} ({columns_of(table.columns)}, {columns_of(SYSTEM_COLUMNS)})"
            f" SELECT {columns_of(table.columns, 's.')}, %(commit)s, %(partition)s, s.`_offset`, %(pipeline_version)s"
            f" FROM {in_schema(schema, stage(name))} AS s ORDER BY {columns_of(table.key, 's.')}"
            f" ON DUPLICATE KEY UPDATE {self.untouched(schema, name, table.key)}"
        )

    def lock_known(self, schema: str, name: str, table: Table) -> tuple[str, ...]:
        """What locks the known rows where the claim may not have: nothing where it has."""
        return ()

    def update(self, schema: str, name: str, table: Table) -> str:
        """Replace the known rows to which the batch holds something newer. The version goes last: assignments run left
        to right."""
        columns = [column for column in table.columns if column not in table.key and column != table.version]
        columns += [table.version] if table.version else []
        changes = [f"t.{quote(column)} = s.{quote(column)}" for column in columns]
        changes += [
            "t.`_commit` = %(commit)s",
            "t.`_partition` = %(partition)s",
            "t.`_offset` = s.`_offset`",
            "t.`_pipeline_version` = %(pipeline_version)s",
        ]
        return (
            f"UPDATE {self.staged(schema, name, table)} SET {', '.join(changes)}"
            f" WHERE t.`_commit` <> %(commit)s AND {newer(table)}"
        )

    def written_offsets(self, schema: str, name: str, table: Table) -> str:
        """The offsets of the staged rows that are in the table now."""
        return f"SELECT s.`_offset` FROM {self.staged(schema, name, table)} WHERE t.`_commit` = %(commit)s"

    def staged(self, schema: str, name: str, table: Table) -> str:
        """The staged rows ``s`` and the table's rows ``t`` of the same keys."""
        target = f"{in_schema(schema, name)} AS t ON {equal(table.key, 't', 's')}"
        return f"{in_schema(schema, stage(name))} AS s {self.join} {target}"


def newer(table: Table) -> str:
    """Whether the staged row ``s`` should replace the row ``t``: a newer version, or a newer pipeline's view of the
    same record. Of events the first in Kafka stays, even if a corrected pipeline sees it last."""
    replayed = (
        "(t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s"
        " AND t.`_pipeline_version` < %(pipeline_version)s)"
    )
    if table.kind is TableKind.EVENT:
        later = "t.`_partition` = %(partition)s AND t.`_offset` > s.`_offset` AND t.`_commit` > %(since_commit)s"
        return f"({later} OR {replayed})"
    version = quote(str(table.version))
    return f"(s.{version} > t.{version} OR {replayed})"
