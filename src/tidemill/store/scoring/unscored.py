"""Rows to which a model gave no number as score: infinity, NaN or nothing.

Such a row has the score NULL, in place of an earlier one, which was of other content; the rows beside it are scored.
The incident ``unscored_rows`` counts them: it opens when rows are scored, by the stream or by the scoring job, and each
publication counts them again in what readers see, and closes it if there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.store.control import incidents

UNSCORED_ROWS = "unscored_rows"
"""Kind of the incident."""


@dataclass(frozen=True)
class Unscored:
    """What a model version gave no number for."""

    version: int
    rows: int
    sample: str
    """The key of one of the rows, as ``id 5``."""


def message_of(unscored: Unscored, model: str) -> str:
    """The incident's sentence.

    Args:
        unscored: what to report.
        model: ``<pipeline>.<model>``.
    """
    return (
        f"version {unscored.version} of model {model} gave no number as score for {unscored.rows:,}"
        f" row{'s' if unscored.rows > 1 else ''}, such as {unscored.sample}: their score is NULL, the others are scored"
    )


def report_unscored(connection: Connection[Any], pipeline: str, model: str, unscored: Unscored) -> None:
    """Open the incident of a model, unless it is open."""
    name = f"{pipeline}.{model}"
    incidents.open_incident(connection, f"model {name}", UNSCORED_ROWS, message_of(unscored, name))


def describe_key(names: tuple[str, ...], values: tuple[object, ...]) -> str:
    """A row's key, as ``country de, code 5``."""
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
