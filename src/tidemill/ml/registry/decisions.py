"""Every decision about a model version is a row: what, why, and whose it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection

from tidemill.store.connection import translated

MEASURE = "measure"
"""Decides where no person does."""


@dataclass(frozen=True)
class Decision:
    """What was decided about a version."""

    verdict: str
    """``promoted``, ``rejected``, ``waiting`` or ``rolled back``."""
    reason: str
    by: str = MEASURE


def note_decision(
    connection: Connection[Any], of: tuple[str, str], version: int, decision: Decision, refresh_id: int | None = None
) -> None:
    """Record a decision. In the transaction that carries it out.

    Args:
        connection: as the stream account.
        of: pipeline and model.
        version: about which.
        decision: what.
        refresh_id: the refresh that led to it, if one did.
    """
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO decisions (pipeline, model, version, refresh_id, verdict, reason, decided_by)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (*of, version, refresh_id, decision.verdict, decision.reason[:1000], decision.by[:250]),
        )
