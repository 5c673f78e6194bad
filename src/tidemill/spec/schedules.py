"""Schedules as Airflow reads them: a preset, or cron in five fields."""

from __future__ import annotations

from datetime import UTC, datetime

from croniter import croniter  # type: ignore[import-untyped]  # publishes no type information

from tidemill.errors import SpecError

PRESETS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
}
"""Airflow's names for cron expressions (``airflow.utils.dates.cron_presets``), which croniter does not all have."""
_FIELDS = 5


def next_tick(schedule: str, after: datetime) -> datetime:
    """The first time after ``after`` at which a schedule is due.

    Raises:
        ValueError: it is no cron expression, or is never due.
    """
    cron = PRESETS.get(schedule, schedule)
    if len(cron.split()) != _FIELDS:
        raise ValueError(f"it has {len(cron.split())} fields")
    try:
        tick: datetime = croniter(cron, after).get_next(datetime)
    except (ValueError, KeyError) as error:
        raise ValueError(str(error)) from error
    return tick


def check_schedule(place: str, schedule: str) -> None:
    """Check a schedule.

    Raises:
        SpecError: it is no cron expression, or is never due.
    """
    try:
        next_tick(schedule, datetime(2024, 1, 1, tzinfo=UTC))
    except ValueError as error:
        known = ", ".join(PRESETS)
        raise SpecError("TM-SPEC-SCHEDULE", value=schedule, place=place, reason=error, known=known) from None
