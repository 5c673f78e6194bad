"""The dimensions of a pipeline: their files, read once by the driver and registered as views that transforms join."""

from __future__ import annotations

from contextlib import suppress

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType

from tidemill.errors import SpecError
from tidemill.spec.checks.dimensions import are_comparable, compared_sides
from tidemill.spec.checks.transform import RECORDS
from tidemill.spec.dimension_files import DimensionRows, read_dimension
from tidemill.spec.schema import Pipeline
from tidemill.stream.plan.decode import struct_of


def register_dimensions(spark: SparkSession, pipeline: Pipeline) -> None:
    """Read every dimension once, and register it as a view to be broadcast.

    Raises:
        SpecError: a file is missing or is not what the pipeline declares, a key is not unique, so that a join would
            multiply records, or a transform compares values of different types.
    """
    for name in pipeline.dimensions:
        frame = _frame(spark, read_dimension(pipeline, name)).cache()
        F.broadcast(frame).createOrReplaceTempView(name)
    if pipeline.dimensions:
        _check_joins(spark, pipeline)


def _frame(spark: SparkSession, content: DimensionRows) -> DataFrame:
    """One partition on any master: the driver holds the rows, whose file executors on other machines do not have.

    As rows and not as Arrow: the JVM of a driver that a standalone cluster starts does not open what Arrow needs there.
    """
    fields = [StructField(name, struct_of(f"value {kind}")["value"].dataType) for name, kind in content.types.items()]
    return spark.createDataFrame(content.rows, StructType(fields)).coalesce(1)


def _check_joins(spark: SparkSession, pipeline: Pipeline) -> None:
    """Refuse to compare values of different types in a join: Spark would convert one of them without a word."""
    columns = struct_of(pipeline.source.schema_ddl)
    spark.createDataFrame([], columns).createOrReplaceTempView(RECORDS)
    for table in pipeline.tables.values():
        for equality, query in compared_sides(pipeline.sql(table.from_), table.from_):
            with suppress(AnalysisException):  # Spark names what it does not know when it plans the transform itself
                left, right = (field.dataType.simpleString().upper() for field in spark.sql(query).schema)
                if not are_comparable(left, right):
                    value = f"{equality.left.sql('spark')} {left} = {equality.right.sql('spark')} {right}"
                    raise SpecError("TM-SPEC-DIMENSION-JOIN", value=value, file=table.from_)
