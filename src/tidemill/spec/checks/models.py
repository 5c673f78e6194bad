"""What a model's block in pipeline.yaml must be like: estimator, metric, scores, drift and the feature query."""

from __future__ import annotations

from tidemill.errors import SpecError
from tidemill.spec.checks.features import check_features
from tidemill.spec.estimators import ESTIMATORS, LIVE, Problem, is_custom, metrics_of, problem_of
from tidemill.spec.feature_query import FeatureQuery
from tidemill.spec.known_names import known
from tidemill.spec.schema import Model, Pipeline


def check_model(pipeline: Pipeline, name: str, sql: str) -> FeatureQuery:
    """Check one model of a pipeline and parse its feature query.

    Args:
        pipeline: the pipeline that declares the model.
        name: the model's.
        sql: the text of its feature query.

    Raises:
        SpecError: the first thing that is wrong.
    """
    place, model = f"models.{name}", pipeline.models[name]
    known(f"{place}.table", model.table, pipeline.tables)
    _check_estimator(place, model)
    known(f"{place}.promotion.metric", model.promotion.metric, metrics_of(problem_of(model)))
    _check_key(place, pipeline, model)
    _check_label(place, model)
    _check_score(place, pipeline, name)
    query = check_features(name, model, sql)
    for feature in model.drift.ignore if model.drift else ():
        known(f"{place}.drift.ignore", feature, query.features)
    for feature in model.train.known_ahead:
        known(f"{place}.train.known_ahead", feature, query.features)
    return query


_INEXACT = ("BINARY", "VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB", "BIT", "FLOAT", "REAL")


def _check_key(place: str, pipeline: Pipeline, model: Model) -> None:
    table = pipeline.tables[model.table]
    if set(model.key) != set(table.key):
        raise SpecError(f"{place}.key is not the key of {model.table}", value=list(model.key), remedy="make them equal")
    for column in model.key:
        if table.columns[column].upper().startswith(_INEXACT):
            raise SpecError(
                f"{place}.key has a column that does not go through Spark and back unchanged",
                value=f"{column}: {table.columns[column]}",
                remedy="score a table whose key is made of whole numbers, text, DECIMAL or times",
            )


def _check_estimator(place: str, model: Model) -> None:
    if is_custom(model.estimator):
        if model.problem is None:
            raise SpecError(
                f"{place}.estimator is one of your own, and nothing says what it learns",
                value=model.estimator,
                remedy="add problem: classification, regression or clustering",
            )
    else:
        known(f"{place}.estimator", model.estimator, ESTIMATORS)
        if model.problem is not None and model.problem != ESTIMATORS[model.estimator]:
            raise SpecError(
                f"{place}.problem is not what {model.estimator} learns", value=model.problem, remedy="remove it"
            )


def _check_label(place: str, model: Model) -> None:
    clusters = problem_of(model) is Problem.CLUSTERING
    if clusters and (model.label or model.baseline):
        raise SpecError(
            f"{place}: a clustering has neither label nor baseline",
            value=model.label or model.baseline,
            remedy="remove it",
        )
    if not clusters and model.label is None:
        raise SpecError(f"{place} has no label", value=model.estimator, remedy="name the column that is to be foretold")


def _check_score(place: str, pipeline: Pipeline, name: str) -> None:
    model = pipeline.models[name]
    if model.score.schedule is None and model.score.after_commits is None:
        raise SpecError(
            f"{place}.score has neither schedule nor after_commits", value=name, remedy="say when the refresh runs"
        )
    if model.score.live and (is_custom(model.estimator) or model.estimator not in LIVE):
        raise SpecError(
            f"{place}.score.live is not possible with this estimator",
            value=model.estimator,
            remedy=f"remove live, or take one of: {', '.join(sorted(LIVE))}",
        )
    for column in scored_columns(model).values():
        if column in pipeline.tables[model.table].columns:
            raise SpecError(
                f"{place}.score.column would add a column that {model.table} has",
                value=column,
                remedy="name another one",
            )
    for other, its in pipeline.models.items():
        if other == name:
            continue
        if its.score.table == model.score.table:
            raise SpecError(
                f"{place}.score.table is that of models.{other}", value=its.score.table, remedy="rename one of them"
            )
        if its.table == model.table and its.score.column == model.score.column:
            raise SpecError(
                f"{place}.score.column is that of models.{other}, over the same table",
                value=its.score.column,
                remedy="add score: {column: …} to one of them",
            )


def scored_columns(model: Model) -> dict[str, str]:
    """The columns of a table of scores that ``<table>_scored`` shows, and what it calls them."""
    column = model.score.column
    prefix = "" if column == "score" else f"{column}_"
    return {"score": column, "model_version": f"{prefix}model_version", "as_of_commit": f"{prefix}as_of_commit"}
