"""The features of the example pipeline know nothing of the future."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from support import expected
from support.paths import ROOT

FEATURES = ROOT / "pipelines" / "flights" / "features.sql"


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    """All flights, as they ended."""
    frame = expected.final_flights()
    for name in ("scheduled_at", "departed_at", "updated_at"):
        frame[name] = pd.to_datetime(frame[name])
    return frame


def unfinished(flights: pd.DataFrame, distance_hours: int) -> int:
    """How many departures see an hour of the rollup, so many hours earlier, that goes on changing after them."""
    hour = flights["scheduled_at"].dt.floor("h")
    last = flights["updated_at"].groupby([flights["origin"], hour]).max().rename("last")
    departed = flights[flights["departed_at"].notna()]
    seen = pd.MultiIndex.from_arrays(
        [departed["origin"], departed["scheduled_at"].dt.floor("h") - pd.Timedelta(hours=distance_hours)]
    )
    return int((last.reindex(seen).to_numpy() > departed["departed_at"].to_numpy()).sum())


def test_history_is_finished_before_it_is_seen(flights: pd.DataFrame) -> None:
    """At the distance that features.sql keeps, no flight sees a rollup row that changes after its departure."""
    found = re.search(r"INTERVAL \((\d+) \* 60 \+ MINUTE\(f\.scheduled_at\)\) MINUTE", FEATURES.read_text())
    assert found is not None
    assert unfinished(flights, int(found[1])) == 0


@pytest.mark.parametrize(("hours", "leaks"), [(24, 20), (32, 19), (33, 0)])
def test_a_shorter_distance_would_leak(flights: pd.DataFrame, hours: int, leaks: int) -> None:
    """The check can fail: yesterday's hour is not finished for every flight; 33 hours are the least that is safe."""
    assert unfinished(flights, hours) == leaks


def test_both_models_know_the_same() -> None:
    """The feature queries differ in what they foretell and in nothing else: what is shown of one holds for both."""
    late, delay = (
        path.read_text().partition("SELECT\n")[2] for path in (FEATURES, FEATURES.with_name("features_delay.sql"))
    )
    assert delay == late.replace("f.arr_delay > 15 AS late,", "f.arr_delay AS delay_minutes,") != late
