"""What a person may do on the page: start, stop and restart a stream. Each writes a request into the database."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import Annotated, Any
from urllib.parse import urlsplit

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Request
from pymysql.connections import Connection

from tidemill.airflow.connections import open_in_api_server
from tidemill.store.connection import translated
from tidemill.store.control.streams import read_stream, request_exit, request_state

log = logging.getLogger(__name__)
HEADER = "X-Tidemill-Action"
"""A form of another site cannot send it, and a script of another site only if Airflow's CORS settings allow it."""
ACTIONS = {
    "start": "is requested to run",
    "stop": "is requested to stop",
    "restart": "is requested to replace its driver",
}
"""Action -> what a person reads once it is requested."""


def from_this_page(request: Request) -> None:
    """Reject requests that another site makes a person's browser send, with the cookie of Airflow's login.

    Raises:
        HTTPException: 403.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    # A browser sends sec-fetch-site, except to a server without TLS on another machine.
    if (site != "same-origin") if site else (origin is not None and urlsplit(origin).netloc not in _own_hosts(request)):
        raise HTTPException(403, "the request was sent by another site; use the console's own page")
    if HEADER.lower() not in request.headers:
        raise HTTPException(403, f"the header {HEADER} is missing; send it with any value")


def _own_hosts(request: Request) -> set[str]:
    """The names of the server: by the request, and by the configuration of a proxy before it."""
    configured = urlsplit(conf.get("api", "base_url", fallback="")).netloc
    return {request.headers.get("host", ""), configured} - {""}


def may_act(stream: str, request: Request, user: GetUserDep) -> BaseUser:
    """The user, who needs the right to change the runs of the stream's DAG; marking one failed stops the stream, too.

    Raises:
        HTTPException: 401 or 403.
    """
    requires_access_dag("PUT", DagAccessEntity.RUN, param_dag_id=f"stream__{stream}")(request, user)
    return user


def may_read_log(stream: str, request: Request, user: GetUserDep) -> None:
    """A user who may read the log of the stream's task may read the log of its driver.

    Raises:
        HTTPException: 401 or 403.
    """
    requires_access_dag("GET", DagAccessEntity.TASK_LOGS, param_dag_id=f"stream__{stream}")(request, user)


def act(stream: str, action: str, user: Annotated[BaseUser, Depends(may_act)]) -> dict[str, str]:
    """Write the request; the answer states in one sentence what was requested.

    Raises:
        HTTPException: 404 if there is no such stream, 422 if there is no such action.
        DatabaseUnavailable: the database cannot be reached.
    """
    if action not in ACTIONS:
        raise HTTPException(422, f"there is no action {action[:64]}; there are {', '.join(ACTIONS)}")
    by = f"console: {user.get_name()}"[:128]
    with closing(open_in_api_server()) as connection:
        if not _is_known(connection, stream):
            raise HTTPException(404, f"there is no stream {stream[:64]}; apply its pipeline first")
        if action == "restart":
            request_exit(connection, stream, by)
        else:
            request_state(connection, stream, "running" if action == "start" else "stopped", by)
    log.info("stream %s %s, by %s", stream, ACTIONS[action], by)
    sentence = f"stream {stream} {ACTIONS[action]}"
    if action != "stop" and _is_paused(f"stream__{stream}"):
        sentence += f", but Airflow does not act on it while the DAG stream__{stream} is paused: switch it on"
    return {"detail": sentence}


def _is_known(connection: Connection[Any], stream: str) -> bool:
    if read_stream(connection, stream) is not None:
        return True
    with translated(), connection.cursor() as cursor:
        return bool(cursor.execute("SELECT 1 FROM pipelines WHERE pipeline = %s LIMIT 1", (stream,)))


def _is_paused(dag_id: str) -> bool:
    dag = DagModel.get_current(dag_id)
    return dag is None or bool(dag.is_paused)
