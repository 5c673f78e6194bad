"""Records read again beside the stream: corrected, counted, exactly once, from Kafka and from the quarantine."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyspark.sql import SparkSession

from support.replays import Course, apply_retention, make_course, record, send
from tidemill.cli.quarantine import list_records, show_record
from tidemill.config import Account, Settings
from tidemill.devstack.stack import Stack
from tidemill.errors import Fenced, SpecError
from tidemill.kafka import clients
from tidemill.kafka.clients import admin
from tidemill.kafka.topics import topic_id
from tidemill.replay.request import ReplayRequest
from tidemill.store.connection import session
from tidemill.store.control import leases, replays
from tidemill.store.control.quarantine import QuarantineFilter
from tidemill.store.sql.identifiers import NO_PARTITION
from tidemill.stream import task

EVERYTHING = ReplayRequest("time", since="earliest")


@pytest.fixture(scope="module")
def spark(stack: Stack, mariadb: Settings, local_spark: SparkSession) -> SparkSession:
    """A session of the lane's Spark with the Kafka connector."""
    return local_spark.newSession()


@pytest.fixture
def course(stack: Stack, spark: SparkSession, tmp_path: Path) -> Course:
    """A stream at its first version, with 160 records read."""
    found = make_course(stack.settings, spark, tmp_path)
    send(stack.settings, found.topic, 160, seed=1)
    found.declare(1)
    found.load()
    return found


def test_a_fixed_transform_replayed_over_history_makes_what_a_fresh_stream_makes(course: Course) -> None:
    """Changed values, keys and versions, records newly filtered, kept, refused and accepted, beside the live stream.

    A dry run before it reports what would change, and changes nothing. The same replay again changes nothing.
    """
    course.declare(2)
    before = course.content()
    dry = course.replay(ReplayRequest("time", since="earliest", dry_run=True))
    assert course.content() == before
    assert course.query(f"SELECT COUNT(*) FROM commits WHERE stream = '{course.name}' AND replay_id > 0") == [(0,)]
    with ThreadPoolExecutor(1) as beside:
        replay_id = course.request_replay(EVERYTHING)
        send(course.settings, course.topic, 80, seed=2)
        live = beside.submit(lambda: course.load(course.spark.newSession(), step=15))
        done = course.run(replay_id)
        live.result()
    assert done["passes"] == 2
    assert done["restored"] > 0
    assert dry["retracted"] >= done["retracted"] > 10
    same = ("records", "filtered", "quarantined", "gap", "unselected")
    assert {name: dry[name] for name in same} == {name: done[name] for name in same}
    fresh = make_course(course.settings, course.spark, course.folder.parent, course.topic)
    fresh.declare(2)
    fresh.load()
    assert differences(course, fresh) == []
    assert course.verify() == []
    row = course.row(replay_id)
    assert (row.state, row.retracted_rows) == ("done", done["retracted"])
    after = course.content()
    again = course.replay(EVERYTHING)
    assert (again["written"], again["retracted"], again["passes"]) == (0, 0, 1)
    assert course.content() == after
    assert course.verify() == []


def differences(one: Course, other: Course) -> list[str]:
    """What two streams of the same records do not have in common."""
    ours, theirs = one.content(), other.content()
    return [f"{what}: {row}" for what in ours for row in {*ours[what]} ^ {*theirs[what]}]


def test_a_window_of_time_is_what_kafka_got_in_it(stack: Stack, spark: SparkSession, tmp_path: Path) -> None:
    """From the first record of that moment or later up to the first of the other: partition by partition."""
    found, chance = make_course(stack.settings, spark, tmp_path), random.Random(9)
    producer = clients.producer(stack.settings)
    noon = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)
    for number in range(40):  # ten a quarter of an hour, by turns in both partitions
        moment = noon + timedelta(minutes=15 * (number // 10))
        code = f"c{number}"
        value = record(chance, number, code, flag="")
        producer.produce(found.topic, value, code, number % 2, timestamp=int(moment.timestamp() * 1000))
    assert producer.flush(60) == 0
    found.declare(1)
    found.load()
    begin, end = (noon + timedelta(minutes=minutes) for minutes in (15, 45))
    replay_id = found.request_replay(ReplayRequest("time", since=f"{begin:%Y-%m-%dT%H:%M:%S}", until=end.isoformat()))
    assert found.run(replay_id)["records"] == 20
    assert found.query(
        f"SELECT partition_id, from_offset, until_offset FROM commits WHERE replay_id = {replay_id}"
        " AND until_offset > from_offset ORDER BY partition_id"
    ) == [(0, 5, 15), (1, 5, 15)]


@pytest.mark.parametrize(("bound", "limit"), [("maxRecordsPerBatch", 9), ("maxBytesPerBatch", 1_000)])
def test_a_task_commits_in_pieces(course: Course, bound: str, limit: int) -> None:
    """Spark cuts what a task holds by rows or by bytes. Each piece is one transaction; together they are the whole."""
    own = course.spark.newSession()
    own.conf.set(f"spark.sql.execution.arrow.{bound}", str(limit))
    cut = make_course(course.settings, own, course.folder.parent, course.topic)
    cut.declare(1)
    cut.load()
    assert differences(course, cut) == []
    assert cut.verify() == []
    found = pieces(cut)
    for one, other in pairwise(found):
        assert other[1] == (one[2] if other[0] == one[0] else 0), "no offset is in two of them, or in none"
    assert len(found) > 10
    assert max(records for *_, records in found) <= (9 if bound == "maxRecordsPerBatch" else 15)


def test_a_task_that_broke_between_two_pieces_goes_on_with_the_next(course: Course) -> None:
    """What it had committed stays and is counted once; the repeated task reads all of its records again."""
    again = make_course(course.settings, course.spark, course.folder.parent, course.topic)
    again.declare(1)
    found = again.next_batch(again.spark, course.positions())
    assert found is not None
    rows, job = found
    everything, counted = rows.toArrow(), []
    for partition, span in job.ranges.items():
        mine = everything.filter(pc.equal(everything["_partition"], partition)).to_batches(max_chunksize=9)

        def broken(batches: list[pa.RecordBatch] = mine) -> Iterator[pa.RecordBatch]:
            yield from batches[:4]
            raise Crash

        with pytest.raises(Crash):
            task._commit_all(broken(), job)
        # The fourth was held back: only its successor shows where it ends.
        assert len([1 for piece in pieces(again) if piece[0] == partition]) == 3
        assert span.start < again.positions()[partition] < span.until
        whole, outcome = task._commit_all(mine, job)
        assert whole == span
        assert outcome is not None
        counts = outcome.counts
        counted.append(
            counts.written + counts.stale + counts.duplicate + counts.filtered + counts.quarantined + counts.gap
        )
        assert again.positions()[partition] == span.until
    assert counted == [span.until - span.start for span in job.ranges.values()]
    assert differences(course, again) == []
    assert again.verify() == []


def pieces(course: Course) -> list[tuple[int, int, int, int]]:
    """Partition, begin and end of each commit, and how many records it is of, in order."""
    found = course.query(
        "SELECT partition_id, from_offset, until_offset, until_offset - from_offset - gap_rows FROM commits"
        f" WHERE stream = '{course.name}' AND until_offset > from_offset ORDER BY partition_id, from_offset"
    )
    return [(int(partition), int(start), int(until), int(records)) for partition, start, until, records in found]


class Crash(BaseException):
    """The end of a job, as by SIGKILL: it reports nothing."""


def test_a_replay_that_broke_goes_on_after_its_last_commit(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ranges are the same, each is committed once, and the ledger counts each record once."""
    course.declare(2)
    replay_id = course.request_replay(ReplayRequest("offsets", offsets="0:0-70, 1:10-9999"))

    def crash(*arguments: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(replays, "progress", crash)
        with pytest.raises(Crash):
            course.run(replay_id)
    assert course.row(replay_id).state == "running"
    done = course.run(replay_id)
    assert course.run(replay_id) == done
    commits = course.query(
        "SELECT batch_id, partition_id, from_offset, until_offset FROM commits"
        f" WHERE replay_id = {replay_id} ORDER BY partition_id, from_offset, batch_id"
    )
    end = course.positions()[1]
    slices = -(-max(70, end - 10) // 60)
    first = [commit[1:] for commit in commits if commit[0] < slices]
    assert [span for span in first if span[0] == 0] == [(0, 0, 60), (0, 60, 70)]
    assert [span for span in first if span[0] == 1] == [(1, at, min(at + 60, end)) for at in range(10, end, 60)]
    assert done["records"] + done["gap"] == 70 + end - 10
    assert course.verify() == []


def test_records_of_the_quarantine_become_rows_once_they_can(course: Course) -> None:
    """By id, by reason, all: from the bytes that were kept, or from Kafka where they were cut; the rest stays."""
    chance = random.Random(3)
    producer = clients.producer(course.settings)
    headers = [("trace", b"\xff7"), ("empty", None)]
    big = record(chance, 7_000_001, "big", flag="", note="é" * 100_000)
    producer.produce(course.topic, big, "big", 0, headers=headers)
    producer.produce(course.topic, b"{", "torn", 1)
    assert producer.flush(60) == 0
    course.load()
    unresolved = f"SELECT id FROM quarantine WHERE resolved_commit IS NULL AND stream = '{course.name}' AND "
    ((large,),) = course.query(unresolved + "value_bytes > LENGTH(record_value)")
    poor = [number for (number,) in course.query(unresolved + "reason = 'column points is NULL' ORDER BY id")]
    assert len(poor) > 5
    course.declare(2)
    one = course.replay(ReplayRequest("quarantine", ids=(large,)))
    assert (one["records"], one["written"]) == (1, 1)
    assert course.query("SELECT code, _pipeline_version FROM {}_all WHERE id = 7000001") == [("big", course.version)]
    before = course.content()
    dry = course.replay(ReplayRequest("quarantine", reason="points is", dry_run=True))
    assert course.content() == before
    assert dry["records"] == len(poor)
    done = course.replay(ReplayRequest("quarantine", reason="points is"))
    assert done["records"] == len(poor)
    assert done["written"] + done["stale"] + done["duplicate"] == len(poor)
    assert done["unselected"] > 0
    rest = course.query(unresolved + "TRUE")
    again = course.replay(ReplayRequest("quarantine"))
    assert (again["records"], again["quarantined"], again["written"]) == (len(rest), len(rest), 0)
    assert course.query(unresolved + "TRUE") == rest
    assert course.verify() == []
    with pytest.raises(SpecError, match="no such unresolved record: " + str(large)):
        course.request_replay(ReplayRequest("quarantine", ids=(large,)))


def test_a_record_of_a_recreated_topic_is_not_taken_for_a_new_one(course: Course) -> None:
    """It is processed under its own generation: no row of the same coordinates counts as its older self."""
    with session(course.settings, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT MAX(id) FROM commits WHERE stream = %s", (course.name,))
        ((newest,),) = cursor.fetchall()
        cursor.execute(
            "INSERT INTO topics (stream, topic, topic_id, generation, since_commit) SELECT stream, topic, %s, 2, 0 FROM"
            " commits WHERE id = %s",
            (_topic_id(course), newest),
        )
        cursor.execute("UPDATE commits SET generation = 2 WHERE stream = %s", (course.name,))
    (poor, partition, offset), *_ = course.query(
        f"SELECT id, partition_id, record_offset FROM quarantine WHERE stream = '{course.name}'"
        " AND reason = 'column points is NULL' ORDER BY id"
    )
    (code, number, _, _), *_ = course.query(
        f"SELECT code, id, _offset, seen FROM {{}}_latest WHERE _partition = {partition} ORDER BY seen DESC"
    )
    with session(course.settings, Account.STREAM) as connection, connection.cursor() as cursor:
        # A newer row has the coordinates of the old record, and is of another one.
        cursor.execute(
            f"UPDATE {course.settings.db_data}.{course.name}_latest SET _offset = %s WHERE code = %s", (offset, code)
        )
        value = record(random.Random(1), 5, code, flag="", seen="2020-01-01T00:00:00Z").decode()
        cursor.execute(
            "UPDATE quarantine SET record_value = %s, value_bytes = %s WHERE id = %s", (value, len(value), poor)
        )
    course.declare(2)
    done = course.replay(ReplayRequest("quarantine", ids=(poor,)))
    assert done["records"] == 1
    assert course.query(f"SELECT id FROM {{}}_latest WHERE code = '{code}'") == [(number,)]
    assert course.query("SELECT _partition FROM {}_all WHERE id = 5") == [(NO_PARTITION,)]
    assert course.query(f"SELECT generation FROM commits WHERE replay_id > 0 AND stream = '{course.name}'") == [(1,)]


def _topic_id(course: Course) -> str:
    return topic_id(admin(course.settings), course.topic)


@pytest.mark.parametrize(
    ("request_", "code", "value"),
    [
        (ReplayRequest("offsets", offsets="0:5-20"), "TM-REPLAY-OFFSETS-REMOVED", "0:5-20"),
        (ReplayRequest("offsets", offsets="7:5-20"), "TM-REPLAY-PARTITION-UNKNOWN", 7),
        (ReplayRequest("offsets", offsets="1:99999-100000"), "TM-REPLAY-OFFSETS-AHEAD", "1:99999-100000"),
        (ReplayRequest("time", since="2999-01-01"), "TM-REPLAY-NOTHING-READ", "from 2999-01-01"),
        (ReplayRequest("quarantine", reason="no record has it"), "TM-REPLAY-QUARANTINE-EMPTY", None),
    ],
    ids=lambda value: value.kind if isinstance(value, ReplayRequest) else "",
)
def test_what_cannot_be_replayed_is_refused_with_the_reason(
    refusing: Course, request_: ReplayRequest, code: str, value: object
) -> None:
    """Nothing is written to the control plane."""
    with pytest.raises(SpecError) as raised:
        refusing.request_replay(request_)
    assert raised.value.code == code
    assert value is None or raised.value.value == value
    assert refusing.query(f"SELECT COUNT(*) FROM replays WHERE stream = '{refusing.name}'") == [(0,)]


@pytest.fixture(scope="module")
def refusing(stack: Stack, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A stream of whose first partition Kafka has removed the beginning."""
    found = make_course(stack.settings, spark, tmp_path_factory.mktemp("refusing"))
    send(stack.settings, found.topic, 80, seed=4)
    found.declare(1)
    found.load()
    apply_retention(stack.settings, found.topic, {0: 10})
    return found


def test_a_topic_recreated_since_a_replay_was_requested_is_not_read(refusing: Course) -> None:
    """Whether a driver has gone on to it or not, and however often the replay is tried."""
    with session(refusing.settings, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO topics VALUES (%s, %s, %s, 1, 0)", (refusing.name, refusing.topic, "formerly"))
        known = f"UPDATE topics SET topic_id = %s, generation = %s WHERE stream = '{refusing.name}'"
        cursor.execute(known, (_topic_id(refusing), 1))
        replay_id = refusing.request_replay(EVERYTHING)
        for of_topic, generation in (("formerly", 1), (_topic_id(refusing), 2)):
            cursor.execute(known, (of_topic, generation))
            with pytest.raises(Fenced) as raised:
                refusing.run(replay_id)
            assert raised.value.code == "TM-STORE-TOPIC-RECREATED"
        cursor.execute("DELETE FROM topics WHERE stream = %s", (refusing.name,))
    row = refusing.row(replay_id)
    assert (row.state, row.records) == ("failed", 0)


def test_an_outdated_version_replays_nothing(refusing: Course) -> None:
    """Neither is it taken on, nor does it go on when a newer driver came meanwhile."""
    replay_id = refusing.request_replay(EVERYTHING)
    with session(refusing.settings, Account.STREAM) as connection:
        leases.acquire_lease(connection, refusing.name, refusing.version + 1, "a test")
    with pytest.raises(Fenced, match="TM-STORE-NEWER-VERSION"):
        refusing.request_replay(EVERYTHING)
    with pytest.raises(Fenced, match="TM-STORE-NEWER-VERSION"):
        refusing.run(replay_id)
    row = refusing.row(replay_id)
    assert (row.state, row.records) == ("failed", 0)
    assert "TM-STORE-NEWER-VERSION" in (row.last_error or "")


def test_the_command_submits_a_job_and_prints_its_result(course: Course) -> None:
    """As sentences or as JSON; nonsense is one sentence and exit code 2."""
    settings = course.settings.model_copy(update={"pipelines": course.folder.parent})

    def tidemill(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "tidemill", *arguments]
        environment = os.environ | settings.environment()
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)

    refused = tidemill("replay", course.name, "--offsets", "0-5")
    assert refused.returncode == 2
    assert refused.stderr.startswith("tidemill: [TM-REPLAY-OFFSETS-SYNTAX] these offsets are not understood: 0-5; ")
    course.declare(2)
    done = tidemill("replay", course.name, "--quarantine", "--reason", "points is NULL", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["state"] == "done"
    assert facts["selection"]["result"]["written"] > 0
    assert course.verify() == []


def test_the_quarantine_can_be_looked_at(course: Course) -> None:
    """By reason, without what is resolved unless it is asked for, and one record with its bytes."""
    bad = QuarantineFilter("COLUMN points")
    facts, lines = list_records(course.settings, course.name, bad, 1000)
    assert {fact["reason"] for fact in facts} == {"column points is NULL"}
    assert lines[0].startswith(f"{facts[0]['id']}: {course.topic}/")
    assert " bytes: column points is NULL" in lines[0]
    one, lines = show_record(course.settings, course.name, facts[0]["id"])
    assert json.loads(one["value"])["flag"] == "poor"
    assert lines[0].startswith("key: c")
    with session(course.settings, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE quarantine SET resolved_commit = 1 WHERE id = %s", (facts[0]["id"],))
    assert len(list_records(course.settings, course.name, bad, 1000)[0]) == len(facts) - 1
    everything = QuarantineFilter("COLUMN points", resolved=True)
    assert len(list_records(course.settings, course.name, everything, 1000)[0]) == len(facts)
    with pytest.raises(SpecError, match="TM-CLI-RECORD-UNKNOWN"):
        show_record(course.settings, course.name, 0)
