"""Everything that Tidemill reads of Spark's private parts, with the source of Spark 4.2 that it relies on.

A new version of Spark may change each of these without a word: look here first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from py4j.java_gateway import is_instance_of
from py4j.protocol import Py4JError
from pyspark.sql import DataFrame, SparkSession

from tidemill.errors import SourceError

_EXECUTION = "org.apache.spark.sql.execution."
_MOVES_ROWS = ("exchange.ShuffleExchangeLike", "joins.CartesianProductExec", "TakeOrderedAndProjectExec")
_COPIES_ROWS = ("exchange.BroadcastExchangeLike", "adaptive.BroadcastQueryStageExec")
_PLAN_INSIDE: dict[str, Callable[[Any], Any]] = {
    "exchange.ReusedExchangeExec": lambda node: node.child(),
    "adaptive.AdaptiveSparkPlanExec": lambda node: node.executedPlan(),
    "adaptive.QueryStageExec": lambda node: node.plan(),
    "columnar.InMemoryTableScanExec": lambda node: node.relation().cachedPlan(),
}
"""Leaves of a plan that contain another plan, which is not among their children."""
_PRINTED_FIELDS, _PRINTED_CHARACTERS = 25, 120


def batch_end_offsets(checkpoint: Path, batch_id: int, topic: str) -> dict[int, int]:
    """Where a micro-batch ends: Kafka partition -> the offset after its last record.

    Spark writes the file ``offsets/<batch>`` before it runs the batch. It has a line for the format's version, a line
    of metadata, and a line for each source, which Kafka's source fills with JSON: topic -> partition -> offset.

    Source: ``sql/core/…/execution/streaming/checkpointing/OffsetSeqLog.scala`` (``serialize``) and
    ``connector/kafka-0-10-sql/…/kafka010/JsonUtils.scala`` (``partitionOffsets``).

    Raises:
        SourceError: the file does not exist, or does not have this format.
    """
    path = checkpoint / "offsets" / str(batch_id)
    try:
        ends = json.loads(path.read_text(encoding="utf-8").splitlines()[2])[topic]
    except (OSError, IndexError, KeyError, json.JSONDecodeError) as error:
        raise SourceError("TM-STREAM-CHECKPOINT-UNREADABLE", value=f"{path}: {error!r}") from error
    return {int(partition): int(offset) for partition, offset in ends.items()}


def hide_interrupted_programs(spark: SparkSession) -> None:
    """Keep Hadoop from logging a stack trace when the end of a query interrupts it.

    Without its native library Hadoop starts ``chmod`` for each file that it creates on this machine. Ending a query
    interrupts its thread, which as a rule is about such a file of the checkpoint, and Hadoop warns of that. The logger
    has no other messages than warnings; a program that fails is an exception all the same.

    Source: ``joinThread`` and ``runCommand`` in ``hadoop-common/…/util/Shell.java`` of Hadoop 3.5; ``setLogLevel`` in
    ``core/…/SparkContext.scala`` sets the level of Log4j's root logger only.
    """
    assert spark._jvm is not None  # the session has a gateway: it is not one of Spark Connect
    log4j = spark._jvm.org.apache.logging.log4j
    log4j.core.config.Configurator.setLevel("org.apache.hadoop.util.Shell", log4j.Level.ERROR)


def jvm_answers(spark: SparkSession) -> bool:
    """Whether the JVM of a session still answers its Python process."""
    assert spark._jvm is not None  # as above
    try:
        spark._jvm.java.lang.System.nanoTime()
    except (Py4JError, OSError):
        return False
    return True


def find_shuffle(rows: DataFrame) -> str | None:
    """The first node of the physical plan that moves records between tasks, as Spark prints it; None if there is none.

    The nodes are asked for their class: their text also contains the author's literals, and a broadcast that is used
    twice is printed as an exchange. What is broadcast reaches every task whole, so how it was made does not matter; nor
    do subqueries, whose results are single values.

    Source: ``_jdf`` in ``python/pyspark/sql/classic/dataframe.py``; ``executedPlan`` in
    ``sql/core/…/execution/QueryExecution.scala``; and in folders of ``sql/core/…/execution``: ``exchange``
    (``Exchange.scala``, ``ShuffleExchangeExec.scala``, ``BroadcastExchangeExec.scala``), ``adaptive``
    (``AdaptiveSparkPlanExec.scala``, ``QueryStageExec.scala``) and ``columnar`` (``InMemoryTableScanExec.scala``).
    """
    gateway = rows.sparkSession.sparkContext._gateway
    found = next(_moving(gateway, rows._jdf.queryExecution().executedPlan()), None)
    return None if found is None else str(found.simpleString(_PRINTED_FIELDS))[:_PRINTED_CHARACTERS]


def _moving(gateway: Any, node: Any) -> Iterator[Any]:
    """The nodes that move records between tasks, at or below a node, the uppermost first."""
    if _is_any(gateway, node, _COPIES_ROWS):
        return
    if _is_any(gateway, node, _MOVES_ROWS):
        yield node
    for kind, plan_inside in _PLAN_INSIDE.items():
        if _is_any(gateway, node, (kind,)):
            yield from _moving(gateway, plan_inside(node))
    children = node.children()
    for index in range(children.size()):
        yield from _moving(gateway, children.apply(index))


def _is_any(gateway: Any, node: Any, kinds: tuple[str, ...]) -> bool:
    return any(is_instance_of(gateway, node, _EXECUTION + kind) for kind in kinds)
