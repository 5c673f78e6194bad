"""What a transaction proves before it commits: that stream, version and topic are still what it took them for.

Each holds a shared lock until the transaction ends, so that what was true stays true up to the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pymysql.connections import Connection

from tidemill.errors import Fenced
from tidemill.store.connection import dialect_of, translated

if TYPE_CHECKING:
    # Commands such as ``status`` import this module, too, and need no pyarrow.
    from tidemill.store.write.ledger_rows import WriteContext

NO_GENERATION = 2**63 - 1
"""As ``since_commit`` of a topic that is no more: no row counts as one of its records, no deletion as later."""


def check_fencing_token(connection: Connection[Any], stream: str, epoch: int) -> None:
    """Hold a shared lock on the lease until the transaction ends, or refuse.

    A take-over waits for the lock, so that no commit of an older epoch can come after it.

    Raises:
        Fenced: another driver took the stream over.
    """
    with translated(), connection.cursor() as cursor:
        lock = dialect_of(connection).share_lock
        cursor.execute(f"SELECT epoch FROM leases WHERE stream = %s {lock}", (stream,))
        row = cursor.fetchone()
    if row is None or int(row[0]) != epoch:
        raise Fenced(f"stream {stream} was taken over", value=f"epoch {epoch}, now {row[0] if row else 'none'}")


def check_pipeline_version(connection: Connection[Any], stream: str, version: int) -> None:
    """Hold a shared lock on the lease until the transaction ends, or refuse a pipeline version that is outdated.

    Raises:
        Fenced: the stream has had a driver of a newer version.
    """
    with translated(), connection.cursor() as cursor:
        lock = dialect_of(connection).share_lock
        cursor.execute(f"SELECT pipeline_version FROM leases WHERE stream = %s {lock}", (stream,))
        row = cursor.fetchone()
    if row is not None and int(row[0]) > version:
        raise Fenced(
            f"stream {stream} runs a newer pipeline version", value=f"{row[0]}, this is {version}", remedy="ask again"
        )


def check_topic_generation(connection: Connection[Any], write_context: WriteContext) -> str | None:
    """Hold a shared lock on the topic's row until the transaction ends, or refuse a replay of another incarnation.

    Returns:
        Kafka's id of the incarnation; None where the stream has not met the topic yet, or where the claimant's records
        are of one that is known to be no more.

    Raises:
        Fenced: the topic was made again since the replay was asked for, and the stream has gone on to the new one.
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
    known, generation, since_commit = row or (None, 1, 0)
    if (int(generation), int(since_commit)) != (write_context.generation, write_context.since_commit):
        asked = f"generation {write_context.generation} after commit {write_context.since_commit}"
        raise topic_recreated(write_context.topic, f"{asked}, now {generation} after commit {since_commit}")
    return None if known is None else str(known)


def topic_recreated(topic: str, value: str) -> Fenced:
    """Why a replay is refused whose records Kafka does not hold any more under these offsets."""
    return Fenced(f"topic {topic} was made again since the replay was asked for", value=value, remedy="ask again")
