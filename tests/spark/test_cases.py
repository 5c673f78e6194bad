"""The cases of every pipeline: given records, through the real decoder and transform, become the expected rows.

A file ``pipelines/<name>/cases/<case>.yaml`` holds

* ``given``: the records in order, as JSON objects, or as text that is sent unchanged;
* ``expect``: per table the rows in order; a column left out is expected to be NULL;
* ``quarantine``: the reasons of the records that are quarantined, in order (none, if left out).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from support.cases import outcome
from support.paths import PIPELINES
from tidemill.spec import load_pipeline


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case file, of all pipelines of the project or of the folder that ``--pipeline`` names."""
    if "case" in metafunc.fixturenames:
        folder = metafunc.config.getoption("--pipeline", default=None)
        cases = sorted(Path(folder).glob("cases/*.yaml") if folder else PIPELINES.glob("*/cases/*.yaml"))
        assert cases, f"{folder or PIPELINES} has no case"
        ids = [f"{case.parents[1].name}/{case.stem}" for case in cases]
        metafunc.parametrize("case", cases, ids=ids)


def test_case(spark: SparkSession, case: Path) -> None:
    """The given records become the expected rows and quarantine, exactly."""
    content: dict[str, Any] = yaml.safe_load(case.read_text())
    assert set(content) <= {"given", "expect", "quarantine"}
    pipeline = load_pipeline(case.parents[1])
    for table, expected in content["expect"].items():
        rows, quarantine = outcome(spark, pipeline, table, content["given"])
        columns = pipeline.tables[table].columns
        assert rows == [dict.fromkeys(columns) | row for row in expected]
        assert quarantine == content.get("quarantine", [])
