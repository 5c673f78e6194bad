"""Every decision about a model version is a row: what was decided, why, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.store.connection import translated

BY_MEASURE = "measure"
"""The value of ``decided_by`` where the measured metric decided, and no person."""
_REASON_CHARACTERS, _NAME_CHARACTERS = 1000, 250
"""Sizes of the columns ``reason`` and ``decided_by``."""


@dataclass(frozen=True)
class Decision:
    """A decision about a model version that is about to be recorded."""

    verdict: str
    """``promoted``, ``rejected``, ``waiting`` or ``rolled back``."""
    reason: str
    by: str = BY_MEASURE
    """The person who decided, or :data:`BY_MEASURE`."""


def record_decision(
    connection: Connection[Any], of: tuple[str, str], version: int, decision: Decision, refresh_id: int | None = None
) -> None:
    """Insert a decision, in the transaction that carries it out.

    Args:
        connection: as the stream account, with a transaction open.
        of: pipeline and model.
        version: the version that the decision is about.
        decision: verdict, reason and who decided.
        refresh_id: the refresh that trained the version; None for a rollback.
    """
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO decisions (pipeline, model, version, refresh_id, verdict, reason, decided_by)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                *of,
                version,
                refresh_id,
                decision.verdict,
                decision.reason[:_REASON_CHARACTERS],
                decision.by[:_NAME_CHARACTERS],
            ),
        )
