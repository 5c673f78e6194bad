"""Spark entry, for a checkout: the training of a model, see :mod:`tidemill.spark_jobs.train`."""

import sys

from tidemill.spark_jobs.train import main

if __name__ == "__main__":
    sys.exit(main())
