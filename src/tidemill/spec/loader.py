"""Loads ``pipelines/<name>/`` as a :class:`~tidemill.spec.schema.Pipeline`, or rejects it with one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from tidemill.errors import SpecError
from tidemill.errors.suggestion import suggestion
from tidemill.spec.checks.pipeline import check_pipeline
from tidemill.spec.folder import digest_of, read_text
from tidemill.spec.schema import Pipeline
from tidemill.spec.yaml_content import parse_yaml

_NOT_KEYS = ("folder", "digest")
"""Fields of a pipeline that the loader sets; they are no keys of pipeline.yaml."""


def load_pipelines(folder: Path) -> dict[str, Pipeline]:
    """Every pipeline below ``folder``, by name, in order of name.

    Raises:
        SpecError: one of them is rejected.
    """
    return {path.parent.name: load_pipeline(path.parent) for path in sorted(folder.glob("*/pipeline.yaml"))}


def load_pipeline(folder: Path) -> Pipeline:
    """Read and check one pipeline folder, without any server.

    Raises:
        SpecError: the folder cannot be read or is rejected; names the place, the value and the remedy.
    """
    with reading(folder):
        return check_pipeline(validate_content(folder, read_content(folder), digest_of(folder)))


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Read and check a pipeline folder.

    Raises:
        SpecError: as what is read and checked; also where the checks themselves fail, for instance because SQL is
            nested too deeply for its parser. No folder may end what reads the other ones.
    """
    try:
        yield
    except OSError as error:
        raise SpecError("TM-SPEC-FOLDER-UNREADABLE", value=error, folder=folder) from error
    except SpecError:
        raise
    except Exception as error:
        raise SpecError("TM-SPEC-CHECK-FAILED", value=f"{type(error).__name__}: {error}", folder=folder) from error


def read_content(folder: Path) -> dict[str, Any]:
    """The content of ``pipeline.yaml``, not validated.

    Raises:
        SpecError: the file is missing, or is no mapping in YAML, or not UTF-8.
    """
    path = folder / "pipeline.yaml"
    if not path.exists():
        names = sorted(each.parent.name for each in folder.parent.glob("*/pipeline.yaml"))
        remedy = suggestion(folder.name, names) if names else f"no folder in {folder.parent} has a pipeline.yaml"
        raise SpecError("TM-SPEC-PIPELINE-UNKNOWN", value=folder.name, suggestion=remedy)
    content = parse_yaml(path, read_text(path))
    if not isinstance(content, dict):
        raise SpecError("TM-SPEC-YAML-NO-MAPPING", value=path)
    return content


def validate_content(folder: Path, content: dict[str, Any], digest: str) -> Pipeline:
    """The content of ``pipeline.yaml`` as a pipeline. Keys and types are validated; names and SQL are not.

    Args:
        folder: the pipeline's folder.
        content: what :func:`read_content` returned.
        digest: what :func:`~tidemill.spec.folder.digest_of` returned.

    Raises:
        SpecError: a key is unknown or missing, a value has the wrong form, or the name is not that of the folder.
    """
    path = folder / "pipeline.yaml"
    reserved = next((key for key in content if key in _NOT_KEYS), None)
    if reserved is not None:
        raise _unknown_key(path, (reserved,))
    try:
        pipeline = Pipeline.model_validate({**content, "folder": folder, "digest": digest})
    except ValidationError as error:
        raise _as_spec_error(path, error) from None
    if pipeline.name != folder.name:
        raise SpecError("TM-SPEC-NAME-NOT-FOLDER", value=pipeline.name, folder=folder.name)
    return pipeline


def _as_spec_error(path: Path, error: ValidationError) -> SpecError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown_key(path, first["loc"])
    if first["type"] == "missing":
        return SpecError("TM-SPEC-KEY-MISSING", value=place, path=path)
    reason = str(first["msg"])
    if first["type"] == "string_type" and isinstance(first["input"], bool | int | float):
        reason = "write it in quotes, for what has none is a number, true or false in YAML"
    return SpecError(
        "TM-SPEC-VALUE-INVALID",
        value=repr(first["input"]),
        path=path,
        place=place,
        reason=reason[:1].lower() + reason[1:],
    )


def _unknown_key(path: Path, location: tuple[int | str, ...]) -> SpecError:
    place, known = ".".join(str(part) for part in location), _keys_at(location[:-1])
    return SpecError("TM-SPEC-KEY-UNKNOWN", value=place, path=path, suggestion=suggestion(str(location[-1]), known))


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at a place of the file has."""
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
    return [info.alias or name for name, info in here.model_fields.items() if name not in _NOT_KEYS]
