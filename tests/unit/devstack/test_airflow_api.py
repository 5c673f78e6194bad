"""Listings of Airflow's API are read to their end, however few entries a page may have."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from airflow.api_fastapi.core_api.datamodels.connections import ConnectionCollectionResponse
from airflow.api_fastapi.core_api.datamodels.dags import DAGCollectionResponse
from airflow.api_fastapi.core_api.datamodels.import_error import ImportErrorCollectionResponse
from airflow.api_fastapi.core_api.datamodels.task_instances import TaskInstanceCollectionResponse
from airflow.configuration import conf

from tidemill.config import Settings
from tidemill.devstack import secrets
from tidemill.devstack.airflow_api import AirflowApi, Connection

COUNT = 237
LISTINGS = {
    "/dags": ("dags", "dag_id"),
    "/importErrors": ("import_errors", "import_error_id"),
    "/connections": ("connections", "connection_id"),
    "/dags/d/dagRuns/r/taskInstances": ("task_instances", "id"),
}


class Listings(BaseHTTPRequestHandler):
    """Answers as Airflow's API pages: never more entries than the maximum, whatever the limit."""

    received: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        """A page of a listing."""
        url = urlsplit(self.path)
        key, name = LISTINGS[url.path.removeprefix("/api/v2")]
        query = {name: int(value[0]) for name, value in parse_qs(url.query).items() if value[0].isdecimal()}
        first = query.get("offset", 0)
        last = first + min(query.get("limit", 50), conf.getint("api", "maximum_page_limit"))
        page = [{name: f"{number:03}"} for number in range(COUNT)][first:last]
        self.answer({key: page, "total_entries": COUNT})

    def do_POST(self) -> None:
        """A token, or a new connection."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(("POST", self.path))
        self.answer({"access_token": "x"})

    def do_PATCH(self) -> None:
        """A known connection."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(("PATCH", self.path))
        self.answer({})

    def answer(self, body: dict[str, Any]) -> None:
        """Send a body."""
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on standard error."""


@pytest.fixture
def api(own: Settings) -> Iterator[AirflowApi]:
    """A client of such an API."""
    secrets.ensure(own)
    with ThreadingHTTPServer(("127.0.0.1", 0), Listings) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = own.model_copy(update={"airflow_port": server.server_port})
        with AirflowApi(settings) as client:
            yield client
        server.shutdown()


def test_a_listing_is_read_to_its_end(api: AirflowApi) -> None:
    """DAGs, import errors and tasks, each once."""
    expected = [f"{number:03}" for number in range(COUNT)]
    assert [each["dag_id"] for each in api.dags()] == expected
    assert [each["import_error_id"] for each in api.import_errors()] == expected
    assert [each["id"] for each in api.task_instances("d", "r")] == expected


def test_a_dag_and_a_connection_beyond_the_first_page_are_known(api: AirflowApi) -> None:
    """The DAG is found, and the connection is updated instead of created again."""
    assert api.wait_for_dag(f"{COUNT - 1:03}", 0)["dag_id"] == f"{COUNT - 1:03}"
    Listings.received.clear()
    api.put_connection(Connection(f"{COUNT - 1:03}", "generic"))
    assert Listings.received == [("PATCH", f"/api/v2/connections/{COUNT - 1:03}")]


def test_the_pages_are_those_of_airflow() -> None:
    """Each listing counts its entries under the name that the client reads."""
    answers = {
        "dags": DAGCollectionResponse,
        "import_errors": ImportErrorCollectionResponse,
        "connections": ConnectionCollectionResponse,
        "task_instances": TaskInstanceCollectionResponse,
    }
    for key, answer in answers.items():
        assert {key, "total_entries"} <= set(answer.model_fields)
