"""What is shown of a model version beside its columns: the JSON document in ``model_versions.details``.

It is written by the training job and read by the command line, the console, Airflow's approval task and MLflow. No
code decides by it: what promotion and scoring depend on has columns of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class VersionDetails:
    """The document. A version that was recorded by hand may have none of it."""

    problem: str | None = None
    """What the model learns, such as ``classification``."""
    seed: int | None = None
    """Of the estimator and of the resamples."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the estimator, by MLlib's names."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the form of the run requested (:mod:`tidemill.ml.training.options`)."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each step: ``read``, ``check`` (for features that look ahead), ``fit``, ``measure``."""
    measured_rows: int | None = None
    """Held-out rows behind the metrics."""
    calibration: tuple[Mapping[str, float], ...] = ()
    """``predicted``, ``observed`` and ``rows`` of each tenth of the held-out rows, from the least likely up; empty
    unless the model classifies."""
    importance: Mapping[str, float] = field(default_factory=dict)
    """Feature -> its share, the largest first; empty where the estimator has none."""

    def to_json(self) -> str:
        """The document as it is stored. A value that JSON cannot hold is stored as its text."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str | None) -> VersionDetails:
        """Read a stored document. Keys that are missing or null get their defaults, unknown keys are ignored."""
        document = json.loads(text or "{}")
        known = {each.name: document[each.name] for each in fields(cls) if document.get(each.name) is not None}
        if "calibration" in known:
            known["calibration"] = tuple(known["calibration"])
        return cls(**known)
