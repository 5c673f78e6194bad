"""From the columns of a feature query to one vector: stages that accept NULLs and values that training never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.ml import Transformer
from pyspark.ml.base import Estimator
from pyspark.ml.feature import OneHotEncoder, SQLTransformer, StringIndexer, VectorAssembler
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType, CharType, DataType, NumericType, StringType, VarcharType

from tidemill.errors import ModelError

VECTOR = "_features"
_INDEX, _HOT, _VALUE, _MISSING = "_index_", "_hot_", "_value_", "_missing_"


@dataclass(frozen=True)
class Preparation:
    """The unfitted stages that turn the columns of a feature query into the vector ``_features``.

    Inputs enter the vector in this order: the value of each number, followed by its flag if it has one; then each text,
    as its category's number or, one-hot, as a column for each category.
    """

    stages: tuple[Transformer | Estimator, ...]  # type: ignore[type-arg]  # generic in the stubs only
    numbers: Mapping[str, tuple[float, bool]]
    """Feature -> the value that replaces a missing one, and whether a flag column marks that it was missing."""
    texts: tuple[str, ...]
    one_hot: bool


def is_number(kind: DataType) -> bool:
    """Whether columns of a type are number features."""
    return isinstance(kind, (NumericType, BooleanType))


def is_text(kind: DataType) -> bool:
    """Whether columns of a type are text features."""
    return isinstance(kind, (StringType, CharType, VarcharType))


def split_by_type(frame: DataFrame, features: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the features that are numbers, and of those that are text.

    Raises:
        ModelError: one is neither.
    """
    numbers, texts = [], []
    for name in features:
        kind = frame.schema[name].dataType
        if is_number(kind):
            numbers.append(name)
        elif is_text(kind):
            texts.append(name)
        else:
            raise ModelError("TM-ML-FEATURE-TYPE", value=kind.simpleString(), feature=name)
    return numbers, texts


def preparation(train: DataFrame, features: Sequence[str], *, one_hot: bool) -> Preparation:
    """The stages before the estimator, whose output is the column ``_features``.

    A missing number becomes the median of the training rows, and a flag column marks that it was missing. Missing and
    unseen texts become one more category.

    Args:
        train: training rows; medians are computed from them.
        features: columns to use, in this order within numbers and texts.
        one_hot: whether the estimator treats a category's number as a quantity, so that each category needs a column.

    Raises:
        ModelError: there is no feature, or one is neither number nor text.
    """
    if not features:
        raise ModelError("TM-ML-NO-FEATURES")
    numbers, texts = split_by_type(train, features)
    filled = medians(train, numbers) if numbers else {}
    stages: list[Transformer | Estimator] = []  # type: ignore[type-arg]  # generic in the stubs only
    inputs: list[str] = []
    if numbers:
        statement, columns = _numbers(filled)
        stages.append(SQLTransformer(statement=statement))
        inputs += columns
    if texts:
        indexed, hot = [_INDEX + name for name in texts], [_HOT + name for name in texts]
        stages.append(StringIndexer(inputCols=texts, outputCols=indexed, handleInvalid="keep"))
        if one_hot:
            stages.append(OneHotEncoder(inputCols=indexed, outputCols=hot, handleInvalid="keep"))
        inputs += hot if one_hot else indexed
    stages.append(VectorAssembler(inputCols=inputs, outputCol=VECTOR))
    return Preparation(tuple(stages), filled, tuple(texts), one_hot)


def medians(frame: DataFrame, names: Sequence[str]) -> dict[str, tuple[float, bool]]:
    """Column -> its median (0 if every value is NULL), and whether any value is NULL."""
    medians_of = [F.median(F.col(name).cast("double")) for name in names]
    gaps = [F.count(F.when(F.col(name).isNull(), 1)) for name in names]
    row = frame.agg(*medians_of, *gaps).first()
    assert row is not None  # an aggregate without groups is one row
    values, missing = row[: len(names)], row[len(names) :]
    return {
        name: (0.0 if value is None else float(value), gap > 0)
        for name, value, gap in zip(names, values, missing, strict=True)
    }


def _numbers(filled: Mapping[str, tuple[float, bool]]) -> tuple[str, list[str]]:
    """The statement that replaces missing numbers, and the columns that it adds."""
    added = {}
    for name, (median, has_gaps) in filled.items():
        added[_VALUE + name] = f"COALESCE(CAST(`{name}` AS DOUBLE), CAST('{median!r}' AS DOUBLE))"
        if has_gaps:
            added[_MISSING + name] = f"CAST(`{name}` IS NULL AS DOUBLE)"
    columns = ", ".join(f"{expression} AS `{name}`" for name, expression in added.items())
    return f"SELECT *, {columns} FROM __THIS__", list(added)
