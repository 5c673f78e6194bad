"""When ``up`` asks for the first refresh."""

from __future__ import annotations

import pytest

from tidemill.devstack.up import holds_everything


@pytest.mark.parametrize(
    ("records", "lag", "behind", "desired", "holds"),
    [
        (60_000, 0, 0.0, "running", True),
        (60_000, 0, None, "stopped", True),  # nothing is to be read
        (60_000, 0, None, "running", False),  # the driver is starting, and has not measured yet
        (60_000, 0, 4.5, "running", False),  # the driver has not yet said that it has caught up
        (60_000, 1, 0.0, "running", False),
        (60_000, None, 0.0, "running", False),  # Kafka is away
        (0, 0, 0.0, "running", False),
    ],
)
def test_a_refresh_is_asked_for_once_it_would_not_wait(
    records: int, lag: int | None, behind: float | None, desired: str, holds: bool
) -> None:
    """One that comes sooner waits a quarter of a minute before it looks again."""
    stream = {"records": records, "lag_records": lag, "behind_seconds": behind, "desired_state": desired}
    assert holds_everything(stream) is holds
