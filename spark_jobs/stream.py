"""Spark entry, for a checkout: the driver of a stream, see :mod:`tidemill.spark_jobs.stream`."""

import sys

from tidemill.spark_jobs.stream import main

if __name__ == "__main__":
    sys.exit(main())
