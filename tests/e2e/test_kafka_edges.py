"""What may happen in Kafka: new partitions, retention, aborted transactions, restarts, a recreated topic."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_END
from pyspark.sql import SparkSession

from support.edges import SECONDS, Edge, compacting, find, readable, recreate, send, transactional
from tidemill.config import Account, Settings
from tidemill.devstack.stack import Stack
from tidemill.errors import Fenced, StreamError
from tidemill.kafka import clients
from tidemill.store.connection import session
from tidemill.store.control import leases, ledger
from tidemill.store.migrations import migrate_control
from tidemill.store.write.context import WriteContext
from tidemill.stream import heartbeat, kafka_probe
from tidemill.stream.start_offsets import find_start
from tidemill.testing import wait_until

_number = itertools.count(1)


@pytest.fixture(scope="module")
def spark(local_spark: SparkSession) -> SparkSession:
    """The lane's Spark."""
    return local_spark


@pytest.fixture
def edge(
    mariadb: Settings, kafka: Settings, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Edge]]:
    """Makes streams with a topic of so many partitions and these keys of ``source``."""
    monkeypatch.setattr(heartbeat, "INTERVAL_SECONDS", 0.2)
    monkeypatch.setattr(kafka_probe, "INTERVAL_SECONDS", 0.2)
    made: list[Edge] = []
    with session(mariadb, Account.MIGRATE) as connection:
        migrate_control(connection, mariadb.root / "sql")

    def make(partitions: int = 1, kind: str = "event", **source: Any) -> Edge:
        folder = tmp_path / f"edge{next(_number)}"
        folder.mkdir()
        edge = Edge(kafka, spark, clients.admin(kafka), folder, kind)
        edge.declare(**source)
        edge.create(partitions)
        made.append(edge)
        return edge

    yield make
    for each in made:
        each.stop()


Make = Callable[..., Edge]


def test_partitions_that_are_added_while_the_stream_runs_are_read_from_their_beginning(edge: Make) -> None:
    """The running driver finds them by itself, although the stream begins at the end of its topic."""
    stream = edge(partitions=1, start="latest")
    stream.start()
    wait_until(lambda: stream.positions() == {0: 0}, SECONDS, "first position")
    stream.send(range(10))
    stream.wait_drained()
    stream.grow(3)
    stream.send(range(10, 20), partition=1)
    stream.send(range(20, 25), partition=2)
    stream.wait_drained()
    stream.assert_exact(range(25))
    assert stream.positions() == {0: 10, 1: 10, 2: 5}


def test_a_partition_that_came_and_was_cut_while_the_stream_was_stopped_has_lost_records(edge: Make) -> None:
    """All that it ever held counts, from offset 0: what retention took of it is named, and not passed over."""
    stream = edge(partitions=1)
    stream.start()
    stream.send(range(3))
    stream.wait_drained()
    stream.stop()
    stream.grow(2)
    stream.send(range(10, 16), partition=1)
    stream.apply_retention({1: 4})
    assert stream.start().error().value == "partition 1: 0–4 (4)"


def test_retention_that_overtook_the_stream_ends_it_or_is_counted(edge: Make) -> None:
    """``fail`` moves nothing; ``skip`` counts exactly the lost ranges. Both open an incident that names them."""
    stream = edge(partitions=2)
    stream.start()
    stream.send(range(5), partition=0)
    stream.send(range(5, 10), partition=1)
    stream.wait_drained()
    stream.stop()
    stream.send(range(10, 30), partition=0)
    stream.send(range(30, 40), partition=1)
    stream.apply_retention({0: 12, 1: OFFSET_END})
    lost = "partition 0: 5–12 (7), partition 1: 5–15 (10)"

    error = stream.start().error()
    assert isinstance(error, StreamError)
    assert (error.code, error.value, error.parameters["offsets"]) == ("TM-STREAM-OFFSETS-LOST", lost, 17)
    assert stream.positions() == {0: 5, 1: 5}
    assert stream.incidents("data-loss") == [str(error)]
    assert stream.query(f"SELECT state, last_error FROM heartbeats WHERE stream = '{stream.name}'") == [
        ("failed", str(error))
    ]

    stream.declare(on_data_loss="skip")
    stream.start()
    stream.wait_drained()
    stream.send([50], partition=1)
    stream.wait_drained()
    stream.stop()
    stream.assert_exact([*range(10), *range(17, 30), 50])
    assert stream.total("lost_rows") == 17
    assert stream.total("until_offset - from_offset") == 25 + 16
    (sentence,) = stream.incidents("data-loss")
    assert lost in sentence
    assert "skipped" in sentence

    assert find(stream).positions == {0: 25, 1: 16}
    assert stream.incidents("data-loss") == []


def test_records_that_vanish_under_a_running_stream_are_named(edge: Make) -> None:
    """Spark ends the query; the driver's error names the ranges, and it moved no position."""
    stream = edge(partitions=1)
    run = stream.start()
    stream.send(range(5))
    stream.wait_drained()
    # A transaction that is open holds the stream back, as it does every reader of what is committed.
    producer = transactional(stream)
    producer.begin_transaction()
    send(producer, stream.name, range(5, 10))
    assert producer.flush(SECONDS) == 0
    stream.apply_retention({0: OFFSET_END})
    producer.commit_transaction(SECONDS)
    error = run.error()
    assert (error.code, error.value) == ("TM-STREAM-OFFSETS-LOST", "partition 0: 5–10 (5)")
    assert stream.positions() == {0: 5}
    assert stream.ids() == list(range(5))


def test_only_committed_transactions_are_read_and_the_rest_is_counted_as_gaps(edge: Make) -> None:
    """Records of an aborted transaction and the markers of both kinds are offsets that Kafka never delivers."""
    stream = edge(partitions=2)
    stream.start()
    producer = transactional(stream)
    producer.begin_transaction()
    send(producer, stream.name, range(10), partition=0)
    producer.commit_transaction(SECONDS)
    producer.begin_transaction()
    send(producer, stream.name, range(100, 104), partition=0)
    send(producer, stream.name, range(110, 113), partition=1)
    assert producer.flush(SECONDS) == 0
    producer.abort_transaction(SECONDS)
    producer.begin_transaction()
    send(producer, stream.name, range(10, 15), partition=0)
    producer.commit_transaction(SECONDS)
    stream.wait_drained()
    stream.assert_exact(range(15))
    # Partition 0: three markers and four aborted records. Partition 1 holds nothing else at all.
    assert stream.total("gap_rows") == 7 + 4
    assert stream.positions() == {0: 22, 1: 4}


def test_what_compaction_removed_is_counted_as_gaps(edge: Make) -> None:
    """Of many records of one key only the last few are left: the others are offsets that Kafka never delivers."""
    stream = edge(partitions=1)
    producer = clients.producer(stream.settings)
    numbers = itertools.count()

    def compacted() -> bool:
        # Kafka closes a segment when a record comes after its time, and compacts closed ones only.
        producer.produce(stream.name, json.dumps({"id": next(numbers)}).encode(), key=b"the same")
        assert producer.flush(SECONDS) == 0
        return readable(stream) < stream.ends()[0] / 2

    with compacting(stream):
        wait_until(compacted, SECONDS, "compaction")
    stream.start()
    stream.wait_drained()
    left = stream.ids()
    stream.assert_exact(left)
    end = stream.ends()[0]
    assert left[-1] == end - 1
    assert stream.total("gap_rows") == end - len(left) > end / 2


def test_a_recreated_topic_ends_the_stream_or_is_read_from_its_beginning(edge: Make) -> None:
    """``skip`` counts up the generation; what was read of the old topic stays, but its deletions hold no longer."""
    stream = edge(partitions=2, kind="entity", key="id BIGINT")
    stream.start()
    stream.send(range(10), partition=0)
    stream.send(range(10, 13), partition=1)
    stream.wait_drained()
    stream.delete(3, partition=0)
    stream.wait_drained()
    stream.stop()
    assert 3 not in stream.ids()
    before = find(stream)
    recreate(stream, partitions=1)
    stream.send([3, *range(100, 115)])

    error = stream.start().error()
    assert isinstance(error, StreamError)
    assert error.code == "TM-STREAM-TOPIC-RECREATED"
    assert stream.incidents("topic-recreated") == [str(error)]
    assert stream.positions() == {0: 11, 1: 3}

    stream.declare(on_data_loss="skip")
    stream.start()
    wait_until(lambda: stream.positions().keys() == {0}, SECONDS, "position of the partition that is no more gone")
    assert stream.query(f"SELECT id FROM _deleted_t_{stream.name}", stream.settings.db_data) == []
    stream.wait_drained()
    stream.stop()
    stream.assert_exact([*range(13), *range(100, 115)], gone=2)
    (sentence,) = stream.incidents("topic-recreated")
    assert "partition 0: 11, partition 1: 3" in sentence
    assert stream.query(
        f"SELECT generation, SUM(written_rows) FROM commits WHERE stream = '{stream.name}' GROUP BY generation"
    ) == [(1, 14), (2, 16)]

    after = find(stream)
    assert (before.generation, before.since_commit, after.generation) == (1, 0, 2)
    old = f"SELECT MAX(id) FROM commits WHERE stream = '{stream.name}' AND generation = 1"
    assert stream.query(old) == [(after.since_commit,)]
    assert after.topic_id != before.topic_id
    assert stream.incidents("topic-recreated") == []


def test_a_topic_that_is_recreated_under_a_running_stream_ends_it(edge: Make) -> None:
    """Spark may read on from the old position; the driver sees it, and the next one reads all of the new topic."""
    stream = edge(partitions=1)
    run = stream.start()
    stream.send(range(10))
    stream.wait_drained()
    recreate(stream, partitions=1)
    stream.send(range(100, 120))
    assert run.error().code == "TM-STREAM-TOPIC-RECREATED"

    stream.declare(on_data_loss="skip")
    stream.start()
    wait_until(lambda: stream.total("generation = 2") > 0, SECONDS, "the new topic read")
    stream.wait_drained()
    assert stream.ids() == [*range(10), *range(100, 120)]
    assert stream.differences() == []


def test_batches_that_take_too_long_become_smaller(edge: Make) -> None:
    """The driver goes on with another query, under the same epoch and from where it was; nothing comes twice."""
    stream = edge(partitions=2, max_records_per_batch=2000, target_batch_seconds=0.01)
    stream.send(range(6000), partition=0)
    stream.send(range(6000, 12000), partition=1)
    stream.start()
    stream.wait_drained()
    stream.assert_exact(range(12000))
    sizes = stream.query(
        "SELECT CAST(SUM(until_offset - from_offset) AS SIGNED) FROM commits"
        f" WHERE stream = '{stream.name}' GROUP BY epoch, batch_id ORDER BY batch_id"
    )
    # The first batch of a query does not count.
    assert [int(size) for (size,) in sizes] == [2000, 2000, *8 * [1000]]
    wait_until(
        lambda: (
            stream.query(
                f"SELECT batch_limit, lag_records, behind_seconds FROM heartbeats WHERE stream = '{stream.name}'"
            )
            == [(1000, 0, 0.0)]
        ),
        SECONDS,
        "heartbeat",
    )


def test_a_driver_that_lost_its_lease_skips_nothing(edge: Make) -> None:
    """What was lost is skipped in a transaction that checks the fencing token: position, ledger and incidents stay."""
    stream = edge(partitions=1, on_data_loss="skip")
    find(stream)
    stream.send(range(9))
    stream.apply_retention({0: 4})
    with session(stream.settings, Account.STREAM) as connection:
        leases.acquire_lease(connection, stream.name, stream.version, "another")
        late = WriteContext(stream.name, 1, stream.version, stream.name)
        with pytest.raises(Fenced):
            find_start(connection, stream.client, stream.settings, stream.pipeline, late)
    assert stream.positions() == {0: 0}
    assert stream.incidents("data-loss") == []
    assert find(stream).positions == {0: 4}
    assert stream.total("lost_rows") == 4


def test_a_topic_that_lost_its_end_ends_the_stream(edge: Make) -> None:
    """A position behind Kafka's end cannot be skipped: what comes there next would be taken for read."""
    stream = edge(partitions=1, on_data_loss="skip")
    stream.send(range(3))
    with session(stream.settings, Account.STREAM) as connection:
        ledger.begin_at(connection, stream.name, stream.name, {0: 8})
    with pytest.raises(StreamError) as raised:
        find(stream)
    assert (raised.value.code, raised.value.value) == ("TM-STREAM-TOPIC-TRUNCATED", "partition 0: 3–8 (5)")
    assert stream.incidents("data-loss") == [str(raised.value)]
    assert stream.positions() == {0: 8}


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(edge: Make, stack: Stack) -> None:
    """The query outlives it, and everything is in the table once."""
    stream = edge(partitions=2)
    stream.start()
    producer = clients.producer(stream.settings)
    broker = stack.children["kafka"]
    for number in range(2000):
        send(producer, stream.name, [number], partition=number % 2)
        producer.poll(0)
        if number == 500:
            wait_until(lambda: stream.total("written_rows") > 0, SECONDS, "some commits")
            assert broker.pid is not None
            os.kill(broker.pid, signal.SIGKILL)
            wait_until(lambda: broker.exit_code() is not None, SECONDS, "broker gone")
        if number == 1500:
            broker.stop()
            broker.start()
    broker.wait_ready(threading.Event())
    assert producer.flush(SECONDS) == 0
    stream.wait_drained()
    stream.assert_exact(range(2000))
    assert stream.runs[-1].errors == []
