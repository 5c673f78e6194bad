"""The console's page: what it shows, and that nothing in it is taken for markup."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from support.streams import RUNNING, ago
from tidemill.config import Settings
from tidemill.console import routes
from tidemill.console.ledgers import Ledger
from tidemill.console.models import ModelView
from tidemill.console.queries import Incident, Status, stream_status
from tidemill.ml.registry.history import DecisionRecord, FeatureDrift

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEDGER = Ledger(commits=7, records=70_000, written_rows=69_000, quarantined_rows=12, last_committed_at=AT, newest_at=AT)
ROW = replace(RUNNING, lag_records=1234, behind_seconds=1.6, records_per_second=5_432.1, latency_p99_ms=1_300)
STREAM = stream_status(ROW, LEDGER, 30.0)
MODEL = ModelView("flights", "late_arrival", 4, 3, AT, "areaUnderROC", 0.91234, 0.7, AT)
INCIDENT = Incident("stream flights", "halted", "6 drivers broke without a commit", AT)


def page(status: Status) -> str:
    """The page as a person gets it."""
    return routes.render(status, "n0nce")


@pytest.mark.parametrize(
    "shown",
    [
        *("flights", "running", "by a person", "1,234", "3 s", "promised: 30 s", "5,432", "50 ms", "100,000 records"),
        *(
            "120 ms / 1,300 ms",
            "70,000 records",
            "69,000 rows in 7 commits",
            "12",
            "2026-03-01 12:00:00 UTC",
            "version 2",
        ),
        *("its driver catches up, with 1,234 records left at 5,432 records/s", 'href="logs/flights"'),
        'href="/dags/stream__flights"',
    ],
)
def test_a_stream_is_one_row(shown: str) -> None:
    """State and its meaning, who requested it, lag, the promise, speed, and what was committed."""
    assert shown in page(Status([STREAM], [], []))


@pytest.mark.parametrize(
    ("change", "buttons"),
    [
        ({}, {"stop", "restart"}),
        ({"desired_state": "stopped", "state": "stopped"}, {"start"}),
        ({"halted_reason": "6 drivers broke"}, {"start", "stop", "restart"}),
    ],
)
def test_the_buttons_are_what_makes_sense(change: dict[str, str], buttons: set[str]) -> None:
    """A stream that runs cannot be started; one that is halted can."""
    text = page(Status([stream_status(replace(ROW, **change), LEDGER, 30.0)], [], []))
    found = {each for each in ("start", "stop", "restart") if f'data-stream="flights" data-action="{each}"' in text}
    assert found == buttons


def test_what_a_driver_reported_before_it_failed_is_not_shown_as_the_present() -> None:
    """Its lag and its speed are history; a backlog that it left grows older, and without one nothing is known."""
    gone = stream_status(
        replace(ROW, state="failed", last_error="the disk is full", heartbeat_at=ago(60)), LEDGER, 30.0
    )
    assert (gone.state, gone.alive, gone.running, gone.lag_records) == ("failed", False, False, None)
    assert gone.records_per_second is None
    assert (gone.behind_seconds, gone.keeps_promise) == (None, None)
    late = stream_status(replace(ROW, state="failed", behind_seconds=7.0, heartbeat_at=ago(60)), LEDGER, 30.0)
    assert (late.behind_seconds, late.keeps_promise) == (67, False)
    assert gone.sentence == "its driver failed, and the next one follows: the disk is full"
    assert gone.last_error == ""


def test_an_error_that_the_sentence_does_not_hold_is_shown_beside_it() -> None:
    """A driver that runs may have had trouble a moment ago."""
    troubled = stream_status(replace(RUNNING, last_error="Kafka was slow"), LEDGER, 30.0)
    assert "last error: Kafka was slow" in page(Status([troubled], [], []))


def test_the_page_runs_nothing_but_itself() -> None:
    """No other site can show it in a frame, and nothing from elsewhere is run or loaded."""
    answer = routes.page(Status([STREAM], [], []))
    policy = answer.headers["content-security-policy"]
    [nonce] = {part.strip("'")[6:] for part in policy.replace(";", " ").split() if part.startswith("'nonce-")}
    text = bytes(answer.body).decode()
    assert f'<script nonce="{nonce}">' in text
    assert f'<style nonce="{nonce}">' in text
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "http://" not in text
    assert "https://" not in text
    assert " style=" not in text
    assert " onclick=" not in text


@pytest.mark.parametrize(
    "shown", ["flights.late_arrival", "version 4", "areaUnderROC", "0.9123", "0.7000", "version 3"]
)
def test_a_model_is_shown_beside_its_baseline(shown: str) -> None:
    """A metric has a meaning only by comparison."""
    assert shown in page(Status([], [MODEL], []))


def test_an_open_incident_is_shown_with_its_sentence() -> None:
    """The sentence is what a person acts on; where to read on is named by its kind."""
    text = page(Status([], [], [INCIDENT]))
    assert INCIDENT.message in text
    assert "“halted” in docs/operations.md" in text


def test_a_model_shows_how_sure_it_is_how_its_input_moves_and_who_decided() -> None:
    """Interval, calibration, drift with what is beyond the bound, the newest decision, and what waits for a person."""
    model = replace(
        MODEL,
        low=0.90111,
        high=0.92222,
        waiting_version=5,
        calibration=(
            {"predicted": 0.051, "observed": 0.049, "rows": 90},
            {"predicted": 0.91, "observed": 0.88, "rows": 90},
        ),
        drift=(FeatureDrift("hour", 0.312, 0.25, 900), FeatureDrift("month", 4.5, None, 900)),
        decision=DecisionRecord(4, "promoted", "better by 0.0100", "airflow: ada, a run", AT),
    )
    text = page(Status([], [model], []))
    for shown in (
        *("0.9123", "95 %: 0.9011 to 0.9222", "version 5 waits for approval", "0.05", "0.91", "0.88"),
        *(
            "version 4 promoted by airflow: ada, a run",
            "better by 0.0100",
            'href="/dags/refresh__flights__late_arrival"',
        ),
        *('<span class="bad">hour 0.312</span>', '<span class="">month 4.500</span>'),
    ):
        assert shown in text


def test_what_is_not_known_yet_is_a_dash_and_no_error() -> None:
    """A pipeline that was applied a minute ago has no figures."""
    new = replace(
        RUNNING, epoch=0, pipeline_version=None, acquired_at=None, heartbeat_at=None, heartbeat_epoch=None, state=None,
        lag_records=None, behind_seconds=None, batch_ms=None, latency_p50_ms=None, latency_p99_ms=None,
    )  # fmt: skip
    unknown = stream_status(new, Ledger(), None)
    untrained = ModelView("flights", "late_arrival", None, None, None, None, None, None, None)
    text = page(Status([unknown], [untrained], []))
    assert "none yet" in text
    assert "never" in text
    assert "None" not in text.replace("None.", "")


def test_an_empty_installation_has_a_page_too() -> None:
    """It states that there is no stream and no model."""
    text = page(Status([], [], []))
    assert "No stream has been started yet." in text
    assert "No model was applied." in text


def test_text_from_outside_is_never_markup() -> None:
    """A driver's error may quote a record, and a record may hold anything."""
    text = page(Status([stream_status(replace(RUNNING, last_error="<script>alert(1)</script>"), LEDGER, 30.0)], [], []))
    assert "<script>" not in text.replace('<script nonce="n0nce">', "")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_plugin_costs_the_other_processes_nothing(settings: Settings) -> None:
    """Every task imports the plugins; the web framework and the database wait for the first request."""
    plugin = settings.root / "plugins" / "tidemill_plugin.py"
    code = (
        "import runpy, sys; import airflow.plugins_manager; before = set(sys.modules);"
        f"runpy.run_path({str(plugin)!r}); import tidemill.console.plugin;"
        "print(sorted({n.split('.')[0] for n in set(sys.modules) - before} & {'fastapi', 'jinja2', 'pymysql'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
