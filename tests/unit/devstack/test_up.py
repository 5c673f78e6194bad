"""When ``up`` asks for the first refresh."""

from __future__ import annotations

import pytest

from tidemill.devstack.up import holds_everything


@pytest.mark.parametrize(
    ("records", "lag", "behind", "holds"),
    [
        (60_000, 0, 0.0, True),
        (60_000, 0, None, True),  # the desired state is stopped: nothing is to be read
        (60_000, 0, 4.5, False),  # the driver has not yet said that it has caught up
        (60_000, 1, 0.0, False),
        (60_000, None, 0.0, False),  # Kafka is away
        (0, 0, 0.0, False),
    ],
)
def test_a_refresh_is_asked_for_once_it_would_not_wait(
    records: int, lag: int | None, behind: float | None, holds: bool
) -> None:
    """One that comes sooner waits a quarter of a minute before it looks again."""
    stream = {"records": records, "lag_records": lag, "behind_seconds": behind}
    assert holds_everything(stream) is holds
