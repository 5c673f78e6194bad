"""Writes flights into the topic ``flights``, as ``tidemill up`` does, and continues where it stopped.

Example: ``docker-compose run --rm feed --limit 100000``
"""

import argparse
import sys

from tidemill import config
from tidemill.demo.feed import FeedOptions, play
from tidemill.errors import TidemillError


def main() -> int:
    """Play to the end; an error exits with its own code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=100_000, help="flights to play; 0 plays all 336,776")
    parser.add_argument("--speed", default="max", help="factor of real time, or max")
    arguments = parser.parse_args()
    try:
        options = FeedOptions.parse(speed=arguments.speed, limit=arguments.limit or None)
        played = play(config.load(), "flights", options, lambda played, total: None)
    except TidemillError as error:
        sys.stderr.write(f"tidemill: {error}\n")
        return error.exit_code
    sys.stdout.write(f"played {played} records\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
