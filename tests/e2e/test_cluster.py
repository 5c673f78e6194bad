"""A stream on a real standalone cluster, its driver here or on a worker: exact, whatever of the cluster is killed."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from support.edges import Edge
from tidemill.config import Account, Settings
from tidemill.deploy import apply, snapshots
from tidemill.devstack import ports
from tidemill.kafka import clients
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.processes import environment_of
from tidemill.store.connection import session
from tidemill.store.control import streams
from tidemill.supervisor.actions import StreamActions
from tidemill.supervisor.cluster import Cluster
from tidemill.supervisor.launcher import DRIVER_MARK, is_gone, stop_driver
from tidemill.supervisor.spark_submit import program_environment, spark_submit
from tidemill.testing import wait_until

pytestmark = [pytest.mark.lane("cluster"), pytest.mark.full]

SECONDS = 240.0
_QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
CONF = {
    "spark.driver.extraJavaOptions": _QUICK,
    "spark.executor.extraJavaOptions": _QUICK,
}
LABELS = {"a": "amber", "b": "beige"}


@dataclass
class Standalone:
    """Spark's own master and two workers, each a process that can be killed."""

    settings: Settings
    folder: Path
    port: int
    web_ports: dict[str, int]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def master(self) -> str:
        return f"spark://{ports.LOOPBACK}:{self.port}"

    def start(self, name: str) -> None:
        """Start the master, or a worker."""
        where = ["--host", ports.LOOPBACK, "--webui-port", str(self.web_ports[name])]
        if name == "master":
            words = ["org.apache.spark.deploy.master.Master", *where, "--port", str(self.port)]
        else:
            room = ["--cores", "2", "--memory", "1200m", "--work-dir", str(self.folder / name)]
            words = ["org.apache.spark.deploy.worker.Worker", *where, *room, self.master]
        environment = program_environment() | {
            "SPARK_LOCAL_IP": ports.LOOPBACK,
            "SPARK_DAEMON_MEMORY": "256m",
            "SPARK_DAEMON_JAVA_OPTS": f"{_QUICK} -Dspark.worker.timeout=20",
            # A master without a memory would end the executors of drivers that it does not know.
            "SPARK_MASTER_OPTS": "-Dspark.deploy.recoveryMode=FILESYSTEM"
            f" -Dspark.deploy.recoveryDirectory={self.folder / 'recovery'}",
            # By this the session's end finds what is left.
            "TIDEMILL_STATE": str(self.settings.state),
        }
        (self.folder / "recovery").mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [spark_submit(environment, "spark-class"), *words],
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """SIGTERM to the workers, which take their drivers and executors along, then to the master."""
        for name in sorted(self.processes, reverse=True):
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def ready(self) -> None:
        """Wait until the master is in charge and knows the workers that run."""
        expected = len(self.processes) - 1
        wait_until(lambda: self._alive() == expected, SECONDS, f"a master with {expected} workers")

    def _alive(self) -> int | None:
        try:
            page = httpx.get(f"http://{ports.LOOPBACK}:{self.web_ports['master']}/json/", trust_env=False).json()
        except (httpx.HTTPError, ValueError):
            return None
        if page["status"] != "ALIVE":
            return None
        return sum(worker["state"] == "ALIVE" for worker in page["workers"])


@dataclass
class Clustered(Edge):
    """A small stream with a dimension, whose folder asks for two executors."""

    sent: Iterator[int] = field(default_factory=itertools.count)
    known: list[int] = field(default_factory=list)

    def declare(self, **source: Any) -> None:
        """Write the folder and apply it as the command line does."""
        columns = {"id": "BIGINT NOT NULL", "note": "VARCHAR(16)"}
        content = {
            "name": self.name,
            "owner": "tests",
            "source": {"topic": self.name, "schema": "id BIGINT, note STRING", "partitions": 2, **source},
            "dimensions": {"labels": {"path": "labels.csv", "key": ["code"]}},
            "tables": {f"t_{self.name}": {"from": "t.sql", "kind": "event", "key": ["id"], "columns": columns}},
            "rollups": {
                f"r_{self.name}": {
                    "of": f"t_{self.name}",
                    "by": {"note": {"expr": "note", "type": "VARCHAR(16)"}},
                    "measures": {"n": "count(*)"},
                }
            },
            "resources": {
                "driver": {"memory": "512m", "cores": 1},
                "executors": {"instances": 2, "cores": 1, "memory": "512m"},
            },
        }
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump(content))
        rows = "\n".join(f"{code},{label}" for code, label in LABELS.items())
        (self.folder / "labels.csv").write_text(f"code,label\n{rows}\n")
        (self.folder / "t.sql").write_text(
            "SELECT records.id AS id, labels.label AS note FROM records LEFT JOIN labels ON labels.code = records.note"
        )
        apply.apply_all(self.settings, [self.pipeline], lambda line: None)

    def feed(self, count: int = 60) -> None:
        """Put records into both partitions."""
        for partition, note in enumerate(LABELS):
            ids = list(itertools.islice(self.sent, count))
            self.send(ids, partition, note)
            self.known += ids

    def row(self) -> StreamRow:
        with session(self.settings, Account.READ) as connection:
            row = streams.read_stream(connection, self.name)
        assert row is not None
        return row

    def launch(self, cluster: Cluster) -> StreamRow:
        """What the supervision does to start a stream; waits until the driver reads."""
        with session(self.settings, Account.STREAM) as connection:
            streams.request_state(connection, self.name, "running", "a test")
            row = streams.read_stream(connection, self.name)
            assert row is not None
            pipeline, version = snapshots.applied_pipeline(self.settings, connection, self.name)
            StreamActions(self.settings, connection, "a test", lambda _: cluster).start(row, pipeline, version, CONF)

        def runs() -> bool:
            now = self.row()
            assert now.state != "failed" or now.heartbeat_epoch != now.epoch, now.last_error
            assert not is_gone(now), f"it is gone: {now.log_file}"
            return now.heartbeat_epoch == now.epoch and now.state == "running"

        wait_until(runs, SECONDS, f"a driver of {self.name} at work")
        return self.row()

    def leave(self) -> StreamRow:
        """Wish it stopped, and wait for the driver's last word and for its end."""
        with session(self.settings, Account.STREAM) as connection:
            streams.request_state(connection, self.name, "stopped", "a test")
        wait_until(lambda: not self.drivers(), SECONDS, "the driver's end")
        return self.row()

    def drivers(self) -> list[psutil.Process]:
        """The living processes of this stream's drivers, wherever a worker put them."""
        return [process for process in psutil.process_iter() if self._is_driver(process)]

    def _is_driver(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or "stream.py" not in " ".join(process.cmdline()):
                return False
            return environment_of(process).get(DRIVER_MARK, "").startswith(f"{self.name}/")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def assert_loaded(self) -> None:
        """All that was sent is in the tables, once, with its label; nothing differs anywhere."""
        self.wait_drained()
        self.assert_exact(self.known)
        labels = self.query(f"SELECT note, COUNT(*) FROM t_{self.name} GROUP BY note ORDER BY 1", self.settings.db_data)
        assert labels == [(label, len(self.known) // 2) for label in LABELS.values()]


@pytest.fixture(scope="module")
def standalone(mariadb: Settings, kafka: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """A master and two workers of one executor each, and room for a driver."""
    first, *others = ports.free_ports(4)
    names = ("master", "worker-1", "worker-2")
    cluster = Standalone(kafka, tmp_path_factory.mktemp("standalone"), first, dict(zip(names, others, strict=True)))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SPARK_LOCAL_IP", ports.LOOPBACK)
        try:
            for name in names:
                cluster.start(name)
            cluster.ready()
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="module")
def stream(standalone: Standalone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    """The stream, applied. No driver yet."""
    folder = tmp_path_factory.mktemp("clustered") / "ebb"
    folder.mkdir()
    settings = standalone.settings.model_copy(update={"pipelines": folder.parent, "spark_driver_memory": "512m"})
    stream = Clustered(settings, None, clients.admin(settings), folder)  # type: ignore[arg-type]  # no Spark here
    # Small batches: something is always under way.
    stream.declare(max_records_per_batch=100)
    yield stream
    stream.leave()


@pytest.fixture
def whole(standalone: Standalone) -> Standalone:
    """The cluster with all its processes."""
    for name in {"master", "worker-1", "worker-2"} - set(standalone.processes):
        standalone.start(name)
    standalone.ready()
    return standalone


@pytest.fixture
def client(whole: Standalone, stream: Clustered) -> Clustered:
    """The stream, with a driver on this host."""
    if not stream.drivers():
        stream.launch(Cluster(whole.master))
    return stream


def test_a_driver_here_loads_through_the_executors_of_a_cluster(standalone: Standalone, client: Clustered) -> None:
    """Rows, rollup, ledger and a dimension, which only the driver can read; the folder that runs is the copy."""
    client.feed()
    client.assert_loaded()
    row = client.row()
    assert (row.master, row.submission_id) == (standalone.master, None)
    assert not is_gone(row)
    assert row.pid is not None
    executors = [p for p in psutil.process_iter() if "CoarseGrainedExecutorBackend" in " ".join(_words(p))]
    assert len(executors) == 2
    words = psutil.Process(row.pid).cmdline()
    assert words[words.index("--folder") + 1].startswith(str(client.settings.state / "applied"))


def test_a_folder_that_is_broken_changes_nothing_until_it_is_applied(client: Clustered) -> None:
    """A driver is started from what was applied, whatever stands in the folder meanwhile."""
    before = (client.folder / "t.sql").read_text()
    (client.folder / "t.sql").write_text("SELECT nothing of the kind")
    try:
        with session(client.settings, Account.STREAM) as connection:
            pipeline, version = snapshots.applied_pipeline(client.settings, connection, client.name)
        assert (pipeline.sql("t.sql"), version) == (before, client.row().pipeline_version)
    finally:
        (client.folder / "t.sql").write_text(before)


def test_a_killed_worker_costs_the_stream_nothing(standalone: Standalone, client: Clustered) -> None:
    """The same driver goes on with the executor that is left, and no record is lost or counted twice."""
    epoch = client.row().epoch
    client.feed(400)
    wait_until(lambda: client.ids()[-1:] > [client.known[-800]], SECONDS, "the first of them are committed")
    standalone.kill("worker-1")
    client.feed(400)
    client.assert_loaded()
    assert client.row().epoch == epoch
    assert not is_gone(client.row())


def test_a_killed_master_stops_no_stream(standalone: Standalone, client: Clustered) -> None:
    """While it is away driver and executors need it for nothing; when it is back it takes them over as they are."""
    epoch = client.row().epoch
    client.feed()
    standalone.kill("master")
    client.feed()
    client.assert_loaded()
    standalone.start("master")
    standalone.ready()
    client.feed()
    client.assert_loaded()
    assert client.row().epoch == epoch


def test_a_driver_that_the_cluster_runs_is_ended_by_the_cluster(whole: Standalone, stream: Clustered) -> None:
    """It says itself where it is. Whether it is gone is not seen from here, and so not claimed."""
    stream.leave()
    row = stream.launch(Cluster(whole.master, "cluster"))
    assert row.submission_id is not None
    assert row.submission_id.startswith("driver-")
    assert (row.master, row.pid, row.host) == (whole.master, None, os.uname().nodename)
    assert row.log_file is not None
    assert row.submission_id in row.log_file
    assert Path(row.log_file).is_file()
    # A worker's children: spark-submit only asked for them, and has left.
    workers = {process.pid for process in whole.processes.values()}
    wait_until(lambda: _sessions(stream.drivers()) <= workers, SECONDS, "spark-submit's end")
    stream.feed()
    assert stream.drivers()
    assert not stop_driver(row)
    wait_until(lambda: not stream.drivers(), SECONDS, "the driver's end")
    assert not is_gone(row)


def test_a_driver_that_the_cluster_runs_loads_and_leaves_when_wished(whole: Standalone, stream: Clustered) -> None:
    """It goes on where the one before it was ended; stopping is the same wish as anywhere."""
    stream.launch(Cluster(whole.master, "cluster"))
    stream.feed()
    stream.assert_loaded()
    assert not is_gone(stream.row())
    stream.leave()
    row = stream.row()
    assert (row.state, row.last_error) == ("stopped", None)
    assert stop_driver(row)


def _sessions(processes: list[psutil.Process]) -> set[int]:
    found = set()
    for each in processes:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            found.add(os.getsid(each.pid))
    return found


def _words(process: psutil.Process) -> list[str]:
    try:
        return [] if process.status() == psutil.STATUS_ZOMBIE else process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []
