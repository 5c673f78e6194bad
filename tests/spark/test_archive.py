"""Spark's JVM starts from the archive of its classes that the launcher has made."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import quote

from support.paths import ROOT


def test_sparks_own_classes_come_from_the_archive(tmp_path: Path) -> None:
    """As every JVM that is started from here, this one inherits the archive, and prints nothing about it.

    In a folder whose path has a blank, or a letter that a URL escapes, the JVM loads the classes one by one (ADR 21).
    """
    log = tmp_path / "classes.log"
    environment = os.environ | {"SPARK_SUBMIT_OPTS": f"{os.environ['SPARK_SUBMIT_OPTS']} -Xlog:class+load:file={log}"}
    done = subprocess.run(
        ["spark-submit", "--version"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    source = "shared objects file (top)" if quote(str(ROOT)) == str(ROOT) else ""
    assert f"org.apache.spark.deploy.SparkSubmit source: {source}" in log.read_text()
