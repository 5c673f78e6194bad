"""Refreshes as rows: one at a time of each model, what the run was asked for, and when a step is repeated."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.models import Shop, open_shop, outdate, own_schemas, some_orders
from tidemill.config import Account, Settings
from tidemill.errors import ModelError
from tidemill.ml.refresh import (
    Action,
    begin_refresh,
    decide_refresh,
    end_refresh,
    read_refresh_inputs,
    reopen_refresh,
    running_refreshes,
)
from tidemill.ml.registry.decisions import Decision, record_decision
from tidemill.store.connection import connect


@pytest.fixture
def shop(mariadb: Settings, tmp_path: Path) -> Iterator[Shop]:
    """A pipeline of ten orders."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path)
        shop.commit(some_orders(10))
        yield shop
        shop.connection.close()


def begin(shop: Shop, run: str, **more: Any) -> int:
    """Open a refresh."""
    return begin_refresh(shop.connection, shop.pipeline, shop.model, run, **more)


def row(shop: Shop, refresh_id: int) -> dict[str, Any]:
    """What a refresh says of itself."""
    with shop.connection.cursor() as cursor:
        cursor.execute("SELECT state, options, reason FROM refreshes WHERE id = %s", (refresh_id,))
        return dict(zip(("state", "options", "reason"), cursor.fetchone(), strict=True))


def test_a_second_run_is_refused_while_one_is_under_way(shop: Shop) -> None:
    """The sentence names the run that is; when that has ended, the next one may begin."""
    first = begin(shop, "the scheduled run")
    with pytest.raises(ModelError) as raised:
        begin(shop, "a run by hand")
    assert (raised.value.code, raised.value.value) == ("TM-ML-REFRESH-RUNNING", "the scheduled run")
    end_refresh(shop.connection, first, "failed", reason="no rows")
    assert begin(shop, "a run by hand") > first


def test_a_repeated_run_opens_its_own_refresh_again(shop: Shop) -> None:
    """It is no overlap with itself."""
    first = begin(shop, "a run")
    assert begin(shop, "a run") == first
    assert running_refreshes(shop.connection, "shop", shop.model) == {"a run": first}


def test_of_two_runs_that_begin_at_the_same_moment_one_is_refused(shop: Shop) -> None:
    """Whichever comes second, however close they are."""
    both = threading.Barrier(2)

    def attempt(run: str) -> str:
        with connect(shop.settings, Account.STREAM) as connection:
            both.wait(60)
            try:
                begin_refresh(connection, shop.pipeline, shop.model, run)
            except ModelError as error:
                return str(error)
            return ""

    for number in range(5):
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(attempt, (f"one of {number}", f"other of {number}")))
        assert sorted(bool(answer) for answer in answers) == [False, True]
        for refresh_id in running_refreshes(shop.connection, "shop", shop.model).values():
            end_refresh(shop.connection, refresh_id, "skipped")


def test_a_run_of_the_day_before_keeps_nobody_waiting(shop: Shop) -> None:
    """A refresh whose worker was lost with everything else does not block the model for ever."""
    begin(shop, "a run that was lost")
    outdate(shop.connection)
    assert begin(shop, "the next run")
    assert list(running_refreshes(shop.connection, "shop", shop.model)) == ["the next run"]


def test_what_the_form_asked_for_stands_in_the_row(shop: Shop) -> None:
    """The jobs of the run read it there; repeated without a form it is forgotten."""
    asked = {"from": "2026-01-01T00:00:00+00:00", "until": None, "parameters": {"maxDepth": 3}}
    refresh = begin(shop, "a run", options=asked)
    assert json.loads(row(shop, refresh)["options"]) == asked
    assert row(shop, begin(shop, "a run"))["options"] is None


def test_a_repeated_step_opens_a_refresh_that_had_failed(shop: Shop) -> None:
    """But not one that is published, and not beside another run."""
    refresh = begin(shop, "a run")
    end_refresh(shop.connection, refresh, "failed", reason="the database was away")
    reopen_refresh(shop.connection, shop.pipeline, shop.model, refresh)
    assert row(shop, refresh) == {"state": "running", "options": None, "reason": None}
    end_refresh(shop.connection, refresh, "published", 10)
    reopen_refresh(shop.connection, shop.pipeline, shop.model, refresh)
    assert row(shop, refresh)["state"] == "published"
    lost = begin(shop, "a lost run")
    end_refresh(shop.connection, lost, "failed")
    begin(shop, "another run")
    with pytest.raises(ModelError) as raised:
        reopen_refresh(shop.connection, shop.pipeline, shop.model, lost)
    assert (raised.value.code, raised.value.value) == ("TM-ML-REFRESH-RUNNING", "another run")


def test_a_refused_scoring_is_not_repeated_before_something_changes(shop: Shop) -> None:
    """The same rows would be refused again: nothing new. After another commit, or another champion, it is."""

    def action() -> Action:
        return decide_refresh(read_refresh_inputs(shop.connection, shop.pipeline, shop.model)).action

    with shop.connection.cursor() as cursor:
        cursor.execute("UPDATE models SET champion_version = 1")
    refresh = begin(shop, "a run")
    assert action() is Action.SCORE
    end_refresh(shop.connection, refresh, "refused", reason="it drifted")
    assert action() is Action.SKIP
    record_decision(shop.connection, ("shop", shop.model), 1, Decision("rolled back", "a test", "a test"))
    assert action() is Action.SCORE
