"""The feed's sequence: what is played, in which order, and what chaos does to it."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from support import expected
from support.paths import ROOT
from tidemill.demo.chaos import MALFORMED, Chaos, FaultKind
from tidemill.demo.feed import Clock, Feed, FeedOptions
from tidemill.demo.flights import STATUSES, FlightRecords, arrange, read_flights
from tidemill.demo.sequence import Message
from tidemill.errors import ConfigError, SetupError

pytestmark = pytest.mark.unit

PIPELINE = ROOT / "pipelines" / "flights" / "pipeline.yaml"
TROUBLE = Chaos(duplicates=0.2, disorder=50, malformed=0.1)


@pytest.fixture(scope="module")
def records() -> FlightRecords:
    """All records of all flights."""
    return read_flights()


@pytest.fixture(scope="module")
def troubled() -> Feed:
    """A small feed with every kind of chaos."""
    return Feed(FeedOptions(limit=2000, chaos=TROUBLE), partitions=3)


def everything(feed: Feed) -> list[Message]:
    return list(feed.messages(feed.remaining([0] * feed.partitions)))


def schema_fields() -> list[str]:
    schema = yaml.safe_load(PIPELINE.read_text())["source"]["schema"]
    return [column.split()[0] for column in schema.split(",")]


def test_records_come_in_event_time_order(records: FlightRecords) -> None:
    """Records are ordered by updated_at, then id, then stage; ids and stages make no two records equal."""
    order = np.stack([records.updated_at, records.flight, records.stage], axis=1)
    before, after = order[:-1], order[1:]
    decisive = np.argmax(before != after, axis=1)
    rows = np.arange(len(before))
    assert (before[rows, decisive] < after[rows, decisive]).all()


def test_versions_of_a_flight_rise(records: FlightRecords) -> None:
    """Within a flight updated_at rises strictly, with the stages."""
    order = np.lexsort((records.updated_at, records.flight))
    same = np.diff(records.flight[order]) == 0
    assert (np.diff(records.updated_at[order])[same] > 0).all()
    assert (np.diff(records.stage[order])[same] > 0).all()


@pytest.mark.parametrize("limit", [1, 1000, None])
def test_every_status_is_told_as_often_as_it_happened(limit: int | None) -> None:
    """The records per status are those that an independent count of the data finds."""
    found = read_flights(limit)
    counts = {status: int((found.stage == stage).sum()) for stage, status in enumerate(STATUSES)}
    assert counts | {"total": len(found)} == expected.record_counts(limit)


def test_last_records_are_the_final_flights(records: FlightRecords) -> None:
    """The newest record of a flight says exactly what the data says of it, seen for one flight in sixteen."""
    chosen = np.flatnonzero(records.flight % 16 == 3)
    newest: dict[bytes, bytes] = dict(zip(records.keys(chosen), records.values(chosen), strict=True))
    told = pd.DataFrame([json.loads(value) for value in newest.values()], columns=schema_fields(), dtype=object)
    for name in ("scheduled_at", "departed_at", "arrived_at", "updated_at"):
        told[name] = pd.Series(
            [None if pd.isna(text) else datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ") for text in told[name]],
            dtype=object,
        )
    truth = expected.final_flights()
    truth = truth[truth["id"] % 16 == 4][schema_fields()]
    assert expected.differences(truth, told, ["id"]) == []


def test_records_have_the_fields_of_the_schema(records: FlightRecords) -> None:
    """A record is a JSON object with fields of the pipeline's schema in its order; what is not known is left out."""
    some = np.arange(0, len(records), 1000)
    fields, seen = schema_fields(), set()
    for value, stage in zip(records.values(some), records.stage[some], strict=True):
        names = list(json.loads(value))
        assert names == [name for name in fields if name in names]
        assert ("arrived_at" in names) == (STATUSES[stage] == "arrived")
        assert ("departed_at" in names) == (STATUSES[stage] not in ("scheduled", "cancelled"))
        seen |= set(names)
    assert seen == set(fields)


def test_same_options_play_the_same() -> None:
    """Two feeds of the same options are equal byte for byte."""
    options = FeedOptions(limit=300, seed=7, chaos=TROUBLE)
    assert everything(Feed(options, 4)) == everything(Feed(options, 4))


def test_another_seed_makes_other_trouble_of_the_same_records() -> None:
    """The seed changes the chaos and never the true records."""
    one, other = (Feed(FeedOptions(limit=300, seed=seed, chaos=TROUBLE), 4) for seed in (1, 2))
    assert everything(one) != everything(other)
    for feed in (one, other):
        true = feed.sequence.record[feed.sequence.kind == FaultKind.TRUE]
        assert sorted(true) == list(range(len(feed.records)))


def test_key_decides_the_partition(troubled: Feed) -> None:
    """Every message, malformed or not, is keyed by its id and lies in partition id modulo partitions."""
    offsets: Counter[int] = Counter()
    for key, _, partition, position in everything(troubled):
        assert partition == int(key) % 3
        assert position == offsets[partition]
        offsets[partition] += 1


@settings(deadline=None, max_examples=30)
@given(shares=st.tuples(*[st.floats(0, 1)] * 3))
def test_remaining_continues_every_partition(troubled: Feed, shares: tuple[float, ...]) -> None:
    """Wherever each partition was cut off, what remains is the rest of it: nothing twice, nothing left out."""
    whole = everything(troubled)
    lengths = Counter(partition for _, _, partition, _ in whole)
    ends = [int(share * lengths[partition]) for partition, share in enumerate(shares)]
    rest = list(troubled.messages(troubled.remaining(ends)))
    for partition, end in enumerate(ends):
        in_partition = [message for message in whole if message[2] == partition]
        assert [message for message in rest if message[2] == partition] == in_partition[end:]


def test_chaos_adds_at_its_rates_and_takes_nothing(troubled: Feed) -> None:
    """True records come once each; duplicates and malformed records are extra, at the rates asked for."""
    count, kinds = len(troubled.records), Counter(troubled.sequence.kind.tolist())
    assert kinds[FaultKind.TRUE] == count
    assert kinds[FaultKind.DUPLICATE] == pytest.approx(count * TROUBLE.duplicates, rel=0.1)
    malformed = [kinds[kind] for kind in MALFORMED]
    assert sum(malformed) == pytest.approx(count * TROUBLE.malformed, rel=0.15)
    assert min(malformed) > 0.5 * max(malformed)


def test_duplicates_are_the_same_bytes(troubled: Feed) -> None:
    """A duplicate cannot be told from its record."""
    true: dict[int, bytes] = {}
    again: dict[int, bytes] = {}
    entries = zip(troubled.sequence.record, troubled.sequence.kind, everything(troubled), strict=True)
    for record, kind, (_, value, _, _) in entries:
        if kind in (FaultKind.TRUE, FaultKind.DUPLICATE):
            (true if kind == FaultKind.TRUE else again)[record] = value
    assert again
    assert all(true[record] == value for record, value in again.items())


def test_disorder_stays_within_its_window() -> None:
    """A record moves, and by less than the window."""
    feed = Feed(FeedOptions(limit=2000, chaos=Chaos(disorder=50)), 1)
    moved = np.abs(feed.sequence.record - np.arange(len(feed)))
    assert 0 < moved.max() < 50


def test_malformed_records_are_not_records(troubled: Feed) -> None:
    """No malformed record reads as an object whose id and distance are numbers."""
    entries = np.flatnonzero(troubled.sequence.kind > FaultKind.DUPLICATE)
    for _, value, _, _ in troubled.messages(entries):
        try:
            found: dict[str, Any] = json.loads(value.decode("utf-8"))
        except ValueError:
            continue
        assert not (isinstance(found["id"], int) and isinstance(found["distance"], int))


def test_chaos_is_written_as_it_is_read() -> None:
    """What chaos prints is what it parses, and no text is no chaos."""
    chaos = Chaos.parse("malformed=0.01, duplicates=0.1,disorder=500")
    assert chaos == Chaos(duplicates=0.1, disorder=500, malformed=0.01)
    assert Chaos.parse(str(chaos)) == chaos
    assert Chaos.parse("") == Chaos()


@pytest.mark.parametrize(
    "given_options",
    [
        {"chaos": "duplicate=0.1"},
        {"chaos": "duplicates=0.1,duplicates=0.2"},
        {"chaos": "duplicates"},
        {"chaos": "duplicates=1.5"},
        {"chaos": "malformed=-0.1"},
        {"chaos": "malformed=nan"},
        {"chaos": "disorder=0.5"},
        {"chaos": "disorder=-1"},
        {"speed": "fast"},
        {"speed": "0"},
        {"speed": "inf"},
        {"limit": 0},
        {"seed": -1},
    ],
)
def test_wrong_options_are_refused(given_options: dict[str, Any]) -> None:
    """An option that cannot be meant is a configuration error with a remedy."""
    with pytest.raises(ConfigError) as caught:
        FeedOptions.parse(**given_options)
    assert caught.value.remedy


def test_speed_paces_event_time() -> None:
    """At speed 600 an hour of events takes six seconds: nothing is early, and nothing waits longer than it must."""
    passed = [1000.0]
    clock = Clock(now=lambda: passed[0], sleep=lambda seconds: passed.append(passed.pop() + seconds))
    feed = Feed(FeedOptions(limit=500, speed=600.0, chaos=TROUBLE), 2)
    entries = feed.remaining([10, 20])
    played = []
    for chunk in feed.chunks(entries, clock):
        played += chunk.tolist()
        due_seconds = (feed.due[chunk] - feed.due[entries[0]]) / 600
        assert ((passed[0] - 1000 - due_seconds) >= -1e-6).all()
        assert ((passed[0] - 1000 - due_seconds) < 2e-3).all()
    assert played == entries.tolist()


def test_max_speed_never_waits() -> None:
    """Without a speed all entries come in order, and the clock is not asked to sleep."""
    feed = Feed(FeedOptions(limit=10_000), 2)
    entries = feed.remaining([0, 0])
    clock = Clock(sleep=lambda _: pytest.fail("it waits"))
    chunks = list(feed.chunks(entries, clock))
    assert len(chunks) > 1
    assert np.concatenate(chunks).tolist() == entries.tolist()
    assert list(feed.chunks(entries[:0], clock)) == []


@pytest.mark.parametrize(("column", "value"), [("air_time", None), ("dep_delay", None), ("dep_delay", -721)])
def test_unknown_data_is_refused(column: str, value: int | None) -> None:
    """Data with arrivals out of nowhere, or with versions that would not rise, does not become a feed."""
    row: dict[str, Any] = {
        "time_hour": datetime(2013, 1, 1, 10),
        "minute": 15,
        "dep_delay": 2,
        "arr_delay": 11,
        "air_time": 227,
        "flight": 1545,
        "distance": 1400,
        "carrier": "UA",
        "tailnum": "N14228",
        "origin": "EWR",
        "dest": "IAH",
    }
    schema = pa.schema(
        [(name, pa.int64() if isinstance(text, int) else pa.string()) for name, text in row.items()]
    ).set(0, pa.field("time_hour", pa.timestamp("s")))
    assert len(arrange(pa.Table.from_pylist([row], schema))) == 3
    with pytest.raises(SetupError):
        arrange(pa.Table.from_pylist([row | {column: value}], schema))
