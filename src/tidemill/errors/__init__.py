"""Every error Tidemill raises on purpose.

::

    TidemillError            what, the value, the remedy: one sentence for a person
    ├── ConfigError          a setting is missing or wrong                     exit 2
    ├── SpecError            the pipeline folder is wrong                      exit 2
    ├── SetupError           the machine or the embedded stack is not ready    exit 3
    ├── SourceError          Kafka does not hold what the pipeline names       exit 4
    │   └── KafkaUnavailable    no broker answers                   transient
    ├── StoreError           the database refused                              exit 5
    │   ├── StructureError   of a table, column, function or grant; of no record
    │   ├── DatabaseUnavailable     it cannot be reached                   transient
    │   │   └── DatabaseReadOnly  it takes no writes now            transient
    │   ├── DatabaseFull     no space left                          transient
    │   └── Contention       deadlock or lock-wait time-out         transient
    ├── Fenced               another driver holds the stream                   exit 6
    ├── StreamError          a stream failed or cannot be started              exit 7
    ├── ModelError           a model cannot be trained, promoted or scored     exit 8
    └── VerifyError          the ledger does not add up                        exit 1

``Transient`` marks conditions that may end without a change: only these are retried. All others are terminal.
"""

from __future__ import annotations

from typing import Self

from tidemill.errors import catalog


class TidemillError(Exception):
    """One sentence for a person: what is wrong, the value that is, and the remedy; with a code that stays the same.

    The sentence is in ``errors/messages/<room>.toml`` under its code; see :mod:`tidemill.errors.catalog`.
    """

    exit_code = 1

    def __init__(self, code: str, *, value: object = None, **parameters: object) -> None:
        """An error of the catalog.

        Args:
            code: ``TM-<ROOM>-<CONDITION>``; what tests and scripts compare.
            value: the value that is wrong, shown after the sentence; None for no value.
            parameters: what the sentence and its remedy name in braces.
        """
        self.code, self.value, self.parameters = code, value, parameters
        message = catalog.find(code)
        self.what = message.what.format(**parameters)
        self.remedy = message.remedy.format(**parameters)
        super().__init__(code, value, parameters)

    @classmethod
    def of(cls, error: TidemillError) -> Self:
        """The same condition as an error of this class, for a caller that promises this one."""
        return cls(error.code, value=error.value, **error.parameters)

    @property
    def sentence(self) -> str:
        """What, value and remedy, without the code."""
        sentence = self.what if self.value is None else f"{self.what}: {self.value}"
        return f"{sentence}; {self.remedy}" if self.remedy else sentence

    def __str__(self) -> str:
        return f"[{self.code}] {self.sentence}"

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross from Spark's Python workers to the driver; keyword arguments do not pickle by themselves.
        return (_rebuild, (type(self), self.code, self.value, self.parameters))


def _rebuild(kind: type[TidemillError], code: str, value: object, parameters: dict[str, object]) -> TidemillError:
    return kind(code, value=value, **parameters)


class Transient:
    """Mixed into errors whose condition may end without a change, so that the operation is retried."""


class ConfigError(TidemillError):
    """A setting is missing or wrong."""

    exit_code = 2


class SpecError(TidemillError):
    """The pipeline folder is wrong."""

    exit_code = 2


class SetupError(TidemillError):
    """The machine or the embedded stack is not ready."""

    exit_code = 3


class SourceError(TidemillError):
    """Kafka does not hold what the pipeline names."""

    exit_code = 4


class KafkaUnavailable(SourceError, Transient):
    """No broker answers, or not in time."""


class StoreError(TidemillError):
    """The database refused."""

    exit_code = 5


class StructureError(StoreError):
    """A table, column, function, grant or trigger is missing or in the way: no record is at fault.

    No record is quarantined because of it: the stream ends with its sentence, and continues once the structure is
    restored.
    """


class DatabaseUnavailable(StoreError, Transient):
    """The database cannot be reached."""


class DatabaseReadOnly(DatabaseUnavailable):
    """The server takes no writes now: another one may have become the primary, so connect anew."""


class DatabaseFull(StoreError, Transient):
    """The database, or the machine that loads into it, has no space left; no row is at fault."""


class Contention(StoreError, Transient):
    """Deadlock or lock-wait time-out: the transaction was rolled back and may run again."""


class Fenced(TidemillError):
    """Another driver holds the stream: this one may not write any more."""

    exit_code = 6


class StreamError(TidemillError):
    """A stream failed or cannot be started."""

    exit_code = 7


class ModelError(TidemillError):
    """A model cannot be trained, promoted or scored."""

    exit_code = 8


class VerifyError(TidemillError):
    """The ledger, the tables and Kafka do not agree."""
