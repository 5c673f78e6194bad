"""The plan of a replay: which offsets each of its batches reads. Pure, without any server and without Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tidemill.errors import SpecError
from tidemill.spec.schema import Source
from tidemill.store.control.quarantine import QuarantinedRecord
from tidemill.store.write.context import Range


@dataclass(frozen=True)
class Slice:
    """What one batch of a replay reads."""

    generation: int
    """Of the topic."""
    ranges: tuple[Range, ...]
    """Of different partitions."""


@dataclass(frozen=True)
class ReplayPlan:
    """What was requested, in offsets."""

    generation: int
    """Of the topic that exists now."""
    since_commit: int
    """The newest commit of the stream when it first read this topic."""
    ranges: tuple[Range, ...] = ()
    """By offsets and by time: all records of these."""
    slice_offsets: int = 0
    """How many offsets of each partition one batch reads at most."""
    open_ends: tuple[tuple[int, int], ...] = ()
    """Partition and offset where the selection ends only because the stream had read no further."""
    second_pass: tuple[Range, ...] = ()
    """What the second pass reads: the ranges, and what follows their open ends as far as the stream is by then."""
    quarantined: tuple[tuple[int, Range], ...] = ()
    """From the quarantine: generation and range of each batch, of which only the selected records are read."""
    newest_id: int = 0
    """The newest id of the quarantine that is replayed."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Why records of the quarantine cannot be replayed -> how many."""

    def slices(self) -> list[Slice]:
        """The batches of the first pass, in order."""
        if self.quarantined:
            return [Slice(generation, (span,)) for generation, span in self.quarantined]
        return list(_cut(self.ranges, self.slice_offsets, self.generation))

    def slices_of_second_pass(self) -> list[Slice]:
        """The batches of the second pass, in order."""
        return list(_cut(self.second_pass, self.slice_offsets, self.generation))

    def with_second_pass(self, positions: dict[int, int]) -> ReplayPlan:
        """The plan with a second pass that ends at these positions of the stream."""
        spans = {span.partition: span for span in self.ranges}
        for partition, begin in self.open_ends:
            if (until := positions.get(partition, 0)) > begin:
                start = spans[partition].start if partition in spans else begin
                spans[partition] = Range(partition, start, until)
        return replace(self, second_pass=tuple(spans[partition] for partition in sorted(spans)))

    def as_json(self) -> dict[str, Any]:
        """For the database."""
        return asdict(self)

    @staticmethod
    def from_json(content: dict[str, Any]) -> ReplayPlan:
        """What :meth:`as_json` returned."""
        ranges, second_pass = (tuple(Range(**each) for each in content[name]) for name in ("ranges", "second_pass"))
        open_ends = tuple((int(partition), int(offset)) for partition, offset in content["open_ends"])
        quarantined = tuple((int(generation), Range(**each)) for generation, each in content["quarantined"])
        parsed = {"ranges": ranges, "second_pass": second_pass, "open_ends": open_ends, "quarantined": quarantined}
        return ReplayPlan(**{**content, **parsed})


def _cut(ranges: Iterable[Range], size: int, generation: int) -> Iterator[Slice]:
    left = tuple(ranges)
    while left:
        yield Slice(generation, tuple(Range(r.partition, r.start, min(r.until, r.start + size)) for r in left))
        left = tuple(Range(r.partition, r.start + size, r.until) for r in left if r.start + size < r.until)


def clip_offsets(requested: dict[int, Range], earliest: dict[int, int], positions: dict[int, int]) -> tuple[Range, ...]:
    """The ranges as far as the stream has read them. Later records are read by the stream itself.

    Args:
        requested: Kafka partition -> range.
        earliest: Kafka partition -> its first offset.
        positions: Kafka partition -> next offset of the stream.

    Raises:
        SpecError: there is no such partition, Kafka has removed the beginning of a range, or the stream has not read
            any of it yet.
    """
    clipped = []
    for partition, span in sorted(requested.items()):
        begin, position = earliest.get(partition), positions.get(partition, 0)
        value = f"{partition}:{span.start}-{span.until}"
        if begin is None:
            raise SpecError("TM-REPLAY-PARTITION-UNKNOWN", value=partition, partitions=len(earliest))
        if span.start < begin:
            removed = min(begin, span.until) - span.start
            raise SpecError("TM-REPLAY-OFFSETS-REMOVED", value=value, offsets=removed, partition=partition, begin=begin)
        if span.start >= position:
            raise SpecError("TM-REPLAY-OFFSETS-AHEAD", value=value, position=position)
        clipped.append(Range(partition, span.start, min(span.until, position)))
    return tuple(clipped)


def why_not_replayable(record: QuarantinedRecord, source: Source, generation: int) -> str | None:
    """Why a record of the quarantine cannot be replayed; None if it can.

    Args:
        record: the record.
        source: of the pipeline as it is applied now.
        generation: of the topic that exists now.
    """
    if (record.value_bytes or 0) > source.max_record_bytes:
        return "still over source.max_record_bytes"
    if record.generation == generation:
        return None
    if record.record_at is None or record.cut:
        return "the topic was recreated, and not all of its bytes were kept"
    if record.value_bytes is None:
        return "the topic was recreated, and an old tombstone must not delete newer rows"
    return None


def cut_quarantine(records: Iterable[QuarantinedRecord], source: Source) -> Iterator[tuple[int, Range]]:
    """Cut records into batches that fit into memory; returns generation and range of each.

    Args:
        records: ordered by generation, partition and offset.
        source: with the limits of a batch, in records and in bytes.
    """
    first: QuarantinedRecord | None = None
    count, size, until = 0, 0, 0
    for record in records:
        more = max(record.kept_bytes, record.value_bytes or 0)
        if first is not None and (
            (record.generation, record.partition_id) != (first.generation, first.partition_id)
            or count >= source.max_records_per_batch
            or size + more > source.max_bytes_per_batch
        ):
            yield first.generation, Range(first.partition_id, first.record_offset, until)
            first = None
        if first is None:
            first, count, size = record, 0, 0
        count, size, until = count + 1, size + more, record.record_offset + 1
    if first is not None:
        yield first.generation, Range(first.partition_id, first.record_offset, until)
