"""How patient the supervisor is, and for how long somebody has watched without a break. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Limits:
    """How patient the supervision is. Seconds throughout."""

    silence_seconds: float = 7.5
    """A driver speaks every 2 s. With a look every 2 s its death is noticed within 10 s."""
    view_seconds: float = 15
    """Nobody calls a driver silent who has seen the database for less than this without a break: after the database
    was away a driver takes up to 10 s to give up one try to connect, and 2 s to its next heartbeat."""
    blink_seconds: float = 6
    """Two looks further apart are a break: the database, or who looks, stood still meanwhile."""
    grace_seconds: float = 90
    """Time from taking the epoch to the first heartbeat: Spark has to start."""
    leave_seconds: float = 120
    """Time from being told until the driver is made to leave. A driver gives its batch 60 s."""
    cluster_grace_seconds: float = 600
    """The same where a cluster runs the driver: it may wait for its turn, and for an image."""
    launch_seconds: float = 45
    """Time from taking the epoch until its driver's process is known: whoever took it may have died in between."""
    submit_seconds: float = 150
    """The same on a cluster, which may take two minutes to accept it."""
    backoff_base_seconds: float = 4
    """The first failure is answered at once; the wait after the second, and its factor for each further one."""
    backoff_longest_seconds: float = 60
    failures: int = 6
    """Failures without a commit in between that open the circuit."""

    def backoff(self, failures: int, jitter: float) -> timedelta:
        """How long to wait after that many failures in a row: 4, 16, then 60 s, less up to half of it.

        Args:
            failures: in a row.
            jitter: from 0, for the whole time, to 1, for half of it; so that what broke together for one reason, such
                as a broker, does not come back together.
        """
        seconds = self.backoff_base_seconds ** min(failures - 1, 16) if failures > 1 else 0
        return timedelta(seconds=min(seconds, self.backoff_longest_seconds) * (1 - jitter / 2))


LIMITS = Limits()


@dataclass(frozen=True)
class View:
    """How long somebody has seen the database without a break, by the database's clock."""

    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.until - self.since).total_seconds()

    @classmethod
    def after(cls, before: View | None, now: datetime, limits: Limits = LIMITS) -> View:
        """The view of somebody who has just seen the database's clock say ``now``.

        Args:
            before: the view at the last look; None at the first, and after a look that failed.
            now: naive UTC.
            limits: patience.
        """
        if before is None or not timedelta(0) <= now - before.until <= timedelta(seconds=limits.blink_seconds):
            return cls(now, now)
        return cls(before.since, now)
