"""What a process reports before it is a driver: on which machine a cluster started it, and why it failed."""

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
    """Write host and log of this process into the lease of the stream, if the epoch still holds it.

    Also the cluster's name for this driver, where it can be determined: the process that submitted the driver may have
    been killed before it recorded the name.

    Raises:
        TidemillError: the database is unavailable.
    """
    location = {"host": socket.gethostname(), "log_file": log_of(Path.cwd(), os.environ)}
    if submission_id := submission_of(Path.cwd(), os.environ):
        location |= {"master": settings.spark_master, "submission_id": submission_id}
    with session(settings, Account.STREAM) as connection:
        leases.record_driver(connection, stream, epoch, **location)


@contextmanager
def reporting_failure(settings: Settings, stream: str, epoch: int) -> Iterator[None]:
    """Write a failure of the block into the heartbeat: a supervisor cannot see a process of another machine."""
    try:
        yield
    except Exception as error:
        with suppress(TidemillError), session(settings, Account.STREAM) as connection:
            # Suppressed: a process whose database is unavailable, or whose epoch is over, cannot report anything.
            heartbeats.report_heartbeat(connection, stream, epoch, "failed", last_error=str(cause(error, stream)))
        raise


def log_of(folder: Path, environ: Mapping[str, str]) -> str:
    """Where the cluster keeps the output of this process.

    A standalone worker: the file ``stderr`` in the process's working folder. YARN: the same in the container's log
    folder, until the log aggregation moves it. Elsewhere (Kubernetes) there is no file, and the command names the pod.
    """
    if (folder / "stderr").is_file():
        return str(folder / "stderr")
    if folders := environ.get("LOG_DIRS"):
        return str(Path(folders.split(",")[0]) / "stderr")
    return f"kubectl logs {environ.get('HOSTNAME', socket.gethostname())}"


def submission_of(folder: Path, environ: Mapping[str, str]) -> str | None:
    """The cluster's name for this driver: of a standalone worker the name of its folder, of YARN the application."""
    if _STANDALONE.fullmatch(folder.name):
        return folder.name
    match = _CONTAINER.match(environ.get("CONTAINER_ID", ""))
    return f"application_{match['application']}" if match else None
