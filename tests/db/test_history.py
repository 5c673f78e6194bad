"""The control plane does not grow without bound: what is long over leaves, what is in use stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.models import Shop, new_version, open_shop, own_schemas
from tidemill.config import Settings
from tidemill.ml.registry.versions import insert_version
from tidemill.store.maintenance import history
from tidemill.store.maintenance.history import KEPT
from tidemill.store.maintenance.run import maintain


@pytest.fixture
def shop(mariadb: Settings, tmp_path: Path) -> Iterator[Shop]:
    """A model that was refreshed every day of eight, two years ago."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path)
        for day in range(1, 9):
            insert_version(
                shop.connection, "shop", shop.model, new_version(day, refresh_id=day, artifact=f"/models/shop/{day}")
            )
            verdict = "promoted" if day % 4 == 1 else "rejected"
            run(shop, "UPDATE model_versions SET state = %s WHERE version = %s", "retired", day)
            run(
                shop,
                "INSERT INTO refreshes (id, pipeline, model, run, state, scored_version, as_of_commit, started_at,"
                " ended_at) VALUES (%s, 'shop', %s, %s, 'published', %s, %s, '2024-01-01', '2024-01-02')",
                *(day, shop.model, f"run {day}", 1 + day // 5 * 4, day),
            )
            for table, columns in (("drift", "'x', 0.1, 0.2, 9"), ("evaluations", "1, 'auc', 1, 1, 1, 1, 1")):
                run(shop, f"INSERT INTO {table} VALUES (%s, {columns})", day)
            run(
                shop,
                "INSERT INTO decisions (pipeline, model, version, refresh_id, verdict, reason, decided_by, decided_at)"
                " VALUES ('shop', %s, %s, %s, %s, '', 'measure', '2024-01-01')",
                *(shop.model, day, day, verdict),
            )
        run(shop, "UPDATE models SET champion_version = 5, published_version = 1")
        run(shop, "UPDATE model_versions SET created_at = '2024-01-01'")
        run(shop, "UPDATE model_versions SET state = 'waiting' WHERE version = 3")
        for kind, closed in (("open", None), ("closed", "2024-01-02"), ("recent", "2099-01-01")):
            run(
                shop,
                "INSERT INTO incidents (subject, kind, message, opened_at, closed_at)"
                " VALUES ('stream shop', %s, '', '2024-01-01', %s)",
                *(kind, closed),
            )
        for state, ended in (
            ("running", None),
            ("done", "2024-01-02"),
            ("failed", "2024-01-02"),
            ("done", "2099-01-01"),
        ):
            run(
                shop,
                "INSERT INTO replays (stream, pipeline_version, selection, requested_by, state, ended_at, requested_at)"
                " VALUES ('shop', 1, '{}', 'tests', %s, %s, '2024-01-01')",
                *(state, ended),
            )
        yield shop
        shop.connection.close()


def run(shop: Shop, statement: str, *values: object) -> list[tuple[object, ...]]:
    """Change or read the control plane."""
    with shop.connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def remaining(shop: Shop) -> dict[str, list[object]]:
    """Table -> what identifies its rows."""
    names = {"model_versions": "version", "refreshes": "id", "drift": "refresh_id", "evaluations": "refresh_id"}
    names |= {"decisions": "version", "incidents": "kind", "replays": "state"}
    return {
        table: [row[0] for row in run(shop, f"SELECT {name} FROM {table} ORDER BY 1")] for table, name in names.items()
    }


@pytest.mark.parametrize("rows", [1, 500])
def test_what_is_over_leaves_and_what_is_in_use_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Champion 5, published 1, waiting 3 and the newest three stay, with what they rest on; a dry run is dry."""
    before = remaining(shop)
    would = maintain(shop.connection, shop.settings, shop.pipeline, dry_run=True).removed_history
    assert remaining(shop) == before
    monkeypatch.setattr(history, "BATCH_ROWS", rows)
    assert maintain(shop.connection, shop.settings, shop.pipeline).removed_history == would
    used = [1, 3, 5, 6, 7, 8]
    assert remaining(shop) == {
        "model_versions": used,
        # 4 is the newest refresh that published version 1.
        **{table: [1, 3, 4, 5, 6, 7, 8] for table in ("refreshes", "drift", "evaluations")},
        "decisions": used,
        "incidents": ["open", "recent"],
        "replays": ["running", "done"],
    }
    assert maintain(shop.connection, shop.settings, shop.pipeline).removed_history == {}


def test_a_model_with_a_running_refresh_is_left_alone(shop: Shop) -> None:
    """Its refresh reads versions and earlier refreshes."""
    run(shop, "INSERT INTO refreshes (pipeline, model, run) VALUES ('shop', %s, 'now')", shop.model)
    removed = maintain(shop.connection, shop.settings, shop.pipeline).removed_history
    assert removed == {"incidents": 1, "replays": 2}


def test_every_table_has_a_retention_or_a_reason_why_it_cannot_grow(mariadb: Settings) -> None:
    """A table that is added to the control plane needs one of them."""
    tables = {path.stem for path in (mariadb.root / "sql" / "control").glob("*.sql")}
    assert tables == KEPT.keys()
    assert all(KEPT.values())
