"""Spark entry of a stream's driver: argv -> pipeline -> one call. Submitted by the stream's operator.

Example: ``spark-submit spark_jobs/stream.py --folder .tidemill/applied/flights/2/flights --pipeline flights --epoch 7``
"""

import argparse
import sys
from pathlib import Path

from tidemill import config
from tidemill.errors import TidemillError
from tidemill.spec import load_pipeline
from tidemill.stream.driver import Driver
from tidemill.stream.driver_location import report_location, reporting_failure
from tidemill.stream.session import stream_session


def main() -> int:
    """Run the driver; exit with the error's own code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--folder", type=Path, help="as it was applied; the one in the pipelines folder if left out")
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument("--report", action="store_true", help="a cluster chose the place: say which it is")
    given = parser.parse_args()
    settings = config.load()
    try:
        with reporting_failure(settings, given.pipeline, given.epoch):
            if given.report:
                report_location(settings, given.pipeline, given.epoch)
            pipeline = load_pipeline(given.folder or settings.pipelines / given.pipeline)
            spark = stream_session(pipeline.name)
        try:
            Driver(settings, pipeline, given.epoch).run(spark)
        finally:
            spark.stop()
    except TidemillError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
