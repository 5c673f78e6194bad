"""What a driver's process says before it is a driver: where it is, and why it could not become one."""

import socket
from pathlib import Path

import pytest

from tidemill.config import Account, Settings
from tidemill.errors import SpecError
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.connection import session
from tidemill.store.control import leases, streams
from tidemill.store.migrations import migrate_control
from tidemill.stream.driver_location import log_of, report_location, reporting_failure, submission_of


def begin(settings: Settings, stream: str) -> int:
    """Take a stream over; returns the epoch."""
    with session(settings, Account.MIGRATE) as connection:
        migrate_control(connection, settings.root / "sql")
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, stream, "running", "a test")
        return leases.acquire_lease(connection, stream, 1, "a test")


def read(settings: Settings, stream: str) -> StreamRow:
    with session(settings, Account.READ) as connection:
        row = streams.read_stream(connection, stream)
    assert row is not None
    return row


def test_a_driver_that_a_cluster_started_says_where_it_is(mariadb: Settings) -> None:
    """Host and log, and no process id: nobody here may take that for a process of this host. Only for its own epoch."""
    epoch = begin(mariadb, "placed")
    report_location(mariadb, "placed", epoch)
    row = read(mariadb, "placed")
    assert (row.host, row.pid) == (socket.gethostname(), None)
    assert row.log_file
    next_epoch = begin(mariadb, "placed")
    report_location(mariadb, "placed", epoch)
    row = read(mariadb, "placed")
    assert (row.epoch, row.host, row.log_file) == (next_epoch, None, None)


def test_what_keeps_a_process_from_becoming_a_driver_is_in_its_heartbeat(mariadb: Settings) -> None:
    """Nobody sees the end of a process on another machine; of a former epoch it says nothing."""
    error = SpecError("TM-SPEC-NO-TABLE", value="hindered")
    epoch = begin(mariadb, "hindered")
    with pytest.raises(SpecError), reporting_failure(mariadb, "hindered", epoch):
        raise error
    row = read(mariadb, "hindered")
    assert (row.state, row.heartbeat_epoch, row.last_error) == ("failed", epoch, str(error))
    begin(mariadb, "hindered")
    with pytest.raises(RuntimeError), reporting_failure(mariadb, "hindered", epoch):
        raise RuntimeError("too late")
    assert read(mariadb, "hindered").last_error == str(error)


def test_a_log_is_where_the_cluster_keeps_it(tmp_path: Path) -> None:
    """Standalone: the file beside the process. YARN: the container's first log folder. Kubernetes: the pod."""
    assert log_of(tmp_path, {"HOSTNAME": "tidemill-flights-7"}) == "kubectl logs tidemill-flights-7"
    assert log_of(tmp_path, {"LOG_DIRS": "/logs/a,/logs/b"}) == "/logs/a/stderr"
    (tmp_path / "stderr").touch()
    assert log_of(tmp_path, {}) == str(tmp_path / "stderr")


def test_a_driver_knows_what_the_cluster_calls_it(tmp_path: Path) -> None:
    """Whoever submitted it may have died before he noted it."""
    assert submission_of(tmp_path / "driver-20260301000000-0007", {}) == "driver-20260301000000-0007"
    for container in ("container_1410901177871_0001_01_000005", "container_e17_1410901177871_0001_01_000005"):
        assert submission_of(tmp_path, {"CONTAINER_ID": container}) == "application_1410901177871_0001"
    assert submission_of(tmp_path, {}) is None
