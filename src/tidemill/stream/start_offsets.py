"""Where a driver begins to read, and what it does about records that Kafka no longer has.

The position is in the database, the records are in Kafka, and Kafka removes records: retention may remove some that a
stopped stream has not read, and a topic may be deleted and recreated under its name. Each such loss opens an incident.
It then ends the stream, or is counted in the ledger as lost, as ``source.on_data_loss`` demands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka.admin import AdminClient
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from tidemill.config import Settings
from tidemill.errors import Fenced, SourceError, StreamError
from tidemill.kafka.clients import REQUEST_SECONDS
from tidemill.kafka.topics import TOPIC_MISSING, offsets_at, partitions, topic_id
from tidemill.spec.schema import Pipeline
from tidemill.spec.tombstones import deletes_from
from tidemill.store.connection import dialect_of, translated
from tidemill.store.control import ledger
from tidemill.store.control.incidents import close_incident, open_incident
from tidemill.store.sql import identifiers
from tidemill.store.write import ledger_rows
from tidemill.store.write.context import Range, WriteContext
from tidemill.store.write.fencing import check_fencing_token
from tidemill.store.write.transaction import Batch, Counts

DATA_LOSS = "data-loss"
TOPIC_RECREATED = "topic-recreated"
_NAMED_RANGES = 30
"""How many ranges a message names, so that it fits the column of the incident."""


@dataclass(frozen=True)
class Start:
    """Where a stream begins to read."""

    positions: dict[int, int]
    """Kafka partition -> next offset."""
    topic_id: str
    """Kafka's identifier of the topic that the positions belong to."""
    generation: int
    """Counts the topics of this name that the stream has read, and its turns back to it from another one, from 1 on."""
    since_commit: int
    """The newest commit of the stream when it began to read this generation."""


@dataclass(frozen=True)
class _Loss:
    """Offsets that Kafka does not have although the stream has not read them, or has read them."""

    error: StreamError
    ranges: tuple[Range, ...]
    """Those that can be skipped; empty if none can."""


def find_start(
    connection: Connection[Any],
    client: AdminClient,
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
) -> Start:
    """Determine where the driver that has the lease begins, and handle what Kafka has lost since the last one.

    Args:
        connection: autocommit, as the stream account, in the control schema.
        client: of the pipeline's Kafka.
        settings: schemas.
        pipeline: whose stream.
        write_context: of an epoch that was acquired before, since when no other driver moves the positions. Its
            generation and its ``since_commit`` are not read.

    Raises:
        StreamError: Kafka has lost records, or the topic was recreated, and ``on_data_loss`` is ``fail``; or Kafka
            ends before a position. No position was moved.
        SourceError: the topic does not exist, or no broker answers.
        Fenced: another driver has acquired the lease.
    """
    topic = _register_topic(connection, client, settings, pipeline, write_context)
    _begin_partitions(connection, client, pipeline, write_context)
    positions = ledger.positions(connection, write_context.stream, write_context.topic)
    loss = _find_loss(client, pipeline, positions)
    subject = f"stream {write_context.stream}"
    if loss is None:
        close_incident(connection, subject, DATA_LOSS)
    elif pipeline.source.on_data_loss == "fail" or not loss.ranges:
        _report(connection, subject, DATA_LOSS, str(loss.error))
        raise loss.error
    else:
        write_context = replace(write_context, generation=topic.generation, since_commit=topic.since_commit)
        with _transaction(connection, write_context):
            message = f"{loss.error.what}: {loss.error.value}; they are skipped and counted as lost"
            _report(connection, subject, DATA_LOSS, message)
            for span in loss.ranges:
                _skip(connection, write_context, span)
        positions |= {span.partition: span.until for span in loss.ranges}
    return Start(positions, topic.topic_id, topic.generation, topic.since_commit)


def explain_failure(
    connection: Connection[Any], client: AdminClient, pipeline: Pipeline
) -> StreamError | SourceError | None:
    """What in Kafka made a running query fail, if it is one of the losses that :func:`find_start` handles.

    It only reads; the next driver handles the loss.

    Raises:
        SourceError: no broker answers.
    """
    stream, topic = pipeline.name, pipeline.source.topic
    try:
        known = _read_topic(connection, stream, topic)
        if known is not None and (error := topic_recreated(client, pipeline, known.topic_id)):
            return error
        loss = _find_loss(client, pipeline, ledger.positions(connection, stream, topic))
    except SourceError as error:
        if error.code == TOPIC_MISSING:
            return error
        raise
    return loss.error if loss else None


def topic_recreated(
    client: AdminClient, pipeline: Pipeline, known_id: str, seconds: float = REQUEST_SECONDS
) -> StreamError | None:
    """The error for a topic that is another one than ``known_id``; None if it is the same.

    Raises:
        SourceError: the topic does not exist now, or no broker answers within ``seconds``.
    """
    current_id = topic_id(client, pipeline.source.topic, seconds)
    return None if current_id == known_id else _recreated_error(pipeline, known_id, current_id)


def _recreated_error(pipeline: Pipeline, known_id: str, current_id: str) -> StreamError:
    topic, value = pipeline.source.topic, f"its id was {known_id} and is {current_id}"
    if pipeline.source.on_data_loss == "fail":
        return StreamError("TM-STREAM-TOPIC-RECREATED", value=value, topic=topic)
    return StreamError("TM-STREAM-TOPIC-RECREATED-SKIP", value=value, topic=topic)


@contextmanager
def _transaction(connection: Connection[Any], write_context: WriteContext) -> Iterator[Cursor]:
    """One transaction, which is committed only if the epoch of the context still has the lease."""
    with translated(), connection.cursor() as cursor:
        connection.begin()
        try:
            yield cursor
            check_fencing_token(connection, write_context.stream, write_context.epoch)
        except BaseException:  # Ctrl-C, too: the next transaction must not begin with half of this one
            connection.rollback()
            raise
        connection.commit()


def _report(connection: Connection[Any], subject: str, kind: str, message: str) -> None:
    """Open an incident. One that is open already is closed if its message differs, as it does when ranges grow."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE incidents SET closed_at = UTC_TIMESTAMP(6)"
            " WHERE subject = %s AND kind = %s AND closed_at IS NULL AND message <> %s",
            (subject, kind, message[:2000]),
        )
    open_incident(connection, subject, kind, message)


@dataclass(frozen=True)
class RegisteredTopic:
    """A row of ``topics``: which generation of a topic a stream reads."""

    topic_id: str
    generation: int
    since_commit: int


def _read_topic(connection: Connection[Any], stream: str, topic: str) -> RegisteredTopic | None:
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT topic_id, generation, since_commit FROM topics WHERE stream = %s AND topic = %s", (stream, topic)
        )
        row = cursor.fetchone()
    return RegisteredTopic(str(row[0]), int(row[1]), int(row[2])) if row else None


def _register_topic(
    connection: Connection[Any],
    client: AdminClient,
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
) -> RegisteredTopic:
    """The topic that exists now, as the control plane has it from here on."""
    known = _read_topic(connection, write_context.stream, write_context.topic)
    current_id = topic_id(client, write_context.topic)
    subject = f"stream {write_context.stream}"
    if known is None or known.topic_id == current_id:
        close_incident(connection, subject, TOPIC_RECREATED)
        return turn_to_topic(connection, settings, pipeline, write_context, current_id)
    error = _recreated_error(pipeline, known.topic_id, current_id)
    if pipeline.source.on_data_loss == "fail":
        _report(connection, subject, TOPIC_RECREATED, str(error))
        raise error
    existing = partitions(client, write_context.topic)
    with _transaction(connection, write_context) as cursor:
        _report(connection, subject, TOPIC_RECREATED, _recreated_message(connection, write_context, error))
        topic = _register_next_topic(cursor, write_context, known, current_id)
        cursor.execute(
            "DELETE FROM offsets WHERE stream = %s AND topic = %s", (write_context.stream, write_context.topic)
        )
        ledger.begin_at(connection, write_context.stream, write_context.topic, dict.fromkeys(existing, 0))
        _empty_deletion_tables(cursor, settings, pipeline)
    return topic


def turn_to_topic(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, write_context: WriteContext, current_id: str
) -> RegisteredTopic:
    """Register that the stream reads a topic: a first one, the same as before, or one that it has read before another.

    Each turn from another topic begins a generation, because the coordinates of the rows that were written meanwhile
    are of the other topic. The positions stay: the stream continues where it left the topic.

    Args:
        connection: autocommit, as the stream account, in the control schema.
        settings: schemas.
        pipeline: whose stream.
        write_context: of the epoch that has the lease. Its generation and its ``since_commit`` are not read.
        current_id: Kafka's id of the topic, which is not another one than that of the topic of this name before.

    Raises:
        Fenced: another driver has acquired the lease.
    """
    known = _read_topic(connection, write_context.stream, write_context.topic)
    if known is None:
        return _register_first_topic(connection, settings, pipeline, write_context, current_id)
    if not _has_read_another(connection, write_context, known):
        return known
    with _transaction(connection, write_context) as cursor:
        topic = _register_next_topic(cursor, write_context, known, current_id)
        _empty_deletion_tables(cursor, settings, pipeline)
    return topic


def _has_read_another(connection: Connection[Any], write_context: WriteContext, known: RegisteredTopic) -> bool:
    """Whether the stream has committed records of another topic since it read this one, or has turned to one."""
    stream, topic = write_context.stream, write_context.topic
    with translated(), connection.cursor() as cursor:
        cursor.execute("SELECT topic FROM commits WHERE stream = %s ORDER BY id DESC LIMIT 1", (stream,))
        newest = cursor.fetchone()
        cursor.execute(
            "SELECT COUNT(*) FROM topics WHERE stream = %s AND topic <> %s AND since_commit > %s",
            (stream, topic, known.since_commit),
        )
        (later,) = cursor.fetchone() or (0,)
    return bool(later) or (newest is not None and newest[0] != topic)


def _recreated_message(connection: Connection[Any], write_context: WriteContext, error: StreamError) -> str:
    ends = sorted(ledger.positions(connection, write_context.stream, write_context.topic).items())
    read = ", ".join(f"partition {partition}: {offset}" for partition, offset in ends[:_NAMED_RANGES])
    return f"{error.what}: {error.value}; the old topic was read up to {read}, the new one is read from its beginning"


def _register_next_topic(
    cursor: Cursor, write_context: WriteContext, known: RegisteredTopic, current_id: str
) -> RegisteredTopic:
    cursor.execute("SELECT COALESCE(MAX(id), 0) FROM commits WHERE stream = %s", (write_context.stream,))
    (newest,) = cursor.fetchone() or (0,)
    topic = RegisteredTopic(current_id, known.generation + 1, int(newest))
    cursor.execute(
        "UPDATE topics SET topic_id = %s, generation = %s, since_commit = %s"
        " WHERE stream = %s AND topic = %s AND topic_id = %s",
        (
            topic.topic_id,
            topic.generation,
            topic.since_commit,
            write_context.stream,
            write_context.topic,
            known.topic_id,
        ),
    )
    if cursor.rowcount != 1:
        raise Fenced("TM-STREAM-TOPIC-REGISTERED", value=current_id, stream=write_context.stream)
    return topic


def _register_first_topic(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, write_context: WriteContext, current_id: str
) -> RegisteredTopic:
    stream, name = write_context.stream, write_context.topic
    # If the stream read another topic before, the coordinates of its older rows do not belong to this one.
    is_new = not ledger.positions(connection, stream, name)
    topic = RegisteredTopic(current_id, 1, ledger.last_commit(connection, stream) if is_new else 0)
    with _transaction(connection, write_context) as cursor:
        cursor.execute(
            "INSERT INTO topics (stream, topic, topic_id, generation, since_commit) VALUES (%s, %s, %s, %s, %s)",
            (stream, name, topic.topic_id, topic.generation, topic.since_commit),
        )
        if topic.since_commit:
            _empty_deletion_tables(cursor, settings, pipeline)
    return topic


def _begin_partitions(
    connection: Connection[Any], client: AdminClient, pipeline: Pipeline, write_context: WriteContext
) -> None:
    """Give partitions that are new their first position.

    A new partition of a topic that the stream has read before counts from offset 0: the stream has read none of it.
    """
    stream, topic = write_context.stream, write_context.topic
    if known := ledger.positions(connection, stream, topic):
        starts = {partition: 0 for partition in partitions(client, topic) if partition not in known}
    else:
        starts = offsets_at(client, topic, pipeline.source.start)
    if starts:
        with _transaction(connection, write_context):
            ledger.begin_at(connection, stream, topic, starts)


def _empty_deletion_tables(cursor: Cursor, settings: Settings, pipeline: Pipeline) -> None:
    """Deletion markers order records by the offsets of a topic that no longer exists."""
    for name in deletes_from(pipeline):
        cursor.execute(dialect_of(cursor.connection).empty(settings.db_data, identifiers.deletion_markers(name)))


def _find_loss(client: AdminClient, pipeline: Pipeline, positions: dict[int, int]) -> _Loss | None:
    topic = pipeline.source.topic
    if truncated := truncated_ranges(positions, offsets_at(client, topic, "latest")):
        return _Loss(StreamError("TM-STREAM-TOPIC-TRUNCATED", value=describe_ranges(truncated), topic=topic), ())
    lost = lost_ranges(positions, offsets_at(client, topic, "earliest"))
    if not lost:
        return None
    value, offsets = describe_ranges(lost), sum(span.until - span.start for span in lost)
    if pipeline.source.on_data_loss == "fail":
        return _Loss(StreamError("TM-STREAM-OFFSETS-LOST", value=value, topic=topic, offsets=offsets), lost)
    return _Loss(StreamError("TM-STREAM-OFFSETS-LOST-SKIP", value=value, topic=topic, offsets=offsets), lost)


def lost_ranges(positions: dict[int, int], earliest: dict[int, int]) -> tuple[Range, ...]:
    """The ranges, by partition, that Kafka removed before the stream read them."""
    return tuple(
        Range(partition, position, earliest[partition])
        for partition, position in sorted(positions.items())
        if position < earliest.get(partition, 0)
    )


def truncated_ranges(positions: dict[int, int], latest: dict[int, int]) -> tuple[Range, ...]:
    """The ranges, by partition, that the stream read and Kafka no longer has at its end; all of a missing partition."""
    return tuple(
        Range(partition, latest.get(partition, 0), position)
        for partition, position in sorted(positions.items())
        if position > latest.get(partition, 0)
    )


def describe_ranges(ranges: Iterable[Range]) -> str:
    """Ranges as text, ``partition 0: 10–25 (15)``; the end is not included."""
    parts = [f"partition {r.partition}: {r.start}–{r.until} ({r.until - r.start})" for r in ranges]
    more = [f"and {len(parts) - _NAMED_RANGES} more partitions"] if len(parts) > _NAMED_RANGES else []
    return ", ".join(parts[:_NAMED_RANGES] + more)


def _skip(connection: Connection[Any], write_context: WriteContext, span: Range) -> None:
    """Count a lost range in the ledger, and move the position to its end. In a transaction."""
    commit_id = ledger_rows.open_row(connection, write_context, Batch(0, span))
    ledger_rows.close_row(connection, Counts(commit_id, lost=span.until - span.start))
    ledger_rows.add_to_sums(connection, commit_id)
    ledger_rows.move_position(connection, write_context, span)
