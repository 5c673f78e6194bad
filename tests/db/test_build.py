"""A rollup that comes after its table: built while the stream writes, and exact at every instant that counts."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.writes import Writer
from tidemill.config import Account, Settings
from tidemill.console.queries import read_status
from tidemill.deploy.apply import apply_all, plan_pipeline
from tidemill.devstack.describe import describe_overview
from tidemill.devstack.overview import overview
from tidemill.errors import Fenced
from tidemill.spec import Pipeline, load_pipeline
from tidemill.store.connection import session
from tidemill.store.maintenance.rollup_backfill import backfill_all, incomplete_rollups
from tidemill.store.migrations import apply_pipeline

BY_PARITY = {
    "by": {
        "odd": {"expr": "id % 2", "type": "INT"},
        "minute": {"expr": "DATE_FORMAT(seen, '%Y-%m-%d %H:%i:00')", "type": "DATETIME"},
    },
    "measures": {"n": "count(*)", "points": "sum(points)"},
}


def declare(writer: Writer, rollups: dict[str, Any]) -> None:
    """Write other rollups into the folder of the writer's pipeline."""
    path = writer.pipeline.folder / "pipeline.yaml"
    content = yaml.safe_load(path.read_text())
    content["rollups"] = {name: {"of": writer.table, **rollup} for name, rollup in rollups.items()}
    path.write_text(yaml.safe_dump(content))


def applied(writer: Writer, rollups: dict[str, Any]) -> Pipeline:
    """The writer's pipeline with other rollups, applied; the writer goes on with its new version."""
    declare(writer, rollups)
    pipeline = load_pipeline(writer.pipeline.folder)
    with session(writer.settings, Account.MIGRATE) as connection:
        writer.version = apply_pipeline(connection, writer.settings, pipeline)
    return pipeline


def construction(writer: Writer) -> frozenset[str]:
    """The rollups that do not count all rows yet."""
    with session(writer.settings, Account.STREAM) as connection:
        return incomplete_rollups(connection, writer.pipeline)


def as_declared(writer: Writer) -> dict[str, Any]:
    """The rollup that the writer's pipeline was made with."""
    rollup = writer.pipeline.rollups[writer.rollup]
    by = {name: key.model_dump() for name, key in rollup.by.items()}
    return {writer.rollup: {"by": by, "measures": rollup.measures}}


def test_a_rollup_added_to_a_live_table_is_built_beside_the_stream(entity: Writer, mariadb: Settings) -> None:
    """Rows from before, rows that change and rows that come meanwhile: each is counted once; then it is moved."""
    for start in range(0, 3_000, 500):
        entity.write([(key, "red", key % 7, 10) for key in range(start, start + 500)])
    late = f"late_{entity.pipeline.name}"
    entity.pipeline = applied(entity, as_declared(entity) | {late: BY_PARITY})
    assert construction(entity) == {late}
    entity.acquire_lease()
    stop, built = threading.Event(), threading.Event()

    def build() -> None:
        try:
            while late not in backfill_all(mariadb, entity.pipeline, entity.epoch, lambda: True, rows=50):
                pass
            built.set()
        finally:
            stop.set()

    builder = threading.Thread(target=build)
    builder.start()
    second = 11
    while not stop.is_set() or second < 14:
        rows = [(key, "blue", 3, second) for key in range(second % 3, 3_300 + 10 * second, 5)]
        entity.write(rows, second % 4)
        second += 1
    builder.join()
    assert built.is_set()
    assert construction(entity) == frozenset()
    assert entity.verify() == []
    entity.write([(1, "green", 100, 1_000), (99_999, None, 1, 1_000)])
    assert entity.verify() == []
    assert sum(int(n) for (n,) in entity.query(f"SELECT n FROM {late}")) == len(entity.rows())


def test_a_driver_that_was_taken_over_builds_nothing(entity: Writer, mariadb: Settings) -> None:
    """Somebody who does not know the rollup may be writing: each step proves the epoch."""
    entity.write([(1, "red", 5, 10)])
    late = f"late_{entity.pipeline.name}"
    entity.pipeline = applied(entity, as_declared(entity) | {late: BY_PARITY})
    entity.acquire_lease()
    with pytest.raises(Fenced):
        backfill_all(mariadb, entity.pipeline, entity.epoch - 1, lambda: True)
    assert entity.query(f"SELECT * FROM {late}") == []
    assert backfill_all(mariadb, entity.pipeline, entity.epoch, lambda: True) == [late]
    assert entity.verify() == []


def test_a_rollup_that_a_version_did_not_know_is_built_again(entity: Writer, mariadb: Settings, tmp_path: Path) -> None:
    """Gone back to the version before and forth again: what was written between is counted."""
    entity.write([(1, "red", 5, 10)])
    known, late = as_declared(entity), f"late_{entity.pipeline.name}"
    entity.pipeline = applied(entity, known | {late: BY_PARITY})
    entity.acquire_lease()
    backfill_all(mariadb, entity.pipeline, entity.epoch, lambda: True)
    entity.pipeline = applied(entity, known)
    entity.acquire_lease()
    entity.write([(1, "blue", 9, 11), (2, "red", 1, 11)])
    entity.pipeline = applied(entity, known | {late: BY_PARITY})
    assert construction(entity) == {late}
    entity.acquire_lease()
    assert backfill_all(mariadb, entity.pipeline, entity.epoch, lambda: True) == [late]
    assert entity.verify() == []
    assert sum(int(points) for (points,) in entity.query(f"SELECT points FROM {late}")) == 10


def test_a_rollup_is_reported_as_incomplete_until_it_is_built(
    entity: Writer, mariadb: Settings, kafka: Settings
) -> None:
    """Added, or dropped and added again: plan, apply, status and console name it while readers see a part of it."""
    settings = mariadb.model_copy(update={"pipelines": entity.pipeline.folder.parent})
    entity.write([(1, "red", 5, 10)])
    known, late, name = as_declared(entity), f"late_{entity.pipeline.name}", entity.pipeline.name
    sentence = f"rollup {late} is being built beside the stream and is incomplete until a driver is done"

    def reports() -> list[bool]:
        """Whether status and console name the rollup."""
        facts = overview(settings)
        [row] = [each for each in facts["streams"] if each["stream"] == name]
        [shown] = [each for each in read_status(settings).streams if each.stream == name]
        assert row["building_rollups"] in ([], [late])
        return [f"  {sentence}" in describe_overview(facts), shown.sentence.endswith(sentence)]

    for rollups in (known | {late: BY_PARITY}, known, known | {late: BY_PARITY}):
        declare(entity, rollups)
        pipeline, lines = load_pipeline(entity.pipeline.folder), list[str]()
        planned = [step for step in plan_pipeline(settings, pipeline) if step.startswith("build rollup")]
        apply_all(settings, [pipeline], lines.append)
        is_new = late in rollups
        assert (
            planned
            == [
                f"build rollup {late} beside the stream: it is incomplete until a driver has counted"
                f" the rows of {entity.table}"
            ]
            * is_new
        )
        assert (f"{name}: {sentence}" in lines) is is_new
        assert reports() == [is_new, is_new]
        entity.acquire_lease()
        backfill_all(mariadb, pipeline, entity.epoch, lambda: True)
        assert reports() == [False, False]
