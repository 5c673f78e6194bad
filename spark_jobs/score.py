"""Spark entry, for a checkout: the scoring of a model, see :mod:`tidemill.spark_jobs.score`."""

import sys

from tidemill.spark_jobs.score import main

if __name__ == "__main__":
    sys.exit(main())
