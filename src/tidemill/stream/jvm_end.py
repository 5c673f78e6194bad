"""What ended the JVM of a driver, as its Python process finds, which outlives the JVM for a moment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pyspark.sql import SparkSession

from tidemill.errors import StreamError, TidemillError
from tidemill.stream.diagnosis import recognise
from tidemill.stream.log_rotation import LOG, read_end
from tidemill.stream.spark_internals import jvm_answers


def jvm_end(spark: SparkSession, stream: str) -> TidemillError | None:
    """Why the JVM has ended; None if it has not.

    What its death raises here names a connection that was refused or closed, and nothing of the cause. The log does not
    have it either: it is the JVM that writes what its Python process prints.
    """
    if jvm_answers(spark):
        return None
    return named_by_log(stream, os.environ) or StreamError("TM-STREAM-JVM-ENDED")


def named_by_log(stream: str, environ: Mapping[str, str]) -> TidemillError | None:
    """The cause that the JVM printed last: which names a lack of memory. None if it was killed from outside.

    Args:
        stream: for remedies that name it.
        environ: names the log of this process; a driver that a cluster runs has none that it could read.
    """
    end = read_end(Path(environ[LOG])) if LOG in environ else None
    return recognise(end.decode(errors="replace"), stream, ends_process=True) if end else None
