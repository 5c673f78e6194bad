"""Checks Spark configuration that users add: it becomes part of a command line, and must not break the exact tables."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tidemill.errors import SpecError

_SECRET = re.compile(
    r"pass(word|wd|phrase)|secret|token|credential|keytab|(access|account|private|api|shared|encryption)[._-]?key"
    r"|[._-]key$",
    re.IGNORECASE,
)
_SECRET_INSIDE = re.compile(rf"(?:^|[\s;&?-])\S*?(?:{_SECRET.pattern})\S*?=", re.IGNORECASE)
"""In a value that itself holds settings: Java options, the query of a URL."""
_OF_CONNECTION = "set it in the Airflow connection spark_default"
_OF_MACHINE = f"{_OF_CONNECTION}: it belongs to the machine and not to the pipeline"
_OF_DRIVER = "remove it: the driver takes its environment from the settings of Tidemill"
_NO_SHUFFLE = "remove it: a shuffle would distribute a Kafka partition over several tasks"
_RESERVED = {
    "spark.master": _OF_CONNECTION,
    "spark.submit.": _OF_CONNECTION,
    "spark.yarn.queue": _OF_CONNECTION,
    "spark.kubernetes.namespace": _OF_CONNECTION,
    "spark.kubernetes.driver.pod.name": "remove it: Tidemill finds the driver by the name that it sets",
    "spark.driver.memory": "use resources.driver.memory",
    "spark.driver.cores": "use resources.driver.cores",
    "spark.executor.instances": "use resources.executors.instances",
    "spark.executor.cores": "use resources.executors.cores",
    "spark.executor.memory": "use resources.executors.memory",
    "spark.cores.max": "use resources.executors.instances and resources.executors.cores",
    "spark.app.name": "remove it: the application is named after the stream",
    "spark.jars": "remove it: the jars of the Kafka connector must have the version of Spark",
    "spark.pyspark.": "remove it: drivers and executors run the interpreter that Tidemill is installed in",
    "spark.executorEnv.": "remove it: executors receive their settings with each task",
    "spark.yarn.appMasterEnv.": _OF_DRIVER,
    "spark.yarn.maxAppAttempts": "remove it: Tidemill's supervisor starts the next driver",
    "spark.kubernetes.driverEnv.": _OF_DRIVER,
    "spark.driver.host": _OF_MACHINE,
    "spark.driver.bindAddress": _OF_MACHINE,
    "spark.ui.": "remove it: Spark's web page would show the environment on every network address",
    "spark.speculation": "remove it: the database would reject one of two attempts of a task",
    "spark.sql.session.timeZone": "remove it: all times are UTC",
    "spark.sql.ansi.": "remove it: one value that cannot be converted must not stop the stream",
    "spark.sql.variable.": "remove it: SQL is run as it is written",
    "spark.sql.adaptive.": _NO_SHUFFLE,
    "spark.sql.autoBroadcastJoinThreshold": _NO_SHUFFLE,
    "spark.sql.execution.arrow.": "use source.max_bytes_per_batch, which limits what one transaction takes",
    "spark.sql.streaming.": "remove it: the stream's position is in the database, and its checkpoint is temporary",
}
"""Names that Tidemill sets, each with what to do instead. A name that ends in a dot covers all names below it."""


def check_conf(place: str, conf: Mapping[str, str], *, reject_reserved: bool = True) -> None:
    """Reject names that are not Spark's, names and values that look like a secret, and names that Tidemill sets.

    Args:
        place: where the configuration was read, for the message.
        conf: name -> value.
        reject_reserved: whether to reject the names that Tidemill sets.

    Raises:
        SpecError: the first rule that is broken. It shows the name and never the value.
    """
    for name, value in conf.items():
        if not name.startswith("spark."):
            raise SpecError("TM-SPEC-CONF-NOT-SPARK", value=name, place=place)
        if _SECRET.search(name) or _SECRET_INSIDE.search(value):
            raise SpecError("TM-SPEC-CONF-SECRET", value=name, place=place)
        alternative = next((text for reserved, text in _RESERVED.items() if _is_below(name, reserved)), None)
        if reject_reserved and alternative:
            raise SpecError("TM-SPEC-CONF-RESERVED", value=name, place=place, alternative=alternative)


def _is_below(name: str, reserved: str) -> bool:
    return name == reserved or name.startswith(reserved if reserved.endswith(".") else f"{reserved}.")
