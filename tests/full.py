"""Everything, lane by lane: ``./tidemill test --full``."""

import sys

from support.full_run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
