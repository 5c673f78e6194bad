"""What every program that ``spark-submit`` is given has in common: settings, log, result, exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tidemill import config, logs
from tidemill.config import Settings
from tidemill.errors import TidemillError


def run_job(work: Callable[[Settings], str | None], **fields: object) -> int:
    """Do the work of a Spark job, and return the exit code of its process.

    Args:
        work: opens and stops its own Spark session. It returns the line to print on standard output, None for none.
        fields: of every record that the job logs.

    Returns:
        0, or the exit code of the error, which is then one line on standard error: ``tidemill: …``. The diagnosis of
        logs and Airflow's tasks look for that line.
    """
    logs.configure(**fields)
    try:
        result = work(config.load())
    except TidemillError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return error.exit_code
    if result is not None:
        sys.stdout.write(f"{result}\n")
    return 0
