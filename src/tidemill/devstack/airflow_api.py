"""What the stack, the command line and the tests ask of Airflow, over its REST API."""

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
        """As the REST API takes it."""
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
    """A client that logs in as the administrator when it first has to.

    Every method raises SetupError where Airflow does not answer or refuses, with Airflow's own words.
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
        """One call below ``/api/v2``; returns the decoded answer."""
        if not self._authorization:
            self._log_in()

        def attempt() -> httpx.Response:
            answer = self._send(method, f"/api/v2{path}", body, query)
            if answer.status_code == httpx.codes.UNAUTHORIZED:  # the token has expired
                self._log_in()
                answer = self._send(method, f"/api/v2{path}", body, query)
            return answer

        return _decoded(_BACKOFF.run(attempt, retry_result=_gave_way))

    def health(self) -> dict[str, Any]:
        """The health page: status and heartbeat of each component."""
        return dict(self.request("GET", "/monitor/health"))

    def dags(self) -> list[dict[str, Any]]:
        """Every DAG Airflow knows."""
        return list(self.request("GET", "/dags", limit=100)["dags"])

    def import_errors(self) -> list[dict[str, Any]]:
        """DAG files that could not be imported, with the traceback."""
        return list(self.request("GET", "/importErrors")["import_errors"])

    def wait_for_dag(self, dag_id: str, deadline_seconds: float = 300) -> dict[str, Any]:
        """The DAG, after waiting until Airflow knows it."""
        end = time.monotonic() + deadline_seconds
        while (found := next((dag for dag in self.dags() if dag["dag_id"] == dag_id), None)) is None:
            if time.monotonic() > end:
                errors = [each["stack_trace"].strip().splitlines()[-1] for each in self.import_errors()]
                raise SetupError(
                    f"Airflow does not know the DAG {dag_id} after {deadline_seconds:.0f} seconds",
                    value="; ".join(errors) or None,
                )
            time.sleep(_POLL_SECONDS)
        return found

    def unpause(self, dag_id: str) -> None:
        """Let the DAG run."""
        self.request("PATCH", f"/dags/{dag_id}", {"is_paused": False})

    def pause(self, dag_id: str) -> None:
        """Start no more runs of the DAG."""
        self.request("PATCH", f"/dags/{dag_id}", {"is_paused": True})

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run; returns its run id."""
        body = {"logical_date": None, "conf": conf or {}}
        return str(self.request("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run."""
        return dict(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}"))

    def dag_runs(self, dag_id: str, limit: int = 25) -> list[dict[str, Any]]:
        """The DAG's runs, newest first."""
        found = self.request("GET", f"/dags/{dag_id}/dagRuns", order_by="-run_after", limit=limit)
        return list(found["dag_runs"])

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Set a run ``failed`` or ``success``, which ends its running tasks."""
        self.request("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def wait_for_run(self, dag_id: str, run_id: str, deadline_seconds: float) -> dict[str, Any]:
        """The run, after waiting until it has ended."""
        end = time.monotonic() + deadline_seconds
        while (found := self.dag_run(dag_id, run_id))["state"] not in ("success", "failed"):
            if time.monotonic() > end:
                raise SetupError(
                    f"run {run_id} of {dag_id} has not ended within {deadline_seconds:.0f} seconds",
                    value=found["state"],
                )
            time.sleep(_POLL_SECONDS)
        return found

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The tasks of a run with their states."""
        return list(self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"])

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """The log of one try of a task."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.request("GET", path, full_content=True)["content"]
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in content)

    def put_connection(self, connection: Connection) -> None:
        """Create the connection, or make it what it should be."""
        known = self.request("GET", "/connections", limit=1000)["connections"]
        if any(each["connection_id"] == connection.conn_id for each in known):
            self.request("PATCH", f"/connections/{connection.conn_id}", connection.body())
        else:
            self.request("POST", "/connections", connection.body())

    def _log_in(self) -> None:
        password = self._settings.secret(secrets.AIRFLOW_ADMIN).get_secret_value()
        answer = self._send("POST", "/auth/token", {"username": airflow.ADMIN, "password": password}, {})
        self._authorization = {"Authorization": f"Bearer {_decoded(answer)['access_token']}"}

    def _send(self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, Any]) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body, params=query, headers=self._authorization)
        except httpx.TransportError as error:
            raise SetupError(
                "Airflow does not answer",
                value=f"{self._settings.airflow_url} ({error})",
                remedy="start the stack with ./tidemill up",
            ) from error


def _gave_way(answer: httpx.Response) -> bool:
    """Whether Airflow's database rolled the call back. SQLite does so at once, however long its time-out, when a
    transaction that has read wants to write and another one has written since."""
    return answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR and "Database error" in answer.text


def _decoded(answer: httpx.Response) -> Any:
    if answer.is_error:
        asked = f"{answer.request.method} {answer.request.url.path}"
        raise SetupError(f"Airflow refused {asked} with {answer.status_code}", value=answer.text[:500])
    return answer.json() if answer.content else None
