"""What a process says of itself before it is a driver: where a cluster put it, and why it could not become one."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tidemill.config import Account, Settings
from tidemill.errors import TidemillError
from tidemill.store.connection import session
from tidemill.store.control import heartbeats, leases
from tidemill.stream.diagnosis import cause

_STANDALONE = re.compile(r"driver-\d{14}-\d+")
_CONTAINER = re.compile(r"container_(?:e\d+_)?(?P<application>\d+_\d+)_\d+_\d+$")


def report_location(settings: Settings, stream: str, epoch: int) -> None:
    """Write host and log of this process into the stream's lease, if the epoch still holds it.

    Also how the cluster calls it, where that can be told: whoever submitted it may have died before he noted it.

    Raises:
        TidemillError: the database is away.
    """
    where = {"host": socket.gethostname(), "log_file": log_of(Path.cwd(), os.environ)}
    if submission_id := submission_of(Path.cwd(), os.environ):
        where |= {"master": settings.spark_master, "submission_id": submission_id}
    with session(settings, Account.STREAM) as connection:
        leases.record_driver(connection, stream, epoch, **where)


@contextmanager
def reporting_failure(settings: Settings, stream: str, epoch: int) -> Iterator[None]:
    """Write a failure of the block into the stream's heartbeat. Nobody sees the end of a process on another machine."""
    try:
        yield
    except Exception as error:
        with suppress(TidemillError), session(settings, Account.STREAM) as connection:
            # Suppressed: whose database is away, or whose epoch is over, has nowhere to say it.
            heartbeats.report_heartbeat(connection, stream, epoch, "failed", last_error=str(cause(error, stream)))
        raise


def log_of(folder: Path, environ: Mapping[str, str]) -> str:
    """Where the cluster keeps what this process writes.

    A standalone worker: the file ``stderr`` in the process's working folder. YARN: the same in the container's log
    folder, until it is moved to the log aggregation. Elsewhere (Kubernetes) there is no file, and the pod is named.
    """
    if (folder / "stderr").is_file():
        return str(folder / "stderr")
    if folders := environ.get("LOG_DIRS"):
        return str(Path(folders.split(",")[0]) / "stderr")
    return f"kubectl logs {environ.get('HOSTNAME', socket.gethostname())}"


def submission_of(folder: Path, environ: Mapping[str, str]) -> str | None:
    """What the cluster calls this driver: a standalone worker's name for its folder, YARN's application."""
    if _STANDALONE.fullmatch(folder.name):
        return folder.name
    found = _CONTAINER.match(environ.get("CONTAINER_ID", ""))
    return f"application_{found['application']}" if found else None
