"""What a person requests to replay -> offsets and batches, without any server."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from tidemill.cli.replay import request_of
from tidemill.errors import SpecError
from tidemill.kafka.gaps import Gaps
from tidemill.replay.plan import ReplayPlan, Slice, clip_offsets, cut_quarantine, why_not_replayable
from tidemill.replay.request import ReplayRequest, check_request, describe, parse_offsets, parse_time
from tidemill.spec.schema import Source
from tidemill.store.control.quarantine import QuarantinedRecord
from tidemill.store.control.replays import COUNTED, Replay
from tidemill.store.write.context import Range

SOURCE = Source(
    topic="t", schema="id BIGINT", max_records_per_batch=3, max_bytes_per_batch=65_536, max_record_bytes=500
)


def quarantined(
    offset: int, *, partition: int = 0, generation: int = 2, size: int | None = 10, **other: object
) -> QuarantinedRecord:
    """A record of the quarantine, kept whole by default."""
    given = {"kept_bytes": size or 0, "record_at": datetime(2026, 1, 1), "cut": False} | other
    return QuarantinedRecord(
        offset, "t", generation, partition, offset, value_bytes=size, reason="", pipeline_version=1,
        resolved_commit=None, **given,  # type: ignore[arg-type]
    )  # fmt: skip


def test_offsets_are_read_as_they_are_written() -> None:
    """Partition, first offset, the offset after the last; blanks do not matter."""
    assert parse_offsets("0:100-200, 12:0-1") == {0: Range(0, 100, 200), 12: Range(12, 0, 1)}


@pytest.mark.parametrize(
    ("request_", "code", "value"),
    [
        (ReplayRequest("offsets"), "TM-REPLAY-OFFSETS-SYNTAX", "empty"),
        (ReplayRequest("offsets", offsets="0:1-2,x"), "TM-REPLAY-OFFSETS-SYNTAX", "x"),
        (ReplayRequest("offsets", offsets="0:-1-2"), "TM-REPLAY-OFFSETS-SYNTAX", "0:-1-2"),
        (ReplayRequest("offsets", offsets="0:2-2"), "TM-REPLAY-RANGE-EMPTY", "0:2-2"),
        (ReplayRequest("offsets", offsets="0:1-2,0:5-9"), "TM-REPLAY-PARTITION-TWICE", 0),
        (ReplayRequest("time"), "TM-REPLAY-TIME-SYNTAX", "empty"),
        (ReplayRequest("time", since="yesterday"), "TM-REPLAY-TIME-SYNTAX", "yesterday"),
        (ReplayRequest("time", since="earliest", until="latest"), "TM-REPLAY-TIME-SYNTAX", "latest"),
        (
            ReplayRequest("time", since="2026-01-01T01:00+01:00", until="2026-01-01"),
            "TM-REPLAY-TIMES-REVERSED",
            "2026-01-01T01:00+01:00 to 2026-01-01",
        ),
    ],
)
def test_a_request_that_is_not_understood_names_the_value(request_: ReplayRequest, code: str, value: object) -> None:
    """Without any server."""
    with pytest.raises(SpecError) as raised:
        check_request(request_)
    assert (raised.value.code, raised.value.value) == (code, value)


def test_a_time_without_a_zone_is_utc() -> None:
    """As everywhere in the database."""
    assert parse_time("2026-01-01", "") == datetime(2026, 1, 1, tzinfo=UTC)


def test_ranges_end_where_the_stream_is() -> None:
    """The stream itself reads what follows; a range that Kafka has removed records of is rejected."""
    requested = parse_offsets("1:5-90,0:10-20")
    assert clip_offsets(requested, {0: 10, 1: 0}, {0: 99, 1: 50}) == (Range(0, 10, 20), Range(1, 5, 50))
    with pytest.raises(SpecError) as raised:
        clip_offsets(requested, {0: 13, 1: 0}, {0: 99, 1: 50})
    assert (raised.value.code, raised.value.value) == ("TM-REPLAY-OFFSETS-REMOVED", "0:10-20")
    assert raised.value.parameters == {"offsets": 3, "partition": 0, "begin": 13}


def test_slices_take_the_same_from_each_partition_and_every_offset_once() -> None:
    """However uneven the ranges are; a later try cuts them in the same way."""
    plan = ReplayPlan(1, 0, (Range(0, 5, 12), Range(3, 0, 2)), slice_offsets=3)
    assert plan.slices() == [
        Slice(1, (Range(0, 5, 8), Range(3, 0, 2))),
        Slice(1, (Range(0, 8, 11),)),
        Slice(1, (Range(0, 11, 12),)),
    ]


def test_the_second_pass_goes_on_to_where_the_stream_is_by_then() -> None:
    """Where a range was cut short only because the stream had come no further, and where there was nothing yet."""
    plan = ReplayPlan(1, 0, (Range(0, 5, 12), Range(1, 0, 4)), slice_offsets=100, open_ends=((0, 12), (2, 7)))
    assert plan.with_second_pass({0: 20, 1: 9, 2: 7}).second_pass == (Range(0, 5, 20), Range(1, 0, 4))
    assert plan.with_second_pass({0: 12, 1: 9, 2: 8}).second_pass == (Range(0, 5, 12), Range(1, 0, 4), Range(2, 7, 8))


def test_a_plan_survives_the_database() -> None:
    """Written as JSON and read again it is the same."""
    ranges = ReplayPlan(2, 7, (Range(0, 5, 12),), 3, ((0, 12),), (Range(0, 5, 13),))
    from_quarantine = ReplayPlan(2, 7, quarantined=((1, Range(0, 5, 12)),), newest_id=9, left_out={"gone": 2})
    assert [ReplayPlan.from_json(json.loads(json.dumps(plan.as_json()))) for plan in (ranges, from_quarantine)] == [
        ranges,
        from_quarantine,
    ]


def test_records_of_the_quarantine_are_cut_into_batches_that_fit() -> None:
    """By topic generation and partition, at most so many records and bytes: one too large for any goes alone."""
    big = 40_000
    records = [
        *(quarantined(offset, generation=1) for offset in (1, 5, 6, 9)),
        *(quarantined(offset, size=big) for offset in (2, 3)),
        quarantined(4, size=100_000),
        quarantined(8),
        quarantined(0, partition=1),
    ]
    assert list(cut_quarantine(records, SOURCE)) == [
        (1, Range(0, 1, 7)), (1, Range(0, 9, 10)), (2, Range(0, 2, 3)), (2, Range(0, 3, 4)), (2, Range(0, 4, 5)),
        (2, Range(0, 8, 9)), (2, Range(1, 0, 1)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (quarantined(1), None),
        (quarantined(1, cut=True), None),
        (quarantined(1, size=501), "still over source.max_record_bytes"),
        (quarantined(1, generation=1), None),
        (quarantined(1, generation=1, cut=True), "the topic was recreated, and not all of its bytes were kept"),
        (quarantined(1, generation=1, record_at=None), "the topic was recreated, and not all of its bytes were kept"),
        (
            quarantined(1, generation=1, size=None),
            "the topic was recreated, and an old tombstone must not delete newer rows",
        ),
    ],
)
def test_what_cannot_be_replayed_from_the_quarantine(record: QuarantinedRecord, reason: str | None) -> None:
    """What was cut is read from Kafka again, as long as that is still the same topic."""
    assert why_not_replayable(record, SOURCE, 2) == reason


def test_gaps_are_distinguished_from_records() -> None:
    """At the beginning, between, at the end, and all of a range; another partition has none."""
    gaps = Gaps()
    gaps.add(Range(0, 10, 20), np.array([12, 13, 16, 18]))
    gaps.add(Range(0, 30, 32), np.array([], np.int64))
    assert [offset for offset in range(9, 35) if gaps.has(0, offset)] == [10, 11, 14, 15, 17, 19, 30, 31]
    assert not gaps.has(1, 10)


def test_the_command_takes_one_way_of_asking() -> None:
    """Options of two kinds, or of none, are refused; a reason or an id means the quarantine."""
    assert request_of({"offsets": "0:0-1"}, (), from_quarantine=False, dry_run=True) == ReplayRequest(
        "offsets", offsets="0:0-1", dry_run=True
    )
    assert request_of({"reason": "x"}, (), from_quarantine=False, dry_run=False) == ReplayRequest(
        "quarantine", reason="x"
    )
    assert request_of({}, (3,), from_quarantine=False, dry_run=False).ids == (3,)
    for given, ids in [({}, ()), ({"until": "2026-01-01"}, ()), ({"offsets": "0:0-1"}, (3,))]:
        with pytest.raises(SpecError, match="TM-CLI-REPLAY-SOURCE"):
            request_of(given, ids, from_quarantine=False, dry_run=False)


@pytest.mark.parametrize(
    ("state", "result", "lines"),
    [
        ("failed", None, ["replay 3 of tides, requested by harbour: failed: no broker answers"]),
        ("running", None, ["replay 3 of tides, requested by harbour: running, 1,500 records read so far"]),
        (
            "done",
            {
                **dict.fromkeys(COUNTED, 1),
                "records": 2_000,
                "retracted": 4,
                "left_out": {"gone": 2},
                "warnings": {"tall": 7},
            },
            [
                "replay 3 of tides, requested by harbour: done, 2,000 records read: 1 written, 1 duplicate, 1 stale,"
                " 1 filtered, 1 quarantined",
                "rows of older pipeline versions removed: 4",
                "records that do not meet check tall: 7",
                "records left out, gone: 2",
                "dry run: these are the changes that the replay would make; nothing was changed",
            ],
        ),
    ],
)
def test_a_replay_is_described_in_lines(state: str, result: dict[str, object] | None, lines: list[str]) -> None:
    """How far it is, why it failed, or what came of it."""
    selection = {"requested": {"dry_run": True}, **({"result": result} if result else {})}
    now = datetime(2026, 1, 1)
    row = Replay(3, "tides", 2, selection, "harbour", state, 1_500, 4, "no broker answers", now, None)
    assert describe(row) == lines
