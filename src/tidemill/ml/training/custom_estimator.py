"""Custom estimators: ``module:function`` names a function that returns an unfitted MLlib Pipeline."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.util import JavaMLWritable

from tidemill.errors import ModelError


def custom_pipeline(estimator: str, folder: Path, features: Sequence[str], parameters: Mapping[str, Any]) -> Pipeline:
    """Call the author's function and return its Pipeline.

    The module is imported from the pipeline's folder, where its content is part of the pipeline version, or else from
    the installed packages.

    Args:
        estimator: ``module:function``, called as ``function(features: list[str], parameters: dict)``.
        folder: the pipeline's folder.
        features: columns of the feature query. The label is the column ``_label``.
        parameters: as in pipeline.yaml.

    Raises:
        ModelError: the function cannot be imported, raises, or returns something else.
    """
    module, _, function = estimator.partition(":")
    with _first_on_path(folder):
        try:
            build = getattr(importlib.import_module(module), function)
        except Exception as error:
            raise ModelError(
                "TM-ML-ESTIMATOR-NOT-IMPORTED",
                value=summary_of(error),
                estimator=estimator,
                module=module,
                folder=folder.name,
                function=function,
            ) from error
        try:
            pipeline = build(list(features), dict(parameters))
        except Exception as error:
            raise ModelError("TM-ML-ESTIMATOR-RAISES", value=summary_of(error), estimator=estimator) from error
    if not isinstance(pipeline, Pipeline):
        raise ModelError("TM-ML-ESTIMATOR-NO-PIPELINE", value=type(pipeline).__name__, estimator=estimator)
    return pipeline


def check_persistable(estimator: str, fitted: PipelineModel) -> None:
    """Check that a fitted custom Pipeline can be saved, and loaded where the author's module is not installed.

    Raises:
        ModelError: one of its stages is implemented in Python.
    """
    for stage in fitted.stages:
        if isinstance(stage, PipelineModel):
            check_persistable(estimator, stage)
        elif not isinstance(stage, JavaMLWritable):
            raise ModelError("TM-ML-ESTIMATOR-PYTHON-STAGE", value=type(stage).__name__, estimator=estimator)


def summary_of(error: BaseException) -> str:
    """An error of the author's code, of Spark or of MLlib in one line; of a Java error its innermost cause."""
    kind, text = type(error).__name__, str(error)
    root = getattr(error, "java_exception", None)
    if root is not None:
        while root.getCause() is not None:
            root = root.getCause()
        kind, text = root.getClass().getSimpleName(), str(root.getMessage())
    return f"{kind}: {' '.join(text.split())[:300]}"


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Import from the folder first, and unload its modules afterwards: those of another version have the same names."""
    before = dict(sys.modules)
    hidden = {name for name in before if _is_in(folder, name.partition(".")[0])}
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    # No __pycache__ in the folder, whose content is compared with what was applied.
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = bytecode
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if name not in before and _comes_from(folder, module):
                del sys.modules[name]
        sys.modules.update({name: before[name] for name in hidden})


def _is_in(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top).is_dir()


def _comes_from(folder: Path, module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(folder)
