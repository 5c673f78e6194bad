"""Spark entry of the feedback loop: argv -> pipeline -> one call. Let the champion score what changed.

Example: ``spark-submit spark_jobs/score.py --pipeline flights --model late_arrival --refresh 3``
"""

import argparse
import sys

from tidemill import config
from tidemill.deploy.catalog import find_pipeline
from tidemill.errors import TidemillError
from tidemill.ml.serving.score import score
from tidemill.ml.session import ml_session


def main() -> int:
    """Run the job; exit with the error's own code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--refresh", type=int, required=True, help="id that begin_refresh gave")
    given = parser.parse_args()
    try:
        settings = config.load()
        pipeline = find_pipeline(settings, given.pipeline).pipeline
        spark = ml_session(f"score {given.pipeline}.{given.model}", settings)
        try:
            rows = score(spark, settings, pipeline, given.model, given.refresh)
        finally:
            spark.stop()
    except TidemillError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return error.exit_code
    sys.stdout.write(f"scored {rows} rows\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
