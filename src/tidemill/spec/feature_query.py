"""A model's feature query as a value: its text and what was read out of it when the folder was loaded.

:mod:`tidemill.spec.checks.features` parses the author's SQL into a :class:`FeatureQuery`; everything else reads the
value. It is plain data: Spark can send it to Python workers, and no process needs the SQL parser to use it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

COMMIT = "_commit"
"""Column of the feature query: the id of the commit that wrote the row being scored."""


class TableReference(BaseModel):
    """A place in a feature query's text that names a table or a rollup. Names that ``WITH`` defines are left out.

    All positions are character indexes into :attr:`FeatureQuery.sql`; ends are exclusive.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    schema_name: str = ""
    """Schema that the author wrote before the name; empty for the operational schema."""
    start: int
    """Where the name begins."""
    end: int
    """Where the name ends."""
    alias_end: int
    """Where its alias ends; equal to ``end`` where it has none."""
    has_alias: bool
    has_hint: bool = False
    """Whether an index hint follows."""
    has_partition: bool = False
    """Whether a ``PARTITION`` clause follows."""
    is_row_source: bool = False
    """Whether the rows to be scored come from here: it is the one table that the query's time is read from."""


class FeatureQuery(BaseModel):
    """A model's feature query, parsed and checked."""

    model_config = ConfigDict(frozen=True)

    sql: str
    """The author's text without surrounding blanks and the final semicolon. It may end in a comment."""
    features: tuple[str, ...]
    """The selected columns that the model learns from, in the query's order: all but key, time, label and commit."""
    tables: tuple[TableReference, ...]
    """In the order of the text."""
    row_time: str | None = None
    """MySQL expression of the time at which a row's features were known, over one row of the row source, which it
    calls ``t``. None where it is computed from more than one row or table; then no table is the row source."""
