"""What a person decides about a model: approve or reject the challenger that waits, or roll back."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.deploy.snapshots import applied_pipeline
from tidemill.errors import ModelError, SpecError
from tidemill.ml.registry.history import waiting_version
from tidemill.ml.registry.promotion import approve, reject
from tidemill.ml.registry.versions import declared_model
from tidemill.ml.serving.publish import rollback
from tidemill.spec import Pipeline

ACTIONS = ("rollback", "approve", "reject")


def find_model(connection: Connection[Any], settings: Settings, name: str) -> tuple[Pipeline, str]:
    """A pipeline as it was applied last, and one of its models, by ``<pipeline>.<model>``.

    Raises:
        SpecError: the name is not of that form, or no pipeline has that name.
        StreamError: the pipeline was never applied.
        ModelError: the pipeline has no such model.
    """
    pipeline, model = split_name(name)
    spec, _ = applied_pipeline(settings, connection, pipeline)
    declared_model(spec, model)
    return spec, model


def split_name(name: str) -> tuple[str, str]:
    """Pipeline and model of ``<pipeline>.<model>``.

    Raises:
        SpecError: the name is not of that form.
    """
    pipeline, dot, model = name.partition(".")
    if not (pipeline and dot):
        raise SpecError("TM-ML-NAME-WITHOUT-PIPELINE", value=name)
    return pipeline, model


def apply_action(
    connection: Connection[Any], settings: Settings, name: str, action: str, version: int | None, by: str
) -> str:
    """Carry out a person's decision; returns what was done, as a line for that person.

    Args:
        connection: as the stream account.
        settings: where the pipelines and the schemas are.
        name: ``<pipeline>.<model>``.
        action: one of :data:`ACTIONS`.
        version: which one; None for the one that waits, or for the one that was published before.
        by: the person who decides.

    Raises:
        SpecError: the name is not of that form, or no pipeline has that name.
        ModelError: the pipeline has no such model, the action is unknown, no version waits, or none can be restored.
    """
    spec, model = find_model(connection, settings, name)
    if action == "rollback":
        return f"{name}: version {rollback(connection, settings, spec, model, version, by)} is champion and published"
    if action not in ACTIONS:
        raise ModelError("TM-ML-ACTION-UNKNOWN", value=action, known=", ".join(ACTIONS))
    chosen = version if version is not None else waiting_version(connection, spec.name, model)
    if chosen is None:
        raise ModelError("TM-ML-NO-VERSION-WAITS", value=name)
    if action == "approve":
        approve(connection, spec, model, chosen, by)
        return f"{name}: version {chosen} is champion; its refresh scores and publishes"
    reject(connection, spec, model, chosen, by, f"rejected by {by}")
    return f"{name}: version {chosen} is rejected"
