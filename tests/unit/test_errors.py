"""An error is one sentence, survives the way from a Spark worker, and says whether trying again can help."""

import pickle

import pytest

from tidemill import errors
from tidemill.errors import (
    Contention,
    DatabaseFull,
    DatabaseReadOnly,
    DatabaseUnavailable,
    Fenced,
    KafkaUnavailable,
    TidemillError,
    Transient,
)


def every_error() -> list[type[TidemillError]]:
    """The whole tree."""
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TidemillError)]


@pytest.mark.parametrize("kind", every_error())
def test_an_error_renders_and_pickles(kind: type[TidemillError]) -> None:
    """What, value and remedy make one sentence, also on the other side of a pipe."""
    error = kind("TM-CLI-NO-SUCH-PATH", value=3, known="a, b")
    assert str(error) == "[TM-CLI-NO-SUCH-PATH] there is no path of this name: 3; use one of a, b"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- made one line above
    assert type(again) is kind
    assert str(again) == str(error)


def test_every_error_has_an_exit_code_of_its_kind() -> None:
    """No error exits with 0, and each is drawn in the module's picture of the tree."""
    for kind in every_error():
        assert kind.exit_code > 0
        assert kind.__name__ in (errors.__doc__ or "")


def test_only_transient_errors_are_retried() -> None:
    """Contention, a database that is absent, read-only or full, and an absent Kafka are transient; fenced is final."""
    transient = {Contention, DatabaseUnavailable, DatabaseReadOnly, DatabaseFull, KafkaUnavailable}
    assert {kind for kind in every_error() if issubclass(kind, Transient)} == transient
    assert not issubclass(Fenced, Transient)
