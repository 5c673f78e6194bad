"""Deletes rows of a table, for tombstones, retention and corrected replays, and records the deleted keys.

For example, a batch discards the staged rows whose key a later record has deleted::

    DELETE s
    FROM `data`.`_stage_clicks` AS s
    STRAIGHT_JOIN `data`.`_deleted_clicks` AS d ON d.`code` = s.`code`
    WHERE d.`_partition` = %(partition)s AND d.`_offset` >= s.`_offset` AND d.`_commit` > %(since_commit)s;
"""

from __future__ import annotations

from tidemill.spec.schema import Table
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import (
    columns_of,
    deletion_markers,
    in_schema,
    locked_keys,
    quote,
    stage,
    tombstones,
)
from tidemill.store.sql.rollups import RollupStatements


class DeleteStatements(RollupStatements):
    """The statements that delete rows of one table; those for its rollups are in :class:`RollupStatements`."""

    __slots__ = ()

    def create_tombstones(self, schema: str, name: str, table: Table) -> tuple[str, ...]:
        """Temporary tables for the keys whose rows are to be deleted and for those whose rows are locked, each with the
        offset of the record that deletes it."""
        columns = [f"{quote(column)} {table.columns[column]}" for column in table.key]
        key = f"PRIMARY KEY ({columns_of(table.key)})"
        body = ", ".join([*columns, "`_offset` BIGINT UNSIGNED NOT NULL", key])
        whole = f"({body}){self.table_options()}"
        return (
            *self.create_temporary(in_schema(schema, tombstones(name)), whole),
            *self.create_temporary(in_schema(schema, locked_keys(name)), whole),
        )

    def lock_rows_to_remove(self, schema: str, name: str, table: Table, condition: str) -> str:
        """Lock the rows that are to be deleted, in key order; returns their keys and offsets."""
        chosen, rows = (
            columns_of([*table.key, "_offset"], "k."),
            self.rows_by_key(schema, name, table, tombstones(name)),
        )
        return f"SELECT {chosen} FROM {rows} WHERE {condition} FOR UPDATE"

    def insert_locked_key(self, schema: str, name: str, table: Table) -> str:
        """Insert a key whose row is locked; the parameters are the key's columns and the offset."""
        columns = [*table.key, "_offset"]
        marks = ", ".join(["%s"] * len(columns))
        return f"INSERT INTO {in_schema(schema, locked_keys(name))} ({columns_of(columns)}) VALUES ({marks})"

    def delete_locked_rows(self, schema: str, name: str, table: Table) -> str:
        """Delete the rows that are locked."""
        return f"DELETE t FROM {self.rows_by_key(schema, name, table, locked_keys(name))}"

    def discard_recorded_tombstones(self, schema: str, name: str, table: Table) -> str:
        """Remove the staged tombstones that an earlier commit has recorded."""
        return f"DELETE k FROM {in_schema(schema, tombstones(name))} AS k {self._recorded(schema, name, table, 'k')}"

    def discard_deleted_rows(self, schema: str, name: str, table: Table) -> str:
        """Remove the staged rows whose key a later record has deleted."""
        return f"DELETE s FROM {in_schema(schema, stage(name))} AS s {self._recorded(schema, name, table, 's')}"

    def record_deletions(self, schema: str, name: str, table: Table) -> str:
        """Record the staged tombstones. A marker of a later record, which was committed meanwhile, is kept: the first
        assignment sets the commit, and the ones after it see by the commit which of the two markers wins."""
        keys, markers = columns_of(table.key), deletion_markers(name)
        query = f"SELECT {keys}, %(commit)s, %(partition)s, `_offset` FROM {in_schema(schema, tombstones(name))}"
        changed = ("_commit", "_partition", "_offset")
        old = {column: self.target_column(schema, markers, column) for column in changed}
        new = {column: self.inserted_value(column) for column in changed}
        commit = old["_commit"]
        later = (
            f"{old['_partition']} = %(partition)s AND {old['_offset']} > {new['_offset']}"
            f" AND {commit} > %(since_commit)s"
        )
        changes = f"`_commit` = IF({later}, {commit}, %(commit)s)" + "".join(
            f", {quote(column)} = IF({commit} = %(commit)s, {new[column]}, {old[column]})"
            for column in ("_offset", "_partition")
        )
        return self.upsert(in_schema(schema, markers), [*table.key, *changed], query, changes, order=keys)

    def recorded_deletions(self, schema: str, name: str, table: Table) -> str:
        """The staged keys that are recorded as deleted, each with the offset of the record that deleted it."""
        known = f"{self.join} {in_schema(schema, deletion_markers(name))} AS d ON {equal(table.key, 'd', 's')}"
        return (
            f"SELECT {columns_of(table.key, 's.')}, d.`_offset` FROM {in_schema(schema, stage(name))} AS s {known}"
            " WHERE d.`_partition` = %(partition)s AND d.`_commit` > %(since_commit)s"
        )

    def _recorded(self, schema: str, name: str, table: Table, alias: str) -> str:
        return (
            f"{self.join} {in_schema(schema, deletion_markers(name))} AS d ON {equal(table.key, 'd', alias)}"
            f" WHERE d.`_partition` = %(partition)s AND d.`_offset` >= {alias}.`_offset`"
            " AND d.`_commit` > %(since_commit)s"
        )
