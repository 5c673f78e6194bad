"""The console inside a running Airflow: for those who may see its jobs, and for nobody else."""

from collections.abc import Iterator

import httpx
import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from prometheus_client.parser import text_string_to_metric_families as parse

from tidemill.config import METRICS_TOKEN, Account, Settings
from tidemill.deploy.apply import apply_all
from tidemill.devstack import secrets
from tidemill.devstack.airflow_api import AirflowApi
from tidemill.devstack.servers import airflow
from tidemill.devstack.stack import Stack
from tidemill.devstack.up import connections
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.spec import load_pipelines
from tidemill.store.connection import session
from tidemill.store.control import incidents, leases, streams

ADDRESSES = ("/tidemill/", "/tidemill/api/status", "/tidemill/metrics")
OURS = {"X-Tidemill-Action": "a test"}
"""The header that only the console's own page, or a script, sends."""
STREAM = "flights"


@pytest.fixture(scope="module")
def served(airflow_stack: Stack) -> Iterator[Settings]:
    """A console with something to show."""
    settings = airflow_stack.settings
    with AirflowApi(settings) as api:
        for connection in connections(settings):
            api.put_connection(connection)
    apply_all(settings, load_pipelines(settings.pipelines).values(), lambda line: None)
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, STREAM, "stopped", "a test")
        incidents.open_incident(connection, f"stream {STREAM}", "test", "water <b>is</b> rising")
    yield settings
    with session(settings, Account.STREAM) as connection:
        streams.request_state(connection, STREAM, "stopped", "a test")
        incidents.close_incident(connection, f"stream {STREAM}", "test")
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM leases WHERE stream = %s AND acquired_by = 'a test'", (STREAM,))


def get(settings: Settings, address: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """One request to Airflow's server."""
    return httpx.get(settings.airflow_url + address, headers=headers or {}, timeout=60, trust_env=False)


def post(settings: Settings, address: str, headers: dict[str, str], **other: object) -> httpx.Response:
    """One request that changes something."""
    return httpx.post(settings.airflow_url + address, headers=headers, timeout=60, trust_env=False, **other)  # type: ignore[arg-type]


def token(settings: Settings) -> dict[str, str]:
    """The administrator's token as a header."""
    password = settings.secret(secrets.AIRFLOW_ADMIN).get_secret_value()
    body = {"username": airflow.ADMIN, "password": password}
    answer = httpx.post(f"{settings.airflow_url}/auth/token", json=body, timeout=60, trust_env=False)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def viewers_token() -> dict[str, str]:
    """The token of somebody who may look at everything and change nothing, signed as Airflow's server does."""
    viewer = SimpleAuthManagerUser(username="viewer", role="viewer")
    return {"Authorization": f"Bearer {SimpleAuthManager().generate_jwt(viewer)}"}


def row_of(settings: Settings) -> StreamRow:
    """The stream as the control plane has it."""
    with session(settings, Account.READ) as connection:
        found = streams.read_stream(connection, STREAM)
    assert found is not None
    return found


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}], ids=["nobody", "nonsense"])
def test_nobody_gets_in_without_a_login(served: Settings, address: str, headers: dict[str, str]) -> None:
    """Airflow itself leaves the routes of plugins open."""
    assert get(served, address, headers).status_code in (401, 403)


def test_no_other_address_is_open(served: Settings) -> None:
    """Not even the description of the addresses."""
    for address in ("/tidemill/docs", "/tidemill/openapi.json", "/tidemill/api/", "/tidemill/logs/flights"):
        assert get(served, address).status_code in (401, 403, 404)
    for headers in ({}, OURS, OURS | {"Authorization": "Bearer nonsense"}):
        assert post(served, "/tidemill/streams/flights/stop", headers).status_code in (401, 403)


def test_a_scraper_shows_a_token_that_opens_nothing_else(served: Settings) -> None:
    """It has no login of Airflow; whoever may look needs no token."""
    shown = {"Authorization": f"Bearer {served.secret(METRICS_TOKEN).get_secret_value()}"}
    answer = get(served, "/tidemill/metrics", shown)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["content-type"].count("charset") == 1
    names = {sample.name for family in parse(answer.text) for sample in family.samples}
    assert {"tidemill_database_up", "tidemill_stream_desired_running", "tidemill_incidents_open"} <= names
    assert get(served, "/tidemill/", shown).status_code in (401, 403)
    assert post(served, f"/tidemill/streams/{STREAM}/stop", OURS | shown).status_code in (401, 403)
    assert get(served, f"/tidemill/metrics?token={shown['Authorization'][7:]}").status_code in (401, 403)
    assert get(served, "/tidemill/metrics", viewers_token()).status_code == 200


def test_the_page_and_its_facts_are_served_to_the_administrator(served: Settings) -> None:
    """Both come from the same queries."""
    facts = get(served, "/tidemill/api/status", token(served))
    assert facts.status_code == 200
    [stream] = [each for each in facts.json()["streams"] if each["stream"] == "flights"]
    assert (stream["desired_state"], stream["requested_by"]) == ("stopped", "a test")
    [incident] = [each for each in facts.json()["incidents"] if each["kind"] == "test"]
    assert incident["opened_at"].endswith(("Z", "+00:00"))
    models = {each["model"] for each in facts.json()["models"] if each["pipeline"] == "flights"}
    assert models == {"late_arrival", "delay_minutes"}
    page = get(served, "/tidemill/", token(served))
    assert page.headers["content-type"].startswith("text/html")
    assert "water &lt;b&gt;is&lt;/b&gt; rising" in page.text


def test_a_person_starts_restarts_and_stops_a_stream_on_the_page(served: Settings) -> None:
    """Each is a wish in the database with the person's name, answered in one sentence."""
    administrator = OURS | token(served)
    with session(served, Account.STREAM) as connection:
        epoch = leases.acquire_lease(connection, STREAM, 1, "a test")
    for action, wanted, exit_epoch in (
        ("start", "running", None),
        ("restart", "running", epoch),
        ("stop", "stopped", epoch),
    ):
        answer = post(served, f"/tidemill/streams/{STREAM}/{action}", administrator)
        assert answer.status_code == 200, answer.text
        assert answer.json()["detail"].startswith(f"stream {STREAM} is ")
        row = row_of(served)
        assert (row.desired_state, row.requested_by, row.exit_epoch) == (
            wanted,
            f"console: {airflow.ADMIN}",
            exit_epoch,
        )


def test_nobody_acts_without_the_right_to_change_the_runs(served: Settings) -> None:
    """Looking is another right."""
    assert get(served, "/tidemill/api/status", viewers_token()).status_code == 200
    before = row_of(served).requested_at
    answer = post(served, f"/tidemill/streams/{STREAM}/start", OURS | viewers_token())
    assert answer.status_code == 403
    assert row_of(served).requested_at == before


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="a form"),
        pytest.param({"Origin": "http://evil.example"}, id="a form that says where it is from"),
        pytest.param(OURS | {"Origin": "http://evil.example"}, id="a script"),
        pytest.param(OURS | {"Origin": "null"}, id="a page in a sandbox"),
        pytest.param(OURS | {"Sec-Fetch-Site": "cross-site"}, id="a browser that says so"),
        pytest.param(OURS | {"Sec-Fetch-Site": "same-site"}, id="another name of the same site"),
    ],
)
def test_another_site_cannot_act_with_a_persons_login(served: Settings, headers: dict[str, str]) -> None:
    """The browser would send the cookie along."""
    before = row_of(served).requested_at
    cookie = {"_token": token(served)["Authorization"][7:]}
    address = f"/tidemill/streams/{STREAM}/start"
    refused = post(served, address, headers, cookies=cookie, data={"any": "thing"})
    assert refused.status_code == 403
    assert "; " in refused.json()["detail"]
    assert row_of(served).requested_at == before
    own = OURS | {"Origin": served.airflow_url, "Sec-Fetch-Site": "same-origin"}
    assert post(served, address, own, cookies=cookie).status_code == 200


def test_what_there_is_not_is_said_in_one_sentence(served: Settings) -> None:
    """A stream, an action."""
    administrator = OURS | token(served)
    unknown = post(served, "/tidemill/streams/nothing/start", administrator)
    assert (unknown.status_code, unknown.json()["detail"]) == (
        404,
        "there is no stream nothing; apply its pipeline first",
    )
    wrong = post(served, f"/tidemill/streams/{STREAM}/burn", administrator)
    assert (wrong.status_code, wrong.json()["detail"]) == (
        422,
        "there is no action burn; there are start, stop, restart",
    )


def test_the_console_is_linked_from_airflows_navigation(served: Settings) -> None:
    """And no plugin failed to load."""
    errors = get(served, "/api/v2/plugins/importErrors", token(served)).json()
    assert errors["import_errors"] == []
    plugins = get(served, "/api/v2/plugins", token(served)).json()["plugins"]
    [ours] = [plugin for plugin in plugins if plugin["name"] == "tidemill"]
    assert [(view["href"], view["destination"]) for view in ours["external_views"]] == [("/tidemill/", "nav")]
