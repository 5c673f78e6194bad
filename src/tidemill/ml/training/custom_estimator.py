"""An estimator of the author's: ``module:function``, which returns an unfitted MLlib Pipeline."""

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
    """Ask an author's function for its Pipeline.

    The module is looked for in the pipeline's folder, whose digest makes it part of the version, then among the
    installed packages.

    Args:
        estimator: ``module:function``, called as ``function(features: list[str], parameters: dict)``.
        folder: the pipeline's.
        features: columns of the feature query. The label is the column ``_label``.
        parameters: as in pipeline.yaml.

    Raises:
        ModelError: it cannot be imported, raises, or returns something else.
    """
    module, _, function = estimator.partition(":")
    with _first_on_path(folder):
        try:
            found = getattr(importlib.import_module(module), function)
        except Exception as error:
            raise ModelError(
                f"estimator {estimator} cannot be imported",
                value=said(error),
                remedy=f"put {module} into {folder.name}/ or install it, with a function {function} in it",
            ) from error
        try:
            made = found(list(features), dict(parameters))
        except Exception as error:
            raise ModelError(
                f"estimator {estimator} raises", value=said(error), remedy="mend it: it takes features and parameters"
            ) from error
    if not isinstance(made, Pipeline):
        raise ModelError(
            f"estimator {estimator} does not return a Pipeline",
            value=type(made).__name__,
            remedy="return an unfitted pyspark.ml.Pipeline",
        )
    return made


def check_kept(estimator: str, fitted: PipelineModel) -> None:
    """Check that a fitted Pipeline of the author's can be written and read where his module is not.

    Raises:
        ModelError: one of its stages is in Python.
    """
    for stage in fitted.stages:
        if isinstance(stage, PipelineModel):
            check_kept(estimator, stage)
        elif not isinstance(stage, JavaMLWritable):
            raise ModelError(
                f"estimator {estimator} has a stage that is not MLlib's own",
                value=type(stage).__name__,
                remedy="express it by MLlib's stages, for example by an SQLTransformer",
            )


def said(error: BaseException) -> str:
    """An error of somebody else's in one line; of Java's the cause that all others wrap."""
    kind, text = type(error).__name__, str(error)
    root = getattr(error, "java_exception", None)
    if root is not None:
        while root.getCause() is not None:
            root = root.getCause()
        kind, text = root.getClass().getSimpleName(), str(root.getMessage())
    return f"{kind}: {' '.join(text.split())[:300]}"


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Let modules of the folder be imported, and forget them afterwards: another version's have the same names."""
    before = dict(sys.modules)
    hidden = {name for name in before if _is_in(folder, name.partition(".")[0])}
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    # No __pycache__ in the folder, which is compared with what was applied.
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
