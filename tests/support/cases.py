"""Records through a pipeline's real decoder and transform, without Kafka and database."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from tidemill.spec import Pipeline, load_pipeline
from tidemill.stream.plan.decode import decode
from tidemill.stream.plan.dimensions import register_dimensions
from tidemill.stream.plan.transform import column_of, transform

KAFKA_COLUMNS = (
    "key BINARY, value BINARY, partition INT, offset LONG, timestamp TIMESTAMP,"
    " headers ARRAY<STRUCT<key: STRING, value: BINARY>>"
)
Given = dict[str, Any] | str | bytes


def transformed(spark: SparkSession, pipeline: Pipeline, given: Sequence[Given]) -> DataFrame:
    """The rows that the stream would hand to the writer, in order, their offsets counting from 0."""
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    messages = [(b"key", _as_bytes(record), 0, offset, now, None) for offset, record in enumerate(given)]
    _register(spark, pipeline.folder)
    records = decode(spark.createDataFrame(messages, KAFKA_COLUMNS), pipeline.source)
    return transform(spark, records, pipeline)


def outcome(
    spark: SparkSession, pipeline: Pipeline, table: str, given: Sequence[Given]
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of the table, times in UTC without a zone, and the reasons for which records were set aside."""
    # By way of Arrow: collect() would turn times into the local time of this machine.
    found = sorted(transformed(spark, pipeline, given).toArrow().to_pylist(), key=lambda row: row["_offset"])
    columns = pipeline.tables[table].columns
    rows = [
        {name: _plain(row[column_of(table, name)]) for name in columns}
        for row in found
        if row[column_of(table, "_kept")] and not row["_error"]
    ]
    return rows, [row["_error"] for row in found if row["_error"]]


@lru_cache(maxsize=1)  # one: the views of the next pipeline take the place of these
def _register(spark: SparkSession, folder: Path) -> None:
    register_dimensions(spark, load_pipeline(folder))


def _as_bytes(record: Given) -> bytes:
    if isinstance(record, bytes):
        return record
    return record.encode() if isinstance(record, str) else json.dumps(record).encode()


def _plain(value: Any) -> Any:
    return value.astimezone(datetime.UTC).replace(tzinfo=None) if isinstance(value, datetime.datetime) else value
