"""A pipeline ``surges``, whose rows and models are written as its stream and the Spark jobs would have."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from airflow.api_fastapi.execution_api.datamodels.hitl import HITLDetailResponse
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException
from airflow.utils.session import create_session
from sqlalchemy import select

from support.models import new_version
from support.paths import TIDES
from tidemill.config import Account, Settings
from tidemill.ml.registry import versions
from tidemill.ml.registry.versions import Estimate
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.migrations import pipeline_version
from tidemill.store.write import ledger_rows
from tidemill.testing import wait_until

METRIC = "areaUnderROC"
SUBMIT = "tidemill.airflow.spark_job.SparkSubmitOperator.execute"
"""The provider's operator, which starts a JVM."""


@dataclass
class Surges:
    """The applied pipeline, and the DAG of its model ``flood``."""

    settings: Settings
    pipeline: Pipeline
    _dag: DAG | None = None
    """None where a running Airflow has it."""

    @property
    def dag(self) -> DAG:
        """The DAG."""
        assert self._dag is not None
        return self._dag

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Read or write the control plane."""
        with session(self.settings, Account.STREAM) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return list(cursor.fetchall())

    def commit(self, rows: int = 10, height: int | None = None) -> int:
        """A commit of readings half an hour apart, of all heights or of one; returns its id."""
        data, name = self.settings.db_data, self.pipeline.name
        with session(self.settings, Account.STREAM) as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO commits (stream, epoch, pipeline_version, batch_id, topic, partition_id, from_offset,"
                " until_offset, written_rows) VALUES (%s, 1, 1, 1, %s, 0, 0, %s, %s)",
                (name, name, rows, rows),
            )
            commit = int(cursor.lastrowid)
            ledger_rows.add_to_sums(connection, commit)
            at = datetime(2026, 1, 1)
            heights = [n * 37 % 100 if height is None else height for n in range(rows)]
            values = [
                (commit * 10_000 + n, at + timedelta(minutes=30 * n), high, int(high > 50), commit, n)
                for n, high in enumerate(heights)
            ]
            cursor.executemany(
                f"INSERT INTO `{data}`.{name} (id, station, read_at, height, wind, flooded, updated_at, _commit,"
                " _partition, _offset, _pipeline_version) VALUES (%s, 'north', %s, %s, 5, %s, NOW(6), %s, 0, %s, 1)",
                values,
            )
        return commit

    def refreshes(self) -> list[tuple[str, str | None]]:
        """State and reason of each refresh, the newest last."""
        return [(str(state), reason) for state, reason in self.query("SELECT state, reason FROM refreshes ORDER BY id")]

    def pointers(self) -> tuple[int | None, int | None]:
        """Champion and published version."""
        pointers = "SELECT champion_version, published_version FROM models WHERE pipeline = %s"
        [found] = self.query(pointers, self.pipeline.name)
        return found

    def decisions(self) -> list[tuple[int, str, str]]:
        """Version, verdict and who decided, the newest last."""
        return self.query("SELECT version, verdict, decided_by FROM decisions ORDER BY id")

    def run(self, **form: Any) -> dict[str, str]:
        """Run the DAG; the state of each task."""
        run = self.dag.test(run_conf=form or None)
        return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}

    def published(self) -> None:
        """A champion whose scores are published, as of the newest commit."""
        self.commit()
        assert self.run() == everything(approve="success" if "approve" in self.dag.task_ids else None)
        assert self.pointers()[0] is not None


def everything(approve: str | None = None, **states: str) -> dict[str, str]:
    """The states of a run in which everything went well, but for some."""
    well = dict.fromkeys(("decide", "train", "promote", "score", "publish"), "success")
    return well | ({"approve": approve} if approve else {}) | states


class Jobs:
    """Replaces ``spark-submit``, and writes what the Spark jobs write.

    Args:
        surges: whose jobs.
        metric: what the next challenger is measured at; the champion has 0.8, the baseline 0.6.
    """

    def __init__(self, surges: Surges, metric: float = 0.8) -> None:
        self.surges, self.metric = surges, metric
        self.failing: dict[str, str] = {}
        """Job -> the error of the provider's operator when it fails."""
        self.ran: list[str] = []

    def replacement(self) -> Callable[[Any, Any], None]:
        """For the place of the operator's method."""

        def execute(operator: Any, context: Any) -> None:
            self.execute(operator)

        return execute

    def execute(self, operator: Any) -> None:
        """One job."""
        self.ran.append(operator.task_id)
        if operator.task_id in self.failing:
            raise AirflowException(self.failing[operator.task_id])
        refresh = int(operator.refresh)
        with session(self.surges.settings, Account.STREAM) as connection:
            if operator.task_id == "train":
                self.train(connection, refresh)
            else:
                champion = versions.read_champion(connection, "surges", "flood")
                assert champion is not None
                connection.cursor().execute(
                    "UPDATE refreshes SET scored_version = %s, scored_rows = 10 WHERE id = %s",
                    (champion.version, refresh),
                )

    def train(self, connection: Any, refresh: int) -> None:
        """A challenger, measured beside its rivals."""
        with versions.transaction(connection):
            version = versions.next_version(connection, "surges", "flood")
            champion = versions.read_champion(connection, "surges", "flood")
            applied = pipeline_version(connection, self.surges.pipeline)
            new = new_version(version, refresh, pipeline_version=applied, train_from=datetime(2026, 1, 1))
            versions.insert_version(connection, "surges", "flood", new)
            values = {0: 0.6, version: self.metric} | ({champion.version: 0.8} if champion else {})
            estimates = {number: Estimate(value) for number, value in values.items()}
            versions.write_evaluations(connection, refresh, METRIC, estimates)


def answer(dag: DAG, chosen: str, person: str) -> None:
    """Answer the question of a run that waits, as Airflow's server writes it down."""

    def waiting() -> bool:
        with create_session() as store:
            found = store.scalars(
                select(HITLDetail)
                .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
                .where(TaskInstance.dag_id == dag.dag_id, HITLDetail.responded_at.is_(None))
            ).first()
            if found is None:
                return False
            found.responded_at = datetime.now(UTC)
            found.responded_by = {"id": "7", "name": person}
            found.chosen_options = [chosen]
            return True

    wait_until(waiting, 180, "a person is asked")


def answered(ti_id: UUID) -> Any:
    """The answer to a question, as the triggerer's supervisor returns it, which a test run of a DAG lacks."""
    with create_session() as store:
        found = store.get(HITLDetail, ti_id)
        return found and HITLDetailResponse.from_hitl_detail_orm(found)


def surges_in(folder: Path, name: str = "surges", **changes: dict[str, Any]) -> None:
    """Write the pipeline: as ``tides`` is, with other names, drift, and changes in blocks of its model."""
    shutil.copytree(TIDES, folder / name)
    path, scores = folder / name / "pipeline.yaml", f"{name.removesuffix('s')}_scores"
    given = yaml.safe_load(path.read_text().replace("tides", name).replace("tide_scores", scores))
    given["rollups"] = {}
    model = given["models"]["flood"]
    for block, values in changes.items():
        model[block] = {name: value for name, value in (model[block] | values).items() if value is not None}
    model["drift"] = {"psi": 0.25, "least_rows": 50, "ignore": ["station"]}
    path.write_text(yaml.safe_dump(given))
    features = folder / name / "features.sql"
    features.write_text(features.read_text().replace("tides", name))
