"""Checks a model's block in pipeline.yaml: estimator, metric, scores, drift and the feature query."""

from __future__ import annotations

from tidemill.errors import SpecError
from tidemill.spec.checks.features import check_features
from tidemill.spec.column_types import parse_column_type
from tidemill.spec.estimators import ESTIMATORS, LIVE, Problem, is_custom, metrics_of, problem_of
from tidemill.spec.feature_query import FeatureQuery
from tidemill.spec.known_names import require_known
from tidemill.spec.schedules import check_schedule
from tidemill.spec.schema import Model, Pipeline


def check_model(pipeline: Pipeline, name: str, sql: str) -> FeatureQuery:
    """Check one model of a pipeline and parse its feature query.

    Args:
        pipeline: the pipeline that declares the model.
        name: the model's name.
        sql: the text of its feature query.

    Raises:
        SpecError: the first rule that the model breaks.
    """
    place, model = f"models.{name}", pipeline.models[name]
    if "__" in name:  # otherwise refresh__a__b__c would be of the models a.b__c and a__b.c
        raise SpecError("TM-SPEC-MODEL-NAME", value=name)
    require_known(f"{place}.table", model.table, pipeline.tables)
    check_schedule(f"{place}.train.schedule", model.train.schedule)
    _check_estimator(place, model)
    require_known(f"{place}.promotion.metric", model.promotion.metric, metrics_of(problem_of(model)))
    _check_key(place, pipeline, model)
    _check_label(place, model)
    _check_score(place, pipeline, name)
    query = check_features(name, model, sql)
    for feature in model.drift.ignore if model.drift else ():
        require_known(f"{place}.drift.ignore", feature, query.features)
    for feature in model.train.known_ahead:
        require_known(f"{place}.train.known_ahead", feature, query.features)
    return query


_INEXACT_KINDS = ("VARBINARY",)
"""Of the types that a key may have, those whose values change on the way through Spark's JDBC reader."""


def _check_key(place: str, pipeline: Pipeline, model: Model) -> None:
    table = pipeline.tables[model.table]
    if set(model.key) != set(table.key):
        raise SpecError("TM-SPEC-MODEL-KEY", value=", ".join(model.key), place=place, table=model.table)
    for column in model.key:
        if parse_column_type(table.columns[column]).kind in _INEXACT_KINDS:
            raise SpecError("TM-SPEC-MODEL-KEY-TYPE", value=f"{column}: {table.columns[column]}", place=place)


def _check_estimator(place: str, model: Model) -> None:
    if is_custom(model.estimator):
        if model.problem is None:
            raise SpecError("TM-SPEC-MODEL-PROBLEM-MISSING", value=model.estimator, place=place)
    else:
        require_known(f"{place}.estimator", model.estimator, ESTIMATORS)
        if model.problem is not None and model.problem != ESTIMATORS[model.estimator]:
            raise SpecError("TM-SPEC-MODEL-PROBLEM", value=model.problem, place=place, estimator=model.estimator)


def _check_label(place: str, model: Model) -> None:
    is_clustering = problem_of(model) is Problem.CLUSTERING
    if is_clustering and (model.label or model.baseline):
        raise SpecError("TM-SPEC-MODEL-CLUSTERING-LABEL", value=model.label or model.baseline, place=place)
    if not is_clustering and model.label is None:
        raise SpecError("TM-SPEC-MODEL-LABEL-MISSING", value=model.estimator, place=place)


def _check_score(place: str, pipeline: Pipeline, name: str) -> None:
    model = pipeline.models[name]
    if model.score.schedule is None and model.score.after_commits is None:
        raise SpecError("TM-SPEC-SCORE-UNSCHEDULED", value=name, place=place)
    if model.score.schedule is not None:
        check_schedule(f"{place}.score.schedule", model.score.schedule)
    if model.score.live and (is_custom(model.estimator) or model.estimator not in LIVE):
        raise SpecError(
            "TM-SPEC-SCORE-LIVE-ESTIMATOR", value=model.estimator, place=place, known=", ".join(sorted(LIVE))
        )
    for column in scored_columns(model).values():
        if column in pipeline.tables[model.table].columns:
            raise SpecError("TM-SPEC-SCORE-COLUMN-TAKEN", value=column, place=place, table=model.table)
    for other_name, other in pipeline.models.items():
        if other_name == name:
            continue
        if other.score.table == model.score.table:
            raise SpecError("TM-SPEC-SCORE-TABLE-SHARED", value=other.score.table, place=place, other=other_name)
        if other.table == model.table and other.score.column == model.score.column:
            raise SpecError("TM-SPEC-SCORE-COLUMN-SHARED", value=other.score.column, place=place, other=other_name)


def scored_columns(model: Model) -> dict[str, str]:
    """The columns of a score table that the view ``<table>_scored`` shows, each with its name in the view."""
    column = model.score.column
    prefix = "" if column == "score" else f"{column}_"
    return {"score": column, "model_version": f"{prefix}model_version", "as_of_commit": f"{prefix}as_of_commit"}
