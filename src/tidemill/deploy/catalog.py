"""Which pipelines there are: each as its folder stands or, where that is refused, as it was applied last.

Every file of DAGs reads all pipelines, again and again, in processes of their own. So what was read of a folder and
found right is remembered in ``<state>/checked/``, in a file named by all that the finding depends on: the folder's
content, the code that judged it, and the parser's version.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tidemill import spec
from tidemill.config import Settings
from tidemill.deploy import snapshots
from tidemill.errors import SpecError
from tidemill.spec import Pipeline
from tidemill.spec.checks.tables import check_pipeline
from tidemill.spec.loader import digest_of, form_pipeline, read_content


@dataclass(frozen=True)
class CatalogEntry:
    """A pipeline that counts."""

    pipeline: Pipeline
    refused: str = ""
    """Why its folder is not taken, and what is instead; empty where it is taken."""


def read_catalog(settings: Settings, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[CatalogEntry]:
    """The pipelines by name. A folder that is refused takes nothing away as long as a version of it was applied.

    Args:
        settings: where pipelines are, and what was applied.
        wanted: by a folder's name, whether it is read at all.
    """
    for path in sorted(settings.pipelines.glob("*/pipeline.yaml")):
        if wanted(path.parent.name):
            with suppress(SpecError):  # reported by :func:`refusals`
                yield find_pipeline(settings, path.parent.name)


def find_pipeline(settings: Settings, name: str) -> CatalogEntry:
    """One pipeline.

    Raises:
        SpecError: its folder is refused, and no version of it was kept, or that one is refused as well.
    """
    try:
        return CatalogEntry(load_known(settings, settings.pipelines / name))
    except SpecError as error:
        kept = snapshots.newest(settings, name)
        if kept is None:
            raise
        with suppress(SpecError):
            return CatalogEntry(
                load_known(settings, kept), f"{error}; version {kept.parent.name}, applied last, goes on"
            )
        raise


def rejected_folders(settings: Settings) -> list[str]:
    """A sentence on every folder that is refused."""
    found = []
    for path in sorted(settings.pipelines.glob("*/pipeline.yaml")):
        name = path.parent.name
        try:
            refused = find_pipeline(settings, name).refused
        except SpecError as error:
            refused = str(error)
        if refused:
            found.append(f"pipeline {name}: {refused}")
    return found


def load_known(settings: Settings, folder: Path) -> Pipeline:
    """Read and check a pipeline folder, or remember what was found when it had this very content.

    Raises:
        SpecError: naming the place, the value and the remedy.
    """
    try:
        digest = digest_of(folder)
        memory = settings.state / "checked" / _name_of(folder.name, digest)
        remembered = _read_memory(memory)
        if remembered is not None:
            return form_pipeline(folder, remembered, digest)
        content = read_content(folder)
        pipeline = form_pipeline(folder, content, digest)
        check_pipeline(pipeline)
        # Somebody who saves a file meanwhile must not have one content remembered for another.
        if _is_plain(pipeline) and digest_of(folder) == digest:
            _write_memory(memory, content)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError("the pipeline's folder cannot be read", value=f"{folder}: {error}", remedy="mend it") from error
    return pipeline


def _read_memory(memory: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_memory(memory: Path, content: dict[str, Any]) -> None:
    """Keep what pipeline.yaml says, if JSON can say the same. A folder that may not be written only costs time."""
    try:
        text = json.dumps(content)
    except (TypeError, ValueError):  # a date, or a value within itself
        return
    if json.loads(text) != content:  # a key that is no text
        return
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        aside = memory.with_name(f".{memory.name}.{os.getpid()}")
        aside.write_text(text)
        aside.replace(memory)


def _is_plain(pipeline: Pipeline) -> bool:
    """Whether the digest covers all that is checked: the SQL files lie in the folder itself, behind no link to another.

    That they are not hidden either is part of the check.
    """
    files = [table.from_ for table in pipeline.tables.values()]
    files += [model.features for model in pipeline.models.values()]
    return not any("/" in file for file in files)


def _name_of(name: str, digest: str) -> str:
    return hashlib.sha256(f"{name}\0{digest}\0{_judge()}".encode()).hexdigest()


@cache
def _judge() -> str:
    """Who judges: the code of ``spec``, the errors it raises apart, and the version of the SQL parser."""
    digest = hashlib.sha256(version("sqlglot").encode())
    for path in sorted(Path(spec.__path__[0]).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
