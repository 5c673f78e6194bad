"""The form of a refresh: train now, on which range of time, with which parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Param

from tidemill.ml.training.options import parse_options


@dataclass(frozen=True)
class RefreshRequest:
    """A form that was filled in."""

    force: bool
    """Train regardless of the schedule. A range of time or parameters imply it, because they apply to training."""
    options: dict[str, Any] | None
    """Range of time and parameters, for the row of the refresh; None if the form has neither."""


def form() -> dict[str, Param]:
    """The fields of the DAG's form."""

    def time(title: str, description: str) -> Param:
        return Param(None, type=["null", "string"], title=title, description=description)

    return {
        "force": Param(False, type="boolean", title="Train now", description="Train regardless of the schedule"),
        "train_from": time("Train from", "An ISO time (UTC without a zone); from the first row if empty"),
        "train_until": time(
            "Train until", "An ISO time, the last days before which are held out; up to the newest row if empty"
        ),
        "parameters": Param(
            {},
            type=["null", "object"],
            title="Parameters",
            description='Of the estimator, instead of those of the pipeline, for example {"maxDepth": 4}',
        ),
    }


def request_of(params: Mapping[str, Any]) -> RefreshRequest:
    """The request of a form that was filled in.

    Raises:
        ModelError: a field has an invalid value.
    """
    fields = {
        "from": params.get("train_from") or None,
        "until": params.get("train_until") or None,
        "parameters": params.get("parameters") or {},
    }
    parse_options(json.dumps(fields))
    options = fields if any(fields.values()) else None
    return RefreshRequest(bool(params["force"]) or options is not None, options)
