"""Spark entry of a replay: argv -> pipeline -> one call. Submitted by the command line and by the replay's DAG.

Example: ``spark-submit spark_jobs/replay.py --pipeline flights --replay 3``
"""

import argparse
import sys

from tidemill import config
from tidemill.deploy.catalog import find_pipeline
from tidemill.errors import TidemillError
from tidemill.replay.job import run
from tidemill.stream.session import stream_session


def main() -> int:
    """Run the job; exit with the error's own code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--replay", type=int, required=True, help="id that the replay was given when it was asked for")
    given = parser.parse_args()
    settings = config.load()
    try:
        pipeline = find_pipeline(settings, given.pipeline).pipeline
        spark = stream_session(pipeline.name)
        try:
            result = run(spark, settings, pipeline, given.replay)
        finally:
            spark.stop()
    except TidemillError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return error.exit_code
    sys.stdout.write(f"read {result['records']} records again, wrote {result['written']} rows\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
