"""The content of ``pipeline.yaml`` as frozen models. Field names are the keys of the file."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from tidemill.spec.feature_query import FeatureQuery
from tidemill.spec.folder import file_of, read_text

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
"""A name that is valid as the name of a table, a topic, a DAG and a folder."""
Key = Annotated[tuple[str, ...], Field(min_length=1)]
Column = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
"""A column's name: only characters that have no meaning in SQL or in the binding of its parameters."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TableKind(StrEnum):
    """What happens when a key is seen again."""

    EVENT = "event"
    """The first record of a key is kept; every later one counts as a duplicate."""
    ENTITY = "entity"
    """A record of a newer version replaces the row; one of an older or equal version counts as stale."""


class Source(_Frozen):
    """The Kafka topic a stream reads."""

    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    partitions: Annotated[int, Field(ge=1)] = 1
    """Partitions the topic is created with; an existing topic keeps its own number."""
    format: Literal["json"] = "json"
    start: str = "earliest"
    """Where a new stream begins: ``earliest``, ``latest`` or an ISO time."""
    max_records_per_batch: Annotated[int, Field(ge=1)] = 100_000
    """The most records of all partitions together in one micro-batch of Spark."""
    target_batch_seconds: Annotated[float, Field(gt=0)] = 10
    """How long a full micro-batch should take. The driver reduces the number of records if they take longer."""
    max_bytes_per_batch: Annotated[int, Field(ge=65_536, lt=2**31)] = 64 * 2**20
    """The most bytes of a partition that one transaction writes; a task with more of them commits several times."""
    max_record_bytes: Annotated[int, Field(ge=1, lt=2**30)] = 8 * 2**20
    """A longer value is quarantined."""
    on_data_loss: Literal["fail", "skip"] = "fail"
    """What happens when Kafka has removed records before the stream read them."""
    schema_ddl: str = Field(alias="schema")
    """Columns of a record, in Spark's DDL."""
    key: str | None = None
    """Columns of a record's key, in Spark's DDL: a tombstone deletes the row of this key. A single column is the
    key's text or a field of a JSON object; several columns are fields of a JSON object."""


class Dimension(_Frozen):
    """A small table joined to every record: a CSV file (RFC 4180) with a header, its ``key`` unique."""

    path: str
    """Relative to the pipeline folder, absolute, or ``package://<package>/<file>``."""
    key: Key
    nulls: str = ""
    """The text that means NULL in the file, in addition to an empty field."""
    types: dict[str, str] = {}
    """Column -> its type; a column that is not named is a STRING."""
    delimiter: Annotated[str, Field(pattern=r"^[^\"\r\n\x00]$")] = ","
    encoding: str = "utf-8"
    """Name of a codec of Python."""


class Retention(_Frozen):
    """How long rows are kept."""

    column: str
    """A DATE or DATETIME column; a row whose value is NULL is kept."""
    days: Annotated[int, Field(ge=1)]


class Table(_Frozen):
    """An operational table and the transform that fills it."""

    from_: str = Field(alias="from")
    """Name of the SQL file of the transform, in the pipeline folder."""
    kind: TableKind
    key: Key
    version: str | None = None
    """Column whose value is larger in the newer of two records of a key (``entity`` only)."""
    columns: dict[Column, str]
    """Column name -> MySQL column definition."""
    indexes: tuple[Key, ...] = ()
    retention: Retention | None = None


class Otherwise(StrEnum):
    """What happens to a record that fails a check."""

    QUARANTINE = "quarantine"
    """It is quarantined; the reason is the check's name."""
    FAIL = "fail"
    """The stream stops and reports the record; neither it nor any later record of its partition is committed."""
    WARN = "warn"
    """It is written and counted in the ledger, and an incident is opened."""


class Check(_Frozen):
    """A condition that every row of a table must meet."""

    name: Name
    table: str | None = None
    """The table whose rows are checked; may be left out if the pipeline has one table."""
    expect: str
    """Spark SQL over the table's columns. A row fails the check if the result is false, and passes if it is NULL."""
    otherwise: Otherwise = Otherwise.QUARANTINE


class GroupKey(_Frozen):
    """One column a rollup groups by."""

    expr: str
    type: str


class Rollup(_Frozen):
    """An aggregate of a table, updated by differences in the transaction that writes the rows."""

    of: str
    by: dict[Column, GroupKey]
    measures: dict[Column, str]
    """Measure name -> ``count(*)`` or ``sum(<expression>)``."""


class Slo(_Frozen):
    """Service level objective of the tables."""

    freshness_seconds: Annotated[float, Field(gt=0)] = 60


class Quarantine(_Frozen):
    """What many quarantined records do to the stream, and how much of them is kept."""

    pause_at: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the newest 1,000 records, of at least 100, at which the stream is stopped; None for never."""
    max_bytes_per_day: Annotated[int, Field(ge=0)] = 4 * 2**30
    """Bytes of keys, values and headers that are kept each day (UTC); of further records coordinates and reason."""


class Train(_Frozen):
    """When a challenger is fitted, and what it is measured on."""

    schedule: str
    """Cron: the first refresh after each tick trains a challenger."""
    holdout_days: Annotated[int, Field(ge=1)] = 30
    known_ahead: tuple[str, ...] = ()
    """Features that later rows may change, because their data was known in advance, such as plans and timetables."""


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
    """The refresh DAG also runs when the stream has made this many commits since the last refresh."""
    table: Name
    column: Column = "score"
    """Name of the score in ``<table>_scored``. Two models of one table need different names."""
    live: bool = False
    """Whether the stream scores the rows it writes, in the same transaction."""


class Drift(_Frozen):
    """How far the distribution of the rows to be scored may differ from that of the champion's training rows."""

    psi: Annotated[float, Field(gt=0)] = 0.25
    """Population stability index of a feature above which no row is scored."""
    ignore: tuple[str, ...] = ()
    """Features whose drift is not checked, such as the month."""
    least_rows: Annotated[int, Field(ge=1)] = 500
    """With fewer new rows than this, drift is not checked."""


class Model(_Frozen):
    """A model that learns from a table and scores it."""

    features: str
    """SQL file in the pipeline folder: one SELECT over operational tables."""
    table: str
    key: Key
    label: str | None = None
    """Column of the feature query that the model predicts; a clustering has none."""
    known_at: str
    """Column of the feature query: the time at which all features of the row were known. It separates training rows
    from held-out rows."""
    estimator: str
    """Name of an estimator of MLlib, or ``module:function``: a function that returns an unfitted MLlib Pipeline."""
    problem: Literal["classification", "regression", "clustering"] | None = None
    """The problem that a custom estimator solves; left out for an estimator of MLlib."""
    parameters: dict[str, Any] = {}
    seed: int = 20130101
    """The same rows and the same seed give the same model."""
    baseline: str | None = None
    """Feature whose value is the prediction that a first model must beat: as a ranking for a classification, as a
    number for a regression. If left out, the baseline is the mean of the training rows, and for a clustering a
    silhouette of 0."""
    read_parallelism: Annotated[int, Field(ge=1, le=64)] = 2
    """The most connections that read the feature query at the same time; limits the load on the database."""
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


def _empty_if_null(value: object) -> object:
    return {} if value is None else value


Memory = Annotated[str, Field(pattern=r"^[1-9][0-9]*[mgMG]$")]
"""An amount of memory in the form of Java's options: ``512m``, ``4g``."""


def _as_conf(value: object) -> object:
    """Booleans and whole numbers of YAML in the form of Spark's configuration.

    A fraction is refused as no text, because 1.10 and 1.1 are the same number but different texts.
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


class DriverResources(_Frozen):
    """Resources of the driver's process."""

    cores: Annotated[int, Field(ge=1)] | None = None
    """Requested from a cluster that runs the driver; elsewhere the driver uses all cores of its machine."""
    memory: Memory | None = None
    """Size of the Java heap. If left out, the setting ``spark_driver_memory`` applies."""


class ExecutorResources(_Frozen):
    """Resources of the executors on a cluster. A local driver has no executors and ignores them."""

    instances: Annotated[int, Field(ge=1)] | None = None
    cores: Annotated[int, Field(ge=1)] | None = None
    """Cores of each executor."""
    memory: Memory | None = None
    """Size of each executor's Java heap."""


class Resources(_Frozen):
    """Resources of a stream's driver and its executors."""

    driver: DriverResources = DriverResources()
    executors: ExecutorResources = ExecutorResources()
    conf: Annotated[dict[str, Annotated[str, BeforeValidator(_as_conf)]], BeforeValidator(_empty_if_null)] = {}
    """Further configuration of Spark, by name. It becomes part of a command line: write no secrets here."""


class Pipeline(_Frozen):
    """One pipeline folder."""

    name: Name
    owner: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,100}$")]
    """Shown on the DAGs; Airflow's tables hold no text of any length."""
    source: Source
    dimensions: Annotated[dict[Name, Dimension], BeforeValidator(_empty_if_null)] = {}
    tables: dict[Name, Table]
    rollups: Annotated[dict[Name, Rollup], BeforeValidator(_empty_if_null)] = {}
    checks: tuple[Check, ...] = ()
    slo: Slo = Slo()
    quarantine: Quarantine = Quarantine()
    resources: Resources = Resources()
    models: Annotated[dict[Name, Model], BeforeValidator(_empty_if_null)] = {}
    folder: Path
    digest: str
    """SHA-256 of the folder's content without ``cases/``. Folders with the same digest are the same version."""

    def with_queries(self, queries: Mapping[str, FeatureQuery]) -> Self:
        """The same pipeline whose models have their feature queries, given by the model's name."""
        models = {name: model.with_query(queries[name]) for name, model in self.models.items()}
        return self.model_copy(update={"models": models})

    def sql(self, file: str) -> str:
        """The text of one of the folder's SQL files.

        Raises:
            SpecError: it is not UTF-8.
            OSError: it cannot be read.
        """
        return read_text(file_of(self.folder, file))

    def checks_of(self, table: str) -> tuple[Check, ...]:
        """The checks on the rows of one table."""
        return tuple(check for check in self.checks if (check.table or next(iter(self.tables))) == table)

    def rollups_of(self, table: str) -> dict[str, Rollup]:
        """The rollups over one table."""
        return {name: rollup for name, rollup in self.rollups.items() if rollup.of == table}
