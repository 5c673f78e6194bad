"""Every part of the product agrees on which streams are alive, and on how far their tables are behind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from support.paths import ROOT
from support.streams import NOW, RUNNING, ago
from tidemill.airflow.dags import prepare
from tidemill.airflow.triggers import request_outcome
from tidemill.airflow.triggers import stream as stream_trigger
from tidemill.cli import restart
from tidemill.config import Settings
from tidemill.console.ledgers import Ledger
from tidemill.console.metrics import exposition
from tidemill.console.queries import Status, stream_status
from tidemill.deploy import apply
from tidemill.devstack.overview import state_facts
from tidemill.lifecycle.behind import behind_seconds
from tidemill.lifecycle.decide import ActionType, decide, desired_of
from tidemill.lifecycle.driver_state import ALIVE, observe
from tidemill.lifecycle.limits import LIMITS
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.ml import refresh

AGES = (0, 7.5, 7.6, 14, 16, 91, 3600)
"""Seconds on both sides of every limit that was ever used."""


def rows() -> Iterator[StreamRow]:
    """Streams in every combination of request, lease, heartbeat, lag and recorded failure."""
    numbers = iter(range(1_000_000))
    for desired, state, age, epochs, lag, failed, halted in product(
        ("running", "stopped"),
        ("starting", "running", "stopping", "stopped", "failed"),
        AGES,
        ((7, 7), (7, 6), (7, None), (0, None)),
        ((0, 0.0), (0, None), (5, 44.0), (5, None), (None, 2.0)),
        (None, 1, 3601),
        (None, "6 drivers failed"),
    ):
        epoch, heartbeat_epoch = epochs
        has_heartbeat = heartbeat_epoch is not None
        yield replace(
            RUNNING,
            stream=f"s{next(numbers)}",
            desired_state=desired,
            halted_reason=halted,
            epoch=epoch,
            acquired_at=ago(max(age, 500)) if heartbeat_epoch == epoch else ago(age) if epoch else None,
            heartbeat_epoch=heartbeat_epoch,
            state=state if has_heartbeat else None,
            heartbeat_at=ago(age) if has_heartbeat else None,
            lag_records=lag[0] if has_heartbeat else None,
            behind_seconds=lag[1] if has_heartbeat else None,
            last_failed_at=None if failed is None else ago(failed),
        )


ROWS = list(rows())


@pytest.fixture(scope="module")
def samples() -> dict[tuple[str, str], float]:
    """(metric, stream) -> what Prometheus scrapes for all rows."""
    status = Status([stream_status(row, Ledger(), 30.0) for row in ROWS], [], [])
    text, _ = exposition(lambda: status)
    return {
        (sample.name, sample.labels["stream"]): sample.value
        for family in parse(text.decode())
        for sample in family.samples
        if "stream" in sample.labels
    }


def test_the_rows_are_of_every_kind() -> None:
    """The sweep below would prove nothing about streams that are all alike."""
    assert {observe(row, viewed_seconds=seconds).driver_state for row in ROWS for seconds in (0, 15)} >= ALIVE
    assert {observe(row).is_alive for row in ROWS} == {True, False}
    assert {None, 0.0} < {behind_seconds(row) for row in ROWS}


def test_status_console_and_metrics_agree_about_alive_and_behind(samples: dict[tuple[str, str], float]) -> None:
    """What they show is what ``observe`` and ``behind_seconds`` return."""
    for row in ROWS:
        facts, shown = state_facts(row), stream_status(row, Ledger(), 30.0)
        alive, behind = observe(row).is_alive, behind_seconds(row)
        assert facts["alive"] is shown.alive is alive
        assert samples["tidemill_stream_alive", row.stream] == alive
        assert facts["state"] == shown.state
        assert samples["tidemill_stream_running", row.stream] == observe(row).is_running
        assert facts["behind_seconds"] == shown.behind_seconds == behind
        assert samples.get(("tidemill_stream_behind_seconds", row.stream)) == behind


def test_operators_act_on_the_same_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task reads one row, and neither starts a driver beside one that is alive nor waits for one that is not."""
    monkeypatch.setattr(stream_trigger, "is_gone", lambda row: False)
    for row in ROWS:
        monkeypatch.setattr(stream_trigger, "read_stream", lambda connection, stream, row=row: row)
        seen = stream_trigger.observe_stream(SimpleNamespace(), row.stream)  # type: ignore[arg-type]
        assert seen is not None
        assert seen[1] == observe(row)
        action = decide(seen[1], desired_of(row), row.now).action_type
        if action in (ActionType.START, ActionType.IDLE, ActionType.OPEN_CIRCUIT, ActionType.BACK_OFF):
            assert not seen[1].is_alive
        if action in (ActionType.WATCH, ActionType.ROLL, ActionType.AWAIT_EXIT, ActionType.KILL):
            assert seen[1].is_alive


def test_a_requested_stop_is_confirmed_when_no_driver_is_alive() -> None:
    """By the form in Airflow; a requested start is confirmed when a driver is running."""
    for row in ROWS:
        request = {"stream": row.stream, "desired_state": row.desired_state, "by": "a person", "after_epoch": 0}
        confirmed, _ = request_outcome.outcome_of(row, request, gone=False)
        if row.desired_state == "stopped":
            assert bool(confirmed) is not observe(row).is_alive
        else:
            assert bool(confirmed) is (observe(row).is_running and row.halted_reason is None)


def test_the_stack_waits_until_no_driver_is_alive(monkeypatch: pytest.MonkeyPatch, own: Settings) -> None:
    """A look that comes first cannot find a silent driver lost; a watcher that has looked long enough can."""
    clock = SimpleNamespace(seconds=0.0)

    def sleep(seconds: float) -> None:
        clock.seconds += 2

    def read(connection: object) -> list[StreamRow]:
        return [replace(row, now=NOW + timedelta(seconds=clock.seconds))]

    monkeypatch.setattr(apply, "time", SimpleNamespace(monotonic=lambda: clock.seconds, sleep=sleep))
    monkeypatch.setattr(apply, "session", lambda *_: _Session())
    monkeypatch.setattr(apply.stream_rows, "read_streams", read)
    for row in {(each.state, each.heartbeat_at, each.acquired_at): each for each in ROWS}.values():
        clock.seconds = 0.0
        assert apply.wait_stopped(own, [row.stream], 1) is not observe(row).is_alive
        clock.seconds = 0.0
        assert apply.wait_stopped(own, [row.stream], 600)
        assert clock.seconds <= LIMITS.grace_seconds + LIMITS.view_seconds + 4


class _Session:
    """A connection that nothing is asked of."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        pass


def test_a_refresh_waits_by_the_same_measure() -> None:
    """It goes on if the tables are behind no further than promised, and if the stream is stopped."""
    facts: dict[str, Any] = dict.fromkeys(refresh.RefreshInputs.__dataclass_fields__)
    facts |= {"now": NOW, "last_commit": 9, "published_commit": 0, "trained_commit": 0, "behind_allowed_seconds": 45.0}
    facts |= {"refused_commit": 0, "train_schedule": "@daily", "force": True}
    for row in ROWS:
        behind = behind_seconds(row)
        inputs = refresh.RefreshInputs(
            **facts | {"is_to_run": row.desired_state == "running", "behind_seconds": behind}
        )
        waits = refresh.decide_refresh(inputs).action is refresh.Action.WAIT
        assert waits is (row.desired_state == "running" and (behind is None or behind > 45))


def test_the_callers_use_the_functions_of_the_life_cycle() -> None:
    """Each module that decides about a driver has the one function, and none of its own."""
    assert all(module.observe is observe for module in (apply, request_outcome, restart, stream_trigger))  # type: ignore[attr-defined]
    assert refresh.behind_seconds is behind_seconds  # type: ignore[attr-defined]
    assert prepare.observe_stream is stream_trigger.observe_stream


_SIGNALS = {"heartbeat_at", "acquired_at"}
_MAY_READ = {"console/queries.py"}
"""Modules that show the age of a heartbeat under that name."""


def ages(source: str) -> list[int]:
    """Lines that compare the time of a driver's sign of life, or subtract it: a definition of "alive" in the making."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.BinOp | ast.Compare | ast.Call)
        for part in ast.iter_child_nodes(node)
        if isinstance(part, ast.Attribute) and part.attr in _SIGNALS and not _is_none_check(node)
    ]


def _is_none_check(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot)


def test_no_other_module_judges_a_driver_by_the_age_of_its_heartbeat() -> None:
    """A second definition would be noticed."""
    package = ROOT / "src" / "tidemill"
    names = {str(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}
    others = {name: path for name, path in names.items() if Path(name).parts[0] != "lifecycle"}
    assert {name for name, path in others.items() if ages(path.read_text())} <= _MAY_READ | {
        "airflow/triggers/request_outcome.py"
    }
    assert ages("old = (row.now - row.heartbeat_at).total_seconds() > 15") == [1]
    assert ages("row.acquired_at >= row.requested_at") == [1]
    assert ages("row.heartbeat_at is None") == []


def test_times_of_the_console_have_a_zone() -> None:
    """Freshness subtracts times of one kind."""
    shown = stream_status(RUNNING, Ledger(newest_at=ago(90).replace(tzinfo=UTC)), 30.0)
    assert shown.freshness_seconds == 90
