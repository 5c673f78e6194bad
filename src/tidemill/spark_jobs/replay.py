"""The job of a replay. Submitted by the command line and by the replay's DAG.

Example: ``spark-submit spark_jobs/replay.py --pipeline flights --replay 3``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tidemill.config import Settings
from tidemill.replay.job import run
from tidemill.spark_jobs.job import applied, run_job
from tidemill.stream.session import stream_session


def main(argv: Sequence[str] | None = None) -> int:
    """Run a replay that was requested before, or continue it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--replay", type=int, required=True, help="the id that the request got")
    arguments = parser.parse_args(argv)

    def work(settings: Settings) -> str:
        pipeline = applied(settings, arguments.pipeline)
        with stream_session(pipeline.name) as spark:
            result = run(spark, settings, pipeline, arguments.replay)
        return f"read {result['records']} records again, wrote {result['written']} rows"

    return run_job(work, stream=arguments.pipeline, replay=arguments.replay)


if __name__ == "__main__":
    sys.exit(main())
