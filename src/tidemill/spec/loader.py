"""``pipelines/<name>/`` -> :class:`~tidemill.spec.schema.Pipeline`, or a sentence saying what is wrong with it."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tidemill.errors import SpecError
from tidemill.spec.checks.tables import belongs, check_pipeline
from tidemill.spec.schema import Pipeline

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C, where PyYAML was built with it, takes a sixth of the time."""


def load_pipelines(folder: Path) -> dict[str, Pipeline]:
    """Every pipeline below ``folder``, by name, in order of name.

    Raises:
        SpecError: one of them is wrong.
    """
    return {path.parent.name: load_pipeline(path.parent) for path in sorted(folder.glob("*/pipeline.yaml"))}


def load_pipeline(folder: Path) -> Pipeline:
    """Read and check one pipeline folder, without any server.

    Raises:
        SpecError: naming the place, the value and the remedy.
    """
    pipeline = read_pipeline(folder)
    check_pipeline(pipeline)
    return pipeline


def read_pipeline(folder: Path) -> Pipeline:
    """Read one pipeline folder: its form is right; names and SQL are not looked at.

    Raises:
        SpecError: naming the place, the value and the remedy.
    """
    return form_pipeline(folder, read_content(folder), digest_of(folder))


def read_content(folder: Path) -> dict[str, Any]:
    """What ``pipeline.yaml`` says, whatever it says.

    Raises:
        SpecError: it is missing, or no mapping.
    """
    path = folder / "pipeline.yaml"
    if not path.exists():
        known = sorted(found.parent.name for found in folder.parent.glob("*/pipeline.yaml"))
        raise SpecError("no such pipeline", value=folder.name, remedy=f"there are: {', '.join(known) or 'none'}")
    try:
        content = yaml.load(path.read_text(), Loader=_LOADER)  # noqa: S506 -- both are safe loaders
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(
            "pipeline.yaml is not YAML", value=f"{path}: {' '.join(str(error).split())}", remedy="mend it"
        ) from None
    if not isinstance(content, dict):
        raise SpecError("pipeline.yaml is not a mapping", value=path, remedy="begin it with name: …")
    return content


def form_pipeline(folder: Path, content: dict[str, Any], digest: str) -> Pipeline:
    """The content of a folder's ``pipeline.yaml`` as a pipeline of the form it must have.

    Raises:
        SpecError: it has another one.
    """
    path = folder / "pipeline.yaml"
    try:
        pipeline = Pipeline(**content, folder=folder, digest=digest)
    except ValidationError as error:
        raise _as_sentence(path, error) from None
    if pipeline.name != folder.name:
        raise SpecError(
            "a pipeline is named as its folder",
            value=f"{folder.name} says name: {pipeline.name}",
            remedy="make them equal",
        )
    return pipeline


def digest_of(folder: Path) -> str:
    """SHA-256 over the names and bytes of the folder's files, ``cases/`` and hidden files left out."""
    digest = hashlib.sha256()
    for inside in files_of(folder):
        content = (folder / inside).read_bytes()
        digest.update(f"{inside.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def files_of(folder: Path) -> list[Path]:
    """The files that are the pipeline, relative to its folder, in order: all but ``cases/`` and hidden ones."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [inside for inside in found if belongs(inside)]


def _as_sentence(path: Path, error: ValidationError) -> SpecError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_at(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        remedy = f"did you mean {near[0]}?" if near else f"known keys here: {', '.join(known)}"
        return SpecError(f"unknown key in {path}", value=place, remedy=remedy)
    if first["type"] == "missing":
        return SpecError(f"missing key in {path}", value=place, remedy="add it")
    return SpecError(f"wrong value in {path} at {place}", value=repr(first["input"]), remedy=str(first["msg"]))


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at a place of the file knows."""
    here: Any = Pipeline
    for part in location:
        if isinstance(here, type) and issubclass(here, BaseModel):
            by_key = {info.alias or name: info.annotation for name, info in here.model_fields.items()}
            here = by_key.get(str(part), here)
        else:  # dict[str, Model]: the part is a name that the author chose
            here = get_args(here)[-1]
        if isinstance(here, UnionType):
            here = get_args(here)[0]
    if not (isinstance(here, type) and issubclass(here, BaseModel)):
        return []
    return [info.alias or name for name, info in here.model_fields.items() if name not in ("folder", "digest")]
