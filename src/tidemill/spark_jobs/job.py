"""What every program that ``spark-submit`` is given has in common: settings, log, result, exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from tidemill import config, logs
from tidemill.config import Account, Settings
from tidemill.deploy.snapshots import applied_pipeline, unapplied_changes
from tidemill.errors import TidemillError
from tidemill.spec import Pipeline
from tidemill.store.connection import session

log = logging.getLogger(__name__)


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


def applied(settings: Settings, name: str) -> Pipeline:
    """The pipeline as it was applied last; what its folder holds otherwise is only logged as a warning.

    Raises:
        TidemillError: as for :func:`~tidemill.deploy.snapshots.applied_pipeline`.
    """
    with session(settings, Account.STREAM) as connection:
        pipeline, version = applied_pipeline(settings, connection, name)
    for warning in unapplied_changes(settings, pipeline, version):
        log.warning("%s", warning)
    return pipeline
