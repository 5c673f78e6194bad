"""A feature that knows what comes after its row's time is caught, by letting time pass in a real database.

The database is brought to how it was at one moment after the other: each flight as its newest record up to then says,
weather only of hours that have begun, and the rollup over just these rows. At each moment the features of the
flights that have just departed are kept. In the end everything is loaded, and the features must not have changed.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from support import expected
from support.models import own_schemas
from tidemill.config import Account, Settings
from tidemill.errors import ModelError, SpecError
from tidemill.ml.data.leakage import ROWS, refuse_look_ahead, snapshot_features
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.migrations import apply_pipeline, migrate_control
from tidemill.store.sql import dialect, identifiers
from tidemill.store.sql.mariadb import MariaDB
from tidemill.store.write.bulk_load import bulk_load

FLIGHTS = 3_500
"""The first four days of 2013: the rollup of 48 hours before exists for the last two."""
FIRST, STEP = dt.datetime(2013, 1, 1, 6, 57), dt.timedelta(hours=6)
"""Just before the full hour, when flights of the next hour begin to leave early."""
HOURS = dt.timedelta(hours=2)
"""Short enough to see what goes on for an hour."""
DEPARTURE, ARRIVAL = ["departed_at", "dep_delay"], ["arrived_at", "arr_delay", "air_time"]
WEATHER = ["temp", "wind_speed", "precip", "visib"]
SAME_HOUR = ("INTERVAL (48 * 60 + MINUTE(f.scheduled_at)) MINUTE", "INTERVAL MINUTE(f.scheduled_at) MINUTE")
LABEL_SIDE = ("f.plane_age,", "f.plane_age, f.air_time,")
ARRIVED_ONLY = ("WHERE f.departed_at IS NOT NULL", "WHERE f.departed_at IS NOT NULL AND f.arr_delay IS NOT NULL")
ANY_WEATHER = ("IF(f.scheduled_at - INTERVAL MINUTE(f.scheduled_at) MINUTE <= f.departed_at, f.temp, NULL)", "f.temp")


@pytest.fixture(scope="module")
def final() -> pd.DataFrame:
    """Every flight as it ends."""
    frame = expected.final_flights(FLIGHTS)
    for name in ("scheduled_at", "departed_at", "arrived_at", "updated_at"):
        frame[name] = pd.to_datetime(frame[name])
    return frame


@pytest.fixture(scope="module")
def place(mariadb: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Empty tables of the pipeline flights."""
    with own_schemas(mariadb, tmp_path_factory.mktemp("models")) as settings:
        with session(settings, Account.MIGRATE) as connection:
            migrate_control(connection, settings.root / "sql")
            apply_pipeline(connection, settings, load_pipeline(settings.pipelines / "flights"))
        yield settings


def changed(settings: Settings, folder: Path, *edits: tuple[str, str]) -> Pipeline:
    """The shipped pipeline with an edited feature query."""
    place = folder / "flights"
    shutil.copytree(settings.pipelines / "flights", place)
    text = (place / "features.sql").read_text()
    for old, new in edits:
        assert old in text, f"the shipped query no longer holds {old}"
        text = text.replace(old, new)
    (place / "features.sql").write_text(text)
    return load_pipeline(place)


def as_of(final: pd.DataFrame, now: dt.datetime) -> pd.DataFrame:
    """The table as the records up to ``now`` make it, weather of hours that have not begun left out."""
    announced = final["scheduled_at"] - dt.timedelta(hours=12)
    rows = final[announced <= now].copy()
    rows["announced"] = announced
    ended, left = rows["updated_at"] <= now, rows["departed_at"].notna() & (rows["departed_at"] <= now)
    rows.loc[~ended, ARRIVAL] = None
    rows.loc[~left, DEPARTURE] = None
    rows.loc[~ended, "status"] = "scheduled"
    rows.loc[~ended & left, "status"] = "departed"
    rows.loc[~ended, "updated_at"] = rows["announced"]
    rows.loc[~ended & left, "updated_at"] = rows["departed_at"]
    rows.loc[rows["scheduled_at"].dt.floor("h") > now, WEATHER] = None
    return rows.drop(columns="announced")


def load(settings: Settings, pipeline: Pipeline, rows: pd.DataFrame) -> None:
    """Make the database hold exactly these flights, and the rollup over them."""
    columns = {name: [None if pd.isna(value) else value for value in rows[name]] for name in rows.columns}
    table = pa.table(columns | {name: [1] * len(rows) for name in identifiers.SYSTEM_COLUMNS})
    rollup = pipeline.rollups["delays_by_hour"]
    query = dialect(settings.db_dialect).recompute_rollup(settings.db_data, rollup, pipeline.tables["flights"])
    with session(settings, Account.STREAM, schema=settings.db_data) as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM flights")
        cursor.execute("DELETE FROM delays_by_hour")
        statement = dialect(settings.db_dialect).load(settings.db_data, "flights", table.column_names)
        bulk_load(connection, statement, table, table.column_names)
        cursor.execute(
            f"INSERT INTO delays_by_hour SELECT UNHEX(SHA2(CONCAT(q.origin, q.hour), 256)), q.* FROM ({query}) AS q"
        )


def leaks_of(settings: Settings, pipeline: Pipeline, final: pd.DataFrame, step: dt.timedelta = STEP) -> dict[str, int]:
    """Let time pass; returns in how many rows each column knew less at its time."""
    now, end = FIRST, final["departed_at"].max()
    kept = 0
    with snapshot_features(settings, pipeline, "late_arrival") as snapshot:
        while now <= end:
            load(settings, pipeline, as_of(final, now))
            kept += snapshot.extend(now)
            now += step
        load(settings, pipeline, final)
        found = {leak.column: leak.rows for leak in snapshot.leaks()}
    assert kept > FLIGHTS * 0.9, "the proof must have had rows to look at"
    return found


def test_the_shipped_features_leak_nothing(place: Settings, final: pd.DataFrame) -> None:
    """Every feature of every departed flight is the same at its departure as when everything is known."""
    assert leaks_of(place, load_pipeline(place.pipelines / "flights"), final) == {}


@pytest.mark.full
@pytest.mark.parametrize(
    ("edit", "leaks"),
    [
        pytest.param(("", ""), set(), id="as-it-is"),
        pytest.param(("d.hour = f.scheduled_at - INTERVAL (3", "d.hour = f.scheduled_at - INTERVAL (2"),
                     {"origin_departed_delay"}, id="an-hour-that-has-not-ended"),
    ],
)  # fmt: skip
def test_what_the_bench_asks_before_departure_leaks_nothing(
    place: Settings, final: pd.DataFrame, tmp_path: Path, edit: tuple[str, str], leaks: set[str]
) -> None:
    """Two hours before they are scheduled, flights know nothing that changes; the last hour, not ended, is caught."""
    text = (place.root / "bench" / "features_scheduled.sql").read_text()
    assert edit[0] in text
    folder = tmp_path / "flights"
    shutil.copytree(place.pipelines / "flights", folder)
    (folder / "features.sql").write_text(text.replace(*edit) if edit[0] else text)
    declared = (folder / "pipeline.yaml").read_text().replace("live: true", "live: false")
    (folder / "pipeline.yaml").write_text(declared.replace("baseline: dep_delay", "baseline: origin_departed_delay", 1))
    assert set(leaks_of(place, load_pipeline(folder), final, HOURS)) == leaks


def test_an_aggregate_of_the_same_hour_is_caught(place: Settings, final: pd.DataFrame, tmp_path: Path) -> None:
    """Joined to the rollup of the hour it flies in, a flight sees flights that arrive after it has left."""
    assert set(leaks_of(place, changed(place, tmp_path, SAME_HOUR), final)) == {"origin_late_share"}


def test_a_column_of_the_arrival_is_caught(place: Settings, final: pd.DataFrame, tmp_path: Path) -> None:
    """The time in the air is no part of the label, so that no reading of the query refuses it; time does."""
    assert set(leaks_of(place, changed(place, tmp_path, LABEL_SIDE), final)) == {"air_time"}


def test_a_choice_of_rows_by_their_outcome_is_caught(place: Settings, final: pd.DataFrame, tmp_path: Path) -> None:
    """A query of arrived flights only has rows that it had not at their time."""
    assert set(leaks_of(place, changed(place, tmp_path, ARRIVED_ONLY), final)) == {ROWS}


def test_weather_of_an_hour_to_come_is_caught(place: Settings, final: pd.DataFrame, tmp_path: Path) -> None:
    """A flight that leaves before its scheduled hour begins cannot know that hour's weather."""
    assert set(leaks_of(place, changed(place, tmp_path, ANY_WEATHER), final)) == {"temp"}


def test_the_label_in_disguise_is_refused_without_a_database(place: Settings, tmp_path: Path) -> None:
    """A feature made of the column that the label is made of does not pass the check of the pipeline folder."""
    with pytest.raises(SpecError, match="TM-SPEC-FEATURES-LEAK"):
        changed(place, tmp_path, ("f.plane_age,", "f.plane_age, f.arr_delay / 60 AS hours_late,"))


WHOLE_TABLE = (
    "f.plane_age,",
    "f.plane_age, (SELECT AVG(p.arr_delay) FROM flights AS p WHERE p.carrier = f.carrier) AS carrier_delay,",
)
CUT = dt.datetime(2013, 1, 3, 15, 30)


def test_training_accepts_features_that_do_not_look_beyond_the_cut(place: Settings, final: pd.DataFrame) -> None:
    """The shipped features of the rows before a cut are the same with and without the rows after it."""
    shipped = load_pipeline(place.pipelines / "flights")
    load(place, shipped, final)
    refuse_look_ahead(place, shipped, "late_arrival", CUT)


@pytest.mark.parametrize(
    ("edit", "feature"),
    [
        pytest.param(WHOLE_TABLE, "carrier_delay", id="average-over-the-whole-table"),
        pytest.param(SAME_HOUR, "origin_late_share", id="rollup-that-goes-on-counting"),
    ],
)
def test_training_refuses_features_that_look_beyond_the_cut(
    place: Settings, final: pd.DataFrame, tmp_path: Path, edit: tuple[str, str], feature: str
) -> None:
    """What rows after the cut are needed for is named: the held-out rows would have taught the model."""
    leaking = changed(place, tmp_path, edit)
    load(place, leaking, final)
    with pytest.raises(ModelError) as raised:
        refuse_look_ahead(place, leaking, "late_arrival", CUT)
    assert (raised.value.code, raised.value.parameters["feature"]) == ("TM-ML-LOOK-AHEAD", feature)


WITH_HINT = (WHOLE_TABLE[0], WHOLE_TABLE[1].replace("AS p WHERE", "AS p USE INDEX (PRIMARY) WHERE"))


@pytest.mark.parametrize("reason", ["incomplete rollup", "index hint", "invalid statement"])
def test_a_check_that_cannot_be_carried_out_refuses_the_training(
    place: Settings,
    final: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
) -> None:
    """Nothing is trained on features of which nobody knows whether they look ahead; the error names the reason."""
    pipeline = changed(place, tmp_path, *([WITH_HINT] if reason == "index hint" else []))
    load(place, pipeline, final)
    state, expected_text = "ready", "flights is read with a schema name, an index hint or a partition"
    if reason == "incomplete rollup":
        state, expected_text = "building", "these rollups do not count all rows yet: delays_by_hour"
    if reason == "invalid statement":
        monkeypatch.setattr(MariaDB, "compare_look_ahead", lambda *_: "SELECT nothing FROM nowhere", raising=False)
        expected_text = "nowhere"
    with session(place, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE rollups SET state = %s WHERE rollup = 'delays_by_hour'", (state,))
        try:
            with pytest.raises(ModelError) as raised:
                refuse_look_ahead(place, pipeline, "late_arrival", CUT)
        finally:
            cursor.execute("UPDATE rollups SET state = 'ready' WHERE rollup = 'delays_by_hour'")
    assert raised.value.code == "TM-ML-LOOK-AHEAD-UNCHECKED"
    assert expected_text in str(raised.value.value)
