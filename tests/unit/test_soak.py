"""What the soak kills when, and how it tells from the ledger how long commits paused."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from types import ModuleType

import pytest

from support.paths import ROOT

BEGAN = datetime(2026, 1, 1)


@pytest.fixture(scope="module")
def soak() -> Iterator[ModuleType]:
    """``bench/soak.py`` as a module, which finds what stands beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "bench")
        yield importlib.import_module("soak")
        for name in ("soak", "_servers"):
            del sys.modules[name]


def at(*seconds: float) -> list[datetime]:
    """Moments, given in seconds since the beginning."""
    return [BEGAN + timedelta(seconds=each) for each in seconds]


def test_a_seed_always_gives_the_same_kills(soak: ModuleType) -> None:
    """Each kind comes before one comes again, 20 to 60 s apart, and another seed gives another order."""
    kills = [*soak.schedule(1, 3600)]
    assert kills == [*soak.schedule(1, 3600)]
    assert kills != [*soak.schedule(2, 3600)]
    assert {kind for _, kind in kills[: len(soak.KINDS)]} == set(soak.KINDS)
    pauses = [after - before for (before, _), (after, _) in pairwise(kills)]
    assert all(20 <= pause <= 60 for pause in pauses)


def test_a_recovery_ends_with_the_commit_after_the_longest_pause(soak: ModuleType) -> None:
    """A commit that was under way when the kill came is not the recovery, and a later pause is not the kill's."""
    killed, until = at(10, 15)
    assert soak.recovery_seconds(at(9.5, 10.2, 25, 25.5, 60), killed, until) == 15


def test_a_kill_that_no_commit_waited_for_takes_no_time(soak: ModuleType) -> None:
    """The pauses of the feed itself are not counted as recoveries."""
    assert soak.recovery_seconds(at(9, 9.5, 11.5, 12, 40), *at(10, 11)) == 0


def test_a_stream_that_never_commits_again_has_no_recovery(soak: ModuleType) -> None:
    """It would be no time at all."""
    assert soak.recovery_seconds(at(8, 9), *at(10, 30)) is None
