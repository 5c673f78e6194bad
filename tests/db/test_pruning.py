"""Pruning: scores and artifacts of versions that are not needed any more are removed, all others are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.models import Shop, new_version, open_shop, own_schemas, some_orders
from tidemill.config import Settings
from tidemill.ml.registry import pruning
from tidemill.ml.registry.pruning import PruneCounts, prune_versions
from tidemill.ml.registry.versions import insert_version
from tidemill.store.sql import identifiers


@pytest.fixture
def shop(mariadb: Settings, tmp_path: Path) -> Iterator[Shop]:
    """Six versions with scores and artifacts; the second one is published, the first one champion."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path)
        shop.commit(some_orders(10))
        for version in range(1, 7):
            make_version(shop, version)
        execute(shop, "UPDATE models SET champion_version = 1, published_version = 2")
        yield shop
        shop.connection.close()


def execute(shop: Shop, statement: str) -> None:
    """Change the control plane."""
    with shop.connection.cursor() as cursor:
        cursor.execute(statement)


def folder(shop: Shop, name: str) -> Path:
    """Where an artifact is."""
    return shop.settings.models / shop.pipeline.name / shop.model / name


def make_version(shop: Shop, version: int) -> None:
    """A version with an artifact, ten published scores and ten pending ones."""
    artifact = folder(shop, str(version))
    (artifact / "metadata").mkdir(parents=True)
    insert_version(shop.connection, shop.pipeline.name, shop.model, new_version(version, artifact=str(artifact)))
    scores = shop.pipeline.models[shop.model].score.table
    for table in (scores, identifiers.pending(scores)):
        execute(
            shop,
            f"INSERT INTO {shop.settings.db_data}.{table} (id, model_version, score, scored_commit, as_of_commit)"
            f" SELECT id, {version}, 0.5, 1, 1 FROM {shop.settings.db_data}.orders",
        )


def versions_in(shop: Shop, table: str) -> list[int]:
    """The versions that a table of scores holds."""
    return [int(row[0]) for row in shop.query(f"SELECT DISTINCT model_version FROM {table} ORDER BY 1")]


def test_champion_published_and_the_newest_three_stay(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores leave in steps; pending scores stay only of the champion, whose next publication takes them along."""
    monkeypatch.setattr(pruning, "BATCH_SCORES", 4)
    folder(shop, ".refresh-7").mkdir()
    scores = shop.pipeline.models[shop.model].score.table
    would = prune_versions(shop.connection, shop.settings, shop.pipeline, dry_run=True)
    assert would == PruneCounts(scores=10, pending_scores=50, artifacts=2)
    assert versions_in(shop, scores) == [1, 2, 3, 4, 5, 6]
    assert folder(shop, "3").exists()
    assert prune_versions(shop.connection, shop.settings, shop.pipeline) == would
    assert versions_in(shop, scores) == [1, 2, 4, 5, 6]
    assert versions_in(shop, identifiers.pending(scores)) == [1]
    assert sorted(path.name for path in folder(shop, "").iterdir()) == ["1", "2", "4", "5", "6"]
    assert prune_versions(shop.connection, shop.settings, shop.pipeline) == PruneCounts()


def test_what_waits_for_a_person_stays(shop: Shop) -> None:
    """A challenger that may yet be approved keeps its artifact, however many came after it."""
    execute(shop, "UPDATE model_versions SET state = 'waiting' WHERE version = 3")
    assert prune_versions(shop.connection, shop.settings, shop.pipeline, dry_run=True).artifacts == 0
    assert folder(shop, "3").exists()


def test_behind_a_uri_only_what_is_on_this_machine_is_removed(shop: Shop) -> None:
    """A ``file:`` URI is a folder; any other needs Spark, and is left alone."""
    models = shop.settings.models
    near = shop.settings.model_copy(update={"models": models.as_uri()})
    far = shop.settings.model_copy(update={"models": "hdfs://name:9000/models"})
    execute(shop, f"UPDATE model_versions SET artifact = REPLACE(artifact, '{models}', '{models.as_uri()}')")
    assert prune_versions(shop.connection, far, shop.pipeline, dry_run=True).artifacts == 0
    assert prune_versions(shop.connection, near, shop.pipeline).artifacts == 1
    assert not folder(shop, "3").exists()


def test_a_model_with_a_refresh_under_way_is_left_alone(shop: Shop) -> None:
    """Until it ends, or has been running for longer than any refresh does."""
    execute(shop, f"INSERT INTO refreshes (pipeline, model, run) VALUES ('{shop.pipeline.name}', '{shop.model}', 'x')")
    assert prune_versions(shop.connection, shop.settings, shop.pipeline) == PruneCounts()
    execute(shop, "UPDATE refreshes SET started_at = started_at - INTERVAL 25 HOUR")
    assert prune_versions(shop.connection, shop.settings, shop.pipeline).scores == 10


def test_an_artifact_elsewhere_is_not_ours_to_remove(shop: Shop, tmp_path: Path) -> None:
    """Only folders where training puts them are removed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    execute(shop, f"UPDATE model_versions SET artifact = '{elsewhere}' WHERE version = 3")
    assert prune_versions(shop.connection, shop.settings, shop.pipeline).artifacts == 0
    assert elsewhere.exists()
