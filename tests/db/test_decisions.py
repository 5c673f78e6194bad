"""Who becomes champion, and the rows that say why: by measure, or by a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.models import Shop, new_version, open_shop, outdate, own_schemas, some_orders
from tidemill.config import Settings
from tidemill.errors import ModelError
from tidemill.ml.refresh import begin_refresh
from tidemill.ml.registry import versions
from tidemill.ml.registry.promotion import Verdict, approve, promote_or_reject, reject
from tidemill.ml.registry.versions import Estimate

METRIC = "areaUnderROC"


@pytest.fixture
def shop(mariadb: Settings, tmp_path: Path) -> Iterator[Shop]:
    """A pipeline of ten orders whose model a person promotes."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path, promotion={"metric": METRIC, "margin": 0.002, "approval": "manual"})
        shop.commit(some_orders(10))
        yield shop
        shop.connection.close()


def trained(
    shop: Shop,
    measured: dict[int, float | None],
    differences: dict[int, tuple[float, float]] | None = None,
    *,
    champion_saw_holdout: bool = False,
) -> int:
    """Record a version of a new refresh as training does; ``measured`` holds it under -1. Returns the refresh."""
    outdate(shop.connection)
    refresh = begin_refresh(shop.connection, shop.pipeline, shop.model, f"run {sorted(measured.items())}")
    with versions.transaction(shop.connection):
        version = versions.next_version(shop.connection, "shop", shop.model)
        new = new_version(version, refresh, champion_saw_holdout=champion_saw_holdout)
        versions.insert_version(shop.connection, "shop", shop.model, new)
        estimates = {
            version if number == -1 else number: Estimate(value, difference=(differences or {}).get(number))
            for number, value in measured.items()
        }
        estimates[version] = replace(estimates[version], interval=(0.1, 0.9))
        versions.write_evaluations(shop.connection, refresh, METRIC, estimates)
    return refresh


def decided(shop: Shop, refresh: int) -> Verdict:
    return promote_or_reject(shop.connection, shop.pipeline, shop.model, refresh)


def states(shop: Shop) -> list[tuple[int, str]]:
    return shop.control("SELECT version, state FROM model_versions ORDER BY version")


def decisions(shop: Shop) -> list[tuple[int, str, str]]:
    return shop.control("SELECT version, verdict, decided_by FROM decisions ORDER BY id")


def test_a_challenger_waits_for_a_person(shop: Shop) -> None:
    """What would be promoted waits, and nothing changes for readers; approved, it is champion, once."""
    refresh = trained(shop, {0: 0.5, -1: 0.9})
    verdict = decided(shop, refresh)
    assert (verdict.promote, verdict.waiting) == (False, True)
    assert decided(shop, refresh) == verdict
    assert (states(shop), versions.read_champion(shop.connection, "shop", shop.model)) == ([(1, "waiting")], None)
    for _ in range(2):
        approve(shop.connection, shop.pipeline, shop.model, 1, "Ada")
    assert states(shop) == [(1, "champion")]
    assert decided(shop, refresh) == Verdict(True, verdict.reason)
    assert decisions(shop) == [(1, "waiting", "measure"), (1, "promoted", "Ada")]
    assert shop.control("SELECT DISTINCT refresh_id, reason FROM decisions") == [(refresh, verdict.reason)]


def test_the_approved_one_takes_the_champions_place(shop: Shop) -> None:
    """The champion stays until a person has said so, and is retired then."""
    trained(shop, {0: 0.5, -1: 0.8})
    decided(shop, 1)
    approve(shop.connection, shop.pipeline, shop.model, 1, "Ada")
    second = trained(shop, {0: 0.5, 1: 0.8, -1: 0.85})
    assert decided(shop, second).waiting
    assert states(shop) == [(1, "champion"), (2, "waiting")]
    approve(shop.connection, shop.pipeline, shop.model, 2, "Grace")
    assert states(shop) == [(1, "retired"), (2, "champion")]
    assert shop.control("SELECT champion_version FROM models") == [(2,)]
    with pytest.raises(ModelError) as raised:
        approve(shop.connection, shop.pipeline, shop.model, 1, "Ada")
    assert (raised.value.code, raised.value.value) == ("TM-ML-VERSION-NOT-WAITING", "retired")


def test_a_person_may_reject(shop: Shop) -> None:
    """The reason is the person's, kept with the name; what is rejected does not come back by being compared again."""
    refresh = trained(shop, {0: 0.5, -1: 0.9})
    decided(shop, refresh)
    for _ in range(2):
        reject(shop.connection, shop.pipeline, shop.model, 1, "Ada", "the feed was wrong that week")
    assert decided(shop, refresh) == Verdict(False, "the feed was wrong that week")
    assert decisions(shop)[1:] == [(1, "rejected", "Ada")]
    with pytest.raises(ModelError) as raised:
        approve(shop.connection, shop.pipeline, shop.model, 1, "Ada")
    assert (raised.value.code, raised.value.value) == ("TM-ML-VERSION-NOT-WAITING", "rejected")
    with pytest.raises(ModelError) as raised:
        approve(shop.connection, shop.pipeline, shop.model, 7, "Ada")
    assert (raised.value.code, raised.value.value) == ("TM-ML-VERSION-UNKNOWN", 7)


def test_a_worse_challenger_asks_nobody(shop: Shop) -> None:
    """What the measure rejects is rejected, with a decision of its own, and a person is not bothered."""
    refresh = trained(shop, {0: 0.5, -1: 0.4})
    assert decided(shop, refresh) == Verdict(False, decided(shop, refresh).reason)
    assert decisions(shop) == [(1, "rejected", "measure")]


def test_an_automatic_promotion_is_a_decision_too(shop: Shop, tmp_path: Path) -> None:
    """By measure alone, with the interval of the gain in the recorded reason."""
    shop = shop.changed(tmp_path, promotion={"metric": METRIC, "margin": 0.002})
    verdict = decided(shop, trained(shop, {0: 0.5, -1: 0.9}, {0: (0.31, 0.47)}))
    assert verdict.promote
    assert "gain +0.4000 (95 %: +0.3100 to +0.4700)" in verdict.reason
    assert shop.control("SELECT verdict, decided_by, reason FROM decisions") == [
        ("promoted", "measure", verdict.reason)
    ]
    differences = {0: (0.1, 0.2), 1: (-0.01, 0.03)}
    refresh = trained(shop, {0: 0.5, 1: 0.9, -1: 0.91}, differences, champion_saw_holdout=True)
    reason = decided(shop, refresh).reason
    assert "champion 0.9000, which was trained on some of these rows: gain +0.0100 (95 %: -0.01" in reason
    assert shop.control("SELECT low, high FROM evaluations WHERE version = 2") == [(0.1, 0.9)]


def test_an_error_is_better_where_it_is_smaller(shop: Shop, tmp_path: Path) -> None:
    """The declared metric says which way round the comparison is."""
    shop = shop.changed(
        tmp_path, estimator="linear_regression", parameters={}, promotion={"metric": "mae", "margin": 0.1}
    )
    refresh = trained(shop, {0: 5.0, -1: 4.0})
    with shop.connection.cursor() as cursor:
        cursor.execute("UPDATE evaluations SET metric = 'mae'")
    assert decided(shop, refresh).promote
