"""Let the champion of a model score the rows that changed. Submitted by the refresh's DAG.

Example: ``spark-submit spark_jobs/score.py --pipeline flights --model late_arrival --refresh 3``
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tidemill.ml.serving.score import score
from tidemill.spark_jobs.refresh import refresh_job


def main(argv: Sequence[str] | None = None) -> int:
    """Score; returns the exit code."""
    return refresh_job("score", "scored {} rows", score, argv)


if __name__ == "__main__":
    sys.exit(main())
