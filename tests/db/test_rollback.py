"""Publication and its way back, as readers see them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from support.models import Shop, new_version, open_shop, own_schemas, some_orders
from tidemill.config import Account, Settings
from tidemill.errors import ModelError
from tidemill.ml.refresh import begin_refresh
from tidemill.ml.registry import versions
from tidemill.ml.serving import publish as publishing
from tidemill.ml.serving.publish import publish, rollback
from tidemill.ml.serving.score import ScoreTarget, load
from tidemill.store.connection import session
from tidemill.store.sql import dialect, identifiers
from tidemill.testing import wait_until

ORDERS = 400
SEEN = (
    "SELECT MIN(model_version), MAX(model_version), MIN(score), MAX(score), COUNT(score), COUNT(*) FROM orders_scored"
)


@pytest.fixture
def shop(mariadb: Settings, tmp_path: Path) -> Iterator[Shop]:
    """A pipeline of orders, none of them scored."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        shop = open_shop(settings, tmp_path)
        shop.commit(some_orders(ORDERS))
        yield shop
        shop.connection.close()


def promote(shop: Shop, version: int) -> None:
    """Make a new version champion, as promoting does."""
    with versions.transaction(shop.connection):
        versions.lock_model(shop.connection, "shop", shop.model)
        with shop.connection.cursor() as cursor:
            cursor.execute("UPDATE model_versions SET state = 'retired' WHERE state = 'champion'")
            versions.insert_version(shop.connection, "shop", shop.model, new_version(version, refresh_id=0))
            cursor.execute("UPDATE model_versions SET state = 'champion' WHERE version = %s", (version,))
            cursor.execute("UPDATE models SET champion_version = %s", (version,))


def refresh(shop: Shop, version: int) -> None:
    """Promote a version, let it score every row with its own number, and publish."""
    promote(shop, version)
    begun = begin_refresh(shop.connection, shop.pipeline, shop.model, f"run {version}")
    model = shop.pipeline.models[shop.model]
    columns = [*model.key, *identifiers.SCORE_COLUMNS]
    statement = dialect(shop.settings.db_dialect).load(
        shop.settings.db_data, identifiers.pending(model.score.table), columns
    )
    ids = list(range(1, ORDERS + 1))
    scored = pa.table({"id": ids, "score": [float(version)] * ORDERS, "_commit": [1] * ORDERS})
    load(ScoreTarget(shop.settings, statement, model.key, version, 1), scored, scored["score"])
    with shop.connection.cursor() as cursor:
        cursor.execute("UPDATE refreshes SET scored_version = %s WHERE id = %s", (version, begun))
    publish(shop.connection, shop.settings, shop.pipeline, shop.model, begun)


def back(shop: Shop, version: int | None = None) -> int:
    return rollback(shop.connection, shop.settings, shop.pipeline, shop.model, version, "somebody")


def seen(shop: Shop) -> tuple[int | None, int | None, float | None, float | None, int, int]:
    """What one query of the application finds: versions, scores, rows with a score, rows."""
    [row] = shop.query(SEEN)
    return row  # type: ignore[return-value]


def test_going_back_shows_the_former_scores_at_once(shop: Shop) -> None:
    """Champion and pointer move together, and a row says who did it; a version forward again is named."""
    for version in (1, 2, 3):
        refresh(shop, version)
    assert back(shop) == 2
    assert seen(shop) == (2, 2, 2.0, 2.0, ORDERS, ORDERS)
    assert shop.control("SELECT champion_version, published_version FROM models") == [(2, 2)]
    assert shop.control("SELECT version, state FROM model_versions ORDER BY version") == [
        (1, "retired"),
        (2, "champion"),
        (3, "retired"),
    ]
    assert back(shop, 3) == 3
    assert seen(shop)[:2] == (3, 3)
    assert shop.control("SELECT version, verdict, reason, decided_by FROM decisions ORDER BY id") == [
        (2, "rolled back", "readers saw version 3", "somebody"),
        (3, "rolled back", "readers saw version 2", "somebody"),
    ]


def test_there_must_be_something_to_go_back_to(shop: Shop) -> None:
    """Each case has its sentence, and changes nothing."""

    def refused(version: int | None, code: str = "TM-ML-VERSION-WITHOUT-SCORES") -> object:
        with pytest.raises(ModelError) as raised:
            back(shop, version)
        assert raised.value.code == code
        assert raised.value.parameters.get("known", "1") == "1"
        return raised.value.value

    assert refused(None, "TM-ML-NOTHING-PUBLISHED") == "shop.returns"
    refresh(shop, 1)
    assert refused(None) == "none before 1"
    assert refused(7) == 7
    promote(shop, 2)  # its scores were never published, so readers would see nothing
    assert refused(2) == 2
    assert seen(shop) == (1, 1, 1.0, 1.0, ORDERS, ORDERS)


def test_a_version_that_was_never_published_is_nothing_to_go_back_to(shop: Shop) -> None:
    """A champion whose publication never came has scores of the rows that its stream wrote, and of no others."""
    refresh(shop, 1)
    promote(shop, 2)
    with shop.connection.cursor() as cursor:
        data = shop.settings.db_data
        cursor.execute(f"INSERT INTO {data}.order_scores VALUES (1, 2, 0.5, 1, 1), (2, 2, 0.5, 1, 1)")
    refresh(shop, 3)
    assert back(shop) == 1
    assert seen(shop) == (1, 1, 1.0, 1.0, ORDERS, ORDERS)


def test_a_new_versions_scores_move_in_steps_before(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody sees yet is moved in small transactions, so that the one that shows it is short."""
    refresh(shop, 1)
    monkeypatch.setattr("tidemill.ml.serving.publish.PART_ROWS", 150)
    steps: list[int] = []
    real = publishing.run_step

    def counted(connection: Any, work: Any) -> Any:
        steps.append(gone := real(connection, work))
        return gone

    monkeypatch.setattr("tidemill.ml.serving.publish.run_step", counted)
    refresh(shop, 2)
    assert steps == [150, 150, 100, 0]
    assert seen(shop) == (2, 2, 2.0, 2.0, ORDERS, ORDERS)
    assert shop.query("SELECT COUNT(*) FROM order_scores_pending") == [(0,)]
    assert shop.control("SELECT scored_rows FROM refreshes ORDER BY id DESC LIMIT 1") == [(ORDERS,)]


def test_readers_never_see_a_mixture(shop: Shop) -> None:
    """While versions are published and taken back, every query finds one version's scores, of every row."""
    refresh(shop, 1)
    found: list[tuple[int | None, int | None, float | None, float | None, int, int]] = []
    ending = threading.Event()

    def poll() -> None:
        with session(shop.settings, Account.READ, schema=shop.settings.db_data) as connection:
            cursor = connection.cursor()
            while not ending.is_set():
                cursor.execute(SEEN)
                found.append(cursor.fetchone())

    reading = threading.Thread(target=poll)
    reading.start()
    try:
        for version in range(2, 12):
            refresh(shop, version)
            back(shop)
            back(shop, version)
            seen_then = len(found)
            wait_until(lambda before=seen_then: len(found) > before, 60, "the reader has looked again")  # type: ignore[misc]
    finally:
        ending.set()
        reading.join(60)
    assert {row[0] for row in found} >= {2, 11}
    mixtures = [row for row in found if row[0] != row[1] or row[2] != row[3] or row[2] != row[0] or row[4] != row[5]]
    assert mixtures == []
