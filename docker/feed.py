"""Plays flights into the topic ``flights``, as ``tidemill up`` does, and goes on where it stopped.

Example: ``docker-compose run --rm feed --limit 100000``
"""

import argparse
import sys

from tidemill import config
from tidemill.demo.feed import FeedOptions, play
from tidemill.errors import TidemillError


def main() -> int:
    """Play to the end; exit with the error's own code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=100_000, help="flights to play; 0 is all 336,776")
    parser.add_argument("--speed", default="max", help="how many times real time, or max")
    given = parser.parse_args()
    try:
        options = FeedOptions.parse(speed=given.speed, limit=given.limit or None)
        played = play(config.load().kafka_bootstrap, "flights", options, lambda there, total: None)
    except TidemillError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return error.exit_code
    sys.stdout.write(f"played {played} records\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
