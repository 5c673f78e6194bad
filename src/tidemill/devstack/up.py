"""``tidemill up``: Kafka, MariaDB, Airflow and the streams on this machine, on real flights, until an interrupt."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from rich.console import Console
from rich.table import Table

from tidemill.config import Account, Settings
from tidemill.demo.feed import FeedOptions, play
from tidemill.deploy import apply
from tidemill.devstack.airflow_api import AirflowApi, Connection
from tidemill.devstack.describe import describe_model, describe_stream
from tidemill.devstack.live_view import Lines, Live
from tidemill.devstack.overview import overview
from tidemill.devstack.stack import Stack
from tidemill.errors import ModelError, SetupError, StreamError, TidemillError
from tidemill.kafka import clients
from tidemill.spec import Pipeline, load_pipelines
from tidemill.store.connection import session, translated

LOOK_SECONDS = 1.0
SCORED_SECONDS = 1200.0
"""The deadline of ``--until-scored`` for the first scores."""
STREAMS_STOP_SECONDS = 60.0


class _FeedEnded(Exception):
    """Ends the thread of the feed: raised by its progress report."""


class FeedThread(threading.Thread):
    """Plays the feed beside the streams."""

    def __init__(self, settings: Settings, topic: str, options: FeedOptions) -> None:
        super().__init__(name="feed", daemon=True)
        self.settings, self.topic, self.options = settings, topic, options
        self.played, self.total = 0, 0
        self.failure: TidemillError | None = None
        self.done = False
        self._end = threading.Event()

    def run(self) -> None:
        try:
            play(self.settings, self.topic, self.options, self._progress)
            self.done = True
        except _FeedEnded:
            pass
        except TidemillError as error:
            self.failure = error

    def end(self) -> None:
        """Stop the feed; the next start continues there."""
        self._end.set()
        self.join(timeout=15)

    def _progress(self, played: int, total: int) -> None:
        self.played, self.total = played, total
        if self._end.is_set():
            raise _FeedEnded


class Up:
    """One run of ``tidemill up``."""

    def __init__(self, settings: Settings, options: FeedOptions) -> None:
        self.settings = settings
        self.pipelines = load_pipelines(settings.pipelines)
        self.out = Console(highlight=False, soft_wrap=True)
        self.feeds = [
            FeedThread(settings, p.source.topic, options) for p in self.pipelines.values() if p.name == "flights"
        ]
        self.client = clients.admin(settings)
        self.triggered: dict[tuple[str, str], str] = {}
        self.ended: dict[tuple[str, str], str] = {}
        self.reported: set[tuple[str, str]] = set()
        self.began = time.monotonic()

    def report(self, sentence: str) -> None:
        """Print a line with the seconds since the start."""
        self.out.print(f"[{time.monotonic() - self.began:6.1f} s] {sentence}", markup=False)

    def run(self, *, until_scored: bool) -> None:
        """Start the stack, show its state, and stop it."""
        with Stack(self.settings) as stack:
            stack.start(self.report)
            stack.watch(self.report)
            stack.before_stop += [self._end_feeds, self._stop_streams]
            apply.apply_all(self.settings, self.pipelines.values(), self.report)
            for feed in self.feeds:
                feed.start()
            with AirflowApi(self.settings) as api:
                switch_on(api, self.settings, self.pipelines.values(), self.report)
                where = f"airflow_admin in {self.settings.secrets_file}"
                self.report(f"Airflow: {self.settings.airflow_url}, user admin, password: {where}")
                self._watch(api, until_scored)
            if until_scored:
                self._summarise()

    def _watch(self, api: AirflowApi, until_scored: bool) -> None:
        deadline = time.monotonic() + SCORED_SECONDS
        show = Live(self.out, self.feeds) if self.out.is_terminal else Lines(self.report)
        with show:
            while True:
                facts = overview(self.settings, self.client)
                show.update(facts)
                for feed in self.feeds:
                    if feed.failure:
                        raise feed.failure
                try:
                    trouble = self._first_refresh(api, facts)
                except SetupError as error:  # one request that Airflow did not answer; the next round sends it again
                    facts["problems"].append(str(error))
                    trouble = None
                if until_scored and trouble:
                    raise trouble
                if trouble:
                    self.report(str(trouble))
                if until_scored and self._scored(facts):
                    return
                if until_scored and time.monotonic() > deadline:
                    raise SetupError("TM-DEVSTACK-SCORES-LATE", seconds=f"{SCORED_SECONDS:g}")
                time.sleep(LOOK_SECONDS)

    def _first_refresh(self, api: AirflowApi, facts: dict[str, Any]) -> ModelError | None:
        """Trigger the first refresh of a pipeline's first model, once its table has all records that the feed played.

        The other models have their schedules: two trainings at once would only delay the first scores.

        Returns:
            The reason, once, when such a refresh has ended without scores.
        """
        streams = {row["stream"]: row for row in facts["streams"]}
        for row in facts["models"]:
            name = (row["pipeline"], row["model"])
            # A pipeline whose folder was removed stays applied, and is not what was started here.
            pipeline = self.pipelines.get(name[0])
            if pipeline is None or name[1] != next(iter(pipeline.models), None):
                continue
            if row["published_version"] is not None or name in self.reported:
                continue
            dag, stream = "refresh__{}__{}".format(*name), streams[row["pipeline"]]
            if name in self.ended:
                # The facts were read after the run had ended.
                self.reported.add(name)
                if self.ended[name] == "failed":
                    return ModelError(
                        "TM-DEVSTACK-REFRESH-FAILED", value=dag, url=f"{self.settings.airflow_url}/dags/{dag}"
                    )
                return ModelError("TM-DEVSTACK-NO-SCORES", value=row["newest_reason"], dag=dag)
            if name in self.triggered:
                state = api.dag_run(dag, self.triggered[name])["state"]
                if state in ("failed", "success"):
                    self.ended[name] = state
            elif holds_everything(stream) and all(feed.done for feed in self.feeds):
                self.triggered[name] = api.trigger(dag)
                self.report(f"{dag}: triggered")
        return None

    def _scored(self, facts: dict[str, Any]) -> bool:
        for row in facts["streams"]:
            if row["halted"]:
                raise StreamError("TM-DEVSTACK-STREAM-HALTED", value=row["halted"], stream=row["stream"])
        if facts["problems"] or not facts["models"]:
            return False
        return any(row["published_version"] is not None for row in facts["models"])

    def _summarise(self) -> None:
        facts = overview(self.settings, self.client)
        self.report("the first scores are published")
        for row in facts["streams"]:
            self.out.print(f"  {describe_stream(row)}", markup=False)
            parts = ("written", "duplicate", "stale", "filtered", "quarantined", "gap", "lost")
            total = " + ".join(f"{row[name]:,} {name}" for name in parts)
            self.out.print(f"  ledger: {row['records']:,} records = {total}", markup=False)
        for row in facts["models"]:
            self.out.print(f"  {describe_model(row)}", markup=False)
        for pipeline in self.pipelines.values():
            example = pipeline.folder / "example.sql"
            if example.exists():
                self._answer(pipeline, example.read_text(encoding="utf-8"))

    def _answer(self, pipeline: Pipeline, sql: str) -> None:
        """Run the pipeline's example query as an application would, and print its answer."""
        reader = session(self.settings, Account.READ, schema=self.settings.db_data)
        with reader as connection, translated(), connection.cursor() as cursor:
            began = time.monotonic()
            cursor.execute(sql)
            rows, names = cursor.fetchall(), [column[0] for column in cursor.description or ()]
            took = (time.monotonic() - began) * 1000
        self.out.print(
            f"\n{pipeline.name}/example.sql, fresh rows, history, rollup and scores in one query ({took:.0f} ms):",
            markup=False,
        )
        table = Table(*names, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
        Console(highlight=False, width=max(self.out.width, 110)).print(table)

    def _end_feeds(self) -> None:
        for feed in self.feeds:
            if feed.is_alive():
                feed.end()

    def _stop_streams(self) -> None:
        left = apply.stop_streams(self.settings, STREAMS_STOP_SECONDS)
        if left:
            self.report(f"streams that did not stop within {STREAMS_STOP_SECONDS:g} s are killed: {', '.join(left)}")


def holds_everything(stream: dict[str, Any]) -> bool:
    """Whether a stream's tables have all records of Kafka, also by its driver's report: a refresh waits for that."""
    is_measured = stream["behind_seconds"] == 0 or stream["desired_state"] != "running"
    return bool(stream["records"]) and stream["lag_records"] == 0 and is_measured


def run(settings: Settings, options: FeedOptions, *, until_scored: bool) -> None:
    """``tidemill up``: returns once the first scores are published, or when it is interrupted.

    Raises:
        TidemillError: something could not be started, or a stream is halted.
    """
    try:
        Up(settings, options).run(until_scored=until_scored)
    except KeyboardInterrupt:
        # Ctrl-C and `down` are the ordinary exit; the stack has stopped by now.
        sys.stdout.write("the stack has stopped\n")


def switch_on(
    api: AirflowApi, settings: Settings, pipelines: Collection[Pipeline], report: Callable[[str], None]
) -> None:
    """Create Airflow's connections, unpause every pipeline's DAGs, and request that the streams start."""
    for connection in connections(settings):
        api.put_connection(connection)
    # DAGs with a schedule come first: Airflow runs the last missed interval as soon as a DAG is unpaused, and that run
    # is shortest while there are no rows to learn from. DAGs that `up` does not need come last: Airflow may not have
    # parsed them yet.
    for pipeline in pipelines:
        refreshes = [f"refresh__{pipeline.name}__{model}" for model in pipeline.models]
        _unpause(api, [*refreshes, f"stream__{pipeline.name}"], report)
    apply.request_start(settings, pipelines)
    for pipeline in pipelines:
        _unpause(api, [f"replay__{pipeline.name}"], report)
    _unpause(api, ["maintenance", "control_streams", "control_models"], report)


def _unpause(api: AirflowApi, dags: Collection[str], report: Callable[[str], None]) -> None:
    for dag in dags:
        api.wait_for_dag(dag)
        api.unpause(dag)
        report(f"{dag}: unpaused")


def connections(settings: Settings) -> list[Connection]:
    """Airflow's connections to the three systems."""
    return [
        Connection(
            "tidemill_db",
            "tidemill",
            host=settings.db_host,
            port=settings.db_port,
            schema=settings.db_control,
            login=settings.user(Account.STREAM),
            password=settings.password(Account.STREAM).get_secret_value(),
            extra={"tls": settings.db_tls, "dialect": settings.db_dialect},
        ),
        Connection("kafka_default", "kafka", extra={"bootstrap.servers": settings.kafka_bootstrap}),
        Connection("spark_default", "spark", host=settings.spark_master, extra={"deploy-mode": "client"}),
    ]
