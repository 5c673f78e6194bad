"""Which features are refused because they read what the label is made of."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill.errors import SpecError
from tidemill.spec.checks.features import check_features
from tidemill.spec.schema import Model

MODEL = Model.model_validate(
    {
        "features": "features.sql",
        "table": "repins",
        "key": ["id"],
        "label": "again",
        "known_at": "known_at",
        "estimator": "gbt_classifier",
        "train": {"schedule": "@daily"},
        "promotion": {"metric": "areaUnderROC"},
        "score": {"table": "scores", "schedule": "@daily"},
    }
)
LATER = "EXISTS (SELECT 1 FROM repins l WHERE l.pin_id = r.pin_id AND l.ts > r.ts AND l.ts <= r.ts + INTERVAL 1 HOUR)"
WITHIN = "JOIN (SELECT id, amount > 9 AS big, amount FROM repins) AS d ON d.id = r.id"


NESTED = "JOIN (SELECT e.id, e.a AS b FROM (SELECT id, amount AS a FROM repins) e) d ON d.id = r.id"
BEFORE = "AVG(amount) OVER (PARTITION BY board ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"


def check(label: str, feature: str, joins: str = "", before: str = "") -> Any:
    """Check a query of one feature and the label."""
    columns = f"r.id, r.ts AS known_at, {feature} AS f, {label} AS again, r._commit"
    return check_features("m", MODEL, f"{before} SELECT {columns} FROM repins AS r {joins}")


@pytest.mark.parametrize(
    "feature",
    ["HOUR(r.ts)", "r.pin_id", "r.id % 7", "r.board", "DAYOFWEEK(r.ts) * r.pin_id", "TIMESTAMPDIFF(DAY, r.made, r.ts)"],
)
@pytest.mark.parametrize(
    "label",
    [
        LATER,
        LATER.replace("r.ts + ", "r.ts + INTERVAL 1 DAY + "),
        "(SELECT COUNT(*) FROM repins l WHERE r.pin_id = l.pin_id AND l.ts > r.ts)",
        "(SELECT MAX(l.amount) FROM repins l WHERE l.board = r.board AND l.ts > r.ts) > r.amount",
        "TIMESTAMPDIFF(HOUR, r.ts, r.returned_at) < 9",
    ],
)
def test_the_rows_own_time_and_key_are_no_leak(label: str, feature: str) -> None:
    """The honest form of a label looks at later rows, which it finds by what the row knows."""
    check(label, feature)


@pytest.mark.parametrize(
    ("feature", "joins"),
    [
        ("d.amount", "LEFT JOIN (SELECT board, ts, amount FROM repins) d ON d.board = r.board AND d.ts < r.ts"),
        ("d.amount", "LEFT JOIN repins d ON d.board = r.board AND d.ts < r.ts"),
        ("d.mean", f"JOIN (SELECT id, {BEFORE} AS mean FROM repins) d ON d.id = r.id"),
    ],
)
def test_what_other_rows_knew_before_is_no_leak(feature: str, joins: str) -> None:
    """The label's column of earlier rows is known; whether they are earlier, training finds by comparing values."""
    check("r.amount > 9", feature, joins)


@pytest.mark.parametrize(
    ("label", "feature", "joins", "before"),
    [
        ("r.amount > 9", "r.amount / 2", "", ""),
        ("r.amount > 9", "IF(r.amount > 8, 1, 0)", "", ""),
        ("TIMESTAMPDIFF(HOUR, r.ts, r.returned_at)", "HOUR(r.returned_at)", "", ""),
        ("EXISTS (SELECT 1 FROM limits l WHERE r.amount > l.most)", "r.amount", "", ""),
        ("d.big", "d.big + 1", WITHIN, ""),
        ("d.big", "r.amount", WITHIN, ""),
        ("d.big", "r.amount", WITHIN.replace("ON d.id = r.id", "USING (id)"), ""),
        ("r.amount > 9", "d.most", "JOIN (SELECT id, MAX(amount) AS most FROM repins GROUP BY id) d USING (id)", ""),
        ("r.amount > 9", "d.amount", WITHIN, ""),
        ("r.amount > 9", "d.big", WITHIN, ""),
        ("d.big", "d.amount", WITHIN, ""),
        ("r.amount > 9", "d.big", WITHIN.replace("FROM repins", "FROM (SELECT * FROM repins) AS e"), ""),
        ("r.amount > 9", "d.b", NESTED, ""),
        ("d.big", "r.amount", "JOIN d ON d.id = r.id", "WITH d AS (SELECT id, amount > 9 AS big FROM repins)"),
    ],
)  # fmt: skip
def test_what_the_label_is_made_of_is_a_leak(label: str, feature: str, joins: str, before: str) -> None:
    """Directly, in a subquery's inequality, or through a query that is joined."""
    with pytest.raises(SpecError, match="TM-SPEC-FEATURES-LEAK"):
        check(label, feature, joins, before)
