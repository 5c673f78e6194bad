"""The Spark session of a streaming driver."""

from __future__ import annotations

from pyspark.sql import SparkSession

from tidemill.stream.spark_internals import hide_interrupted_programs

STREAM_CONF = {
    # DATETIME columns are UTC, and so is every session that touches them.
    "spark.sql.session.timeZone": "UTC",
    # A value that does not convert must become NULL, and must not end the stream.
    "spark.sql.ansi.enabled": "false",
    # Java's just-in-time compiler leaves longer methods alone, and one of a wide schema would be interpreted: a decoded
    # record then costs twice as much. Beyond this limit Spark generates several methods instead of one.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # An author's SQL is run as it is written: "${…}" in it is no variable, and reads no environment.
    "spark.sql.variable.substitute": "false",
    "spark.sql.execution.arrow.maxRecordsPerBatch": "50000",
    # The plan has no shuffle to adapt; re-planning only delays small batches.
    "spark.sql.adaptive.enabled": "false",
    # Dimensions are broadcast whatever their size: a shuffle would scatter a Kafka partition over tasks.
    "spark.sql.autoBroadcastJoinThreshold": "512m",
    # A batch without records would open transactions without rows.
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    # The checkpoint is scratch: the position is in the database. Checksums of its files, Spark's own and those of
    # Hadoop's local file system, would cost a small batch more than its rows do.
    "spark.sql.streaming.minBatchesToRetain": "2",
    "spark.sql.streaming.checkpoint.fileChecksum.enabled": "false",
    "spark.hadoop.fs.AbstractFileSystem.file.impl": "org.apache.hadoop.fs.local.RawLocalFs",
    # A query that has ended leaves its consumers behind, with all that they had fetched, tens of MB: a driver that runs
    # one query after another would fill its heap within Spark's 5 minutes.
    "spark.kafka.consumer.cache.timeout": "60s",
    "spark.kafka.consumer.cache.evictorThreadRunInterval": "10s",
    "spark.kafka.consumer.fetchedData.cache.timeout": "30s",
    "spark.kafka.consumer.fetchedData.cache.evictorThreadRunInterval": "10s",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "WARN",
}


def stream_session(name: str) -> SparkSession:
    """A session for one stream. Master, memory and jars are options of spark-submit."""
    builder = SparkSession.builder.appName(f"tidemill stream {name}")
    for key, value in STREAM_CONF.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    hide_interrupted_programs(session)
    return session
