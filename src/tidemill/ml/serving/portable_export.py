"""A fitted Spark pipeline as a portable model, which :mod:`tidemill.store.scoring.portable_model` scores with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyspark.ml.feature import StandardScalerModel, StringIndexerModel
from pyspark.sql import SparkSession

from tidemill.spec.estimators import LIVE, problem_of
from tidemill.spec.schema import Model
from tidemill.store.scoring.portable_model import pack

if TYPE_CHECKING:
    from tidemill.ml.training.fit import FittedModel

_TREES = {"gbt_classifier": True, "gbt_regressor": True}
_FORESTS = {"random_forest_classifier": False, "random_forest_regressor": False}


def export(fitted: FittedModel, model: Model, artifact: str) -> bytes | None:
    """The portable form of a fitted model; None for one that only Spark can evaluate.

    Args:
        fitted: the fitted model.
        model: its declaration.
        artifact: where it is saved already: trees are read from there, because to request one node after another from
            the JVM takes minutes for a large forest.
    """
    if fitted.preparation is None or model.estimator not in LIVE:
        return None
    stages = fitted.model.stages
    last: Any = stages[-1]
    scale = next((each.std for each in stages if isinstance(each, StandardScalerModel)), None)
    return pack(
        {
            "problem": problem_of(model).value,
            "inputs": _inputs(fitted),
            # A constant input has no standard deviation, and MLlib scales it to 0.
            "scale": None if scale is None else [1.0 / std if std else 0.0 for std in scale.toArray().tolist()],
            "form": _form(model.estimator, last, artifact),
        }
    )


def _inputs(fitted: FittedModel) -> list[dict[str, Any]]:
    prepared = fitted.preparation
    assert prepared is not None  # export returns before
    indexer = next((each for each in fitted.model.stages if isinstance(each, StringIndexerModel)), None)
    labels = [] if indexer is None else [list(each) for each in indexer.labelsArray]
    numbers = [
        {"feature": name, "kind": "number", "fill": fill, "flag": flag}
        for name, (fill, flag) in prepared.numbers.items()
    ]
    texts = [
        {"feature": name, "kind": "text", "labels": known, "one_hot": prepared.one_hot}
        for name, known in zip(prepared.texts, labels, strict=True)
    ]
    return [*numbers, *texts]


def _form(estimator: str, last: Any, artifact: str) -> dict[str, Any]:
    if estimator in _TREES | _FORESTS:
        return _trees(estimator, last, artifact)
    if estimator == "kmeans":
        return {"kind": "centers", "centers": [center.tolist() for center in last.clusterCenters()]}
    return {"kind": "linear", "coefficients": last.coefficients.toArray().tolist(), "intercept": float(last.intercept)}


def _trees(estimator: str, last: Any, artifact: str) -> dict[str, Any]:
    """The nodes of all trees, as Spark writes them: NodeData of ``treeModels.scala``."""
    spark = SparkSession.active()
    rows = spark.read.parquet(f"{artifact}/stages/*_{last.uid}/data").select("treeID", "nodeData.*").collect()
    trees: dict[int, list[Any]] = {}
    for row in sorted(rows, key=lambda row: (row["treeID"], row["id"])):
        trees.setdefault(row["treeID"], []).append(row)
    votes = estimator == "random_forest_classifier"
    boosted = _TREES.get(estimator, False)
    weights = [float(weight) for weight in last.treeWeights] if boosted else [1.0] * len(trees)
    packed = [_tree(nodes, votes=votes) for _, nodes in sorted(trees.items())]
    return {"kind": "trees", "boosted": boosted, "weights": weights, "trees": packed}


def _tree(nodes: list[Any], *, votes: bool) -> dict[str, Any]:
    """Spark numbers nodes depth first from 0 without a gap, so a node's id is its index."""
    categories, thresholds = {}, []
    for node in nodes:
        split = node["split"]
        by_category = split["numCategories"] > 0
        if by_category:
            categories[node["id"]] = [int(category) for category in split["leftCategoriesOrThreshold"]]
        inner = split["featureIndex"] >= 0 and not by_category
        thresholds.append(float(split["leftCategoriesOrThreshold"][0]) if inner else 0.0)
    return {
        "feature": [max(node["split"]["featureIndex"], 0) for node in nodes],
        "threshold": thresholds,
        "left": [node["leftChild"] for node in nodes],
        "right": [node["rightChild"] for node in nodes],
        # A forest's trees vote with the shares of the classes in their leaves.
        "value": [
            node["impurityStats"][1] / sum(node["impurityStats"]) if votes else node["prediction"] for node in nodes
        ],
        "categories": categories,
    }
