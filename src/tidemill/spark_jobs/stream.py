"""The driver of a stream. Submitted by the launcher, at Airflow's request.

Example: ``spark-submit spark_jobs/stream.py --folder .tidemill/applied/flights/2/flights --pipeline flights --epoch 7``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tidemill.config import Settings
from tidemill.spark_jobs.job import applied, run_job
from tidemill.spec import load_pipeline
from tidemill.stream.driver import Driver
from tidemill.stream.driver_location import report_location, reporting_failure
from tidemill.stream.session import stream_session


def main(argv: Sequence[str] | None = None) -> int:
    """Run the driver of one epoch until it ends; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--folder", type=Path, help="of the version to run; default: the one that was applied last")
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--report", action="store_true", help="a cluster chose the machine: record which one it is")
    arguments = parser.parse_args(argv)

    def work(settings: Settings) -> None:
        with reporting_failure(settings, arguments.pipeline, arguments.epoch):
            if arguments.report:
                report_location(settings, arguments.pipeline, arguments.epoch)
            folder = arguments.folder
            pipeline = load_pipeline(folder) if folder else applied(settings, arguments.pipeline)
            spark = stream_session(pipeline.name)
        with spark:
            Driver(settings, pipeline, arguments.epoch).run(spark)

    return run_job(work, stream=arguments.pipeline, epoch=arguments.epoch)


if __name__ == "__main__":
    sys.exit(main())
