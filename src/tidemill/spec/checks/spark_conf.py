"""Which configuration of Spark somebody may add to ours: it stands on a command line, and must not undo ours."""

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
"""In a value that holds settings itself: Java options, a URL's query."""
_OURS = {
    "spark.master": "it is the Airflow connection spark_default's",
    "spark.submit.": "it is the Airflow connection spark_default's",
    "spark.yarn.queue": "it is the Airflow connection spark_default's",
    "spark.kubernetes.namespace": "it is the Airflow connection spark_default's",
    "spark.kubernetes.driver.pod.name": "the driver is found again by it",
    "spark.driver.memory": "say it as resources.driver.memory",
    "spark.driver.cores": "say it as resources.driver.cores",
    "spark.executor.instances": "say it as resources.executors.instances",
    "spark.executor.cores": "say it as resources.executors.cores",
    "spark.executor.memory": "say it as resources.executors.memory",
    "spark.cores.max": "say it as resources.executors: instances and cores",
    "spark.app.name": "the stream's name is in it",
    "spark.jars": "the connector's jars are of one version with Spark",
    "spark.pyspark.": "drivers and executors run the interpreter that tidemill is installed in",
    "spark.executorEnv.": "what executors have to know travels with their tasks",
    "spark.yarn.appMasterEnv.": "the driver's environment is its settings",
    "spark.yarn.maxAppAttempts": "the supervision starts the next driver",
    "spark.kubernetes.driverEnv.": "the driver's environment is its settings",
    "spark.driver.host": "say it in the Airflow connection spark_default: it is the machine's, not the pipeline's",
    "spark.driver.bindAddress": "say it in the Airflow connection spark_default: it is the machine's",
    "spark.ui.": "Spark's page would listen on every address and show the environment",
    "spark.speculation": "of two attempts of a task one would be refused by the database",
    "spark.sql.session.timeZone": "times are UTC on both sides",
    "spark.sql.ansi.": "one value that does not convert must not stop the stream",
    "spark.sql.adaptive.": "a shuffle would scatter a Kafka partition over tasks",
    "spark.sql.autoBroadcastJoinThreshold": "a shuffle would scatter a Kafka partition over tasks",
    "spark.sql.execution.arrow.": "it says what one transaction takes: see source.max_bytes_per_batch",
    "spark.sql.streaming.": "the position is in the database, and the checkpoint is scratch",
}
"""Names, or beginnings of names that end in a dot, and why they are not the author's to set."""


def check_conf(place: str, conf: Mapping[str, str], *, ours: bool = True) -> None:
    """Refuse names and values that are not Spark's, look like a secret, or are Tidemill's own to set.

    Args:
        place: where it stands, for the sentence.
        conf: name -> value.
        ours: whether what Tidemill sets is refused, too.

    Raises:
        SpecError: the first that is wrong.
    """
    for name, value in conf.items():
        if not name.startswith("spark."):
            raise SpecError(f"{place} holds a name that is not Spark's", value=name, remedy="names begin with spark.")
        if _SECRET.search(name) or _SECRET_INSIDE.search(value):
            raise SpecError(
                f"{place} looks like a secret, and would stand on a command line",
                value=name,  # and never what it holds
                remedy="give it to the processes by a file or their environment, see docs/guide/clusters.md",
            )
        reason = next((why for own, why in _OURS.items() if name == own or _begins(name, own)), None)
        if ours and reason:
            raise SpecError(f"{place} sets what is Tidemill's to set", value=name, remedy=reason)


def _begins(name: str, own: str) -> bool:
    return name.startswith(own if own.endswith(".") else f"{own}.")
