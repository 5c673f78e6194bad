"""What a pipeline may declare about the machines it runs on, and what it may not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill.errors import SpecError
from tidemill.spec import Pipeline, load_pipeline

CONTENT: dict[str, Any] = {
    "name": "orders",
    "owner": "sales",
    "source": {"topic": "orders", "schema": "id BIGINT"},
    "tables": {"orders": {"from": "t.sql", "kind": "event", "key": ["id"], "columns": {"id": "BIGINT NOT NULL"}}},
}


def load(folder: Path, **changes: Any) -> Pipeline:
    """A folder with some keys added, as it is read."""
    place = folder / "orders"
    place.mkdir()
    (place / "pipeline.yaml").write_text(yaml.safe_dump(CONTENT | changes))
    (place / "t.sql").write_text("SELECT id FROM records")
    return load_pipeline(place)


def test_resources_are_read_and_conf_is_as_spark_writes_it(tmp_path: Path) -> None:
    """YAML's true and numbers become text."""
    conf = {"spark.task.cpus": 1, "spark.rdd.compress": True, "spark.network.timeout": "60s"}
    found = load(tmp_path, resources={"driver": {"memory": "512m"}, "executors": {"instances": 2}, "conf": conf})
    assert found.resources.driver.memory == "512m"
    assert found.resources.executors.instances == 2
    assert found.resources.executors.cores is None
    assert found.resources.conf == {
        "spark.task.cpus": "1",
        "spark.rdd.compress": "true",
        "spark.network.timeout": "60s",
    }


@pytest.mark.parametrize(
    ("resources", "place"),
    [
        ({"driver": {"memory": "4"}}, "resources.driver.memory"),
        ({"driver": {"memory": "4 GB"}}, "resources.driver.memory"),
        ({"driver": {"memory": "0g"}}, "resources.driver.memory"),
        ({"executors": {"memory": 4096}}, "resources.executors.memory"),
        ({"executors": {"instances": 0}}, "resources.executors.instances"),
        ({"driver": {"cores": -1}}, "resources.driver.cores"),
        ({"conf": {"spark.a": ["b"]}}, "resources.conf.spark.a"),
    ],
)
def test_amounts_that_spark_would_not_take_are_refused(tmp_path: Path, resources: Any, place: str) -> None:
    """The sentence names the place."""
    with pytest.raises(SpecError, match="TM-SPEC-VALUE-INVALID") as caught:
        load(tmp_path, resources=resources)
    assert caught.value.parameters["place"] == place


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    """As everywhere in the file."""
    with pytest.raises(SpecError, match="TM-SPEC-KEY-UNKNOWN") as caught:
        load(tmp_path, resources={"executors": {"instance": 2}})
    assert caught.value.parameters["suggestion"] == "did you mean instances?"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("master", "local", "NOT-SPARK"),
        ("spark.ssl.keyPassword", "hunter2", "SECRET"),
        ("spark.hadoop.fs.s3a.secret.key", "hunter2", "SECRET"),
        ("spark.hadoop.fs.s3a.access.key", "hunter2", "SECRET"),
        ("spark.authenticate.secret", "hunter2", "SECRET"),
        ("spark.github.token", "hunter2", "SECRET"),
        ("spark.driver.extraJavaOptions", "-Djavax.net.ssl.trustStorePassword=hunter2", "SECRET"),
        ("spark.master", "yarn", "RESERVED"),
        ("spark.submit.deployMode", "cluster", "RESERVED"),
        ("spark.executor.memory", "3g", "RESERVED"),
        ("spark.jars.packages", "a:b:1", "RESERVED"),
        ("spark.executorEnv.HTTP_PROXY", "x", "RESERVED"),
        ("spark.sql.ansi.enabled", "true", "RESERVED"),
        ("spark.speculation", "true", "RESERVED"),
    ],
)
def test_conf_that_is_no_authors_is_refused(tmp_path: Path, name: str, value: str, code: str) -> None:
    """Secrets, which a command line would show, and what keeps tables exact. No sentence repeats a value."""
    with pytest.raises(SpecError, match=f"TM-SPEC-CONF-{code}") as caught:
        load(tmp_path, resources={"conf": {name: value}})
    assert caught.value.value == name
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["spark.executor.memoryOverhead", "spark.ssl.keyStoreType", "spark.speculationist"])
def test_names_that_only_begin_like_ours_are_the_authors(tmp_path: Path, name: str) -> None:
    """A refused name does not take its neighbours along."""
    assert load(tmp_path, resources={"conf": {name: "1"}}).resources.conf == {name: "1"}


@pytest.mark.parametrize("path", ["../shops.csv", "a/../../shops.csv", ".shops.csv", "cases/shops.csv"])
def test_a_file_that_is_no_part_of_the_version_is_refused(tmp_path: Path, path: str) -> None:
    """What runs is a copy of the folder, as its digest sees it: anything else would be missing there."""
    with pytest.raises(SpecError, match="TM-SPEC-FILE-NOT-VERSIONED"):
        load(tmp_path, dimensions={"shops": {"path": path, "key": ["id"]}})


@pytest.mark.parametrize("file", ["/etc/hostname", "../t.sql", "cases/t.sql", ".t.sql"])
def test_a_transform_that_is_no_part_of_the_version_is_refused(tmp_path: Path, file: str) -> None:
    """Nor may it lie elsewhere on the machine: it would change what a version means."""
    tables = {"orders": CONTENT["tables"]["orders"] | {"from": file}}
    with pytest.raises(SpecError, match="TM-SPEC-FILE-NOT-VERSIONED"):
        load(tmp_path, tables=tables)


@pytest.mark.parametrize("path", ["/data/shops.csv", "package://shops/all.csv", "maps/shops.csv", "./shops.csv"])
def test_a_dimension_inside_or_by_its_whole_name_is_taken(tmp_path: Path, path: str) -> None:
    """Whether the file is there is asked when the stream starts."""
    assert load(tmp_path, dimensions={"shops": {"path": path, "key": ["id"]}}).dimensions["shops"].path == path
