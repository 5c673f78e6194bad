"""What a person wants to be replayed, and what that is in offsets. Knows no Spark.

Everything is settled when a replay is asked for: its job, and every later try of it, does what is written down then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from confluent_kafka.admin import AdminClient
from pymysql.connections import Connection

from tidemill.errors import SpecError, StreamError
from tidemill.kafka.topics import offsets_at, topic_id
from tidemill.spec.schema import Pipeline, Source
from tidemill.store.connection import translated
from tidemill.store.control import ledger, quarantine, replays
from tidemill.store.control.quarantine import QuarantinedRecord, QuarantineFilter
from tidemill.store.migrations import pipeline_version
from tidemill.store.write.context import Range
from tidemill.store.write.fencing import check_pipeline_version

EARLIEST = "earliest"
_RANGE = re.compile(r"(\d+):(\d+)-(\d+)")
_SLICES_NAMED = 5


@dataclass(frozen=True)
class ReplayRequest:
    """A replay as a person asks for it: by offsets, by time or from the quarantine."""

    kind: Literal["offsets", "time", "quarantine"]
    offsets: str = ""
    """``0:100-200,1:0-50``: partition, first offset, the offset after the last."""
    since: str = ""
    """ISO time (UTC if it names no zone), or ``earliest``: records that Kafka got then or later."""
    until: str = ""
    """ISO time: records that Kafka got before it. All if empty."""
    reason: str = ""
    """Part of the quarantine's reason."""
    ids: tuple[int, ...] = ()
    """Ids of the quarantine."""
    dry_run: bool = False
    """Say what would change, and change nothing."""


@dataclass(frozen=True)
class Slice:
    """What one batch of a replay reads."""

    generation: int
    ranges: tuple[Range, ...]
    """Of different partitions."""


@dataclass(frozen=True)
class Plan:
    """What was asked for, in offsets."""

    generation: int
    """The incarnation of the topic that is there now."""
    since_commit: int
    """The newest commit when the stream met it."""
    ranges: tuple[Range, ...] = ()
    """By offsets and by time: all records of these."""
    per_slice: int = 0
    """How many offsets of each partition one batch reads at most."""
    tails: tuple[tuple[int, int], ...] = ()
    """Partition and offset where what was asked for ends only because the stream had come no further."""
    again: tuple[Range, ...] = ()
    """What the second pass reads: the ranges, and their tails as far as the stream is by then."""
    picked: tuple[tuple[int, Range], ...] = ()
    """From the quarantine: generation and range of each batch, of which only what was chosen is read."""
    up_to_id: int = 0
    """The newest id of the quarantine that counts."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Why records of the quarantine cannot be replayed -> how many."""

    def slices(self) -> list[Slice]:
        """The batches, in order."""
        if self.picked:
            return [Slice(generation, (span,)) for generation, span in self.picked]
        return list(_cut(self.ranges, self.per_slice, self.generation))

    def slices_again(self) -> list[Slice]:
        """The batches of the second pass."""
        return list(_cut(self.again, self.per_slice, self.generation))

    def extended(self, positions: dict[int, int]) -> Plan:
        """With a second pass that ends where the stream is."""
        spans = {span.partition: span for span in self.ranges}
        for partition, begin in self.tails:
            if (until := positions.get(partition, 0)) > begin:
                start = spans[partition].start if partition in spans else begin
                spans[partition] = Range(partition, start, until)
        return replace(self, again=tuple(spans[partition] for partition in sorted(spans)))

    def as_json(self) -> dict[str, Any]:
        """For the database."""
        return asdict(self)

    @staticmethod
    def from_json(given: dict[str, Any]) -> Plan:
        """What :meth:`as_json` made."""
        ranges, again = (tuple(Range(**each) for each in given[name]) for name in ("ranges", "again"))
        tails = tuple((int(partition), int(offset)) for partition, offset in given["tails"])
        picked = tuple((int(generation), Range(**each)) for generation, each in given["picked"])
        return Plan(**{**given, "ranges": ranges, "again": again, "tails": tails, "picked": picked})


def _cut(ranges: Iterable[Range], size: int, generation: int) -> Iterator[Slice]:
    left = tuple(ranges)
    while left:
        now = tuple(Range(r.partition, r.start, min(r.until, r.start + size)) for r in left)
        yield Slice(generation, now)
        left = tuple(Range(r.partition, r.start + size, r.until) for r in left if r.start + size < r.until)


def request_replay(
    connection: Connection[Any], client: AdminClient, pipeline: Pipeline, asked: ReplayRequest, by: str
) -> int:
    """Check what is asked for, settle what it means, and write it down; returns the replay's id.

    Args:
        connection: autocommit, as the stream account, in the control schema.
        client: of the pipeline's Kafka.
        pipeline: whose stream.
        asked: what.
        by: who.

    Raises:
        SpecError: it cannot be understood, or there is nothing that it means.
        StreamError: the pipeline is not applied, or its topic was made again.
        Fenced: the stream runs a newer version of the pipeline.
        SourceError: Kafka does not answer.
    """
    check(asked)
    version = pipeline_version(connection, pipeline)
    if version is None:
        raise StreamError(
            "the pipeline is not applied as it stands",
            value=pipeline.name,
            remedy=f"run ./tidemill apply {pipeline.name}",
        )
    check_pipeline_version(connection, pipeline.name, version)
    generation, since_commit = _incarnation(connection, client, pipeline)
    if asked.kind == "quarantine":
        plan = _plan_quarantine(connection, pipeline, asked, generation, since_commit)
    else:
        positions = ledger.positions(connection, pipeline.name, pipeline.source.topic)
        ranges = _ranges(client, pipeline, asked, positions)
        size = max(1, pipeline.source.max_records_per_batch // len(ranges))
        plan = Plan(generation, since_commit, ranges, size, tuple(_tails(asked, ranges, positions)))
    selection = {"requested": asdict(asked), "plan": plan.as_json()}
    return replays.request_replay(connection, pipeline.name, version, selection, by)


def check(asked: ReplayRequest) -> None:
    """Whether it can be understood at all.

    Raises:
        SpecError: no.
    """
    if asked.kind == "offsets":
        parse_offsets(asked.offsets)
    elif asked.kind == "time":
        begin = None if asked.since == EARLIEST else parse_time(asked.since, f"{EARLIEST} or an ISO time")
        end = parse_time(asked.until, "an ISO time") if asked.until else None
        if begin and end and end <= begin:
            raise SpecError("the replay would end before it begins", value=f"{asked.since} to {asked.until}")


def parse_offsets(text: str) -> dict[int, Range]:
    """``0:100-200,1:0-50`` as partition -> range.

    Raises:
        SpecError: it is not of this form, a range is empty, or a partition is named twice.
    """
    found: dict[int, Range] = {}
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise SpecError("these are no offsets", value=part.strip() or "nothing", remedy="write 0:100-200,1:0-50")
        span = Range(*map(int, match.groups()))
        if span.until <= span.start:
            raise SpecError("this range of offsets is empty", value=part.strip(), remedy="its end is not included")
        if span.partition in found:
            raise SpecError(
                "a partition is named twice", value=span.partition, remedy="replay one range after the other"
            )
        found[span.partition] = span
    return found


def parse_time(text: str, form: str) -> datetime:
    """An ISO time; UTC if it names no zone.

    Raises:
        SpecError: it is none.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SpecError("this is no time", value=text or "nothing", remedy=f"write {form}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _incarnation(connection: Connection[Any], client: AdminClient, pipeline: Pipeline) -> tuple[int, int]:
    """Generation and since of the topic that is there now."""
    topic = pipeline.source.topic
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT topic_id, generation, since_commit FROM topics WHERE stream = %s AND topic = %s",
            (pipeline.name, topic),
        )
        known = cursor.fetchone()
    if known is None:
        return 1, 0
    if topic_id(client, topic) != known[0]:
        raise StreamError(
            f"topic {topic} was deleted and made again",
            value=pipeline.name,
            remedy="start the stream first: its driver settles what that means",
        )
    return int(known[1]), int(known[2])


def _tails(asked: ReplayRequest, ranges: Iterable[Range], positions: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Where what was asked for goes on, though the stream does not yet."""
    ends = {span.partition: span.until for span in ranges}
    if asked.kind == "time" and not asked.until:
        ends = positions
    for partition, until in sorted(ends.items()):
        if until >= positions[partition]:
            yield partition, until


def _ranges(
    client: AdminClient, pipeline: Pipeline, asked: ReplayRequest, positions: dict[int, int]
) -> tuple[Range, ...]:
    topic = pipeline.source.topic
    earliest = offsets_at(client, topic, EARLIEST)
    if asked.kind == "offsets":
        return clip_offsets(parse_offsets(asked.offsets), earliest, positions)
    starts = offsets_at(client, topic, asked.since)
    ends = offsets_at(client, topic, asked.until) if asked.until else positions
    wanted = [
        Range(p, max(starts.get(p, 0), earliest.get(p, 0)), min(ends.get(p, 0), at)) for p, at in positions.items()
    ]
    ranges = tuple(span for span in sorted(wanted, key=lambda span: span.partition) if span.until > span.start)
    if not ranges:
        raise SpecError(
            "there is nothing to replay: the stream has read no record of that time",
            value=f"from {asked.since}" + (f" until {asked.until}" if asked.until else ""),
        )
    return ranges


def clip_offsets(wanted: dict[int, Range], earliest: dict[int, int], positions: dict[int, int]) -> tuple[Range, ...]:
    """The ranges as far as the stream has read them: later records are the stream's own affair.

    Raises:
        SpecError: there is no such partition, Kafka has not the beginning of a range any more, or the stream has not
            come to it yet.
    """
    clipped = []
    for partition, span in sorted(wanted.items()):
        begins, at = earliest.get(partition), positions.get(partition, 0)
        asked = f"{partition}:{span.start}-{span.until}"
        if begins is None:
            raise SpecError("the topic has no such partition", value=partition, remedy=f"it has {len(earliest)}")
        if span.start < begins:
            lost = min(begins, span.until) - span.start
            raise SpecError(
                f"Kafka has forgotten {lost} of these offsets",
                value=asked,
                remedy=f"partition {partition} begins at offset {begins} now",
            )
        if span.start >= at:
            raise SpecError(
                "the stream has not read these offsets yet", value=asked, remedy=f"it stands at offset {at}"
            )
        clipped.append(Range(partition, span.start, min(span.until, at)))
    return tuple(clipped)


def choice_of(asked: ReplayRequest) -> QuarantineFilter:
    """The records of the quarantine that are meant: of those that nothing has resolved."""
    return QuarantineFilter(asked.reason or None, asked.ids)


def _plan_quarantine(
    connection: Connection[Any], pipeline: Pipeline, asked: ReplayRequest, generation: int, since_commit: int
) -> Plan:
    missing, left_out, up_to_id = {*asked.ids}, dict[str, int](), 0

    def usable() -> Iterator[QuarantinedRecord]:
        nonlocal up_to_id
        for each in quarantine.records_in_order(connection, pipeline.name, pipeline.source.topic, choice_of(asked)):
            missing.discard(each.id)
            if reason := unusable(each, pipeline.source, generation):
                left_out[reason] = left_out.get(reason, 0) + 1
            else:
                up_to_id = max(up_to_id, each.id)
                yield each

    picked = tuple(pick(usable(), pipeline.source))
    if missing:
        named = ", ".join(map(str, sorted(missing)[:_SLICES_NAMED]))
        raise SpecError("the quarantine has no such unresolved record", value=named, remedy="see ./tidemill quarantine")
    if not picked:
        because = "; ".join(f"{number} left out: {reason}" for reason, number in left_out.items())
        raise SpecError("there is nothing in quarantine to replay", value=because or pipeline.name)
    return Plan(generation, since_commit, picked=picked, up_to_id=up_to_id, left_out=left_out)


def unusable(each: QuarantinedRecord, source: Source, generation: int) -> str | None:
    """Why a record of the quarantine cannot be replayed; None if it can."""
    if (each.value_bytes or 0) > source.max_record_bytes:
        return "still over source.max_record_bytes"
    if each.generation == generation:
        return None
    if each.record_at is None or each.cut:
        return "the topic was made again, and not all of its bytes were kept"
    if each.value_bytes is None:
        return "the topic was made again, and an old tombstone must not delete what is new"
    return None


def pick(found: Iterable[QuarantinedRecord], source: Source) -> Iterator[tuple[int, Range]]:
    """Cut records, by generation, partition and offset, into batches that fit into memory."""
    begin: QuarantinedRecord | None = None
    records, size, until = 0, 0, 0
    for each in found:
        more = max(each.kept_bytes, each.value_bytes or 0)
        if begin is not None and (
            (each.generation, each.partition_id) != (begin.generation, begin.partition_id)
            or records >= source.max_records_per_batch
            or size + more > source.max_bytes_per_batch
        ):
            yield begin.generation, Range(begin.partition_id, begin.record_offset, until)
            begin = None
        if begin is None:
            begin, records, size = each, 0, 0
        records, size, until = records + 1, size + more, each.record_offset + 1
    if begin is not None:
        yield begin.generation, Range(begin.partition_id, begin.record_offset, until)


def describe(replay: replays.Replay) -> list[str]:
    """A replay as sentences for a person."""
    asked, result = replay.selection["requested"], replay.selection.get("result")
    first = f"replay {replay.id} of {replay.stream}, asked by {replay.requested_by}: {replay.state}"
    if replay.state == "failed":
        return [f"{first}: {replay.last_error}"]
    if not result:
        return [f"{first}, {replay.records:,} records read so far"]
    outcomes = ", ".join(f"{result[name]:,} {name}" for name in replays.COUNTED[:5])
    lines = [f"{first}, {result['records']:,} records read again: {outcomes}"]
    lines.append(f"{result['retracted']:,} rows of older versions that their records do not make any more")
    lines += [f"{number:,} records do not meet check {name}" for name, number in result["warnings"].items()]
    lines += [f"{number:,} records left out: {reason}" for reason, number in result["left_out"].items()]
    if asked["dry_run"]:
        lines.append("a dry run: so it would be, nothing was changed")
    return lines
