"""The waiting tasks of a stream's DAG: neither occupies a worker slot while it waits.

:class:`StreamOperator` carries out the actions that :func:`~tidemill.lifecycle.decide.decide` returns, one at a time,
and defers when the only action left is to wait.

**Recovery from failures.** After the first failure since a commit, the same task logs the cause and starts the next
driver at once, because resuming a task costs one process start, and a new DAG run four. A second failure without a
commit in between fails the task, so that it is red in Airflow; the next run of the ``@continuous`` DAG waits for the
back-off, checks topic and version again, and starts the next driver. This goes on until a driver commits, or the
circuit opens.

**Newer versions.** A driver runs the version that was applied last, and not what the folder holds: while the folder is
edited, or invalid, the applied version stays in use, also for restarts. When a newer version is applied, the old driver
is requested to exit, finishes its batch, and the next driver starts.

**Manual actions in Airflow.** Marking the task or its run as failed requests the stop of the stream, which Airflow's
API server writes (:mod:`~tidemill.airflow.listeners.stop_request`). Clearing the task, or marking it successful, does
not touch the driver: the next try or run adopts it.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from typing import Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import StartTriggerArgs

from tidemill import config
from tidemill.airflow import notifications
from tidemill.airflow.connections import CONN_ID, find_cluster
from tidemill.airflow.hook import TidemillHook
from tidemill.airflow.log_link import DriverLogLink
from tidemill.airflow.triggers.stream import StartRequestedTrigger, StreamTrigger, observe_stream
from tidemill.config import Settings
from tidemill.deploy.snapshots import applied_pipeline
from tidemill.errors import Contention, Fenced, SpecError, StreamError
from tidemill.lifecycle.decide import WAITING, Action, ActionType, decide, desired_of
from tidemill.lifecycle.driver_state import DriverState
from tidemill.lifecycle.limits import LIMITS
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.control import streams
from tidemill.supervisor.actions import StreamActions
from tidemill.supervisor.launcher import stop_driver
from tidemill.supervisor.log_diagnosis import log_tail, readable_log

_MAX_ACTIONS = 12
"""More than any path through the driver states needs: beyond that, another process undoes the actions."""


class StartRequestedOperator(BaseOperator):
    """Waits until a stream needs an action; starts and ends in the triggerer, without a worker."""

    start_from_trigger = True

    def __init__(
        self, *, stream: str, freshness_seconds: float | None = None, conn_id: str = CONN_ID, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.stream, self.conn_id, self.freshness_seconds = stream, conn_id, freshness_seconds
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{StartRequestedTrigger.__module__}.{StartRequestedTrigger.__name__}",
            trigger_kwargs={"stream": stream, "conn_id": conn_id, "freshness_seconds": freshness_seconds},
            next_method="resume",
        )

    def execute(self, context: Any) -> NoReturn:
        """Defer. Called only where no scheduler does so itself, as in ``dag.test()``."""
        trigger = StartRequestedTrigger(self.stream, self.conn_id, self.freshness_seconds)
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: object = None) -> None:
        """End the task: the next one acts."""


class StreamOperator(BaseOperator):
    """Keeps a stream in its desired state. Succeeds when that is ``stopped`` and the driver has exited.

    Args:
        pipeline: name of the pipeline's folder.
        conf: additional Spark configuration; it appears on a command line, so it must hold no secrets.
        conn_id: Airflow connection of the database.

    Raises:
        AirflowException: drivers failed; with the cause and the last lines of the log.
        StreamError: the pipeline is not applied.
    """

    operator_extra_links = (DriverLogLink(),)

    def __init__(
        self, *, pipeline: str, conf: dict[str, str] | None = None, conn_id: str = CONN_ID, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline, self.conf, self.conn_id = pipeline, conf or {}, conn_id

    def execute(self, context: Any) -> None:
        """Adopt the live driver, or start one."""
        self._reconcile(context)

    def resume(self, context: Any, event: dict[str, Any]) -> None:
        """Act on what the trigger has observed."""
        self.log.info("stream %s: %s", event["stream"], event["reason"])
        lost_since = event.get("lost_since")
        self._reconcile(context, datetime.fromisoformat(lost_since) if lost_since else None)

    def _reconcile(self, context: Any, lost_since: datetime | None = None) -> None:
        settings = config.load()
        with closing(TidemillHook(conn_id=self.conn_id).get_conn()) as connection:
            actions = StreamActions(settings, connection, f"airflow: {context['run_id']}"[:128], find_cluster)
            try:
                pending = self._act(actions, lost_since)
            finally:
                # Last: a notifier may be slow, and a stream must not wait for it.
                notifications.notify(connection, f"stream {self.pipeline}", context)
            if pending is None:
                return
            row, action_type = pending
            if action_type is ActionType.IDLE:
                stop_driver(row)
            else:
                self._watch(actions, row, row.newest_version if action_type is ActionType.ROLL else None)

    def _act(self, actions: StreamActions, lost_since: datetime | None) -> tuple[StreamRow, ActionType] | None:
        """Act until only waiting is left; returns what for, and None if the stream has no row."""
        for _ in range(_MAX_ACTIONS):
            observation = observe_stream(actions.connection, self.pipeline, lost_since)
            if observation is None:
                return None
            row, observed = observation
            action = decide(observed, desired_of(row), row.now)
            self.log.info("stream %s: %s (%s)", self.pipeline, action.action_type, action.reason)
            if action.action_type in WAITING or action.action_type is ActionType.IDLE:
                return row, action.action_type
            if action.action_type is ActionType.ROLL and (obstacle := self._obstacle_to_start(actions)):
                self.log.error("stream %s stays at version %s: %s", self.pipeline, row.pipeline_version, obstacle)
                return row, action.action_type
            try:
                self._carry_out(actions, row, observed.driver_state, action)
            except (Fenced, Contention) as error:
                self.log.info("stream %s: %s; reading the row again", self.pipeline, error)
        raise StreamError("TM-AIRFLOW-STREAM-UNSTABLE", value=self.pipeline, actions=_MAX_ACTIONS)

    def _obstacle_to_start(self, actions: StreamActions) -> str | None:
        """Why the newest version cannot be started, None if it can: the old driver keeps running until it can."""
        try:
            applied_pipeline(actions.settings, actions.connection, self.pipeline)
        except (StreamError, SpecError) as error:
            return str(error)
        return None

    def _carry_out(self, actions: StreamActions, row: StreamRow, driver_state: DriverState, action: Action) -> None:
        if action.action_type is ActionType.START:
            actions.start(row, *applied_pipeline(actions.settings, actions.connection, row.stream), self.conf)
        elif action.action_type is ActionType.ROLL:
            actions.request_exit(row)
        elif action.action_type is ActionType.KILL:
            actions.kill(row)
        elif action.action_type is ActionType.RECORD_FAILURE:
            report = f"{actions.record_failure(row, driver_state, action.reason)}\n{_tail(actions.settings, row)}"
            self.log.error("%s", report)
            is_repeated = 1 < row.failures_in_a_row + 1 < LIMITS.failures
            if is_repeated and desired_of(row).running:
                raise AirflowException(report)
        elif streams.open_circuit(actions.connection, row.stream, action.reason, requested_at=row.requested_at):
            raise AirflowException(f"stream {row.stream} is halted: {action.reason}\n{_tail(actions.settings, row)}")

    def _watch(self, actions: StreamActions, row: StreamRow, missing_version: int | None) -> NoReturn:
        newest_row = streams.read_stream(actions.connection, row.stream) or row
        trigger = StreamTrigger(
            row.stream,
            row.epoch,
            _freshness_seconds(actions, row.stream),
            newest_row.pending_notifications,
            self.conn_id,
            missing_version=missing_version,
        )
        self.defer(trigger=trigger, method_name="resume")


def _freshness_seconds(actions: StreamActions, stream: str) -> float | None:
    """The applied pipeline's freshness objective; None if the pipeline cannot be read, which must not stop watching."""
    try:
        pipeline, _ = applied_pipeline(actions.settings, actions.connection, stream)
    except (StreamError, SpecError):
        return None
    return pipeline.slo.freshness_seconds


def _tail(settings: Settings, row: StreamRow) -> str:
    if row.log_file is None:
        return "the driver wrote no log"
    path = readable_log(settings, row.log_file)
    if path is None:
        return f"The driver's log is not in the folder of the streams' logs, and is not shown here: {row.log_file}"
    return f"The end of {row.log_file}:\n{log_tail(path)}"
