"""What a commit writes for: the stream or replay, the offsets, and what its rows have in common.

Commands that write no rows import this module, too, so it imports no pyarrow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from tidemill.store.sql.identifiers import NO_PARTITION

NO_GENERATION = 2**63 - 1
"""``since_commit`` of a topic that no longer exists: no row belongs to its generation, and no deletion is later."""


_EPOCH = datetime(1970, 1, 1)


def instant(us: int | None) -> datetime | None:
    """A Kafka timestamp, in µs since 1970, as a DATETIME(6) takes it: naive UTC, of the years 1 to 9999.

    A producer may set any 64-bit number of milliseconds. What is earlier or later becomes the first or the last moment.
    """
    if us is None:
        return None
    try:
        return _EPOCH + timedelta(microseconds=us)
    except OverflowError:
        return datetime.max if us > 0 else datetime.min


@dataclass(frozen=True)
class RowContext:
    """What all rows of one commit have in common, which the statements of a merge bind as parameters."""

    commit: int = 0
    """Id of the commit; 0 before it has one."""
    partition: int = 0
    """The Kafka partition, or ``NO_PARTITION``."""
    pipeline_version: int = 0
    since_commit: int = 0
    """The commits after this one belong to the topic's present generation."""

    def parameters(self) -> dict[str, int]:
        """The values by the names that the statements use."""
        return asdict(self)


@dataclass(frozen=True)
class WriteContext:
    """The stream or replay that a commit is made for."""

    stream: str
    epoch: int
    pipeline_version: int
    topic: str
    generation: int = 1
    """The generation of the topic, which counts how often it was recreated or turned to again, from 1."""
    since_commit: int = 0
    """The newest commit when the stream began to read this generation: the offsets of older commits are of other
    records."""
    replay_id: int | None = None
    """Id of the replay, which moves no position; None for the stream itself."""

    def row_context(self, partition: int, commit: int = 0) -> RowContext:
        """What the rows of one partition's commit have in common."""
        marked = NO_PARTITION if self.since_commit == NO_GENERATION else partition
        return RowContext(commit, marked, self.pipeline_version, self.since_commit)


@dataclass(frozen=True)
class Range:
    """The offsets ``[start, until)`` of one Kafka partition."""

    partition: int
    start: int
    until: int
