"""The operator that asks a person whether a challenger becomes champion.

Airflow shows the question under *Required Actions*. The command line and the DAG ``control_models`` answer it as well:
the trigger reads the version's row, so the run goes on wherever the decision was made.
"""

from __future__ import annotations

import time
from typing import Any, NoReturn

from airflow.providers.standard.operators.hitl import HITLBranchOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.hitl import upsert_hitl_detail
from pymysql.connections import Connection

from tidemill.airflow.dags.refresh_tasks import open_pipeline, refresh_id_of, tasks_after_decision
from tidemill.airflow.triggers.approval import PROMOTE, REJECT, ApprovalTrigger
from tidemill.errors import ModelError
from tidemill.ml.registry.history import ModelHistory, VersionRecord, read_history
from tidemill.ml.registry.promotion import approve, reject
from tidemill.ml.registry.versions import version_of_refresh
from tidemill.spec import Pipeline

WAIT_DAYS = 7


class ApproveOperator(HITLBranchOperator):
    """Asks a person whether the challenger of this run becomes champion, and goes on with ``score`` in both cases.

    Without an answer within :data:`WAIT_DAYS` the challenger is rejected. If no version waits, the task asks nothing.

    Args:
        pipeline: name of the pipeline.
        model: name of its model.
    """

    def __init__(self, *, pipeline: str, model: str, **kwargs: Any) -> None:
        super().__init__(
            subject=f"Promote the challenger of {pipeline}.{model}?",
            options=[PROMOTE, REJECT],
            defaults=REJECT,
            # The trigger has the deadline; a time limit on the task would end it while it waits for the person.
            execution_timeout=None,
            **kwargs,
        )
        self.pipeline, self.model = pipeline, model

    def execute(self, context: Any) -> Any:
        """Store the question, and defer until it is answered."""
        with open_pipeline(self.pipeline) as (spec, connection):
            version = self._waiting_version(context, connection)
            if version is None:
                return self._branch(context, connection, spec, "no version waits for approval any more")
            history = read_history(connection, spec.name, self.model, spec.models[self.model].promotion.metric)
        self._ask(context, history, version)

    def _ask(self, context: Any, history: ModelHistory, version: int) -> NoReturn:
        self.subject = f"Promote version {version} of {self.pipeline}.{self.model}?"
        self.body = question(history, version)
        ti_id = context["ti"].id
        upsert_hitl_detail(
            ti_id=ti_id, options=self.options, subject=self.subject, body=self.body, defaults=self.defaults, params={}
        )
        self.log.info("%s", self.subject)
        trigger = ApprovalTrigger(
            ti_id=str(ti_id),
            pipeline=self.pipeline,
            model=self.model,
            version=version,
            deadline=time.time() + WAIT_DAYS * 86_400,
        )
        self.defer(trigger=trigger, method_name="resume")

    def resume(self, context: Any, event: dict[str, Any]) -> Any:
        """Carry out the answer, unless the version was decided elsewhere, and branch."""
        chosen = (event.get("chosen_options") or [None])[0]
        person = (event.get("responded_by_user") or {}).get("name")
        answered_by = person or f"no answer within {WAIT_DAYS} days"
        by = f"airflow: {answered_by}, {context['run_id']}"
        with open_pipeline(self.pipeline) as (spec, connection):
            try:
                version = self._waiting_version(context, connection)
                if version is None:
                    self.log.info("the version was decided elsewhere")
                elif chosen == PROMOTE:
                    approve(connection, spec, self.model, version, by)
                else:
                    reject(
                        connection, spec, self.model, version, by, f"rejected by {person}" if person else answered_by
                    )
            except ModelError as error:
                raise AirflowFailException(str(error)) from error
            return self._branch(context, connection, spec, "the challenger was not promoted")

    def _waiting_version(self, context: Any, connection: Connection[Any]) -> int | None:
        """The version that this run has trained, if it still waits for approval."""
        trained = version_of_refresh(connection, self.pipeline, self.model, refresh_id_of(context["ti"]))
        return trained.version if trained is not None and trained.state == "waiting" else None

    def _branch(self, context: Any, connection: Connection[Any], spec: Pipeline, reason: str) -> Any:
        following = tasks_after_decision(connection, spec, self.model, refresh_id_of(context["ti"]), reason)
        return self.do_branch(context=context, branches_to_execute=following)


def question(history: ModelHistory, version: int) -> str:
    """What a person needs for the decision, as Markdown: reason, metrics beside champion and baseline, and the data."""
    fitted = next(each for each in history.versions if each.version == version)
    lines = [
        f"{fitted.reason}.",
        "",
        "| metric | challenger | 95 % | champion | baseline |",
        "| --- | --- | --- | --- | --- |",
        *(_metric_line(fitted, index) for index in range(len(fitted.measures))),
        "",
        f"Measured on {fitted.holdout_rows:,} rows of {fitted.holdout_from:%Y-%m-%d} to "
        f"{fitted.holdout_until:%Y-%m-%d}, trained on {fitted.train_rows:,} earlier rows. "
        + ("It would be the first champion." if history.champion_version is None else "")
        + (f"The champion is version {history.champion_version}." if history.champion_version else ""),
    ]
    return "\n".join(lines)


def _metric_line(fitted: VersionRecord, index: int) -> str:
    measure = fitted.measures[index]
    interval = "–" if measure.low is None or measure.high is None else f"{measure.low:.4g} to {measure.high:.4g}"
    name = f"**{measure.metric}**" if index == 0 else measure.metric
    values = (_number(measure.value), interval, _number(measure.champion), _number(measure.baseline))
    return f"| {name} | {' | '.join(values)} |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
