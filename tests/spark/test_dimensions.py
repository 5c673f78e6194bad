"""Dimensions in Spark: each value as the file has it, and joined only with values of its own type."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from support.cases import outcome
from support.errors import coded
from tidemill.errors import SpecError
from tidemill.spec import Pipeline, load_pipeline
from tidemill.stream.plan.dimensions import register_dimensions

FILE = '''zip,name,size,area,seen,founded,open
01234,"Dalton, ""MA""",1.5,12.50,2026-01-01T06:00:00+02:00,1784-03-20,true
1234,"two
lines",-1,,,,
'''


def pipeline_of(folder: Path, condition: str, schema: str = "id BIGINT, zip STRING, number INT") -> Pipeline:
    """A pipeline that joins its records to the dimension ``places``."""
    types = {"size": "DOUBLE", "area": "DECIMAL(6,2)", "seen": "TIMESTAMP", "founded": "DATE", "open": "BOOLEAN"}
    columns: dict[str, Any] = {
        "id": "BIGINT NOT NULL", "name": "VARCHAR(40)", "size": "DOUBLE", "area": "DECIMAL(6,2)",
        "seen": "DATETIME(6)", "founded": "DATE", "open": "TINYINT",
    }  # fmt: skip
    content = {
        "name": "mail",
        "owner": "tests",
        "source": {"topic": "mail", "schema": schema},
        "dimensions": {"places": {"path": "places.csv", "key": ["zip"], "types": types}},
        "tables": {"letters": {"from": "t.sql", "kind": "event", "key": ["id"], "columns": columns}},
    }
    place = folder / "mail"
    place.mkdir()
    (place / "pipeline.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    (place / "places.csv").write_text(FILE, encoding="utf-8")
    chosen = "r.id, p.name, p.size, p.area, p.seen, p.founded, CAST(p.open AS INT) AS open"
    sql = f"SELECT {chosen} FROM records AS r LEFT JOIN places AS p ON {condition}"
    (place / "t.sql").write_text(sql, encoding="utf-8")
    return load_pipeline(place)


def test_a_record_is_enriched_by_what_the_file_holds(spark: SparkSession, tmp_path: Path) -> None:
    """01234 and 1234 are two keys; quotes, commas and line ends belong to the values; types are the declared ones."""
    pipeline = pipeline_of(tmp_path, "p.zip = r.zip")
    given = [{"id": number, "zip": zip_code} for number, zip_code in enumerate(("01234", "1234", "001234"))]
    rows, rejected = outcome(spark, pipeline, "letters", given)
    nothing = dict.fromkeys(("name", "size", "area", "seen", "founded", "open"))
    assert rejected == []
    assert rows == [
        {
            "id": 0, "name": 'Dalton, "MA"', "size": 1.5, "area": Decimal("12.50"),
            "seen": dt.datetime(2026, 1, 1, 4), "founded": dt.date(1784, 3, 20), "open": 1,
        },
        {"id": 1, **nothing, "name": "two\nlines", "size": -1.0},
        {"id": 2, **nothing},
    ]  # fmt: skip


@pytest.mark.parametrize("condition", ["p.zip = r.number + 1", "zip = number", "CAST(p.seen AS DATE) = p.zip"])
def test_values_of_different_types_are_not_joined(spark: SparkSession, tmp_path: Path, condition: str) -> None:
    """Spark would convert one of them: '01234' would equal 1234. Expressions, too, whose type only Spark knows."""
    pipeline = pipeline_of(tmp_path, condition, "id BIGINT, number INT")
    with pytest.raises(SpecError, check=coded("TM-SPEC-DIMENSION-JOIN", file="t.sql")):
        register_dimensions(spark, pipeline)


def test_a_declared_conversion_is_the_authors(spark: SparkSession, tmp_path: Path) -> None:
    """A CAST says which of the two is meant."""
    rows, _ = outcome(spark, pipeline_of(tmp_path, "CAST(p.zip AS INT) = r.number AND p.size < 0"), "letters", [
        {"id": 1, "number": 1234},
    ])  # fmt: skip
    assert [row["name"] for row in rows] == ["two\nlines"]
