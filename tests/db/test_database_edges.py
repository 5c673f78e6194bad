"""The database fails in the middle of a commit: afterwards everything is there once, and the ledger adds up."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir, mkstemp
from typing import Any

import pyarrow as pa
import pymysql
import pytest

from support.databases import root
from support.errors import coded
from support.proxy import Cut, Proxy
from support.writes import Writer, make_writer
from tidemill.config import Account, Settings
from tidemill.devstack import ports, secrets
from tidemill.devstack.child_process import Child
from tidemill.devstack.servers import mariadb as server
from tidemill.errors import (
    ConfigError,
    Contention,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseUnavailable,
    StoreError,
    StructureError,
    Transient,
)
from tidemill.store.connection import connect, drop_worker_connection, session, translated, worker_connection
from tidemill.store.control import ledger
from tidemill.store.sql import identifiers
from tidemill.store.write import bulk_load
from tidemill.store.write.transaction import Counts, Rejected
from tidemill.testing import wait_until

SECONDS = 120.0
"""Far more than anything here takes."""


@contextmanager
def writing(writer: Writer, *arguments: Any, **other: Any) -> Iterator[Future[Counts]]:
    """A batch is being written while the block runs."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(writer.write, *arguments, **other)


def status(run: Callable[[str], Any], name: str) -> int:
    """One of the server's counters."""
    return int(run(f"SELECT variable_value FROM information_schema.global_status WHERE variable_name = '{name}'"))


def attempts(run: Callable[[str], Any]) -> int:
    """Transactions begun by anybody."""
    return status(run, "Com_begin")


def records_in_ledger(writer: Writer) -> tuple[int, int]:
    """Commits and the records they account for."""
    with session(writer.settings, Account.READ) as connection:
        total = ledger.totals(connection, writer.pipeline.name)
    commits = writer.query(
        f"SELECT COUNT(*) FROM {writer.settings.db_control}.commits WHERE stream = '{writer.pipeline.name}'"
    )
    return commits[0][0], total.records


@pytest.fixture
def proxy(mariadb: Settings) -> Iterator[Proxy]:
    """A line to the database that can be cut."""
    with Proxy(mariadb.db_port) as proxy:
        yield proxy
        drop_worker_connection(mariadb.model_copy(update={"db_port": proxy.port}))


@pytest.fixture
def cuttable(entity: Writer, proxy: Proxy) -> Writer:
    """A writer over that line, with two rows written."""
    entity.settings = entity.settings.model_copy(update={"db_port": proxy.port})
    entity.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    return entity


SECOND = [(1, "blue", 6, 11), (2, "red", 1, 9), (3, "red", 3, 10)]
"""Something newer, something stale, something new."""


def assert_second_is_there_once(writer: Writer, counts: Counts) -> None:
    """Whatever happened on the way."""
    assert (counts.written, counts.stale, counts.quarantined) == (2, 1, 1)
    assert writer.rows() == [(1, "blue", 6, 11), (2, "red", 7, 10), (3, "red", 3, 10)]
    assert writer.groups() == {"blue": (1, 6), "red": (2, 10)}
    assert records_in_ledger(writer) == (2, 6)
    assert writer.verify() == []


@pytest.mark.parametrize("where", [Cut.BEFORE_COMMIT, Cut.ANSWER_LOST, Cut.IN_LOAD])
def test_a_connection_lost_around_commit(cuttable: Writer, proxy: Proxy, where: Cut) -> None:
    """Lost before COMMIT, after COMMIT but before its answer, in the middle of the load: the batch is written once."""
    proxy.cut(where)
    counts = cuttable.write(SECOND, rejected=(Rejected(5, "no"),))
    assert proxy.happened.is_set()
    assert_second_is_there_once(cuttable, counts)


def test_a_commit_that_is_still_under_way(cuttable: Writer, proxy: Proxy) -> None:
    """The connection is lost while the server has yet to hear COMMIT: the second attempt waits for the first one's
    locks, and recognises the first one's commit as its own instead of taking it for another driver's."""
    proxy.cut(Cut.COMMIT_UNDER_WAY)
    with root(cuttable.settings) as run, writing(cuttable, SECOND, rejected=(Rejected(5, "no"),)) as written:
        wait_until(lambda: status(run, "Innodb_row_lock_current_waits"), SECONDS, "a second attempt that waits")
        proxy.deliver()
        counts = written.result(SECONDS)
    assert_second_is_there_once(cuttable, counts)


def test_a_connection_lost_between_batches(entity: Writer) -> None:
    """A connection that the server ended meanwhile is opened again, and the batch is written once."""
    entity.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    with root(entity.settings) as run:
        run(f"KILL {worker_connection(entity.settings).thread_id()}")
    assert_second_is_there_once(entity, entity.write(SECOND, rejected=(Rejected(5, "no"),)))


def test_a_lock_that_is_held_too_long(entity: Writer) -> None:
    """A lock-wait time-out rolls the whole transaction back and the batch is written once the lock is free."""
    entity.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    with root(entity.settings) as run, closing(connect(entity.settings, Account.STREAM)) as holder:
        with worker_connection(entity.settings).cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")
        holder.begin()
        with holder.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {entity.settings.db_data}.{entity.table} WHERE id = 1 FOR UPDATE")
        before = attempts(run)
        with writing(entity, SECOND, rejected=(Rejected(5, "no"),)) as written:
            wait_until(lambda: attempts(run) >= before + 2, SECONDS, "a second attempt")
            holder.rollback()
            counts = written.result(SECONDS)
    assert_second_is_there_once(entity, counts)


def test_a_writer_that_is_frozen_in_mid_commit_gives_its_locks_back(
    entity: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver does that sleeps, or whose machine is gone: whoever follows it does not wait for ever."""
    entity.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    assert identifiers.IDLE_SECONDS == 60
    monkeypatch.setattr(identifiers, "IDLE_SECONDS", 1)
    with closing(connect(entity.settings, Account.STREAM)) as frozen:
        frozen.begin()
        with frozen.cursor() as cursor:
            cursor.execute(f"UPDATE {entity.settings.db_data}.{entity.table} SET points = 0 WHERE id IN (1, 2)")
            with writing(entity, SECOND, rejected=(Rejected(5, "no"),)) as written:
                counts = written.result(SECONDS)
            with pytest.raises(DatabaseUnavailable), translated():
                cursor.execute("SELECT 1")
    assert_second_is_there_once(entity, counts)


def test_a_server_that_takes_no_writes(entity: Writer) -> None:
    """A read-only server, as in a failover: no record is quarantined for it, the writer connects anew until it can
    write, and the batch is written once."""
    entity.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    with root(entity.settings) as run:
        run("SET GLOBAL read_only = 1")
        try:
            before = status(run, "Connections")
            with writing(entity, SECOND, rejected=(Rejected(5, "no"),)) as written:
                wait_until(lambda: status(run, "Connections") >= before + 2, SECONDS, "a second connection")
                run("SET GLOBAL read_only = 0")
                counts = written.result(SECONDS)
        finally:
            run("SET GLOBAL read_only = 0")
    assert_second_is_there_once(entity, counts)


def test_a_full_disk(entity: Writer) -> None:
    """As long as there is no space left the batch is tried again; no row is blamed for it."""
    entity.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    with root(entity.settings) as run:
        run(
            f"CREATE TRIGGER {entity.settings.db_data}.full BEFORE INSERT ON {entity.settings.db_data}.{entity.table}"
            f" FOR EACH ROW SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1021, MESSAGE_TEXT = 'full'"
        )
        before = attempts(run)
        with writing(entity, SECOND, rejected=(Rejected(5, "no"),)) as written:
            wait_until(lambda: attempts(run) >= before + 2, SECONDS, "a second attempt")
            run(f"DROP TRIGGER {entity.settings.db_data}.full")
            counts = written.result(SECONDS)
    assert_second_is_there_once(entity, counts)


ANYTHING = [
    (1, "blue", 6, 11), (2, "red", 1, 9), (3, None, None, 10), (3, "", 7, 10.5), (2**62, "é漢😀", 1, 0.000001),
    (4, "too long for it", 1, 10), (5, "'\\\t\n\r\0\"%", -1, 10), (6, "red", 2**40, 10), (7, "\\N", 1, 10),
    (8, "NULL", 1, 10),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["entity", "event"])
def test_a_server_that_takes_no_files(
    mariadb: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """With local_infile off rows go as multi-row statements, and everything comes out as with LOAD DATA: what is
    written, stale, rejected, and each value. One warning is logged; LOAD DATA is used again once it is on."""
    with_files, without = (make_writer(mariadb, tmp_path, kind) for _ in range(2))
    bulk_load._warned = False
    for writer in (with_files, without):
        writer.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    expected = with_files.write(ANYTHING), with_files.write(SECOND)
    with root(mariadb) as run:
        run("SET GLOBAL local_infile = 0")
        try:
            found = without.write(ANYTHING), without.write(SECOND)
        finally:
            run("SET GLOBAL local_infile = 1")
        loads = status(run, "Com_load")
        drop_worker_connection(mariadb)
        without.write([(20, "red", 1, 10)])
        # The server adds what a closed connection did to its counters only once that connection's thread has ended.
        wait_until(lambda: status(run, "Com_load") == loads + 1, SECONDS, "one more LOAD DATA")
    with_files.write([(20, "red", 1, 10)])
    assert [replace(counts, commit_id=0) for counts in found] == [replace(counts, commit_id=0) for counts in expected]
    assert expected[0].quarantined == 2
    assert without.rows() == with_files.rows()
    assert without.groups() == with_files.groups()
    assert quarantined(without).keys() == quarantined(with_files).keys() == {7, 9}
    assert ["team" in quarantined(without)[7], "points" in quarantined(without)[9]] == [True, True]
    assert without.verify() == []
    assert [record.levelname for record in caplog.records if "local_infile" in record.getMessage()] == ["WARNING"]


def quarantined(writer: Writer) -> dict[int, str]:
    """Offset -> reason."""
    return dict(
        writer.query(
            f"SELECT record_offset, reason FROM {writer.settings.db_control}.quarantine"
            f" WHERE stream = '{writer.pipeline.name}'"
        )
    )


@dataclass(frozen=True)
class Fragile:
    """A server that may be killed, with little room for temporary tables."""

    settings: Settings
    child: Child

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.child.start()
        self.child.wait_ready(threading.Event())

    def kill(self) -> None:
        """As when its machine loses power."""
        assert self.child.pid is not None
        os.kill(self.child.pid, signal.SIGKILL)
        wait_until(lambda: self.child.exit_code() is not None, SECONDS, "the server's end")


@pytest.fixture(scope="module")
def fragile(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fragile]:
    """That server, beside the session's."""
    [port] = ports.free_ports(1)
    own = settings.model_copy(update={"state": tmp_path_factory.mktemp("fragile"), "db_port": port})
    secrets.ensure(own)
    server.prepare(own, threading.Event())
    program = server.program(own)
    limited = (
        *program.argv,
        "--innodb-temp-data-file-path=ibtmp1:12M:autoextend:max:16M",
        "--innodb-log-file-size=16M",
    )
    fragile = Fragile(own, Child(replace(program, argv=limited), own))
    fragile.start()
    yield fragile
    fragile.child.stop()


@pytest.mark.parametrize("where", [Cut.BEFORE_COMMIT, Cut.ANSWER_LOST])
def test_a_server_that_is_killed_in_mid_commit(fragile: Fragile, tmp_path: Path, where: Cut) -> None:
    """SIGKILL just before COMMIT, and just after it: the server comes back, and the batch is there once."""
    with Proxy(fragile.settings.db_port) as proxy:
        writer = make_writer(fragile.settings.model_copy(update={"db_port": proxy.port}), tmp_path, "entity")
        writer.write([(1, "red", 5, 10), (2, "red", 7, 10)])
        proxy.at_cut = fragile.kill
        proxy.cut(where)
        with writing(writer, SECOND, rejected=(Rejected(5, "no"),)) as written:
            assert proxy.happened.wait(SECONDS)
            fragile.start()
            try:
                counts = written.result(SECONDS)
            except DatabaseUnavailable:  # it took longer than the writer waits; the driver tries again
                counts = writer.write(SECOND, rejected=(Rejected(5, "no"),))
        assert_second_is_there_once(writer, counts)
        drop_worker_connection(writer.settings)
        writer.connection._force_close()


def test_no_space_for_temporary_tables(fragile: Fragile, tmp_path: Path) -> None:
    """Another session has taken all the space: no row is blamed, and the batch is written once there is some."""
    writer = make_writer(fragile.settings, tmp_path, "entity")
    writer.write([(1, "red", 5, 10), (2, "red", 7, 10)])
    hog = f"{writer.settings.db_data}.hog"
    with root(writer.settings) as run:
        run(f"CREATE TEMPORARY TABLE {hog} (content LONGTEXT) ENGINE=InnoDB")
        with pytest.raises(DatabaseFull), translated():
            any(run(f"INSERT INTO {hog} VALUES (REPEAT('x', 100000))") for _ in range(1_000))
        before = status(run, "Com_load")
        with writing(writer, SECOND, rejected=(Rejected(5, "no"),)) as written:
            wait_until(lambda: status(run, "Com_load") >= before + 2, SECONDS, "a second attempt")
            run(f"DROP TEMPORARY TABLE {hog}")
            counts = written.result(SECONDS)
    assert_second_is_there_once(writer, counts)


def test_no_room_for_the_file_of_a_bulk_load(entity: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is full is made up for by the disk; if that is full too, no row is blamed and nothing is loaded."""
    places = []

    def make(prefix: str, suffix: str, dir: str) -> tuple[int, str]:
        descriptor, name = mkstemp(prefix=prefix, suffix=suffix, dir=dir)
        places.append(dir)
        if len(places) in full:
            os.close(descriptor)
            descriptor = os.open("/dev/full", os.O_WRONLY)
        return descriptor, name

    monkeypatch.setattr(bulk_load.tempfile, "mkstemp", make)
    full = {1}
    assert entity.write([(1, "red", 5, 10), (2, "red", 7, 10)]).written == 2
    assert places == ["/dev/shm", gettempdir()]  # noqa: S108 -- where it looks first
    full = {3, 4}
    assert_second_is_there_once(entity, entity.write(SECOND, rejected=(Rejected(5, "no"),)))
    assert len(places) == 5
    full = {6, 7}
    no_space = pytest.raises(DatabaseFull, check=coded("TM-STORE-LOAD-NO-SPACE"))
    with no_space, bulk_load.load_file(pa.table({"x": ["y"]})):
        pass


@pytest.mark.parametrize(
    ("number", "text", "kind"),
    [
        (1040, "Too many connections", DatabaseUnavailable),
        (1041, "Out of memory.", DatabaseUnavailable),
        (1053, "Server shutdown in progress", DatabaseUnavailable),
        (1077, "Normal shutdown", DatabaseUnavailable),
        (1317, "Query execution was interrupted", DatabaseUnavailable),
        (1927, "Connection was killed", DatabaseUnavailable),
        (2006, "gone away", DatabaseUnavailable),
        (2013, "Lost connection", DatabaseUnavailable),
        (1290, "The server is running with the --read-only option", DatabaseReadOnly),
        (1290, "The server is running with the --secure-file-priv option", StructureError),
        (1792, "Cannot execute statement in a READ ONLY transaction", DatabaseReadOnly),
        (1836, "Running in read-only mode", DatabaseReadOnly),
        (1021, "Disk full (/tmp/x); waiting for someone to free some space...", DatabaseFull),
        (1114, "The table 't' is full", DatabaseFull),
        (1030, 'Got error 28 "No space left on device" from storage engine InnoDB', DatabaseFull),
        (1030, 'Got error 168 "Unknown (generic) error from engine" from storage engine InnoDB', StoreError),
        (3, 'Error writing file "/tmp/x" (Errcode: 28 "No space left on device")', DatabaseFull),
        (1026, "Error writing file '/tmp/x' (errno: 28 - No space left on device)", DatabaseFull),
        (1205, "Lock wait timeout exceeded", Contention),
        (1213, "Deadlock found", Contention),
        (1045, "Access denied", ConfigError),
        (1044, "Access denied for user to database", ConfigError),
        (1142, "INSERT command denied", StructureError),
        (1054, "Unknown column 'a' in 'SELECT'", StructureError),
        (1146, "Table 'd.t' doesn't exist", StructureError),
        (1305, "FUNCTION d.f does not exist", StructureError),
        (1412, "Table definition has changed, please retry transaction", Contention),
        (4025, "CONSTRAINT `a` failed for `d`.`t`", StoreError),
        (1406, "Data too long for column 'a' at row 1", StoreError),
    ],
)
def test_errors_by_their_number(number: int, text: str, kind: type[Exception]) -> None:
    """What may go away by itself is told from what a row, a grant or a statement is to blame for."""
    with pytest.raises((StoreError, ConfigError)) as found, translated():
        raise pymysql.OperationalError(number, text)
    assert type(found.value) is kind
    assert isinstance(found.value, Transient) == (kind not in (StoreError, StructureError, ConfigError))


def test_a_server_that_vanishes_is_noticed(mariadb: Settings) -> None:
    """The kernel asks after a silent server and gives up within a minute; a statement itself may take longer."""
    with closing(connect(mariadb, Account.STREAM)) as connection:
        line = connection._sock
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, interval, count = (line.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        assert idle + interval * count == 60
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        assert line.gettimeout() is None
