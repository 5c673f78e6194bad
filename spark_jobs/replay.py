"""Spark entry, for a checkout: the job of a replay, see :mod:`tidemill.spark_jobs.replay`."""

import sys

from tidemill.spark_jobs.replay import main

if __name__ == "__main__":
    sys.exit(main())
