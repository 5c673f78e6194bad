"""The request of a replay: it is checked, planned and written to the control plane. Without Spark.

Its meaning is fixed when it is written: the job, and every later attempt of the job, does what the plan holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from confluent_kafka.admin import AdminClient
from pymysql.connections import Connection

from tidemill.errors import SpecError, StreamError
from tidemill.kafka.topics import offsets_at, topic_id
from tidemill.replay.plan import ReplayPlan, clip_offsets, cut_quarantine, why_not_replayable
from tidemill.spec.schema import Pipeline
from tidemill.store.connection import translated
from tidemill.store.control import ledger, quarantine, replays
from tidemill.store.control.quarantine import QuarantinedRecord, QuarantineFilter
from tidemill.store.migrations import pipeline_version
from tidemill.store.write.context import Range
from tidemill.store.write.fencing import check_pipeline_version

EARLIEST = "earliest"
_RANGE = re.compile(r"(\d+):(\d+)-(\d+)")
_NAMED_IDS = 5


@dataclass(frozen=True)
class ReplayRequest:
    """A replay as a person requests it: by offsets, by time or from the quarantine."""

    kind: Literal["offsets", "time", "quarantine"]
    offsets: str = ""
    """``0:100-200,1:0-50``: partition, first offset, the offset after the last."""
    since: str = ""
    """ISO 8601 time (UTC if it names no zone), or ``earliest``: records that Kafka received then or later."""
    until: str = ""
    """ISO 8601 time: records that Kafka received before it. All if empty."""
    reason: str = ""
    """Part of the reason of the quarantine."""
    ids: tuple[int, ...] = ()
    """Ids of the quarantine."""
    dry_run: bool = False
    """Report what would change, and change nothing."""

    @property
    def quarantine_filter(self) -> QuarantineFilter:
        """The records of the quarantine that are selected, of those that nothing has resolved."""
        return QuarantineFilter(self.reason or None, self.ids)


def request_replay(
    connection: Connection[Any], client: AdminClient, pipeline: Pipeline, request: ReplayRequest, by: str
) -> int:
    """Check a request, plan it and write it to the control plane; returns the id of the replay.

    Args:
        connection: autocommit, as the stream account, in the control schema.
        client: of the pipeline's Kafka.
        pipeline: whose stream.
        request: what to replay.
        by: who requests it.

    Raises:
        SpecError: the request is not understood, or selects nothing.
        StreamError: the pipeline is not applied, or its topic was recreated.
        Fenced: the stream runs a newer version of the pipeline.
        SourceError: Kafka does not answer.
    """
    check_request(request)
    version = pipeline_version(connection, pipeline)
    if version is None:
        raise StreamError("TM-STREAM-NOT-APPLIED", value=pipeline.name, stream=pipeline.name)
    check_pipeline_version(connection, pipeline.name, version)
    generation, since_commit = _generation(connection, client, pipeline)
    if request.kind == "quarantine":
        plan = _plan_quarantine(connection, pipeline, request, generation, since_commit)
    else:
        positions = ledger.positions(connection, pipeline.name, pipeline.source.topic)
        ranges = _ranges(client, pipeline, request, positions)
        size = max(1, pipeline.source.max_records_per_batch // len(ranges))
        plan = ReplayPlan(generation, since_commit, ranges, size, tuple(_open_ends(request, ranges, positions)))
    selection = {"requested": asdict(request), "plan": plan.as_json()}
    return replays.request_replay(connection, pipeline.name, version, selection, by)


def check_request(request: ReplayRequest) -> None:
    """Check what can be checked without any server.

    Raises:
        SpecError: the request is not understood.
    """
    if request.kind == "offsets":
        parse_offsets(request.offsets)
    elif request.kind == "time":
        begin = None if request.since == EARLIEST else parse_time(request.since, f"{EARLIEST} or an ISO 8601 time")
        end = parse_time(request.until, "an ISO 8601 time") if request.until else None
        if begin and end and end <= begin:
            raise SpecError("TM-REPLAY-TIMES-REVERSED", value=f"{request.since} to {request.until}")


def parse_offsets(text: str) -> dict[int, Range]:
    """Parse ``0:100-200,1:0-50``; returns partition -> range.

    Raises:
        SpecError: it does not have this form, a range is empty, or a partition is named twice.
    """
    ranges: dict[int, Range] = {}
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise SpecError("TM-REPLAY-OFFSETS-SYNTAX", value=part.strip() or "empty")
        span = Range(*map(int, match.groups()))
        if span.until <= span.start:
            raise SpecError("TM-REPLAY-RANGE-EMPTY", value=part.strip())
        if span.partition in ranges:
            raise SpecError("TM-REPLAY-PARTITION-TWICE", value=span.partition)
        ranges[span.partition] = span
    return ranges


def parse_time(text: str, form: str) -> datetime:
    """Parse an ISO 8601 time; UTC if it names no zone.

    Args:
        text: the time.
        form: what may be written, for the error.

    Raises:
        SpecError: it is none.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SpecError("TM-REPLAY-TIME-SYNTAX", value=text or "empty", form=form) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _generation(connection: Connection[Any], client: AdminClient, pipeline: Pipeline) -> tuple[int, int]:
    """Generation and ``since_commit`` of the topic that exists now."""
    topic = pipeline.source.topic
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT topic_id, generation, since_commit FROM topics WHERE stream = %s AND topic = %s",
            (pipeline.name, topic),
        )
        row = cursor.fetchone()
    if row is None:
        return 1, 0
    if topic_id(client, topic) != row[0]:
        raise StreamError("TM-REPLAY-TOPIC-RECREATED", value=pipeline.name, topic=topic)
    return int(row[1]), int(row[2])


def _open_ends(request: ReplayRequest, ranges: Iterable[Range], positions: dict[int, int]) -> Iterator[tuple[int, int]]:
    """Where the selection continues, although the stream has read no further."""
    ends = {span.partition: span.until for span in ranges}
    if request.kind == "time" and not request.until:
        ends = positions
    for partition, until in sorted(ends.items()):
        if until >= positions[partition]:
            yield partition, until


def _ranges(
    client: AdminClient, pipeline: Pipeline, request: ReplayRequest, positions: dict[int, int]
) -> tuple[Range, ...]:
    topic = pipeline.source.topic
    earliest = offsets_at(client, topic, EARLIEST)
    if request.kind == "offsets":
        return clip_offsets(parse_offsets(request.offsets), earliest, positions)
    starts = offsets_at(client, topic, request.since)
    ends = offsets_at(client, topic, request.until) if request.until else positions
    of_all = [
        Range(p, max(starts.get(p, 0), earliest.get(p, 0)), min(ends.get(p, 0), at)) for p, at in positions.items()
    ]
    ranges = tuple(span for span in sorted(of_all, key=lambda span: span.partition) if span.until > span.start)
    if not ranges:
        until = f" until {request.until}" if request.until else ""
        raise SpecError("TM-REPLAY-NOTHING-READ", value=f"from {request.since}{until}")
    return ranges


def _plan_quarantine(
    connection: Connection[Any], pipeline: Pipeline, request: ReplayRequest, generation: int, since_commit: int
) -> ReplayPlan:
    missing, left_out, newest_id = {*request.ids}, dict[str, int](), 0

    def replayable() -> Iterator[QuarantinedRecord]:
        nonlocal newest_id
        topic = pipeline.source.topic
        for record in quarantine.records_in_order(connection, pipeline.name, topic, request.quarantine_filter):
            missing.discard(record.id)
            if reason := why_not_replayable(record, pipeline.source, generation):
                left_out[reason] = left_out.get(reason, 0) + 1
            else:
                newest_id = max(newest_id, record.id)
                yield record

    quarantined = tuple(cut_quarantine(replayable(), pipeline.source))
    if missing:
        raise SpecError("TM-REPLAY-RECORD-UNKNOWN", value=", ".join(map(str, sorted(missing)[:_NAMED_IDS])))
    if not quarantined:
        reasons = "; ".join(f"{number} left out: {reason}" for reason, number in left_out.items())
        raise SpecError("TM-REPLAY-QUARANTINE-EMPTY", value=reasons or pipeline.name)
    return ReplayPlan(generation, since_commit, quarantined=quarantined, newest_id=newest_id, left_out=left_out)


def describe(replay: replays.Replay) -> list[str]:
    """A replay as lines for a person."""
    request, result = replay.selection["requested"], replay.selection.get("result")
    first = f"replay {replay.id} of {replay.stream}, requested by {replay.requested_by}: {replay.state}"
    if replay.state == "failed":
        return [f"{first}: {replay.last_error}"]
    if not result:
        return [f"{first}, {replay.records:,} records read so far"]
    outcomes = ", ".join(f"{result[name]:,} {name}" for name in replays.COUNTED[:5])
    lines = [f"{first}, {result['records']:,} records read: {outcomes}"]
    lines.append(f"rows of older pipeline versions removed: {result['retracted']:,}")
    lines += [f"records that do not meet check {name}: {number:,}" for name, number in result["warnings"].items()]
    lines += [f"records left out, {reason}: {number:,}" for reason, number in result["left_out"].items()]
    if request["dry_run"]:
        lines.append("dry run: these are the changes that the replay would make; nothing was changed")
    return lines
