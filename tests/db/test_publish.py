"""From a refresh to what readers see, without Spark: the scores are written as the scoring job writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from support.models import Shop, new_version, open_shop, outdate, own_schemas, some_orders, unlabelled
from tidemill.config import Account, Settings
from tidemill.errors import ModelError, StoreError
from tidemill.ml.refresh import (
    Action,
    begin_refresh,
    decide_refresh,
    end_refresh,
    last_complete_commit,
    read_refresh_inputs,
)
from tidemill.ml.registry import versions
from tidemill.ml.registry.promotion import promote_or_reject
from tidemill.ml.registry.versions import Estimate
from tidemill.ml.serving.publish import model_status, publish
from tidemill.ml.serving.score import ScoreTarget, load
from tidemill.store.connection import connect, session
from tidemill.store.sql import dialect, identifiers

METRIC = "areaUnderROC"


@pytest.fixture
def shop(mariadb: Settings, tmp_path: Path) -> Iterator[Shop]:
    """A pipeline of ten orders, none of them scored."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path)
        shop.commit(some_orders(10))
        yield shop
        shop.connection.close()


def begin(shop: Shop, run: str = "a run") -> int:
    outdate(shop.connection)
    return begin_refresh(shop.connection, shop.pipeline, shop.model, run)


def trained(shop: Shop, refresh_id: int, measured: dict[int, float | None]) -> int:
    """Record a version as training does; ``measured`` holds it under -1."""
    with versions.transaction(shop.connection):
        version = versions.next_version(shop.connection, "shop", shop.model)
        versions.insert_version(shop.connection, "shop", shop.model, new_version(version, refresh_id))
        estimates = {version if number == -1 else number: Estimate(value) for number, value in measured.items()}
        versions.write_evaluations(shop.connection, refresh_id, METRIC, estimates)
    return version


def promoted(shop: Shop, refresh_id: int) -> int:
    """A first champion."""
    version = trained(shop, refresh_id, {0: 0.5, -1: 0.9})
    assert promote_or_reject(shop.connection, shop.pipeline, shop.model, refresh_id).promote
    return version


def unscored(shop: Shop, version: int) -> dict[int, int]:
    """Row -> its commit, of the rows that scoring would read."""
    model = shop.pipeline.models[shop.model]
    rows = dialect(shop.settings.db_dialect).feature_rows(model.query.sql, model, shop.pipeline.tables["orders"])
    query = dialect(shop.settings.db_dialect).unscored(shop.settings.db_data, rows, model, version)
    return dict(shop.query(f"SELECT id, _commit FROM ({query}) AS u"))


def scored(shop: Shop, refresh_id: int, version: int, *values: float | None, complete: bool = True) -> int:
    """Write the scores of a refresh as the scoring job does: the values in turn, 0.5 without any."""
    model = shop.pipeline.models[shop.model]
    rows = unscored(shop, version)
    columns = [*model.key, *identifiers.SCORE_COLUMNS]
    statement = dialect(shop.settings.db_dialect).load(
        shop.settings.db_data, identifiers.pending(model.score.table), columns
    )
    scores = [(values or (0.5,))[n % len(values or (0.5,))] for n in range(len(rows))]
    batch = pa.table({"id": list(rows), "score": pa.array(scores, pa.float64()), "_commit": list(rows.values())})
    load(ScoreTarget(shop.settings, statement, model.key, version, 1), batch, batch["score"])
    if complete:
        with shop.connection.cursor() as cursor:
            cursor.execute("UPDATE refreshes SET scored_version = %s WHERE id = %s", (version, refresh_id))
    return len(rows)


def seen(shop: Shop) -> list[tuple[int | None, float | None]]:
    """What the application reads: version and score of each row."""
    return shop.query("SELECT model_version, score FROM orders_scored ORDER BY id")


NO_NUMBERS = (math.inf, -math.inf, math.nan, None)


def test_rows_without_a_number_as_score_are_published_as_null_beside_the_others(shop: Shop) -> None:
    """Each publication counts them in what readers see; the incident closes with the first that finds none."""
    incidents = "SELECT message, closed_at IS NOT NULL FROM incidents WHERE kind = 'unscored_rows' ORDER BY id"
    refresh = begin(shop)
    version = promoted(shop, refresh)
    scored(shop, refresh, version, 0.5, *NO_NUMBERS)
    assert publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh) == 10
    assert [score for _, score in seen(shop)] == [0.5, None, None, None, None] * 2
    assert unscored(shop, version) == {}, "a row is asked for again once it has changed"
    [(message, closed)] = shop.control(incidents)
    assert message.startswith(
        f"version {version} of model shop.returns gave no number as score for 8 rows, such as id "
    )
    assert not closed
    [status] = model_status(shop.connection, shop.settings, shop.pipeline)
    assert status.scored_rows == 2
    for first, left in ((1, 4), (6, 0)):
        shop.commit(some_orders(5, first=first))
        refresh = begin(shop, f"from {first}")
        scored(shop, refresh, version, 0.25)
        publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)
        [(message, closed)] = shop.control(incidents)
        assert closed == (left == 0)
        assert closed or f"for {left} rows" in message


def test_a_run_has_one_refresh(shop: Shop) -> None:
    """Beginning again for the same run opens its refresh again, as of the newest commit; another run has its own."""
    first = begin(shop)
    end_refresh(shop.connection, first, "failed", reason="a reason")
    newest = shop.commit(some_orders(1, first=11))
    assert begin(shop) == first
    assert begin(shop, "another run") != first
    assert shop.control(f"SELECT state, as_of_commit, reason, ended_at FROM refreshes WHERE id = {first}") == [
        ("running", newest, None, None)
    ]


def test_a_refresh_is_as_of_what_is_complete(shop: Shop) -> None:
    """A commit that is still open holds the as-of mark below it, even when a later one has ended."""
    complete = last_complete_commit(shop.connection, "shop")
    other = connect(shop.settings, Account.STREAM)
    other.begin()
    held = Shop(shop.settings, shop.pipeline, other, partition=1)
    opened = held.commit(some_orders(1, first=50))
    later = shop.commit(some_orders(1, first=60))
    assert later > opened
    assert last_complete_commit(shop.connection, "shop") == opened - 1 == complete
    other.commit()
    other.close()
    assert last_complete_commit(shop.connection, "shop") == later


def test_the_first_model_must_beat_the_baseline(shop: Shop) -> None:
    """A first challenger below the baseline is rejected, with the reason kept, and there is still no champion."""
    refresh = begin(shop)
    version = trained(shop, refresh, {0: 0.7, -1: 0.6})
    verdict = promote_or_reject(shop.connection, shop.pipeline, shop.model, refresh)
    assert not verdict.promote
    assert versions.read_champion(shop.connection, "shop", shop.model) is None
    assert shop.control("SELECT version, state, reason FROM model_versions") == [(version, "rejected", verdict.reason)]


def test_a_repeated_promotion_returns_the_same_verdict(shop: Shop) -> None:
    """A verdict is recorded once; a repeated task reads it, and a later champion is not touched by it."""
    first = begin(shop)
    promoted(shop, first)
    second = begin(shop, "second")
    trained(shop, second, {0: 0.5, 1: 0.8, -1: 0.85})
    verdict = promote_or_reject(shop.connection, shop.pipeline, shop.model, second)
    assert verdict.promote
    assert promote_or_reject(shop.connection, shop.pipeline, shop.model, second) == verdict
    assert promote_or_reject(shop.connection, shop.pipeline, shop.model, first).promote
    assert shop.control("SELECT version, state FROM model_versions ORDER BY version") == [
        (1, "retired"),
        (2, "champion"),
    ]
    assert shop.control("SELECT champion_version FROM models") == [(2,)]


def test_a_champion_that_cannot_read_the_features_is_no_rival(shop: Shop) -> None:
    """A champion whose measure is NULL leaves the baseline to beat."""
    promoted(shop, begin(shop))
    second = begin(shop, "second")
    trained(shop, second, {0: 0.5, 1: None, -1: 0.6})
    assert promote_or_reject(shop.connection, shop.pipeline, shop.model, second).promote


def test_only_the_present_champion_is_compared(shop: Shop) -> None:
    """A champion promoted after the challenger was measured was not measured beside it: train again."""
    late = begin(shop, "late")
    trained(shop, late, {0: 0.5, -1: 0.9})
    promoted(shop, begin(shop, "quick"))
    with pytest.raises(ModelError) as raised:
        promote_or_reject(shop.connection, shop.pipeline, shop.model, late)
    assert (raised.value.code, raised.value.value) == ("TM-ML-EVALUATION-MISSING", 2)
    assert raised.value.parameters == {"metric": METRIC, "refresh_id": late}


def test_a_refresh_without_training_promotes_nothing(shop: Shop) -> None:
    """The promotion of a refresh that only scores changes nothing."""
    assert not promote_or_reject(shop.connection, shop.pipeline, shop.model, begin(shop)).promote


def test_scores_become_visible_all_at_once(shop: Shop) -> None:
    """A publication that fails at its last step shows nothing of it; repeated, it shows everything, once."""
    refresh = begin(shop)
    version = promoted(shop, refresh)
    assert scored(shop, refresh, version) == 10
    assert seen(shop) == [(None, None)] * 10
    with session(shop.settings, Account.MIGRATE) as migrating, migrating.cursor() as cursor:
        cursor.execute("CREATE TRIGGER refuse BEFORE UPDATE ON refreshes FOR EACH ROW SIGNAL SQLSTATE '45000'")
        with pytest.raises(StoreError):
            publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)
        assert seen(shop) == [(None, None)] * 10
        assert shop.control("SELECT published_version FROM models") == [(None,)]
        cursor.execute("DROP TRIGGER refuse")
    for _ in range(2):
        publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)
    assert seen(shop) == [(version, 0.5)] * 10
    assert shop.query("SELECT COUNT(*) FROM order_scores_pending") == [(0,)]
    assert shop.control("SELECT state FROM refreshes") == [("published",)]


def test_a_half_written_set_is_not_published(shop: Shop) -> None:
    """Scores of a scoring that did not end stay where they are."""
    refresh = begin(shop)
    scored(shop, refresh, promoted(shop, refresh), complete=False)
    with pytest.raises(ModelError) as raised:
        publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)
    assert raised.value.code == "TM-ML-SCORING-INCOMPLETE"
    assert seen(shop) == [(None, None)] * 10


def test_scores_of_a_former_champion_are_not_published_as_the_new_ones(shop: Shop) -> None:
    """When another version was promoted after scoring, that refresh is refused: the new one has scored nothing."""
    refresh = begin(shop)
    scored(shop, refresh, promoted(shop, refresh))
    second = begin(shop, "second")
    trained(shop, second, {0: 0.5, 1: 0.8, -1: 0.85})
    promote_or_reject(shop.connection, shop.pipeline, shop.model, second)
    with pytest.raises(ModelError) as raised:
        publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)
    assert raised.value.code == "TM-ML-CHAMPION-CHANGED"


def test_a_new_champion_replaces_all_scores_at_once(shop: Shop) -> None:
    """Readers see the old version's scores of every row until the new one is published, then the new one's."""
    refresh = begin(shop)
    scored(shop, refresh, promoted(shop, refresh), 0.1)
    publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)
    second = begin(shop, "second")
    version = trained(shop, second, {0: 0.5, 1: 0.8, -1: 0.85})
    promote_or_reject(shop.connection, shop.pipeline, shop.model, second)
    assert scored(shop, second, version, 0.2) == 10
    assert seen(shop) == [(1, 0.1)] * 10
    publish(shop.connection, shop.settings, shop.pipeline, shop.model, second)
    assert seen(shop) == [(2, 0.2)] * 10


def test_scores_what_changed_whatever_its_commit_is_called(shop: Shop) -> None:
    """Rows written since are scored again, also by a commit whose id is lower than those scored; others are not."""
    refresh = begin(shop)
    low, high = 1_000, 2_000
    shop.commit(some_orders(2, first=20), commit_id=high)
    version = promoted(shop, refresh)
    assert scored(shop, refresh, version, 0.1) == 12
    assert unscored(shop, version) == {}, "pending scores count"
    publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)
    assert unscored(shop, version) == {}, "published scores count"
    shop.commit(unlabelled(some_orders(1, first=20)), commit_id=low)
    assert unscored(shop, version) == {20: low}
    second = begin(shop, "second")
    scored(shop, second, version, 0.3)
    assert publish(shop.connection, shop.settings, shop.pipeline, shop.model, second) == 1
    assert dict(shop.query("SELECT id, score FROM orders_scored WHERE id >= 20")) == {20: 0.3, 21: 0.1}
    assert shop.query("SELECT scored_commit FROM order_scores WHERE id = 20") == [(low,)]


def test_does_nothing_until_something_is_committed(shop: Shop) -> None:
    """After a publication there is nothing to do; a commit makes it score, and force makes it train."""

    def action() -> Action:
        return decide_refresh(read_refresh_inputs(shop.connection, shop.pipeline, shop.model)).action

    assert action() is Action.TRAIN
    refresh = begin(shop)
    scored(shop, refresh, promoted(shop, refresh))
    assert action() is Action.SCORE
    publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)
    assert action() is Action.SKIP
    shop.commit(some_orders(1, first=30))
    assert action() is Action.SCORE
    forced = read_refresh_inputs(shop.connection, shop.pipeline, shop.model, force=True)
    assert decide_refresh(forced).action is Action.TRAIN


def test_the_status_shows_the_measures_behind_the_scores(shop: Shop) -> None:
    """A person sees the champion, its measure beside the baseline's, and how many rows have its scores."""
    (before,) = model_status(shop.connection, shop.settings, shop.pipeline)
    assert (before.champion_version, before.metric_value, before.scored_rows) == (None, None, 0)
    refresh = begin(shop)
    scored(shop, refresh, promoted(shop, refresh))
    publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)
    second = begin(shop, "second")
    trained(shop, second, {0: 0.55, 1: 0.8, -1: 0.7})
    verdict = promote_or_reject(shop.connection, shop.pipeline, shop.model, second)
    (row,) = model_status(shop.connection, shop.settings, shop.pipeline)
    assert (row.champion_version, row.metric, row.metric_value, row.baseline_value) == (1, METRIC, 0.9, 0.5)
    assert (row.newest_version, row.newest_state, row.newest_reason) == (2, "rejected", verdict.reason)
    assert (row.published_version, row.scored_rows) == (1, 10)
    assert row.published_at is not None


def test_errors_of_unknown_names(shop: Shop, tmp_path: Path) -> None:
    """A model, a refresh, or a model that was not applied: the error names it."""
    with pytest.raises(ModelError) as raised:
        begin_refresh(shop.connection, shop.pipeline, "other", "a run")
    assert (raised.value.code, raised.value.value) == ("TM-ML-MODEL-UNKNOWN", "other")
    assert raised.value.parameters == {"pipeline": "shop", "known": "returns"}
    with pytest.raises(ModelError) as raised:
        publish(shop.connection, shop.settings, shop.pipeline, shop.model, 99)
    assert (raised.value.code, raised.value.value) == ("TM-ML-REFRESH-UNKNOWN", 99)
    with shop.connection.cursor() as cursor:
        cursor.execute("DELETE FROM models")
    with pytest.raises(ModelError) as raised:
        read_refresh_inputs(shop.connection, shop.pipeline, shop.model)
    assert (raised.value.code, raised.value.value) == ("TM-ML-MODEL-NOT-APPLIED", "shop.returns")
