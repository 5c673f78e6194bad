"""The programs that the containers run beside the servers: what prepares them, and what asks them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import pytest
from airflow.secrets.local_filesystem import load_connections_dict

from support.paths import ROOT
from tidemill.config import Account, Settings
from tidemill.devstack import ports
from tidemill.devstack.servers import airflow

DOCKER = ROOT / "docker"
PARTS = ("metadatabase", "scheduler", "dag_processor", "triggerer")


def load(name: str) -> ModuleType:
    """A program of ``docker/`` as a module."""
    spec = importlib.util.spec_from_file_location(f"docker_{name}", DOCKER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def serving(pages: dict[str, Any]) -> Iterator[int]:
    """A web server with these pages; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path)
            self.send_response(200 if page is not None else 503)
            self.end_headers()
            self.wfile.write(json.dumps(page).encode())

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = HTTPServer((ports.LOOPBACK, 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def is_healthy(server: str, port: int) -> bool:
    """What the program itself says, run as a container runs it."""
    env = {
        "TIDEMILL_AIRFLOW_HOST": ports.LOOPBACK,
        "TIDEMILL_AIRFLOW_PORT": str(port),
        "http_proxy": "http://0.0.0.0:1",
    }
    code = subprocess.run([sys.executable, "-I", DOCKER / "health.py", server], env=env, check=False).returncode
    assert code in (0, 1)
    return code == 0


def test_airflow_is_asked_as_the_embedded_one_is(own: Settings) -> None:
    """A part is healthy exactly where the embedded stack would call it ready: by its own entry, not its neighbours'."""
    for sick in (*PARTS, None):
        page = {part: {"status": "unhealthy" if part == sick else "healthy"} for part in PARTS}
        with serving({"/api/v2/monitor/health": page}) as port:
            for program in airflow.programs(own.model_copy(update={"airflow_port": port})):
                assert is_healthy(program.name, port) == program.probe(0.0), (program.name, sick)


def test_airflow_that_does_not_answer_is_not_healthy(own: Settings) -> None:
    """Neither is one that answers with an error or without the part."""
    assert not is_healthy("airflow-scheduler", own.airflow_port)
    answers: tuple[object, ...] = (None, {"scheduler": None}, [])
    for page in answers:
        with serving({"/api/v2/monitor/health": page}) as port:
            assert not is_healthy("airflow-scheduler", port)


@pytest.mark.parametrize(
    ("server", "page", "expected"),
    [
        ("spark-master", {"status": "ALIVE"}, True),
        ("spark-master", {"status": "STANDBY"}, False),
        ("spark-worker", {"masterurl": "spark://spark-master:7077"}, True),
        ("spark-worker", {"masterurl": ""}, False),
    ],
)
def test_spark_is_asked_for_what_it_is_for(server: str, page: dict[str, str], expected: bool) -> None:
    """A master has to be in charge, a worker registered."""
    with serving({"/json/": page}) as port:
        assert load("health").serves(server, f"http://{ports.LOOPBACK}:{port}") is expected


def test_connections_are_those_of_up(own: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own reader gets out of the file what ``tidemill up`` puts in by the REST API."""
    monkeypatch.setenv("TIDEMILL_DB_STREAM_PASSWORD", "hush/%@ hush")
    settings = own.model_copy(update={"db_host": "mariadb", "spark_master": "spark://spark-master:7077"})
    path = tmp_path / "connections.json"
    path.write_text(json.dumps(load("init").connections_by_name(settings)))
    found = load_connections_dict(str(path))
    database = found["tidemill_db"]
    assert (database.conn_type, database.host, database.port) == ("tidemill", "mariadb", settings.db_port)
    assert (database.login, database.password) == (settings.user(Account.STREAM), "hush/%@ hush")
    assert database.extra_dejson == {"tls": False, "dialect": "mariadb"}
    assert found["kafka_default"].extra_dejson == {"bootstrap.servers": settings.kafka_bootstrap}
    assert (found["spark_default"].host, found["spark_default"].port) == ("spark://spark-master:7077", None)


def test_generated_secrets_are_airflows_only(own: Settings) -> None:
    """They are private, stay the same, and none shadows a password of the database."""
    settings = own.model_copy(update={"airflow_host": "airflow-api-server"})
    init = load("init")
    init.write_configuration(settings)
    first = json.loads(settings.secrets_file.read_text())
    configuration = (airflow.home(settings) / "airflow.cfg").read_text()
    init.write_configuration(settings)
    assert json.loads(settings.secrets_file.read_text()) == first
    assert (airflow.home(settings) / "airflow.cfg").read_text() == configuration
    assert first.keys() == {"airflow_admin", "airflow_fernet", "airflow_jwt", "airflow_secret_key", "metrics_token"}
    assert settings.secrets_file.stat().st_mode & 0o777 == 0o600
