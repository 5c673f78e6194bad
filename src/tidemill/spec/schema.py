"""What a pipeline folder says, as frozen models. Field names are the keys of ``pipeline.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from tidemill.spec.feature_query import FeatureQuery

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
"""A name that is safe as a table, topic, DAG and folder name in all four systems."""
Key = Annotated[tuple[str, ...], Field(min_length=1)]
Column = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
"""A column's name: nothing that SQL, or the binding of its parameters, could take for something else."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TableKind(StrEnum):
    """What happens when a key is seen again."""

    EVENT = "event"
    """The first one stays; the rest count as duplicates."""
    ENTITY = "entity"
    """A newer version replaces the row; an older or equal one counts as stale."""


class Source(_Frozen):
    """The Kafka topic a stream reads."""

    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    partitions: Annotated[int, Field(ge=1)] = 1
    """Partitions the topic is created with; an existing topic keeps its own number."""
    format: Literal["json"] = "json"
    start: str = "earliest"
    """Where a new stream begins: ``earliest``, ``latest`` or an ISO time."""
    max_records_per_batch: Annotated[int, Field(ge=1)] = 100_000
    """Records of all partitions together in one micro-batch of Spark, at most."""
    target_batch_seconds: Annotated[float, Field(gt=0)] = 10
    """How long a full micro-batch should take: the driver lets it have fewer records if they take longer."""
    max_bytes_per_batch: Annotated[int, Field(ge=65_536, lt=2**31)] = 64 * 2**20
    """What one transaction takes of a partition at most; a task with more commits it in several, one after another."""
    max_record_bytes: Annotated[int, Field(ge=1, lt=2**30)] = 8 * 2**20
    """A longer value is quarantined."""
    on_data_loss: Literal["fail", "skip"] = "fail"
    """What happens when Kafka no longer has what was not read yet."""
    schema_ddl: str = Field(alias="schema")
    """Columns of a record, in Spark's DDL."""
    key: str | None = None
    """Columns of a record's key, in Spark's DDL: what a tombstone deletes. One column is the key's text, or a field
    of a JSON object; several are fields of a JSON object."""


class Dimension(_Frozen):
    """A small table joined to every record: a CSV file with a header, its ``key`` unique."""

    path: str
    """Relative to the pipeline folder, absolute, or ``package://<package>/<file>``."""
    key: Key
    nulls: str = ""
    """How the file writes NULL, beside the empty field."""


class Retention(_Frozen):
    """How long rows stay."""

    column: str
    """A DATE or DATETIME column; a row whose value is NULL stays."""
    days: Annotated[int, Field(ge=1)]


class Table(_Frozen):
    """An operational table and the transform that fills it."""

    from_: str = Field(alias="from")
    """SQL file in the pipeline folder."""
    kind: TableKind
    key: Key
    version: str | None = None
    """Column that decides which of two rows of a key is newer (``entity`` only)."""
    columns: dict[Column, str]
    """Column name -> MySQL column definition."""
    indexes: tuple[Key, ...] = ()
    retention: Retention | None = None


class Otherwise(StrEnum):
    """What becomes of a record that does not meet a check."""

    QUARANTINE = "quarantine"
    """It is set aside with the check's name as the reason."""
    FAIL = "fail"
    """The stream stops and names it; neither it nor what comes after it in its partition is committed."""
    WARN = "warn"
    """It is written, counted in the ledger and told as an incident."""


class Check(_Frozen):
    """What a row must be like to be believed."""

    name: Name
    table: str | None = None
    """Whose rows; needless where a pipeline has one table."""
    expect: str
    """Spark SQL over the table's columns; a row for which it is false does not meet the check, NULL does."""
    otherwise: Otherwise = Otherwise.QUARANTINE


class GroupKey(_Frozen):
    """One column a rollup groups by."""

    expr: str
    type: str


class Rollup(_Frozen):
    """An aggregate of a table, moved by differences in the transaction that writes the rows."""

    of: str
    by: dict[Column, GroupKey]
    measures: dict[Column, str]
    """Measure name -> ``count(*)`` or ``sum(<expression>)``."""


class Slo(_Frozen):
    """What the tables promise their readers."""

    freshness_seconds: Annotated[float, Field(gt=0)] = 60


class Train(_Frozen):
    """When a challenger is fitted, and what it is measured on."""

    schedule: str
    """Cron: the first refresh after each tick trains a challenger."""
    holdout_days: Annotated[int, Field(ge=1)] = 30
    known_ahead: tuple[str, ...] = ()
    """Features that may change by rows known later, because what they read was known before: plans, timetables."""


class Approval(StrEnum):
    """Who decides that a better challenger becomes the champion."""

    AUTOMATIC = "automatic"
    """The measured metric alone."""
    MANUAL = "manual"
    """A person, whom the DAG asks; until then the champion stays."""


class PromotionRule(_Frozen):
    """What a challenger must achieve to become the champion."""

    metric: str
    margin: Annotated[float, Field(ge=0)] = 0.0
    """By how much a challenger must beat the champion on the same held-out rows."""
    approval: Approval = Approval.AUTOMATIC


class Score(_Frozen):
    """When rows are scored, and where the scores go."""

    schedule: str | None = None
    """Cron: when the refresh DAG runs."""
    after_commits: Annotated[int, Field(ge=1)] | None = None
    """The refresh DAG also runs when the stream has made so many commits since it last did."""
    table: Name
    column: Column = "score"
    """Name of the score in ``<table>_scored``; a table's second model needs another one."""
    live: bool = False
    """Whether the stream scores the rows it writes, in the same transaction."""


class Drift(_Frozen):
    """How far the rows to be scored may be from those that the champion was trained on."""

    psi: Annotated[float, Field(gt=0)] = 0.25
    """Population stability index of a feature above which nothing is scored."""
    ignore: tuple[str, ...] = ()
    """Features that may move as they like, such as a month."""
    least_rows: Annotated[int, Field(ge=1)] = 500
    """With fewer new rows than this nothing is said about them."""


class Model(_Frozen):
    """A model that learns from a table and scores it."""

    features: str
    """SQL file in the pipeline folder: one SELECT over operational tables."""
    table: str
    key: Key
    label: str | None = None
    """Column of the feature query that is to be foretold; a clustering has none."""
    known_at: str
    """Column of the feature query: when everything else in the row was known. Splits train from holdout."""
    estimator: str
    """One of MLlib by name, or ``module:function`` for a function that returns an unfitted MLlib Pipeline."""
    problem: Literal["classification", "regression", "clustering"] | None = None
    """What an estimator of one's own learns; MLlib's say it by their names."""
    parameters: dict[str, Any] = {}
    seed: int = 20130101
    """The same rows and the same seed give the same model."""
    baseline: str | None = None
    """Feature whose bare value a first model must beat: the ranking of a classification, the prediction of a
    regression. Without it the mean of the training rows; for a clustering, no structure at all."""
    read_parallelism: Annotated[int, Field(ge=1, le=64)] = 2
    """Connections that read the feature query at the same time, at most: the load on the live database."""
    train: Train
    promotion: PromotionRule
    score: Score
    drift: Drift | None = None
    _query: FeatureQuery | None = PrivateAttr(default=None)

    @property
    def query(self) -> FeatureQuery:
        """The feature query, as it was parsed when the folder was loaded.

        Raises:
            ValueError: the model did not come from :func:`tidemill.spec.load_pipeline`.
        """
        if self._query is None:
            raise ValueError(f"the feature query {self.features} was not loaded")
        return self._query

    def with_query(self, query: FeatureQuery) -> Self:
        """The same model with its feature query."""
        loaded = self.model_copy()
        loaded._query = query
        return loaded


def _columns_of(value: object) -> object:
    return {} if value is None else value


Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]*[mgMG]$")]
"""An amount of memory as Spark's Java side takes it: ``512m``, ``4g``."""


def _as_conf(value: object) -> object:
    """YAML's truth and numbers as Spark writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


class DriverResources(_Frozen):
    """What the driver's process is given."""

    cores: Annotated[int, Field(ge=1)] | None = None
    """Asked of a cluster that runs the driver itself; elsewhere it takes what the machine has."""
    memory: Memory | None = None
    """Of its Java heap; the setting ``spark_driver_memory`` if it says none."""


class ExecutorResources(_Frozen):
    """What a cluster is asked for. Inside a local driver there are no executors, and none of this counts."""

    instances: Annotated[int, Field(ge=1)] | None = None
    cores: Annotated[int, Field(ge=1)] | None = None
    """Of each executor."""
    memory: Memory | None = None
    """Of each executor's Java heap."""


class Resources(_Frozen):
    """What a stream's driver and its executors run on."""

    driver: DriverResources = DriverResources()
    executors: ExecutorResources = ExecutorResources()
    conf: Annotated[dict[str, Annotated[str, BeforeValidator(_as_conf)]], BeforeValidator(_columns_of)] = {}
    """Further configuration of Spark by its name. It stands on a command line: no secrets."""


class Pipeline(_Frozen):
    """One pipeline folder."""

    name: Name
    owner: str
    source: Source
    dimensions: Annotated[dict[Name, Dimension], BeforeValidator(_columns_of)] = {}
    tables: dict[Name, Table]
    rollups: Annotated[dict[Name, Rollup], BeforeValidator(_columns_of)] = {}
    checks: tuple[Check, ...] = ()
    slo: Slo = Slo()
    resources: Resources = Resources()
    models: Annotated[dict[Name, Model], BeforeValidator(_columns_of)] = {}
    folder: Path
    digest: str
    """SHA-256 of the folder's content without ``cases/``: two folders of one digest are one version."""

    def with_queries(self, queries: Mapping[str, FeatureQuery]) -> Self:
        """The same pipeline whose models have their feature queries, given by the model's name."""
        models = {name: model.with_query(queries[name]) for name, model in self.models.items()}
        return self.model_copy(update={"models": models})

    def sql(self, file: str) -> str:
        """The text of one of the folder's SQL files."""
        return (self.folder / file).read_text()

    def checks_of(self, table: str) -> tuple[Check, ...]:
        """The checks of one table's rows."""
        return tuple(check for check in self.checks if (check.table or next(iter(self.tables))) == table)

    def rollups_of(self, table: str) -> dict[str, Rollup]:
        """The rollups over one table."""
        return {name: rollup for name, rollup in self.rollups.items() if rollup.of == table}
