"""The checks of a transaction before it commits: fencing token, pipeline version and generation of the topic.

Each check holds a shared lock until the transaction ends, so that what it found stays true until the commit.
"""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.errors import Fenced
from tidemill.store.connection import dialect_of, translated
from tidemill.store.write.context import NO_GENERATION, WriteContext


def check_fencing_token(connection: Connection[Any], stream: str, epoch: int) -> None:
    """Check that the driver still holds the lease; holds a shared lock on it until the transaction ends.

    A process that acquires the lease waits for the lock, so no older epoch can commit after that.

    Raises:
        Fenced: another driver has acquired the lease.
    """
    with translated(), connection.cursor() as cursor:
        lock = dialect_of(connection).share_lock
        cursor.execute(f"SELECT epoch FROM leases WHERE stream = %s {lock}", (stream,))
        row = cursor.fetchone()
    if row is None or int(row[0]) != epoch:
        now = row[0] if row else "none"
        raise Fenced("TM-STORE-LEASE-LOST", stream=stream, value=f"this is epoch {epoch}, the lease has {now}")


def check_pipeline_version(connection: Connection[Any], stream: str, version: int) -> None:
    """Check that no newer pipeline version holds the lease; holds a shared lock on it until the transaction ends.

    Raises:
        Fenced: a driver of a newer version has acquired the lease.
    """
    with translated(), connection.cursor() as cursor:
        lock = dialect_of(connection).share_lock
        cursor.execute(f"SELECT pipeline_version FROM leases WHERE stream = %s {lock}", (stream,))
        row = cursor.fetchone()
    if row is not None and int(row[0]) > version:
        raise Fenced("TM-STORE-NEWER-VERSION", stream=stream, value=f"{row[0]}, this is {version}")


def check_topic_generation(connection: Connection[Any], write_context: WriteContext) -> str | None:
    """Check that the stream still reads this generation of the topic; holds a shared lock until the transaction ends.

    Returns:
        Kafka's id of the topic; None if the stream has not read it yet, or if the records are of a generation that is
        known to no longer exist.

    Raises:
        Fenced: the topic was recreated since the replay was requested, and the stream reads the new one.
    """
    if write_context.since_commit == NO_GENERATION:
        return None
    with translated(), connection.cursor() as cursor:
        lock = dialect_of(connection).share_lock
        cursor.execute(
            f"SELECT topic_id, generation, since_commit FROM topics WHERE stream = %s AND topic = %s {lock}",
            (write_context.stream, write_context.topic),
        )
        row = cursor.fetchone()
    topic_id, generation, since_commit = row or (None, 1, 0)
    if (int(generation), int(since_commit)) != (write_context.generation, write_context.since_commit):
        requested = f"generation {write_context.generation} after commit {write_context.since_commit}"
        raise topic_recreated(write_context.topic, f"{requested}, now {generation} after commit {since_commit}")
    return None if topic_id is None else str(topic_id)


def topic_recreated(topic: str, value: str) -> Fenced:
    """The error of a replay whose records Kafka no longer has under these offsets."""
    return Fenced("TM-STORE-TOPIC-RECREATED", topic=topic, value=value)
