"""A made-up champion of ``flights.late_arrival``: the size of the trained one, at no cost of training it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tidemill.config import Account, Settings
from tidemill.store.connection import session
from tidemill.store.scoring.portable_model import pack

TREES, DEPTH = 20, 5
_NUMBERS = ("dep_delay", "distance", "scheduled_hour", "scheduled_month", "scheduled_weekday", "plane_age", "temp",
            "wind_speed", "precip", "visib", "origin_late_share")  # fmt: skip
_TEXTS = {"carrier": ["UA", "B6", "EV", "DL", "AA"], "origin": ["EWR", "JFK", "LGA"], "dest": ["ORD", "ATL", "LAX"]}


def _tree(dice: random.Random) -> dict[str, Any]:
    """A full tree over the numbers; a node's children are at 2n + 1 and 2n + 2."""
    inner, nodes = 2**DEPTH - 1, 2 ** (DEPTH + 1) - 1
    return {
        "feature": [dice.randrange(len(_NUMBERS)) for _ in range(nodes)],
        "threshold": [dice.uniform(-10, 50) for _ in range(nodes)],
        "left": [2 * n + 1 if n < inner else -1 for n in range(nodes)],
        "right": [2 * n + 2 if n < inner else -1 for n in range(nodes)],
        "value": [dice.uniform(-1, 1) for _ in range(nodes)],
        "categories": {},
    }


@contextmanager
def champion(settings: Settings) -> Iterator[None]:
    """For the length of a block ``late_arrival`` has this champion, published, and its scores are empty before."""
    dice = random.Random(1)
    numbers = [{"feature": name, "kind": "number", "fill": 0.0, "flag": False} for name in _NUMBERS]
    texts = [{"feature": n, "kind": "text", "labels": known, "one_hot": False} for n, known in _TEXTS.items()]
    form = {"kind": "trees", "boosted": True, "weights": [0.1] * TREES, "trees": [_tree(dice) for _ in range(TREES)]}
    content = pack({"problem": "classification", "inputs": [*numbers, *texts], "scale": None, "form": form})
    point = "UPDATE models SET champion_version = %s, published_version = %s WHERE model = 'late_arrival'"
    with session(settings, Account.MIGRATE) as connection, connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE TABLE {settings.db_data}.flight_scores")
        cursor.execute("REPLACE INTO portable_models VALUES ('flights', 'late_arrival', 1, %s)", (content,))
        cursor.execute(point, (1, 1))
        yield
        cursor.execute(point, (None, None))
