"""Settings of a bench's own: nothing that it measures meets what runs on this machine otherwise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tidemill import config
from tidemill.config import Settings
from tidemill.devstack import child_process, ports


@contextmanager
def own_settings(**more: str) -> Iterator[Settings]:
    """Settings with free ports and their state in a temporary folder, also in the environment.

    Args:
        more: settings beyond these, by their names in the environment.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-", ignore_cleanup_errors=True) as state:
        kafka, database, airflow = ports.free_ports(3)
        given = {
            "TIDEMILL_STATE": state,
            "TIDEMILL_JARS": str(config.load().jars),
            "TIDEMILL_KAFKA_BOOTSTRAP": f"127.0.0.1:{kafka}",
            "TIDEMILL_DB_PORT": str(database),
            "TIDEMILL_AIRFLOW_PORT": str(airflow),
        }
        settings = config.load(given | more)
        os.environ.update(child_process.environment(settings))
        yield settings
