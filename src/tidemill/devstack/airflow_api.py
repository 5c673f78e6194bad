"""A client of Airflow's REST API for the stack, the command line and the tests."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from tidemill.config import Settings
from tidemill.devstack import secrets
from tidemill.devstack.servers import airflow
from tidemill.errors import SetupError
from tidemill.retry import Backoff

_POLL_SECONDS = 0.5
_PAGE = 100
_BACKOFF = Backoff(first_seconds=0.1, longest_seconds=3.2, attempts=6)


@dataclass(frozen=True)
class Connection:
    """An Airflow connection."""

    conn_id: str
    conn_type: str
    host: str | None = None
    port: int | None = None
    schema: str | None = None
    login: str | None = None
    password: str | None = field(default=None, repr=False)
    extra: dict[str, Any] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The body of a request of the REST API."""
        return {
            "connection_id": self.conn_id,
            "conn_type": self.conn_type,
            "host": self.host,
            "port": self.port,
            "schema": self.schema,
            "login": self.login,
            "password": self.password,
            "extra": json.dumps(self.extra),
        }


class AirflowApi:
    """A client that logs in as the administrator before its first request.

    Every method raises SetupError if Airflow does not answer, or rejects the request; the value is Airflow's message.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = httpx.Client(base_url=settings.airflow_url, timeout=30, trust_env=False)
        self._authorization: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def request(self, method: str, path: str, body: dict[str, Any] | None = None, **query: Any) -> Any:
        """One request below ``/api/v2``; returns the decoded response."""
        if not self._authorization:
            self._log_in()

        def attempt() -> httpx.Response:
            response = self._send(method, f"/api/v2{path}", body, query)
            if response.status_code == httpx.codes.UNAUTHORIZED:  # the token has expired
                self._log_in()
                response = self._send(method, f"/api/v2{path}", body, query)
            return response

        return _decoded(_BACKOFF.run(attempt, retry_result=_was_rolled_back))

    def health(self) -> dict[str, Any]:
        """The health page: status and heartbeat of each component."""
        return dict(self.request("GET", "/monitor/health"))

    def dags(self) -> list[dict[str, Any]]:
        """Every DAG that Airflow has parsed."""
        return self._all("/dags", "dags", order_by="dag_id")

    def import_errors(self) -> list[dict[str, Any]]:
        """DAG files that could not be imported, with the traceback."""
        return self._all("/importErrors", "import_errors", order_by="id")

    def wait_for_dag(self, dag_id: str, deadline_seconds: float = 300) -> dict[str, Any]:
        """The DAG, once Airflow has parsed it."""
        end = time.monotonic() + deadline_seconds
        while (dag := next((each for each in self.dags() if each["dag_id"] == dag_id), None)) is None:
            if time.monotonic() > end:
                errors = [each["stack_trace"].strip().splitlines()[-1] for each in self.import_errors()]
                raise SetupError(
                    "TM-DEVSTACK-DAG-UNKNOWN",
                    value="; ".join(errors) or None,
                    dag=dag_id,
                    seconds=f"{deadline_seconds:g}",
                )
            time.sleep(_POLL_SECONDS)
        return dag

    def unpause(self, dag_id: str) -> None:
        """Unpause the DAG."""
        self.request("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Pause the DAG; no further run starts."""
        self.request("PATCH", f"/dags/{dag_id}", {"is_paused": True})

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run; returns its run id."""
        body = {"logical_date": None, "conf": conf or {}}
        return str(self.request("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run."""
        return dict(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}"))

    def dag_runs(self, dag_id: str, limit: int = 25) -> list[dict[str, Any]]:
        """The DAG's newest runs, newest first; at most ``limit``, which Airflow caps at 100."""
        return list(self.request("GET", f"/dags/{dag_id}/dagRuns", order_by="-run_after", limit=limit)["dag_runs"])

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Set a run ``failed`` or ``success``, which ends its running tasks."""
        self.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def wait_for_run(self, dag_id: str, run_id: str, deadline_seconds: float) -> dict[str, Any]:
        """The run, once it has ended."""
        end = time.monotonic() + deadline_seconds
        while (run := self.dag_run(dag_id, run_id))["state"] not in ("success", "failed"):
            if time.monotonic() > end:
                raise SetupError(
                    "TM-DEVSTACK-RUN-SLOW", value=run["state"], run=run_id, dag=dag_id, seconds=f"{deadline_seconds:g}"
                )
            time.sleep(_POLL_SECONDS)
        return run

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The tasks of a run with their states."""
        return self._all(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances", order_by="id")

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """The log of one try of a task."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.request("GET", path, full_content=True)["content"]
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in content)

    def put_connection(self, connection: Connection) -> None:
        """Create the connection, or update it."""
        known = self._all("/connections", "connections", order_by="connection_id")
        if any(each["connection_id"] == connection.conn_id for each in known):
            self.request("PATCH", f"/connections/{connection.conn_id}", connection.body())
        else:
            self.request("POST", "/connections", connection.body())

    def _all(self, path: str, key: str, **query: Any) -> list[dict[str, Any]]:
        """All entries of a listing, page by page: Airflow answers with at most 100 (``[api] maximum_page_limit``), and
        caps any higher limit at that without a word."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.request("GET", path, limit=_PAGE, offset=len(found), **query)
            found += answer[key]
            if not answer[key] or len(found) >= answer["total_entries"]:
                return found

    def _log_in(self) -> None:
        password = self._settings.secret(secrets.AIRFLOW_ADMIN).get_secret_value()
        response = self._send("POST", "/auth/token", {"username": airflow.ADMIN, "password": password}, {})
        self._authorization = {"Authorization": f"Bearer {_decoded(response)['access_token']}"}

    def _send(self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, Any]) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body, params=query, headers=self._authorization)
        except httpx.TransportError as error:
            raise SetupError("TM-DEVSTACK-AIRFLOW-SILENT", value=error, url=self._settings.airflow_url) from error


def _was_rolled_back(response: httpx.Response) -> bool:
    """Whether Airflow's database rolled the request back.

    SQLite does so at once, whatever its time-out, when a transaction that has read begins to write and another one has
    written in between.
    """
    return response.status_code == httpx.codes.INTERNAL_SERVER_ERROR and "Database error" in response.text


def _decoded(response: httpx.Response) -> Any:
    if response.is_error:
        request = f"{response.request.method} {response.request.url.path}"
        raise SetupError(
            "TM-DEVSTACK-AIRFLOW-REJECTED", value=response.text[:500], request=request, status=response.status_code
        )
    return response.json() if response.content else None
