"""Every statement that is generated for a database, under one name in each dialect."""

from __future__ import annotations

from tidemill.store.sql.as_of import AsOf
from tidemill.store.sql.maintenance import Upkeep
from tidemill.store.sql.replay import Replay
from tidemill.store.sql.scores import Learning


class Dialect(Upkeep, Replay, AsOf, Learning):
    """One database that speaks MySQL's protocol. It holds no state: statements come out, nothing is sent.

    Names are quoted; values are bound as parameters (``%(commit)s``).
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
