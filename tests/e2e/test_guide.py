"""The guide to the feedback loop is followed to the letter: its files, commands and queries are what is run here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.guide_page import Step, steps
from tidemill.config import Account, Settings
from tidemill.deploy import apply
from tidemill.devstack import child_process
from tidemill.devstack.airflow_api import AirflowApi
from tidemill.devstack.stack import Stack
from tidemill.devstack.up import connections
from tidemill.store.connection import session
from tidemill.store.control import ledger, streams
from tidemill.testing import wait_until

BROKER = "127.0.0.1:19092"
"""As the page names it; the test's own is elsewhere."""


@dataclass
class Reader:
    """Somebody who follows the page."""

    settings: Settings
    api: AirflowApi
    folder: Path
    said: list[str]

    def follow(self, step: Step) -> None:
        """Do what a step says."""
        getattr(self, step.kind)(step)

    def file(self, step: Step) -> None:
        inside = step.path.removeprefix("pipelines/")
        place = self.settings.pipelines / inside if inside != step.path else self.folder / step.path
        place.parent.mkdir(exist_ok=True)
        place.write_text(step.text)

    def sh(self, step: Step) -> None:
        python = shlex.quote(sys.executable)
        text = step.text.replace(BROKER, self.settings.kafka_bootstrap).replace(".venv/bin/python", python)
        text = text.replace("./tidemill ", f"{python} -m tidemill ")
        done = subprocess.run(
            ["sh", "-ec", text],
            cwd=self.folder, env=child_process.environment(self.settings), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        self.said.append(done.stdout)

    def sql(self, step: Step) -> None:
        rows = wait_until(lambda: self._query(step.text), 180, "the query answers")
        self.said.append(str(rows))

    def airflow(self, step: Step) -> None:
        for dag in re.findall(r"\b(?:stream|refresh)__\w+", step.text):
            self.api.wait_for_dag(dag)
            self.api.unpause(dag)
            if dag.startswith("stream__"):
                wait_until(lambda: self._committed() >= 4_300, 400, "the stream has caught up")
        run = self.api.trigger("refresh__parcels__breaks")
        ended = self.api.wait_for_run("refresh__parcels__breaks", run, 900)
        assert ended["state"] == "success", self.api.task_instances("refresh__parcels__breaks", run)

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        with session(self.settings, Account.READ, schema=self.settings.db_data) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            return list(cursor.fetchall())

    def _committed(self) -> int:
        with session(self.settings, Account.READ) as connection:
            return int(ledger.totals(connection, "parcels").records)


@pytest.fixture
def reader(airflow_stack: Stack, tmp_path: Path) -> Iterator[Reader]:
    """Everything is up, as after ``./tidemill up``; afterwards nothing is left of what the reader did."""
    settings = airflow_stack.settings
    with AirflowApi(settings) as api:
        for connection in connections(settings):
            api.put_connection(connection)
        yield Reader(settings, api, tmp_path, [])
        with session(settings, Account.STREAM) as connection:
            streams.request_state(connection, "parcels", "stopped", "a test")
        assert apply.stop_streams(settings, 60) == []
        for dag in ("stream__parcels", "refresh__parcels__breaks"):
            api.pause(dag)
    shutil.rmtree(settings.pipelines / "parcels")


@pytest.mark.full
def test_the_page_leads_from_a_table_to_a_scored_application(reader: Reader) -> None:
    """Each file is written, each command run, each query answered; the last parcel has its score without a refresh."""
    told = steps()
    assert [step.kind for step in told] == ["file"] * 3 + ["sh", "file", "sh", "airflow", "sh", "sql", "sh", "sql"]
    for step in told:
        reader.follow(step)
    shown, application, live = reader.said[-4], reader.said[-3], reader.said[-1]
    assert "areaUnderROC" in shown
    assert "None" not in application, "every row has its score"
    assert live.startswith("[(5001, None, ")
    with session(reader.settings, Account.READ) as connection:
        row = streams.read_stream(connection, "parcels")
    assert row is not None
    assert row.epoch == 1, "the driver that wrote the last parcel is the one from before the promotion"
