"""What a person may do about a model: approve or reject what waits, or go back to an earlier version."""

from __future__ import annotations

from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.deploy.catalog import find_pipeline
from tidemill.errors import ModelError
from tidemill.ml.registry.history import waiting_version
from tidemill.ml.registry.promotion import approve, reject
from tidemill.ml.registry.versions import declared_model
from tidemill.ml.serving.publish import rollback
from tidemill.spec import Pipeline

ACTIONS = ("rollback", "approve", "reject")


def find_model(settings: Settings, name: str) -> tuple[Pipeline, str]:
    """A pipeline and one of its models, by ``<pipeline>.<model>``.

    Raises:
        SpecError: there is no such pipeline.
        ModelError: there is no such model, or the name is not of that form.
    """
    pipeline, dot, model = name.partition(".")
    if not dot:
        raise ModelError("a model is named with its pipeline", value=name, remedy="write <pipeline>.<model>")
    spec = find_pipeline(settings, pipeline).pipeline
    declared_model(spec, model)
    return spec, model


def apply_action(
    connection: Connection[Any], settings: Settings, name: str, action: str, version: int | None, by: str
) -> str:
    """Do it; returns what was done, as a sentence.

    Args:
        connection: as the stream account.
        settings: where the pipelines and the schemas are.
        name: ``<pipeline>.<model>``.
        action: one of :data:`ACTIONS`.
        version: which one; None for the one that waits, or for the one published before.
        by: who decides.

    Raises:
        SpecError: there is no such pipeline.
        ModelError: there is no such model or action, nothing waits, or there is nothing to go back to.
    """
    spec, model = find_model(settings, name)
    if action == "rollback":
        return f"{name}: version {rollback(connection, settings, spec, model, version, by)} is champion and published"
    if action not in ACTIONS:
        raise ModelError("no such action", value=action, remedy=f"one of: {', '.join(ACTIONS)}")
    chosen = version if version is not None else waiting_version(connection, spec.name, model)
    if chosen is None:
        raise ModelError("no version waits for a person", value=name, remedy="see ./tidemill models show")
    if action == "approve":
        approve(connection, spec, model, chosen, by)
        return f"{name}: version {chosen} is champion; its refresh scores and publishes"
    reject(connection, spec, model, chosen, by, f"rejected by {by}")
    return f"{name}: version {chosen} is rejected"
