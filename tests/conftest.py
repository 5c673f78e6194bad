"""The real servers: each is started when the first test asks for it, once a session, on free ports.

Everything runs in one temporary state folder, which the environment names before anything of ours or of Airflow's is
imported, so that no test touches the project's own state or the user's home.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.paths import ROOT
from tidemill import config
from tidemill.config import Settings
from tidemill.devstack import child_process, ports
from tidemill.devstack.servers import airflow
from tidemill.devstack.stack import Stack
from tidemill.processes import environment_of

pytest_plugins = ["support.lanes"]

_session = pytest.StashKey[Settings]()


def _settings_in(state: Path, pipelines: Path = ROOT / "pipelines") -> Settings:
    """Settings for a stack of its own: this checkout, the fetched jars, free ports, little memory."""
    kafka_port, db_port, airflow_port = ports.free_ports(3)
    given = {
        "root": ROOT,
        "state": state,
        "pipelines": pipelines,
        "jars": config.load().jars,
        "kafka_bootstrap": f"127.0.0.1:{kafka_port}",
        "db_port": db_port,
        "db_buffer_pool": "256M",
        "airflow_port": airflow_port,
        "spark_master": "local[2]",
        "spark_driver_memory": "1g",
    }
    return config.load({config.PREFIX + name.upper(): str(value) for name, value in given.items()})


def pytest_configure(config: pytest.Config) -> None:
    """Point the environment at the session's state before test modules are imported."""
    state = Path(tempfile.mkdtemp(prefix="tidemill-test-")).resolve()
    # A copy: tests add pipelines to what Airflow sees, change them and break them.
    pipelines = Path(shutil.copytree(ROOT / "pipelines", state / "pipelines"))
    _with_fewer_trees(pipelines / "flights" / "pipeline.yaml")
    settings = _settings_in(state, pipelines)
    airflow.write_configuration(settings)
    os.environ.update(child_process.environment(settings), AIRFLOW_HOME=str(airflow.home(settings)))
    # A run starts some dozens of JVMs, each for less than a minute: an optimising compiler does not pay there.
    os.environ["SPARK_SUBMIT_OPTS"] = f"-XX:TieredStopAtLevel=1 {os.environ.get('SPARK_SUBMIT_OPTS', '')}"
    config.stash[_session] = settings


def _with_fewer_trees(declaration: Path) -> None:
    """Enough to beat the baseline: most of a training is otherwise spent on the last of them."""
    text = declaration.read_text()
    assert text.count("maxIter: 20,") == 1
    declaration.write_text(text.replace("maxIter: 20,", "maxIter: 6,"))


@pytest.fixture(scope="module", autouse=True)
def _retires_pipelines(pytestconfig: pytest.Config) -> Iterator[None]:
    """What a module has applied is retired after it, or it would count as applied for every later one.

    A pipeline without folder and snapshot is retired.
    """
    yield
    settings = pytestconfig.stash[_session]
    for snapshots in (settings.state / "applied").glob("*"):
        if not (settings.pipelines / snapshots.name).exists():
            shutil.rmtree(snapshots, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the servers' logs of a session that failed."""
    # Spark's gateway says goodbye while the interpreter ends, when the captured streams are closed.
    logging.getLogger("py4j").setLevel(logging.ERROR)
    logging.raiseExceptions = False
    state = session.config.stash[_session].state
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        shutil.rmtree(state, ignore_errors=True)
    elif reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
        reporter.write_line(f"the servers' state and logs are kept in {state}")


@pytest.fixture(scope="session")
def settings(pytestconfig: pytest.Config) -> Settings:
    """The settings of the session's servers, whether or not they have been started."""
    return pytestconfig.stash[_session]


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """Settings with an empty state folder and ports of their own, for what must not disturb the session's servers."""
    return _settings_in(tmp_path)


@pytest.fixture(scope="session")
def stack(settings: Settings) -> Iterator[Stack]:
    """The session's stack, empty at first. When it has stopped, no process may be left."""
    with Stack(settings, parts=()) as stack:
        stack.start()
        yield stack
    left = processes_of(settings)
    assert not left, f"left running: {left}"


@pytest.fixture(scope="session")
def mariadb(stack: Stack) -> Settings:
    """A MariaDB with schemas and accounts; returns the settings to reach it."""
    stack.add("mariadb")
    return stack.settings


@pytest.fixture(scope="session")
def kafka(stack: Stack) -> Settings:
    """A Kafka broker; returns the settings to reach it."""
    stack.add("kafka")
    return stack.settings


@pytest.fixture(scope="session")
def airflow_stack(stack: Stack) -> Stack:
    """Kafka, MariaDB and Airflow."""
    stack.add("mariadb", "kafka", "airflow")
    return stack


def processes_of(settings: Settings) -> list[str]:
    """Processes of a state folder, except this one and its ancestors, as a person would name them."""
    own = {os.getpid(), *(each.pid for each in psutil.Process().parents())}
    found = []
    for each in psutil.process_iter():
        try:
            is_ours = environment_of(each).get("TIDEMILL_STATE") == str(settings.state)
            if is_ours and each.pid not in own and each.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{each.pid} {' '.join(each.cmdline())[:200]}")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
