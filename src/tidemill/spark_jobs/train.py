"""Train a challenger of a model. Submitted by the refresh's DAG.

Example: ``spark-submit spark_jobs/train.py --pipeline flights --model late_arrival --refresh 3``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tidemill.ml.training.train import train
from tidemill.spark_jobs.refresh import refresh_job


def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns the exit code."""
    return refresh_job("train", "trained version {}", train, argv)


if __name__ == "__main__":
    sys.exit(main())
