"""Merges one batch into one table. The statements in the order in which they run:

create_stage, load   a temporary table with the key of the table, loaded in rising order of version, so that of one
                     batch the newest row of a key stays
insert_or_lock       inserts the rows of new keys, with the id of this commit; only locks the rows of existing keys. In
                     key order
move_rollup          adds the new rows to each rollup and subtracts the rows that they will replace (``rollups``)
update               the existing rows for which the batch has something newer

For example ``insert_or_lock``::

    INSERT INTO `data`.`clicks` (`code`, `page`, `at`, `_commit`, `_partition`, `_offset`, `_pipeline_version`)
    SELECT s.`code`, s.`page`, s.`at`, %(commit)s, %(partition)s, s.`_offset`, %(pipeline_version)s
    FROM `data`.`_stage_clicks` AS s
    ORDER BY s.`code`
    ON DUPLICATE KEY UPDATE `code` = `data`.`clicks`.`code`;

Every statement starts from the staged rows, with a join whose order is fixed: an optimizer would rather scan a table
that looks small, and the cost of a batch would grow with history.
"""

from __future__ import annotations

from collections.abc import Iterable

from tidemill.spec.schema import Table, TableKind
from tidemill.store.sql.capabilities import Capabilities
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import SYSTEM_COLUMNS, columns_of, in_schema, quote, stage


class MergeStatements(Capabilities):
    """The statements that merge one batch into one table."""

    __slots__ = ()

    def create_stage(self, schema: str, name: str, table: Table, *, keyed: bool = True) -> tuple[str, ...]:
        """A temporary table for the rows of one batch; without a key if the rows are only checked."""
        columns = [f"{quote(column)} {kind}" for column, kind in table.columns.items()]
        keys = [f"PRIMARY KEY ({columns_of(table.key)})"] if keyed else []
        body = ", ".join([*columns, "`_offset` BIGINT UNSIGNED NOT NULL", *keys])
        return self.create_temporary(in_schema(schema, stage(name)), f"({body}){self.table_options()}")

    def load(self, schema: str, name: str, columns: Iterable[str], *, lenient: bool = False) -> str:
        """Bulk load from a file of the client.

        REPLACE makes the load strict. Without it (``lenient``) the server converts a value that does not fit, with a
        warning for each.
        """
        replace = "" if lenient else " REPLACE"
        return (
            f"LOAD DATA LOCAL INFILE %(file)s{replace} INTO TABLE {in_schema(schema, name)}"
            f" CHARACTER SET utf8mb4 ({columns_of(columns)})"
        )

    def insert_or_lock(self, schema: str, name: str, table: Table) -> str:
        """Insert the rows of new keys; lock the rows of existing keys."""
        return (
            f"INSERT INTO {in_schema(schema, name)} ({columns_of(table.columns)}, {columns_of(SYSTEM_COLUMNS)})"
            f" SELECT {columns_of(table.columns, 's.')}, %(commit)s, %(partition)s, s.`_offset`, %(pipeline_version)s"
            f" FROM {in_schema(schema, stage(name))} AS s ORDER BY {columns_of(table.key, 's.')}"
            f" ON DUPLICATE KEY UPDATE {self.keep_row(schema, name, table.key)}"
        )

    def lock_existing(self, schema: str, name: str, table: Table) -> tuple[str, ...]:
        """Lock the existing rows, on a database where :meth:`insert_or_lock` may not have locked them."""
        return ()

    def count_known(self, schema: str, name: str, table: Table) -> str:
        """How many staged rows have a row of their key in the table: all, after :meth:`insert_or_lock`."""
        return f"SELECT COUNT(*) FROM {self.staged_join(schema, name, table)}"

    def update(self, schema: str, name: str, table: Table) -> str:
        """Replace the existing rows for which the batch has something newer. The version is assigned last, because
        assignments run from left to right and the condition reads it."""
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
            f"UPDATE {self.staged_join(schema, name, table)} SET {', '.join(changes)}"
            f" WHERE t.`_commit` <> %(commit)s AND {newer(table)}"
        )

    def written_offsets(self, schema: str, name: str, table: Table) -> str:
        """The offsets of the staged rows that this commit has written to the table."""
        return f"SELECT s.`_offset` FROM {self.staged_join(schema, name, table)} WHERE t.`_commit` = %(commit)s"

    def staged_join(self, schema: str, name: str, table: Table) -> str:
        """The staged rows ``s`` joined with the table's rows ``t`` of the same keys."""
        target = f"{in_schema(schema, name)} AS t ON {equal(table.key, 't', 's')}"
        return f"{in_schema(schema, stage(name))} AS s {self.join} {target}"


def newer(table: Table) -> str:
    """Whether the staged row ``s`` replaces the row ``t``: it has a newer version, or a newer pipeline version has
    produced it from the same record. Of events the first record in Kafka wins, even if a replay writes it last."""
    replayed = (
        "(t.`_partition` = %(partition)s AND t.`_offset` = s.`_offset` AND t.`_commit` > %(since_commit)s"
        " AND t.`_pipeline_version` < %(pipeline_version)s)"
    )
    if table.kind is TableKind.EVENT:
        later = "t.`_partition` = %(partition)s AND t.`_offset` > s.`_offset` AND t.`_commit` > %(since_commit)s"
        return f"({later} OR {replayed})"
    version = quote(str(table.version))
    return f"(s.{version} > t.{version} OR {replayed})"
