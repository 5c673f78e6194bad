"""The DAG ``maintenance``: once a day tables, ledger, models and files are kept, and every pipeline is verified."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.apache.kafka.hooks.client import KafkaAdminClientHook
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowFailException

from tidemill import config
from tidemill.airflow import notifications
from tidemill.config import Account
from tidemill.deploy.catalog import find_pipeline
from tidemill.errors import VerifyError
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.supervisor.maintenance import describe, maintain_files, maintain_pipeline, verify_and_report

log = logging.getLogger(__name__)
SCHEDULE = "23 3 * * *"
"""Once a day, at an hour when schedules that say @daily are done."""
_DOC = """\
### Upkeep
Keeps every pipeline's part of the database small and proves it right, beside the running streams: each step is a
transaction of a few thousand rows at most, and a step that does not get its turn is left to the next run.

| task | does | when it is red |
| --- | --- | --- |
| `keep__<pipeline>` | puts old commits together, removes rows by their `retention`, old deletion markers, old \
quarantined records, scores and artifacts of model versions that nobody needs | clear it: it goes on where it was |
| `verify__<pipeline>` | compares ledger, Kafka, tables and rollups | the incident *ledger* names the first \
difference: leave the database as it is and look for writers beside Tidemill |
| `files` | removes scratch folders, cut-off bulk loads and old logs of former drivers | clear it |

**To see what it would do**, run `./tidemill maintain --dry-run`, or trigger the DAG with *dry_run*. How long things
stay is set by
`TIDEMILL_LEDGER_DAYS`, `TIDEMILL_QUARANTINE_DAYS`, `TIDEMILL_LOG_DAYS` and by the pipelines' `retention`.
"""


def maintenance_dag(pipelines: Iterable[Pipeline]) -> DAG:
    """``maintenance``: keep -> verify for each pipeline, and the files of this machine."""
    with DAG(
        dag_id="maintenance",
        schedule=SCHEDULE,
        start_date=datetime(2024, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args={
            "owner": "tidemill",
            "retries": 2,
            "retry_delay": timedelta(minutes=1),
            "execution_timeout": timedelta(hours=6),
        },
        params={"dry_run": Param(False, type="boolean", title="Dry run", description="Only say what would be done")},
        tags=["tidemill", "maintenance", "all-pipelines"],
        description="Keeps ledger, tables, models and files small, and verifies every pipeline",
        doc_md=_DOC,
    ) as dag:
        PythonOperator(task_id="files", python_callable=_keep_files)
        for pipeline in pipelines:
            name = pipeline.name
            keeping = PythonOperator(
                task_id=f"keep__{name}", python_callable=_keep, op_kwargs={"pipeline": name}, owner=pipeline.owner
            )
            verifying = PythonOperator(
                task_id=f"verify__{name}", python_callable=_verify, op_kwargs={"pipeline": name}, owner=pipeline.owner
            )
            keeping >> verifying
    return dag


def _keep(pipeline: str, *, params: dict[str, bool]) -> None:
    settings = config.load()
    facts = maintain_pipeline(settings, find_pipeline(settings, pipeline).pipeline, dry_run=params["dry_run"])
    for sentence in describe(facts):
        log.info("%s: %s", pipeline, sentence)


def _keep_files(*, params: dict[str, bool]) -> None:
    for sentence in describe(maintain_files(config.load(), dry_run=params["dry_run"])):
        log.info("%s", sentence)


def _verify(pipeline: str, **context: Any) -> None:
    settings = config.load()
    spec = find_pipeline(settings, pipeline).pipeline
    try:
        findings = verify_and_report(settings, spec, KafkaAdminClientHook().get_conn)
    except VerifyError as error:
        # Another try would only find it again.
        raise AirflowFailException(str(error)) from error
    finally:
        with session(settings, Account.STREAM) as connection:
            notifications.notify(connection, f"stream {pipeline}", context, settings)
    for note in findings.notes:
        log.info("%s: %s", pipeline, note)
