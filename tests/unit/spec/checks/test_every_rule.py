"""Every error of a pipeline folder is raised by a folder that breaks its rule, and by nothing in a valid one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill.errors import SpecError, catalog
from tidemill.spec import Pipeline, load_pipeline

PLACED = {"expr": "DATE(placed_at)", "type": "DATE"}
VALID: dict[str, Any] = {
    "name": "shop",
    "owner": "tests",
    "source": {"topic": "shop", "schema": "id BIGINT, amount INT, placed_at TIMESTAMP", "key": "id BIGINT"},
    "dimensions": {"cities": {"path": "cities.csv", "key": ["id"]}},
    "tables": {
        "orders": {
            "from": "orders.sql",
            "kind": "entity",
            "key": ["id"],
            "version": "placed_at",
            "columns": {
                "id": "BIGINT NOT NULL",
                "amount": "INT",
                "weight": "DOUBLE",
                "price": "DECIMAL(60,2)",
                "city": "VARCHAR(20)",
                "placed_at": "DATETIME(6) NOT NULL",
            },
            "retention": {"column": "placed_at", "days": 9},
        },
        "clicks": {"from": "clicks.sql", "kind": "event", "key": ["id"], "columns": {"id": "BIGINT NOT NULL"}},
    },
    "rollups": {"by_day": {"of": "orders", "by": {"day": PLACED}, "measures": {"amount": "sum(amount)"}}},
    "checks": [{"name": "positive", "table": "orders", "expect": "amount > 0"}],
    "models": {
        name: {
            "features": "features.sql",
            "table": "orders",
            "key": ["id"],
            "label": "back",
            "known_at": "placed_at",
            "estimator": "gbt_classifier",
            "train": {"schedule": "@daily"},
            "promotion": {"metric": "areaUnderROC"},
            "score": {"table": f"{name}_scores", "column": name, "schedule": "@daily"},
        }
        for name in ("returns", "repeats")
    },
}
FILES = {
    "orders.sql": "SELECT id, amount, weight, price, city, placed_at FROM records",
    "clicks.sql": "SELECT id FROM records",
    "features.sql": "SELECT o.id, o.placed_at, o.amount, o.city = 'Ulm' AS back, o._commit FROM orders AS o",
}
RETURNS, ORDERS, CLICKS = "models.returns", "tables.orders", "tables.clicks"
CLUSTERING = {**VALID["models"]["returns"], "estimator": "kmeans", "promotion": {"metric": "silhouette"}}
LIVE = {"table": "returns_scores", "column": "returns", "schedule": "@daily", "live": True}
GONE = object()
"""In a case: the key is removed."""

BROKEN: dict[str, list[tuple[str, object]]] = {
    "CHECK-FAILED": [("clicks.sql", f"SELECT {'(' * 20_000}id{')' * 20_000} AS id FROM records")],
    "CHECK-DUPLICATE": [("checks", VALID["checks"] * 2)],
    "CHECK-NO-TABLE": [("checks", [{"name": "positive", "expect": "amount > 0"}])],
    "CHECK-NOT-ROW-WISE": [("checks", [{"name": "positive", "table": "orders", "expect": "sum(amount) > 0"}])],
    "COLUMN-ATTRIBUTE": [(f"{ORDERS}.columns.amount", "INT UNIQUE")],
    "COLUMN-CASE": [(f"{ORDERS}.columns.Amount", "INT")],
    "COLUMN-NULLABLE": [(f"{ORDERS}.columns.id", "BIGINT")],
    "COLUMN-RESERVED": [(f"{ORDERS}.columns._amount", "INT")],
    "COLUMN-TYPE": [(f"{ORDERS}.columns.amount", "BIT(8)")],
    "CONF-NOT-SPARK": [("resources", {"conf": {"master": "x"}})],
    "CONF-RESERVED": [("resources", {"conf": {"spark.master": "x"}})],
    "CONF-SECRET": [("resources", {"conf": {"spark.github.token": "x"}})],
    "DIMENSION-ENCODING": [("dimensions.cities.encoding", "rot13")],
    "DIMENSION-JOIN": [
        ("clicks.sql", "SELECT r.id FROM records AS r LEFT JOIN cities AS c ON c.id = r.id"),
    ],
    "DIMENSION-TYPE": [("dimensions.cities.types", {"size": "FLOAT"})],
    "FEATURES-COLUMN-MISSING": [(f"{RETURNS}.label", "gone")],
    "FEATURES-LEAK": [("features.sql", FILES["features.sql"].replace("o.amount", "UPPER(o.city) AS town"))],
    "FEATURES-NOT-ROW-WISE": [
        ("features.sql", FILES["features.sql"].replace("o.amount", "COUNT(*) OVER () AS amount")),
        (f"{RETURNS}.score", LIVE),
    ],
    "FILE-MISSING": [(f"{ORDERS}.from", "gone.sql")],
    "FILE-NOT-VERSIONED": [(f"{ORDERS}.from", "../orders.sql")],
    "GROUP-TYPE": [("rollups.by_day.by.day.type", "TEXT")],
    "KEY-DUPLICATE": [("pipeline.yaml", "name: shop\nname: store")],
    "KEY-MISSING": [("owner", GONE)],
    "KEY-TYPE": [(f"{ORDERS}.columns.id", "CHAR(10) NOT NULL")],
    "KEY-UNKNOWN": [("rollpus", {})],
    "MEASURE-UNSUPPORTED": [("rollups.by_day.measures.amount", "max(amount)")],
    "MODEL-CLUSTERING-LABEL": [(RETURNS, CLUSTERING)],
    "MODEL-KEY": [(f"{RETURNS}.key", ["amount"])],
    "MODEL-KEY-TYPE": [(f"{ORDERS}.columns.id", "VARBINARY(8) NOT NULL")],
    "MODEL-LABEL-MISSING": [(f"{RETURNS}.label", GONE)],
    "MODEL-NAME": [("models", {"two__underscores": VALID["models"]["returns"]})],
    "MODEL-PROBLEM": [(f"{RETURNS}.problem", "regression")],
    "MODEL-PROBLEM-MISSING": [(f"{RETURNS}.estimator", "mine:build")],
    "NAME-NOT-FOLDER": [("name", "store")],
    "NAME-UNKNOWN": [(f"{RETURNS}.table", "order")],
    "NO-TABLE": [("tables", {}), ("rollups", {}), ("models", {})],
    "RECORD-KEY": [("source.key", "")],
    "RETENTION-NO-TIME": [(f"{ORDERS}.retention.column", "amount")],
    "ROLLUP-NAMED-AS-TABLE": [("rollups.clicks", VALID["rollups"]["by_day"])],
    "SCORE-COLUMN-SHARED": [(f"{RETURNS}.score.column", "repeats")],
    "SCORE-COLUMN-TAKEN": [(f"{RETURNS}.score.column", "amount")],
    "SCORE-LIVE-ESTIMATOR": [
        (f"{RETURNS}.estimator", "als"),
        (f"{RETURNS}.promotion.metric", "rmse"),
        (f"{RETURNS}.score", LIVE),
    ],
    "SCORE-TABLE-SHARED": [(f"{RETURNS}.score.table", "repeats_scores")],
    "SCHEDULE": [(f"{RETURNS}.score.schedule", "*/10 * * *")],
    "SCORE-UNSCHEDULED": [(f"{RETURNS}.score.schedule", GONE)],
    "FUNCTION-IMPURE": [
        ("clicks.sql", "SELECT id, uuid() AS page FROM records"),
        ("rollups.by_day.measures.amount", "sum(amount > rand())"),
    ],
    "FUNCTION-UNKNOWN": [("clicks.sql", "SELECT id, uper(page) AS page FROM records")],
    "ROLLUP-NOT-ROW-WISE": [("rollups.by_day.measures.amount", "sum(amount > (SELECT 1))")],
    "SQL-VARIABLE": [("rollups.by_day.measures.amount", "sum(amount > @@port)")],
    "SQL-COMMENT": [("clicks.sql", "SELECT id, -- in C:\\\npage FROM records")],
    "SQL-NOT-ONE-SELECT": [("features.sql", "SELECT 1; SELECT 2")],
    "SQL-SYNTAX": [("features.sql", "SELECT FROM WHERE")],
    "SUM-APPROXIMATE": [("rollups.by_day.measures.amount", "sum(weight)")],
    "SUM-FRACTION": [("rollups.by_day.measures.amount", "sum(amount / 3)")],
    "SUM-NOT-NUMERIC": [("rollups.by_day.measures.amount", "sum(city)")],
    "SUM-OVERFLOW": [("rollups.by_day.measures.amount", "sum(price)")],
    "TIMESTAMP-NOT-NULL": [(f"{ORDERS}.columns.placed_at", "TIMESTAMP(6) NOT NULL")],
    "TRANSFORM-CLAUSE": [("clicks.sql", "SELECT id FROM records ORDER BY id")],
    "TRANSFORM-CLAUSES-UNCLEAR": [("clicks.sql", "FROM records SELECT id")],
    "TRANSFORM-COLUMN-MISSING": [(f"{CLICKS}.columns.page", "TEXT")],
    "TRANSFORM-COLUMN-UNKNOWN": [("clicks.sql", "SELECT id, page FROM records")],
    "TRANSFORM-COLUMN-UNNAMED": [("clicks.sql", "SELECT id + 1 FROM records")],
    "TRANSFORM-JOIN": [("clicks.sql", "SELECT id FROM records JOIN cities ON TRUE")],
    "TRANSFORM-NO-DIMENSION": [("clicks.sql", "SELECT id FROM records LEFT JOIN towns ON TRUE")],
    "TRANSFORM-NOT-ROW-WISE": [("clicks.sql", "SELECT max(id) AS id FROM records")],
    "TRANSFORM-SOURCE": [("clicks.sql", "SELECT id FROM clicks")],
    "TRANSFORM-STAR": [("clicks.sql", "SELECT * FROM records")],
    "VALUE-INVALID": [("source.partitions", 0)],
    "VERSION-MISSING": [(f"{ORDERS}.version", GONE)],
    "VERSION-OF-EVENT": [(f"{CLICKS}.version", "id")],
    "VERSION-PRECISION": [(f"{ORDERS}.columns.placed_at", "DATETIME NOT NULL")],
    "VERSION-TYPE": [(f"{ORDERS}.columns.placed_at", "VARCHAR(30) NOT NULL")],
    "YAML-INVALID": [("pipeline.yaml", "name: [")],
    "YAML-NO-MAPPING": [("pipeline.yaml", "- shop")],
}
"""Code without its prefix -> what is changed in the valid folder: a place in pipeline.yaml, or the text of a file."""


ELSEWHERE = (
    "DIMENSION-FILE",
    "DIMENSION-MISSING",
    "FOLDER-UNREADABLE",
    "NOT-UTF-8",
    "OBJECT-SHARED",
    "PIPELINE-UNKNOWN",
)
"""Codes of files and of several folders: tests/unit/spec/test_dimension_files.py, tests/db/test_ownership.py."""


def load(folder: Path, changes: list[tuple[str, object]]) -> Pipeline:
    """The valid folder with some changes, as it is loaded."""
    content, texts = copy.deepcopy(VALID), dict(FILES)
    for place, value in changes:
        if place.endswith((".sql", ".yaml")):
            texts[place] = str(value)
            continue
        *above, key = place.split(".")
        block = content
        for name in above:
            block = block[name]
        block[key] = copy.deepcopy(value)
        if value is GONE:
            del block[key]
    shop = folder / "shop"
    shop.mkdir()
    for file, text in ({"pipeline.yaml": yaml.safe_dump(content)} | texts).items():
        (shop / file).write_text(text)
    return load_pipeline(shop)


def test_the_valid_folder_is_valid(tmp_path: Path) -> None:
    """Otherwise the cases below would prove nothing."""
    pipeline = load(tmp_path, [])
    assert pipeline.models["returns"].query.features == ("amount",)


@pytest.mark.parametrize("code", BROKEN)
def test_a_broken_rule_has_its_error(tmp_path: Path, code: str) -> None:
    """One change of the valid folder is one error; its message has no gap."""
    with pytest.raises(SpecError) as caught:
        load(tmp_path, BROKEN[code])
    assert caught.value.code == f"TM-SPEC-{code}"
    assert "{" not in caught.value.sentence


def test_a_syntax_error_names_its_position(tmp_path: Path) -> None:
    """Line, column and word, without the terminal codes of the parser."""
    with pytest.raises(SpecError) as caught:
        load(tmp_path, [("features.sql", "SELECT 1\nFRM orders AS o")])
    assert caught.value.value == "line 2, column 10, at 'orders'"


def test_a_pipeline_that_does_not_exist_has_its_error(tmp_path: Path) -> None:
    """Nothing is suggested where nothing is there."""
    with pytest.raises(SpecError, match="TM-SPEC-PIPELINE-UNKNOWN") as caught:
        load_pipeline(tmp_path / "shop")
    assert caught.value.parameters["suggestion"] == f"no folder in {tmp_path} has a pipeline.yaml"


@pytest.mark.parametrize("file", ["pipeline.yaml", "clicks.sql"])
def test_a_file_that_is_not_utf_8_has_its_error(tmp_path: Path, file: str) -> None:
    """It is a sentence about the file, whichever it is."""
    load(tmp_path, [])
    (tmp_path / "shop" / file).write_bytes(b"\xff")
    with pytest.raises(SpecError, match="TM-SPEC-NOT-UTF-8"):
        load_pipeline(tmp_path / "shop")


def test_a_folder_that_cannot_be_read_has_its_error(tmp_path: Path) -> None:
    """What the operating system refuses is a sentence about the folder."""
    (tmp_path / "shop" / "pipeline.yaml").mkdir(parents=True)
    with pytest.raises(SpecError, match="TM-SPEC-FOLDER-UNREADABLE"):
        load_pipeline(tmp_path / "shop")


def test_every_rule_is_broken_above() -> None:
    """A new error needs a folder that it rejects."""
    codes = {code for code in catalog.messages() if code.startswith("TM-SPEC-")}
    assert codes == {f"TM-SPEC-{code}" for code in (*BROKEN, *ELSEWHERE)}
