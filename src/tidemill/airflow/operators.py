"""The tasks of a stream's DAG that wait: neither occupies a worker slot while it does.

:class:`StreamOperator` carries out what :func:`~tidemill.lifecycle.decide.decide` says, one step at a time, and
defers whenever there is nothing to do but watch.

**Coming back after a failure.** The first failure since a commit is answered within the same task: it says in its log
what broke and launches the next driver at once, because a resumed task is one start of a process away from the launch,
while a new DAG run is four. A second failure without a commit in between fails the task, so that it is red where
people look; the next run of the ``@continuous`` DAG then waits out the backoff, checks the topic and the version
again, and starts the next driver. It goes on like that until a driver commits, or the circuit opens.

**A newer version** is what was applied, and not what the folder holds: while that is edited, or broken, the applied one
goes on, and is what is started again. The old driver is asked to leave, finishes its batch, and the next one follows.

**Acts of a person in Airflow.** Marking the task or its run as failed is a wish to stop the stream, which Airflow's
server takes down (:mod:`~tidemill.airflow.listeners.mark_failed`). Clearing the task, or marking it successful, leaves
the driver alone: the next try or run adopts it.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import StartTriggerArgs

from tidemill import config
from tidemill.airflow import notifications
from tidemill.airflow.connections import of_airflow
from tidemill.airflow.hook import CONN_ID, TidemillHook
from tidemill.airflow.log_link import DriverLogLink
from tidemill.airflow.triggers.stream import StartRequestedTrigger, StreamTrigger, observe_stream
from tidemill.deploy.snapshots import load_deployed
from tidemill.errors import Contention, Fenced, SpecError, StreamError
from tidemill.lifecycle.decide import WAITING, Action, ActionType, decide, desired_of
from tidemill.lifecycle.driver_state import DriverState
from tidemill.lifecycle.limits import LIMITS
from tidemill.lifecycle.stream_row import StreamRow
from tidemill.store.control import streams
from tidemill.supervisor.actions import StreamActions
from tidemill.supervisor.launcher import stop_driver
from tidemill.supervisor.log_diagnosis import log_tail

_STEPS = 12
"""More steps than any way through the states has: beyond that, something undoes what we do."""


class StartRequestedOperator(BaseOperator):
    """Waits until there is something to do about a stream; begins and ends in the triggerer, without a worker."""

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
        """Only where no scheduler defers it: ``dag.test()``."""
        trigger = StartRequestedTrigger(self.stream, self.conn_id, self.freshness_seconds)
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: object = None) -> None:
        """Nothing is left to do."""


class StreamOperator(BaseOperator):
    """Keeps one stream as it is wanted. Succeeds when it is no longer wanted and its driver has left.

    Args:
        pipeline: name of the pipeline's folder.
        conf: Spark configuration beyond the usual; stands on a command line, so no secrets.
        conn_id: Airflow connection of the database.

    Raises:
        AirflowException: drivers broke; says why, with the last lines of the log.
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
        self._proceed(context)

    def resume(self, context: Any, event: dict[str, Any]) -> None:
        """Go on after the trigger saw something."""
        self.log.info("stream %s: %s", event["stream"], event["reason"])
        heard = event.get("given_up")
        self._proceed(context, given_up=datetime.fromisoformat(heard) if heard else None)

    def _proceed(self, context: Any, given_up: datetime | None = None) -> None:
        settings = config.load()
        with closing(TidemillHook(conn_id=self.conn_id).get_conn()) as connection:
            actions = StreamActions(settings, connection, f"airflow: {context['run_id']}"[:128], of_airflow)
            try:
                settled = self._settle(actions, given_up)
            finally:
                # Last: whoever is told may take his time, and a stream must not wait for him.
                notifications.notify(connection, f"stream {self.pipeline}", context)
            if settled is None:
                return
            row, action_type = settled
            if action_type is ActionType.IDLE:
                stop_driver(row)
            else:
                self._watch(actions, row, row.newest_version if action_type is ActionType.ROLL else None)

    def _settle(self, actions: StreamActions, given_up: datetime | None) -> tuple[StreamRow, ActionType] | None:
        """Act until there is nothing to do but watch, or nothing at all."""
        for _ in range(_STEPS):
            seen = observe_stream(actions.connection, self.pipeline, given_up)
            if seen is None:
                return None
            row, observed = seen
            action = decide(observed, desired_of(row), row.now)
            self.log.info("stream %s: %s (%s)", self.pipeline, action.action_type, action.reason)
            if action.action_type in WAITING or action.action_type is ActionType.IDLE:
                return row, action.action_type
            if action.action_type is ActionType.ROLL and (missing := self._missing(actions)):
                self.log.error("stream %s: version %s goes on: %s", self.pipeline, row.pipeline_version, missing)
                return row, action.action_type
            try:
                self._do(actions, row, observed.driver_state, action)
            except (Fenced, Contention) as error:
                self.log.info("stream %s: %s; look again", self.pipeline, error)
        raise StreamError("the stream does not settle", value=self.pipeline, remedy="see this task's log")

    def _missing(self, actions: StreamActions) -> str | None:
        """Why what was applied last could not be started, None if it can: nothing leaves before that is known."""
        try:
            load_deployed(actions.settings, actions.connection, self.pipeline)
        except (StreamError, SpecError) as error:
            return str(error)
        return None

    def _do(self, actions: StreamActions, row: StreamRow, life: DriverState, action: Action) -> None:
        if action.action_type is ActionType.START:
            actions.start(row, *load_deployed(actions.settings, actions.connection, row.stream), self.conf)
        elif action.action_type is ActionType.ROLL:
            actions.request_exit(row)
        elif action.action_type is ActionType.KILL:
            actions.kill(row)
        elif action.action_type is ActionType.RECORD_FAILURE:
            sentence = actions.record_failure(row, life, action.reason)
            report = f"{sentence}\n{_tail(row)}"
            self.log.error("%s", report)
            again = 1 < row.failures_in_a_row + 1 < LIMITS.failures
            if again and desired_of(row).running:
                raise AirflowException(report)
        elif streams.open_circuit(actions.connection, row.stream, action.reason, requested_at=row.requested_at):  # HALT
            raise AirflowException(f"stream {row.stream} is halted: {action.reason}\n{_tail(row)}")

    def _watch(self, actions: StreamActions, row: StreamRow, missing: int | None) -> NoReturn:
        left = streams.read_stream(actions.connection, row.stream) or row
        trigger = StreamTrigger(
            row.stream,
            row.epoch,
            _promised(actions, row.stream),
            left.pending_notifications,
            self.conn_id,
            missing=missing,
        )
        self.defer(trigger=trigger, method_name="resume")


def _promised(actions: StreamActions, stream: str) -> float | None:
    """How fresh the tables are to be, None where the applied pipeline cannot be read: that stops no watching."""
    try:
        pipeline, _ = load_deployed(actions.settings, actions.connection, stream)
    except (StreamError, SpecError):
        return None
    return pipeline.slo.freshness_seconds


def _tail(row: StreamRow) -> str:
    if row.log_file is None:
        return "it wrote no log"
    return f"The end of {row.log_file}:\n{log_tail(Path(row.log_file))}"
