"""The limits by which a driver is judged, and for how long a watcher has seen the database without a break. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Limits:
    """How long the supervision waits before it judges or acts. Seconds throughout."""

    silence_seconds: float = 7.5
    """A driver that has sent no heartbeat for longer is silent. Heartbeats and observations follow each other every
    2 s, so a dead driver is noticed within 10 s."""
    view_seconds: float = 15
    """A watcher calls a silent driver lost only after it has seen the database for this long without a break: after an
    outage of the database a driver needs up to 10 s to give up an attempt to connect, and 2 s to its next heartbeat."""
    blink_seconds: float = 6
    """Two observations further apart are a break: the database or the watcher did not respond in between."""
    grace_seconds: float = 90
    """From acquiring the lease to the first heartbeat: Spark has to start."""
    leave_seconds: float = 120
    """From the request to exit until the driver is killed. A driver gives its batch 60 s."""
    cluster_grace_seconds: float = 600
    """The grace where a cluster runs the driver: it may wait for free resources, and for an image."""
    unmeasured_seconds: float = 30
    """For so long, beyond the time that a driver has to exit and the next one to start, it need not be measured how far
    the tables are behind."""
    backlog_seconds: float = 5
    """Records that have waited for longer are a backlog, which still exists when a driver ends; what is younger is
    what any healthy stream is about to commit."""
    launch_seconds: float = 45
    """From acquiring the lease until the driver's process is known: the process that acquired it may have died."""
    submit_seconds: float = 150
    """The same on a cluster, which may take two minutes to accept the driver."""
    backoff_base_seconds: float = 4
    """The first failure is answered at once; this is the wait after the second, and its factor for each further one."""
    backoff_longest_seconds: float = 60
    failures: int = 6
    """So many failures without a commit in between open the circuit."""

    def backoff(self, failures: int, jitter: float) -> timedelta:
        """How long to wait after that many failures in a row: 4, 16, then 60 s, less up to half of it.

        Args:
            failures: in a row.
            jitter: from 0, for the whole time, to 1, for half of it; so that streams which failed together for one
                reason, such as a broker, do not restart together.
        """
        seconds = self.backoff_base_seconds ** min(failures - 1, 16) if failures > 1 else 0
        return timedelta(seconds=min(seconds, self.backoff_longest_seconds) * (1 - jitter / 2))


LIMITS = Limits()


@dataclass(frozen=True)
class View:
    """For how long a watcher has seen the database without a break, by the database's clock."""

    since: datetime
    until: datetime

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.until - self.since).total_seconds()

    @classmethod
    def after(cls, before: View | None, now: datetime, limits: Limits = LIMITS) -> View:
        """The view of a watcher that has just read ``now`` from the database's clock.

        Args:
            before: the view at the previous observation; None at the first one, and after one that failed.
            now: naive UTC.
            limits: how far apart two observations may be.
        """
        if before is None or not timedelta(0) <= now - before.until <= timedelta(seconds=limits.blink_seconds):
            return cls(now, now)
        return cls(before.since, now)
