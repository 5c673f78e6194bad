"""One definition of "try again": which errors, how often, after what pauses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.paths import ROOT
from tidemill.errors import Contention, StoreError
from tidemill.retry import Backoff


class Work:
    """Fails with each of some errors in turn, then returns how often it was called."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.calls = [*errors], 0
        self.pauses: list[float] = []

    def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


def contention() -> Contention:
    """A transient error."""
    return Contention("TM-STORE-CONTENTION")


def test_a_transient_error_is_tried_again_after_growing_pauses() -> None:
    """Each pause is between half of the doubled one and the whole, and never more than the longest."""
    work = Work(*(contention() for _ in range(6)))
    assert Backoff(1.0, 4.0, attempts=7).run(work, sleep=work.pauses.append) == 7
    bounds = [1, 2, 4, 4, 4, 4]
    assert len(work.pauses) == len(bounds)
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(work.pauses, bounds, strict=True))
    assert Backoff(1.0, 4.0, jitter=0).pause_seconds(10_000) == 4


@pytest.mark.parametrize("error", [StoreError("TM-STORE-STATEMENT-REFUSED"), ValueError(), KeyboardInterrupt()])
def test_any_other_error_is_raised_at_once(error: BaseException) -> None:
    """The very error, without another attempt and without a pause."""
    work = Work(error)
    with pytest.raises(type(error)) as raised:
        Backoff(attempts=7).run(work, sleep=work.pauses.append)
    assert raised.value is error
    assert (work.calls, work.pauses) == (1, [])


def test_the_last_attempt_raises_its_own_error() -> None:
    """Its cause stays what it was."""
    errors = [contention() for _ in range(3)]
    errors[-1].__cause__ = cause = OSError()
    work = Work(*errors)
    with pytest.raises(Contention) as raised:
        Backoff(attempts=3).run(work, sleep=work.pauses.append)
    assert raised.value is errors[-1]
    assert raised.value.__cause__ is cause
    assert len(work.pauses) == 2


def test_a_deadline_ends_the_attempts() -> None:
    """An attempt that fails after it is the last, however many are allowed."""
    work = Work(contention(), contention())
    with pytest.raises(Contention):
        Backoff(deadline_seconds=0).run(work, sleep=work.pauses.append)
    assert work.calls == 1


def test_a_result_may_ask_for_another_attempt() -> None:
    """After the last attempt its result is returned, whatever it is."""
    work = Work()
    assert Backoff(attempts=5).run(work, retry_result=lambda calls: calls < 3, sleep=work.pauses.append) == 3
    assert Backoff(attempts=2).run(work, retry_result=lambda calls: True, sleep=work.pauses.append) == 5


OWN_RETRY = re.compile(r"random\.uniform|\btenacity\b|2(?:\.0)? ?\*\* ?\w*attempt|for attempt in ")


def own_retries(source: str) -> list[str]:
    """What looks like a loop that tries again with pauses of its own."""
    return [match[0] for match in OWN_RETRY.finditer(source)]


def test_there_is_one_definition() -> None:
    """No other module computes pauses between attempts; one that did would be found."""
    package = ROOT / "src" / "tidemill"
    modules = [path for path in package.rglob("*.py") if path != package / "retry.py"]
    assert {str(path): found for path in modules if (found := own_retries(path.read_text()))} == {}
    assert own_retries(Path(package / "retry.py").read_text())
    assert own_retries("for attempt in range(3):\n    time.sleep(0.1 * 2**attempt)")
