"""Spark's JVM starts from the archive of its classes that the launcher has made."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def test_sparks_own_classes_come_from_the_archive(tmp_path: Path) -> None:
    """As every JVM that is started from here, this one inherits where the archive is, and says nothing about it."""
    log = tmp_path / "classes.log"
    environment = os.environ | {"SPARK_SUBMIT_OPTS": f"{os.environ['SPARK_SUBMIT_OPTS']} -Xlog:class+load:file={log}"}
    done = subprocess.run(
        ["spark-submit", "--version"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    assert "org.apache.spark.deploy.SparkSubmit source: shared objects file (top)" in log.read_text()
