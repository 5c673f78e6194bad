"""The form of a refresh: train now, on which time, with which parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Param

from tidemill.ml.training.options import parse_options


@dataclass(frozen=True)
class RefreshRequest:
    """The form as it was filled in."""

    force: bool
    """Train whatever the schedule says. A range of time or parameters are asked of a training, and so imply it."""
    options: dict[str, Any] | None
    """For the row of the refresh; None where nothing beyond ``force`` was asked."""


def form() -> dict[str, Param]:
    """What the DAG's form asks for."""

    def time(title: str, description: str) -> Param:
        return Param(None, type=["null", "string"], title=title, description=description)

    return {
        "force": Param(False, type="boolean", title="Train now", description="Whatever the schedule says"),
        "train_from": time("Train from", "An ISO time (UTC if it names no zone); from the first row if empty"),
        "train_until": time("Train until", "An ISO time; the last days before it are held out. All rows if empty"),
        "parameters": Param(
            {},
            type=["null", "object"],
            title="Parameters",
            description='Of the estimator, in place of the pipeline\'s, such as {"maxDepth": 4}',
        ),
    }


def request_of(params: Mapping[str, Any]) -> RefreshRequest:
    """Read the form.

    Raises:
        ModelError: a field is not what it can be.
    """
    given = {
        "from": params.get("train_from") or None,
        "until": params.get("train_until") or None,
        "parameters": params.get("parameters") or {},
    }
    parse_options(json.dumps(given))
    options = given if any(given.values()) else None
    return RefreshRequest(bool(params["force"]) or options is not None, options)
