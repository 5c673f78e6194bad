"""Where a driver begins to read, and what became of what it cannot read any more.

The position is in the database, the records are in Kafka, and Kafka forgets: retention may overtake a stream that was
stopped, and a topic may be deleted and made again under its old name. Nothing of that passes in silence: it is an
incident either way, and the end of the stream or rows of the ledger, as ``source.on_data_loss`` says.
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
MADE_AGAIN = "topic-made-again"
_NAMED_RANGES = 30
"""How many ranges a sentence names, so that it fits the incident's column."""


@dataclass(frozen=True)
class Start:
    """Where a stream begins to read."""

    positions: dict[int, int]
    """Kafka partition -> next offset."""
    topic_id: str
    """The incarnation of the topic that the positions belong to."""
    generation: int
    """Counts the topic's incarnations, as this stream has met them."""
    since_commit: int
    """The stream's newest commit when it met this incarnation."""


@dataclass(frozen=True)
class _Loss:
    """What Kafka does not have although the stream has not read it, or is said to have."""

    what: str
    remedy: str
    value: str
    ranges: tuple[Range, ...]
    """What there is to skip; empty where nothing can be skipped."""

    def error(self) -> StreamError:
        return StreamError(self.what, value=self.value, remedy=self.remedy)


def find_start(
    connection: Connection[Any],
    client: AdminClient,
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
) -> Start:
    """Find where the driver that holds the epoch begins; settle what Kafka has lost meanwhile.

    Args:
        connection: autocommit, as the stream account, in the control schema.
        client: of the pipeline's Kafka.
        settings: schemas.
        pipeline: whose stream.
        claimant: of an epoch that was raised before, from when on nobody else moves the positions. Its generation and
            since are not read.

    Raises:
        StreamError: Kafka has lost records, or the topic was made again, and ``on_data_loss`` is ``fail``; or Kafka
            ends before a position. No position was moved.
        SourceError: there is no such topic, or no broker answers.
        Fenced: another driver took the stream over.
    """
    found = _meet(connection, client, settings, pipeline, write_context)
    _begin(connection, client, pipeline, write_context)
    positions = ledger.positions(connection, write_context.stream, write_context.topic)
    loss = _find_loss(client, pipeline, positions)
    subject = f"stream {write_context.stream}"
    if loss is None:
        close_incident(connection, subject, DATA_LOSS)
    elif pipeline.source.on_data_loss == "fail" or not loss.ranges:
        _report(connection, subject, DATA_LOSS, str(loss.error()))
        raise loss.error()
    else:
        write_context = replace(write_context, generation=found.generation, since_commit=found.since_commit)
        with _claimed(connection, write_context):
            _report(connection, subject, DATA_LOSS, f"{loss.what}: {loss.value}; skipped, and counted as lost")
            for span in loss.ranges:
                _skip(connection, write_context, span)
        positions |= {span.partition: span.until for span in loss.ranges}
    return Start(positions, found.topic_id, found.generation, found.since_commit)


def explain_failure(
    connection: Connection[Any], client: AdminClient, pipeline: Pipeline
) -> StreamError | SourceError | None:
    """What in Kafka made a running query fail, if it is one of the things that :func:`find_start` knows.

    Reads only; the next driver settles it.

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
    return loss.error() if loss else None


def topic_recreated(
    client: AdminClient, pipeline: Pipeline, known_id: str, seconds: float = 15.0
) -> StreamError | None:
    """The sentence for a topic that is not the one that was read before, None if it is.

    Raises:
        SourceError: there is no such topic now, or no broker answers within ``seconds``.
    """
    now = topic_id(client, pipeline.source.topic, seconds)
    return None if now == known_id else _topic_recreated(pipeline, known_id, now)


def _topic_recreated(pipeline: Pipeline, before: str, now: str) -> StreamError:
    return StreamError(
        f"topic {pipeline.source.topic} was deleted and made again",
        value=f"its id was {before} and is {now}",
        remedy=f"what was not read of the old one is gone; {_way_on(pipeline, 'read the new one from its beginning')}",
    )


def _way_on(pipeline: Pipeline, way: str) -> str:
    if pipeline.source.on_data_loss == "fail":
        return f"set source.on_data_loss: skip to {way}"
    return f"the next driver will {way}, as source.on_data_loss says"


@contextmanager
def _claimed(connection: Connection[Any], write_context: WriteContext) -> Iterator[Cursor]:
    """One transaction that is committed only if the claimant's epoch is still the stream's."""
    with translated(), connection.cursor() as cursor:
        connection.begin()
        try:
            yield cursor
            check_fencing_token(connection, write_context.stream, write_context.epoch)
        except BaseException:  # Ctrl-C, too: nothing of half a transaction may wait for the next one
            connection.rollback()
            raise
        connection.commit()


def _report(connection: Connection[Any], subject: str, kind: str, sentence: str) -> None:
    """Open an incident; one that is open already gives way if it says something else, since ranges grow."""
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE incidents SET closed_at = UTC_TIMESTAMP(6)"
            " WHERE subject = %s AND kind = %s AND closed_at IS NULL AND sentence <> %s",
            (subject, kind, sentence[:2000]),
        )
    open_incident(connection, subject, kind, sentence)


@dataclass(frozen=True)
class _Topic:
    """A row of ``topics``."""

    topic_id: str
    generation: int
    since_commit: int


def _read_topic(connection: Connection[Any], stream: str, topic: str) -> _Topic | None:
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT topic_id, generation, since_commit FROM topics WHERE stream = %s AND topic = %s", (stream, topic)
        )
        row = cursor.fetchone()
    return _Topic(str(row[0]), int(row[1]), int(row[2])) if row else None


def _meet(
    connection: Connection[Any],
    client: AdminClient,
    settings: Settings,
    pipeline: Pipeline,
    write_context: WriteContext,
) -> _Topic:
    """The incarnation of the topic that is there now, known to the stream from here on."""
    known = _read_topic(connection, write_context.stream, write_context.topic)
    now = topic_id(client, write_context.topic)
    subject = f"stream {write_context.stream}"
    if known is None:
        return _meet_first(connection, settings, pipeline, write_context, now)
    if known.topic_id == now:
        close_incident(connection, subject, MADE_AGAIN)
        return known
    error = _topic_recreated(pipeline, known.topic_id, now)
    if pipeline.source.on_data_loss == "fail":
        _report(connection, subject, MADE_AGAIN, str(error))
        raise error
    there = partitions(client, write_context.topic)
    with _claimed(connection, write_context) as cursor:
        _report(connection, subject, MADE_AGAIN, _passed_over(connection, write_context, error))
        met = _move_on(cursor, write_context, known, now)
        cursor.execute(
            "DELETE FROM offsets WHERE stream = %s AND topic = %s", (write_context.stream, write_context.topic)
        )
        ledger.begin_at(connection, write_context.stream, write_context.topic, dict.fromkeys(there, 0))
        _forget_deletions(cursor, settings, pipeline)
    return met


def _passed_over(connection: Connection[Any], write_context: WriteContext, error: StreamError) -> str:
    ends = sorted(ledger.positions(connection, write_context.stream, write_context.topic).items())
    read = ", ".join(f"partition {partition}: {offset}" for partition, offset in ends[:_NAMED_RANGES])
    return f"{error.what}: {error.value}; the old one was read up to {read}, the new one is read from its beginning"


def _move_on(cursor: Cursor, write_context: WriteContext, known: _Topic, now: str) -> _Topic:
    cursor.execute("SELECT COALESCE(MAX(id), 0) FROM commits WHERE stream = %s", (write_context.stream,))
    (newest,) = cursor.fetchone() or (0,)
    met = _Topic(now, known.generation + 1, int(newest))
    cursor.execute(
        "UPDATE topics SET topic_id = %s, generation = %s, since_commit = %s"
        " WHERE stream = %s AND topic = %s AND topic_id = %s",
        (met.topic_id, met.generation, met.since_commit, write_context.stream, write_context.topic, known.topic_id),
    )
    if cursor.rowcount != 1:
        raise Fenced(f"stream {write_context.stream}: another driver met the new topic first", value=now)
    return met


def _meet_first(
    connection: Connection[Any], settings: Settings, pipeline: Pipeline, write_context: WriteContext, now: str
) -> _Topic:
    stream, topic = write_context.stream, write_context.topic
    # A stream that turns to another topic: coordinates of its older rows are not of this one.
    turned = not ledger.positions(connection, stream, topic)
    met = _Topic(now, 1, ledger.last_commit(connection, stream) if turned else 0)
    with _claimed(connection, write_context) as cursor:
        cursor.execute(
            "INSERT INTO topics (stream, topic, topic_id, generation, since_commit) VALUES (%s, %s, %s, %s, %s)",
            (stream, topic, met.topic_id, met.generation, met.since_commit),
        )
        if met.since_commit:
            _forget_deletions(cursor, settings, pipeline)
    return met


def _begin(connection: Connection[Any], client: AdminClient, pipeline: Pipeline, write_context: WriteContext) -> None:
    """Give partitions that are new their first position.

    All that a known stream's new partition ever held came while nobody looked, and counts from offset 0.
    """
    stream, topic = write_context.stream, write_context.topic
    if known := ledger.positions(connection, stream, topic):
        starts = {partition: 0 for partition in partitions(client, topic) if partition not in known}
    else:
        starts = offsets_at(client, topic, pipeline.source.start)
    if starts:
        with _claimed(connection, write_context):
            ledger.begin_at(connection, stream, topic, starts)


def _forget_deletions(cursor: Cursor, settings: Settings, pipeline: Pipeline) -> None:
    """Deletion markers tell older from newer by the offsets of a topic that is no more."""
    for name in deletes_from(pipeline):
        cursor.execute(dialect_of(cursor.connection).empty(settings.db_data, identifiers.deletion_markers(name)))


def _find_loss(client: AdminClient, pipeline: Pipeline, positions: dict[int, int]) -> _Loss | None:
    topic = pipeline.source.topic
    if ahead := beyond(positions, offsets_at(client, topic, "latest")):
        return _Loss(
            f"topic {topic} ends before the stream's position: it has lost records that were read",
            "bring back the replica that holds them, or make the topic again",
            named(ahead),
            (),
        )
    if lost := overtaken(positions, offsets_at(client, topic, "earliest")):
        return _Loss(
            f"topic {topic} has lost {sum(span.until - span.start for span in lost)} offsets that were not read yet",
            _way_on(pipeline, "go on after them and count them as lost"),
            named(lost),
            lost,
        )
    return None


def overtaken(positions: dict[int, int], earliest: dict[int, int]) -> tuple[Range, ...]:
    """The ranges, by partition, that Kafka removed before they were read."""
    return tuple(
        Range(partition, position, earliest[partition])
        for partition, position in sorted(positions.items())
        if position < earliest.get(partition, 0)
    )


def beyond(positions: dict[int, int], latest: dict[int, int]) -> tuple[Range, ...]:
    """The ranges, by partition, that were read and that Kafka has not any more; whole where the partition is gone."""
    return tuple(
        Range(partition, latest.get(partition, 0), position)
        for partition, position in sorted(positions.items())
        if position > latest.get(partition, 0)
    )


def named(ranges: Iterable[Range]) -> str:
    """Ranges for a sentence: ``partition 0: 10–25 (15)``, the end not included."""
    parts = [f"partition {r.partition}: {r.start}–{r.until} ({r.until - r.start})" for r in ranges]
    more = [f"and {len(parts) - _NAMED_RANGES} partitions more"] if len(parts) > _NAMED_RANGES else []
    return ", ".join(parts[:_NAMED_RANGES] + more)


def _skip(connection: Connection[Any], write_context: WriteContext, span: Range) -> None:
    """Count a lost range in the ledger and move the position over it. In a transaction."""
    commit_id = ledger_rows.open_row(connection, write_context, Batch(0, span))
    ledger_rows.close_row(connection, Counts(commit_id, lost=span.until - span.start))
    ledger_rows.move_position(connection, write_context, span)
