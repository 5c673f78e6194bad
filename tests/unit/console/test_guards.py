"""Airflow guards no route of a plugin: each route of the console has a guard of its own."""

import asyncio
import json

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from fastapi.routing import APIRoute

from tidemill.config import METRICS_TOKEN, Settings
from tidemill.console import routes
from tidemill.console.queries import Status
from tidemill.devstack import secrets


def ask(app: FastAPI, method: str, path: str, headers: dict[str, bytes]) -> httpx.Response:
    """One request to the application, without a server."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def open_addresses(app: FastAPI) -> list[str]:
    """Routes that answer a user without a login, or are no plain routes."""
    found = []
    for route in app.routes:
        if not isinstance(route, APIRoute):
            found.append(f"{route} is not one that can be guarded")
            continue
        path = route.path.replace("{stream}", "flights").replace("{action}", "stop")
        for method in route.methods:
            answer = ask(app, method, path, {"X-Tidemill-Action": b"a test"})
            if answer.status_code not in (401, 403):
                found.append(f"{method} {path} answers {answer.status_code}")
    return found


def test_no_address_answers_without_a_login() -> None:
    """One without a guard would be found."""
    app = routes.build()
    assert len(app.routes) > 4
    assert open_addresses(app) == []
    app.add_api_route("/open", lambda: "anything")
    assert open_addresses(app) == ["GET /open answers 200"]


@pytest.fixture
def console(own: Settings, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """A console of an installation of its own, with nothing to show."""
    monkeypatch.setenv("TIDEMILL_STATE", str(own.state))
    monkeypatch.setattr(routes, "status", lambda: Status([], [], []))
    return routes.build()


@pytest.mark.parametrize(
    ("shown", "code"),
    [
        ("Bearer {token}", 200),
        ("bearer {token} ", 200),
        ("Basic {token}", 401),
        ("Bearer {token}x", 401),
        ("Bearer", 401),
        ("Bearer tökén", 401),
        ("", 401),
    ],
)
def test_the_token_is_taken_whole_and_as_a_bearer_token_only(
    console: FastAPI, own: Settings, monkeypatch: pytest.MonkeyPatch, shown: str, code: int
) -> None:
    """Anything else is taken for a login of Airflow's, and is none."""
    token = secrets.ensure(own)[METRICS_TOKEN]
    monkeypatch.setattr(routes, "get_user", refuse)
    answer = ask(console, "GET", "/metrics", {"Authorization": shown.format(token=token).encode()})
    assert answer.status_code == code, answer.text


async def refuse(*arguments: object) -> None:
    """No login of Airflow's is right."""
    raise HTTPException(401, "Not authenticated")


@pytest.mark.parametrize("kept", [{}, {"metrics_token": ""}], ids=["none was made", "an empty one"])
def test_an_installation_without_a_token_takes_none(
    console: FastAPI, own: Settings, monkeypatch: pytest.MonkeyPatch, kept: dict[str, str]
) -> None:
    """Not even an empty one."""
    monkeypatch.setattr(routes, "get_user", refuse)
    own.secrets_file.parent.mkdir(parents=True, exist_ok=True)
    own.secrets_file.write_text(json.dumps(kept))
    for shown in ("Bearer", "Bearer None", ""):
        assert ask(console, "GET", "/metrics", {"Authorization": shown.encode()}).status_code == 401


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, None),
        ({"Origin": "http://here"}, None),
        ({"Origin": "http://proxy.example:443", "Sec-Fetch-Site": "same-origin"}, None),
        ({"Origin": "http://configured.example"}, None),
        ({"Origin": "http://evil.example"}, "was sent by another site"),
        ({"Origin": "http://here.evil.example"}, "was sent by another site"),
        ({"Origin": "null"}, "was sent by another site"),
        ({"Origin": "http://here", "Sec-Fetch-Site": "cross-site"}, "was sent by another site"),
        ({"Sec-Fetch-Site": "none"}, "was sent by another site"),
        ({"X-Tidemill-Action": None}, "header X-Tidemill-Action is missing"),
    ],
)
def test_only_the_consoles_own_page_and_scripts_act(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str | None], refused: str | None
) -> None:
    """A request that passes this still needs a login, which is checked next."""
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://configured.example/airflow")
    given = {"X-Tidemill-Action": "a test"} | headers
    sent = {name: value.encode() for name, value in given.items() if value is not None}
    answer = ask(routes.build(), "POST", "/streams/flights/stop", sent)
    if refused:
        assert answer.status_code == 403
        assert refused in answer.json()["detail"]
    else:
        assert answer.status_code == 401
