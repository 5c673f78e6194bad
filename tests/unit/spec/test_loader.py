"""A pipeline folder is read whole, or refused with one sentence that helps."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from support.paths import ROOT
from tidemill.errors import SpecError
from tidemill.spec import TableKind, load_pipeline, load_pipelines

MINIMAL: dict[str, Any] = {
    "name": "orders",
    "owner": "sales",
    "source": {"topic": "orders", "schema": "id BIGINT, amount DECIMAL(10,2), at TIMESTAMP"},
    "tables": {
        "orders": {
            "from": "transform.sql",
            "kind": "entity",
            "key": ["id"],
            "version": "at",
            "columns": {"id": "BIGINT NOT NULL", "amount": "DECIMAL(10,2)", "at": "DATETIME(6) NOT NULL"},
        }
    },
    "rollups": {
        "by_day": {
            "of": "orders",
            "by": {"day": {"expr": "DATE(at)", "type": "DATE"}},
            "measures": {"orders": "count(*)", "amount": "sum(amount)"},
        }
    },
}
BY_DAY = MINIMAL["rollups"]["by_day"]
TRANSFORM = "SELECT id, amount, at FROM records"


def write(folder: Path, transform: str = TRANSFORM, **changes: Any) -> Path:
    """A pipeline folder with some keys changed."""
    place = folder / "orders"
    place.mkdir()
    (place / "pipeline.yaml").write_text(yaml.safe_dump(MINIMAL | changes))
    (place / "transform.sql").write_text(transform)
    return place


def test_the_shipped_pipelines_are_right() -> None:
    """Every folder in pipelines/ loads."""
    assert "flights" in load_pipelines(ROOT / "pipelines")


def test_a_minimal_folder_is_enough(tmp_path: Path) -> None:
    """What is left out has its usual value."""
    pipeline = load_pipeline(write(tmp_path))
    assert pipeline.tables["orders"].kind is TableKind.ENTITY
    assert pipeline.source.start == "earliest"
    assert pipeline.models == {}


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    """A slip of the pen is answered with what was meant."""
    source = MINIMAL["source"] | {"partitons": 4}
    with pytest.raises(SpecError) as caught:
        load_pipeline(write(tmp_path, source=source))
    assert (caught.value.code, caught.value.value) == ("TM-SPEC-KEY-UNKNOWN", "source.partitons")
    assert caught.value.parameters["suggestion"] == "did you mean partitions?"


@pytest.mark.parametrize("key", ["folder", "digest"])
def test_a_key_that_only_the_loader_sets_is_unknown(tmp_path: Path, key: str) -> None:
    """The folder and the digest of a pipeline are no part of its file."""
    folder = write(tmp_path)
    with (folder / "pipeline.yaml").open("a") as file:
        file.write(f"{key}: x\n")
    with pytest.raises(SpecError, match="TM-SPEC-KEY-UNKNOWN") as caught:
        load_pipeline(folder)
    assert caught.value.value == key


def test_an_unknown_key_inside_a_named_table_is_helped_too(tmp_path: Path) -> None:
    """The names an author chooses are no keys; what stands below them is."""
    table = MINIMAL["tables"]["orders"] | {"indices": []}
    with pytest.raises(SpecError, match="TM-SPEC-KEY-UNKNOWN") as caught:
        load_pipeline(write(tmp_path, tables={"orders": table}))
    assert caught.value.parameters["suggestion"] == "did you mean indexes?"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "other"}, "NAME-NOT-FOLDER"),
        ({"tables": {"orders": {**MINIMAL["tables"]["orders"], "key": ["idd"]}}}, "NAME-UNKNOWN"),
        ({"tables": {"orders": {**MINIMAL["tables"]["orders"], "version": None}}}, "VERSION-MISSING"),
        ({"tables": {}, "rollups": {}}, "NO-TABLE"),
        ({"rollups": {"by_day": {**BY_DAY, "of": "order"}}}, "NAME-UNKNOWN"),
        (
            {"rollups": {"by_day": {**BY_DAY, "measures": {"m": "max(amount)"}}}},
            "MEASURE-UNSUPPORTED",
        ),
        ({"rollups": {"by_day": {**BY_DAY, "measures": {"m": "sum(amont)"}}}}, "NAME-UNKNOWN"),
        ({"rollups": {"by_day": {**BY_DAY, "measures": {"m": "sum(id / 60)"}}}}, "SUM-FRACTION"),
        ({"rollups": {"by_day": {**BY_DAY, "measures": {"m": "sum(id * 0.5)"}}}}, "SUM-FRACTION"),
        (
            {"rollups": {"by_day": {**BY_DAY, "by": {"d": {"expr": "DATE(ta)", "type": "DATE"}}}}},
            "NAME-UNKNOWN",
        ),
    ],
)
def test_what_does_not_hang_together_is_refused(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    """Names that are not there and promises that cannot be kept are found without any server."""
    with pytest.raises(SpecError) as caught:
        load_pipeline(write(tmp_path, **changes))
    assert caught.value.code == f"TM-SPEC-{code}"


def test_floating_point_is_not_summed_by_differences(tmp_path: Path) -> None:
    """A rollup must equal its query exactly, which floating-point differences would not."""
    table = MINIMAL["tables"]["orders"]
    columns = table["columns"] | {"amount": "DOUBLE"}
    with pytest.raises(SpecError, match="TM-SPEC-SUM-APPROXIMATE"):
        load_pipeline(write(tmp_path, tables={"orders": {**table, "columns": columns}}))


def test_the_digest_follows_the_content_but_not_the_cases(tmp_path: Path) -> None:
    """A new case is no new version; a new transform is."""
    folder = write(tmp_path)
    before = load_pipeline(folder).digest
    (folder / "cases").mkdir()
    (folder / "cases" / "one.yaml").write_text("given: []")
    assert load_pipeline(folder).digest == before
    (folder / "transform.sql").write_text(TRANSFORM + " WHERE id > 0")
    assert load_pipeline(folder).digest != before


def test_a_missing_pipeline_is_answered_with_those_that_are_there(tmp_path: Path) -> None:
    """A wrong name on the command line is one sentence."""
    write(tmp_path)
    with pytest.raises(SpecError) as caught:
        load_pipeline(tmp_path / "order")
    assert (caught.value.code, caught.value.value) == ("TM-SPEC-PIPELINE-UNKNOWN", "order")
    assert caught.value.parameters["suggestion"] == "did you mean orders?"
