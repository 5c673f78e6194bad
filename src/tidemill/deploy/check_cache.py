"""Pipeline folders that passed the checks, cached in ``<state>/checked/``.

Airflow parses every DAG file again and again, each time in a new process, and every DAG file reads all pipelines.
Parsing SQL for that would cost more than everything else. An entry's file name is a digest of all that the result of
the checks depends on: the content of the folder, the code of the checks and the version of the SQL parser.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tidemill import spec
from tidemill.config import Settings
from tidemill.spec import Pipeline
from tidemill.spec.checks.pipeline import check_pipeline
from tidemill.spec.feature_query import FeatureQuery
from tidemill.spec.folder import digest_of
from tidemill.spec.loader import read_content, reading, validate_content


def load_cached(settings: Settings, folder: Path) -> Pipeline:
    """Read and check a pipeline folder, or take the cached result of checking this very content.

    Raises:
        SpecError: the folder cannot be read or is rejected; names the place, the value and the remedy.
    """
    with reading(folder):
        digest = digest_of(folder)
        entry = settings.state / "checked" / _entry_name(folder.name, digest)
        cached = _read_entry(entry)
        if cached is not None:
            content, queries = cached
            return validate_content(folder, content, digest).with_queries(queries)
        content = read_content(folder)
        pipeline = check_pipeline(validate_content(folder, content, digest))
        # A file that was saved during the checks must not be cached under the digest of its former content.
        if _is_covered_by_digest(pipeline) and digest_of(folder) == digest:
            _write_entry(entry, content, {name: model.query for name, model in pipeline.models.items()})
    return pipeline


def _read_entry(entry: Path) -> tuple[dict[str, Any], dict[str, FeatureQuery]] | None:
    """The content of pipeline.yaml and the feature queries; None if there is no entry or it is damaged."""
    try:
        stored = json.loads(entry.read_bytes())
        queries = {name: FeatureQuery.model_validate(query) for name, query in stored["queries"].items()}
        return dict(stored["content"]), queries
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write_entry(entry: Path, content: dict[str, Any], queries: dict[str, FeatureQuery]) -> None:
    """Store an entry if JSON can express the content of pipeline.yaml. In a read-only folder nothing is cached."""
    try:
        text = json.dumps(
            {"content": content, "queries": {name: query.model_dump() for name, query in queries.items()}}
        )
    except (TypeError, ValueError):  # a date, or a value that contains itself
        return
    if json.loads(text)["content"] != content:  # a key that is no text
        return
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = entry.with_name(f".{entry.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(entry)


def _is_covered_by_digest(pipeline: Pipeline) -> bool:
    """Whether the digest covers everything that was checked: each SQL file is in the folder itself, and not in a
    subfolder, which could be a link to another place. That no SQL file is hidden is part of the checks."""
    files = [table.from_ for table in pipeline.tables.values()]
    files += [model.features for model in pipeline.models.values()]
    return not any("/" in file for file in files)


def _entry_name(name: str, digest: str) -> str:
    return hashlib.sha256(f"{name}\0{digest}\0{_checker_digest()}".encode()).hexdigest()


@cache
def _checker_digest() -> str:
    """Digest of what checks a folder: the code of ``spec`` and the version of the SQL parser."""
    digest = hashlib.sha256(version("sqlglot").encode())
    for path in sorted(Path(spec.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
