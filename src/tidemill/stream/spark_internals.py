"""Everything that Tidemill reads of Spark's private parts, with the source of Spark 4.2 that it relies on.

A new version of Spark may change each of these without a word: look here first.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from pyspark.sql import DataFrame

from tidemill.errors import SourceError

_SHUFFLE = re.compile(r"(?<!Broadcast)Exchange ")


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


def find_shuffle(rows: DataFrame) -> str | None:
    """The first shuffle of the physical plan, as Spark prints it; None if there is none.

    Source: ``_jdf`` in ``python/pyspark/sql/classic/dataframe.py``; ``executedPlan`` in
    ``sql/core/…/execution/QueryExecution.scala``; the nodes print as ``Exchange`` (``ShuffleExchangeExec.scala``) and
    ``BroadcastExchange`` (``BroadcastExchangeExec.scala``), of which only the first moves records between tasks.
    """
    plan = rows._jdf.queryExecution().executedPlan().toString()
    _, *shuffles = _SHUFFLE.split(plan, maxsplit=1)
    return shuffles[0][:120] if shuffles else None
