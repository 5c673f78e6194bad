"""A schedule that passes the checks is one that Airflow can run."""

from __future__ import annotations

import random
from datetime import datetime

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.trigger import CronTriggerTimetable
from airflow.utils.dates import cron_presets

from tidemill.errors import SpecError
from tidemill.spec.schedules import PRESETS, check_schedule, next_tick

NOW = datetime(2026, 3, 10, 12, 0)
PARTS = (
    *("*", "0", "5", "59", "60", "-1", "1-5", "*/10", "*/0", "L", "?", "1#2", "5L", "L5", "MON", "JAN", "mon-fri", "H"),
    *("H/5", "1,2,3", "7", "31", "30", "2", "x", "*/70", "1/2", "5-1", "~", "1~3", "W", "15W", "sun#1", "00", "1.5"),
)


def is_accepted(schedule: str) -> bool:
    """Whether the checks accept a schedule."""
    try:
        check_schedule("models.m.score.schedule", schedule)
    except SpecError:
        return False
    return True


def test_a_schedule_is_cron_in_utc() -> None:
    """Presets and expressions are read, and all of Airflow's presets are known."""
    assert next_tick("@daily", NOW) == datetime(2026, 3, 11)
    assert next_tick("@quarterly", NOW) == datetime(2026, 4, 1)
    assert next_tick("30 12 * * *", NOW) == datetime(2026, 3, 10, 12, 30)
    assert cron_presets == PRESETS


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        " ",
        "*/10 * * *",
        "* * * * * *",
        "@once",
        "@continuous",
        "every night",
        "61 * * * *",
        "0 0 31 2 *",
        "\0",
        "é",
    ],
)
def test_what_is_no_schedule_is_refused(schedule: str) -> None:
    """Too few fields, too many, none, values out of range, and dates that never come."""
    assert not is_accepted(schedule)


def test_what_is_accepted_is_a_schedule_for_airflow(run_seed: int) -> None:
    """For expressions put together from all that cron may contain: Airflow declares and stores a DAG that has it."""
    draw = random.Random(run_seed)
    accepted = 0
    for _ in range(1000):
        schedule = " ".join(draw.choice(PARTS if draw.random() < 0.5 else ("*", "1", "*/2")) for _ in range(5))
        if is_accepted(schedule):
            accepted += 1
            CronTriggerTimetable(schedule, timezone="UTC").validate()
            dag = DAG("scheduled", schedule=schedule, start_date=NOW)
            dag.validate()
            assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).timetable.summary == schedule
    assert accepted > 50
