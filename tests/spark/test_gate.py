"""Rows that no longer look like those that the champion was trained on are not scored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from support.models import ORDER_DAYS, ORDERS, Shop, open_shop, own_schemas, some_orders
from support.trained import TrainedModel, adopt
from tidemill.config import Settings
from tidemill.errors import ModelError
from tidemill.ml.refresh import begin_refresh, end_refresh
from tidemill.ml.serving.publish import publish
from tidemill.ml.serving.score import score

DRIFT = {"psi": 0.3, "ignore": ["distance"], "least_rows": 200}


@pytest.fixture
def shop(mariadb: Settings, tmp_path: Path) -> Iterator[Shop]:
    """A shop of two months whose model declares how far its input may move."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path, drift=DRIFT)
        shop.commit(some_orders(ORDERS, ORDER_DAYS))
        yield shop
        shop.connection.close()


def publish_scores(spark: SparkSession, shop: Shop, refresh: int) -> None:
    """The rest of a refresh, from scoring to its publication."""
    score(spark, shop.settings, shop.pipeline, shop.model, refresh)
    publish(shop.connection, shop.settings, shop.pipeline, shop.model, refresh)


def moved(count: int, first: int) -> list:  # type: ignore[type-arg]
    """Orders far from those before: dear, from one city only, and at distances that may move as they like."""
    return [
        replace(order, amount=1_000 + order.id, city="Rom", distance=500.0) for order in some_orders(count, first=first)
    ]


def test_drifted_rows_are_refused_until_a_person_decides(
    jdbc: SparkSession, shop: Shop, returns_model: TrainedModel
) -> None:
    """Drift is recorded for each feature; nothing is scored, and readers see the scores that they saw before.

    Few rows are not compared. A wider bound lets the refresh go on, and that closes the incident.
    """
    first = adopt(shop, returns_model)
    publish_scores(jdbc, shop, first)
    drifts = dict(shop.control(f"SELECT feature, psi FROM drift WHERE refresh_id = {first}"))
    assert set(drifts) == {"amount", "city", "distance"}
    assert max(drifts.values()) < 0.1, "the rows that it was trained on"

    shop.commit(moved(150, first=5_000))
    publish_scores(jdbc, shop, begin_refresh(shop.connection, shop.pipeline, shop.model, "few"))

    shop.commit(moved(300, first=6_000))
    third = begin_refresh(shop.connection, shop.pipeline, shop.model, "many")
    with pytest.raises(ModelError) as raised:
        score(jdbc, shop.settings, shop.pipeline, shop.model, third)
    assert (raised.value.code, raised.value.parameters) == ("TM-ML-DRIFT", {"bound": "0.3", "rows": 300})
    assert re.search(r"\bamount \d+\.\d\d\b", str(raised.value.value))
    assert shop.control(f"SELECT state FROM refreshes WHERE id = {third}") == [("refused",)]
    kept = {name: (psi, allowed) for name, psi, allowed, rows in _drift(shop, third) if rows == 300}
    assert kept["amount"][0] > kept["amount"][1] == 0.3
    assert kept["distance"][0] > 0.3
    assert kept["distance"][1] is None, "may move as it likes"
    assert shop.query("SELECT COUNT(*), COUNT(score) FROM orders_scored WHERE id >= 6000") == [(300, 0)]
    ((subject, sentence, closed),) = shop.control("SELECT subject, message, closed_at FROM incidents")
    assert (subject, closed) == ("model shop.returns", None)
    assert sentence.startswith("nothing is scored: ")

    patient = replace(shop, pipeline=_with_bound(shop, 1e9))
    score(jdbc, shop.settings, patient.pipeline, shop.model, third)
    publish(shop.connection, shop.settings, patient.pipeline, shop.model, third)
    assert shop.control(f"SELECT state FROM refreshes WHERE id = {third}") == [("published",)]
    assert shop.query("SELECT COUNT(*), COUNT(score) FROM orders_scored WHERE id >= 6000") == [(300, 300)]
    assert shop.control("SELECT COUNT(*), COUNT(closed_at) FROM incidents") == [(1, 1)]
    end_refresh(shop.connection, third, "failed")
    assert shop.control(f"SELECT state FROM refreshes WHERE id = {third}") == [("published",)]


def _drift(shop: Shop, refresh: int) -> list:  # type: ignore[type-arg]
    return shop.control(f"SELECT feature, psi, allowed, drift_rows FROM drift WHERE refresh_id = {refresh}")


def _with_bound(shop: Shop, psi: float):  # type: ignore[no-untyped-def]
    model = shop.pipeline.models[shop.model]
    assert model.drift is not None
    wider = model.model_copy(update={"drift": model.drift.model_copy(update={"psi": psi})})
    return shop.pipeline.model_copy(update={"models": {shop.model: wider}})
