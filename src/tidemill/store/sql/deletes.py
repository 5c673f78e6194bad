"""Rows that leave a table, by tombstones, retention or a corrected replay, and the memory of deleted keys."""

from __future__ import annotations

from tidemill.spec.schema import Table
from tidemill.store.sql.expressions import equal
from tidemill.store.sql.identifiers import columns_of, deleted, in_schema, locked, quote, stage, tombstones
from tidemill.store.sql.rollups import Rollups


class Removal(Rollups):
    """The statements that take rows out of one table; those of its rollups are in :class:`Rollups`."""

    __slots__ = ()

    def create_gone(self, schema: str, name: str, table: Table) -> tuple[str, ...]:
        """Temporary tables for keys that are to leave a table, each with the offset of the record that says so: those
        asked for, and those whose rows are held."""
        columns = [f"{quote(column)} {table.columns[column]}" for column in table.key]
        key = f"PRIMARY KEY ({columns_of(table.key)})"
        body = ", ".join([*columns, "`_offset` BIGINT UNSIGNED NOT NULL", key])
        whole = f"({body}){self.table_options()}"
        return (
            *self.temporary(in_schema(schema, tombstones(name)), whole),
            *self.temporary(in_schema(schema, locked(name)), whole),
        )

    def lock_gone(self, schema: str, name: str, table: Table, condition: str) -> str:
        """Lock the rows that are to leave, in key order, and name their keys and offsets."""
        chosen = columns_of([*table.key, "_offset"], "g.")
        return (
            f"SELECT {chosen} FROM {self.leaving(schema, name, table, tombstones(name))} WHERE {condition} FOR UPDATE"
        )

    def note_held(self, schema: str, name: str, table: Table) -> str:
        """Note a key whose row is locked; its parameters are the key's columns and the offset."""
        columns = [*table.key, "_offset"]
        marks = ", ".join(["%s"] * len(columns))
        return f"INSERT INTO {in_schema(schema, locked(name))} ({columns_of(columns)}) VALUES ({marks})"

    def remove_held(self, schema: str, name: str, table: Table) -> str:
        """Delete the rows that are held."""
        return f"DELETE t FROM {self.leaving(schema, name, table, locked(name))}"

    def drop_known_tombstones(self, schema: str, name: str, table: Table) -> str:
        """Forget the staged tombstones that are known."""
        return f"DELETE g FROM {in_schema(schema, tombstones(name))} AS g {self._known(schema, name, table, 'g')}"

    def drop_deleted(self, schema: str, name: str, table: Table) -> str:
        """Forget the staged rows whose key was deleted by a later record."""
        return f"DELETE s FROM {in_schema(schema, stage(name))} AS s {self._known(schema, name, table, 's')}"

    def mark_deleted(self, schema: str, name: str, table: Table) -> str:
        """Remember the staged tombstones. One of a later record, which came meanwhile, stays: the commit tells the
        assignments after it which of the two it is."""
        keys, memory = columns_of(table.key), deleted(name)
        query = f"SELECT {keys}, %(commit)s, %(partition)s, `_offset` FROM {in_schema(schema, tombstones(name))}"
        changed = ("_commit", "_partition", "_offset")
        commit, partition, offset = (self.own(schema, memory, column) for column in changed)
        later = f"{partition} = %(partition)s AND {offset} > {self.incoming('_offset')} AND {commit} > %(since_commit)s"
        choices = {column: f"IF({commit} = %(commit)s, {self.incoming(column)}, {self.own(schema, memory, column)})"
                   for column in ("_offset", "_partition")}  # fmt: skip
        changes = f"`_commit` = IF({later}, {commit}, %(commit)s), " + ", ".join(
            f"{quote(column)} = {choice}" for column, choice in choices.items()
        )
        return self.upsert(in_schema(schema, deleted(name)), [*table.key, *changed], query, changes, order=keys)

    def markers_of(self, schema: str, name: str, table: Table) -> str:
        """The staged keys that were deleted, each with the offset of the record that said so."""
        known = f"{self.join} {in_schema(schema, deleted(name))} AS d ON {equal(table.key, 'd', 's')}"
        return (
            f"SELECT {columns_of(table.key, 's.')}, d.`_offset` FROM {in_schema(schema, stage(name))} AS s {known}"
            " WHERE d.`_partition` = %(partition)s AND d.`_commit` > %(since_commit)s"
        )

    def _known(self, schema: str, name: str, table: Table, alias: str) -> str:
        return (
            f"{self.join} {in_schema(schema, deleted(name))} AS d ON {equal(table.key, 'd', alias)}"
            f" WHERE d.`_partition` = %(partition)s AND d.`_offset` >= {alias}.`_offset`"
            " AND d.`_commit` > %(since_commit)s"
        )
