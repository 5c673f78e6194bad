"""A driver without Spark: it speaks to the control plane as the real one does, and behaves as a file prescribes.

It replaces ``spark-submit`` where the supervision is tested, which knows a driver only by its process,
its log and what it writes to the database. ``behaviour`` in the state folder holds one of: ``good``; ``fails`` (reports
why); ``mute`` (never speaks); ``stubborn`` (does not leave).
"""

import signal
import sys
import time

from tidemill import config
from tidemill.config import Account
from tidemill.errors import Fenced
from tidemill.store.connection import session
from tidemill.store.control import heartbeats

BEAT_SECONDS = 0.2


def main() -> int:
    """Run until a stop request or a lost lease, or as the file prescribes."""
    stream, epoch = sys.argv[-3], int(sys.argv[-1])
    settings = config.load()
    behaviour = (settings.state / "behaviour").read_text()
    sys.stdout.write(f"driver of {stream}, epoch {epoch}, is {behaviour}\n")
    sys.stdout.flush()
    if behaviour == "mute":
        signal.pause()
    with session(settings, Account.STREAM) as connection:
        if behaviour == "fails":
            sys.stderr.write("tidemill: the table is full: tides; make room\n")
            heartbeats.report_heartbeat(
                connection, stream, epoch, "failed", last_error="the table is full: tides; make room"
            )
            return 1
        heartbeats.report_heartbeat(connection, stream, epoch, "starting", last_error=None)
        try:
            while heartbeats.report_heartbeat(connection, stream, epoch, "running") or behaviour == "stubborn":
                time.sleep(BEAT_SECONDS)
        except Fenced:
            return 6
        heartbeats.report_heartbeat(connection, stream, epoch, "stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
