"""The dimensions of a pipeline: their files, read once and registered as views that transforms join."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tidemill.errors import SpecError
from tidemill.spec.schema import Dimension, Pipeline

_PACKAGE = "package://"


def dimension_path(pipeline: Pipeline, path: str) -> Path:
    """The file of a dimension.

    Raises:
        SpecError: it does not exist.
    """
    if path.startswith(_PACKAGE):
        package, _, inside = path.removeprefix(_PACKAGE).partition("/")
        module = find_spec(package)  # not imported: the package may hold data, and code that no longer runs
        base = Path(module.origin).parent if module and module.origin else Path(package)
    else:
        base, inside = pipeline.folder, path
    resolved = base / inside
    if not resolved.exists():
        raise SpecError("TM-STREAM-DIMENSION-MISSING", value=path, path=resolved)
    return resolved


def register_dimensions(spark: SparkSession, pipeline: Pipeline) -> None:
    """Read every dimension once, check its key, and register it as a view to be broadcast.

    Raises:
        SpecError: a key is not unique, so that a join would multiply records.
    """
    for name, dimension in pipeline.dimensions.items():
        frame = _read(spark, pipeline, dimension).cache()
        twice = frame.groupBy(*dimension.key).count().where("count > 1").head()
        if twice is not None:
            key = ", ".join(str(twice[column]) for column in dimension.key)
            raise SpecError("TM-STREAM-DIMENSION-KEY", value=f"{', '.join(dimension.key)} = {key}", dimension=name)
        F.broadcast(frame).createOrReplaceTempView(name)


def _read(spark: SparkSession, pipeline: Pipeline, dimension: Dimension) -> DataFrame:
    reader = spark.read.option("header", True).option("inferSchema", True).option("nullValue", dimension.nulls)
    path = dimension_path(pipeline, dimension.path)
    if str(spark.sparkContext.master).startswith("local"):
        return reader.csv(str(path)).coalesce(1)
    # Executors have other disks, and a plain path may mean another file system: the driver reads the file for all.
    with path.open(encoding="utf-8-sig") as lines:
        text = [(line.rstrip("\n"),) for line in lines]
    return reader.csv(spark.createDataFrame(text, "value STRING")).coalesce(1)
