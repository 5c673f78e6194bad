"""The tables and views that pipelines declare: each name has one owner."""

from __future__ import annotations

from collections.abc import Iterable

from tidemill.errors import SpecError
from tidemill.spec.schema import Pipeline


def declared_objects(pipeline: Pipeline) -> dict[str, str]:
    """Every name in the operational schema that a pipeline declares -> its kind: table, rollup, scores or view."""
    models = pipeline.models.values()
    return {
        **{f"{model.table}_scored": "view" for model in models},
        **{model.score.table: "scores" for model in models},
        **dict.fromkeys(pipeline.rollups, "rollup"),
        **dict.fromkeys(pipeline.tables, "table"),
    }


def refuse_shared(pipelines: Iterable[Pipeline]) -> None:
    """Refuse two pipelines that declare the same table, rollup, table of scores or view. No server is asked.

    Raises:
        SpecError: names the object and both pipelines.
    """
    owners: dict[str, str] = {}
    for pipeline in pipelines:
        for name, kind in declared_objects(pipeline).items():
            if owners.setdefault(name, pipeline.name) != pipeline.name:
                raise SpecError(
                    "TM-SPEC-OBJECT-SHARED", value=name, kind=kind, pipeline=pipeline.name, owner=owners[name]
                )
