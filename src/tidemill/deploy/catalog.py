"""The catalog of pipelines that DAGs are built from. Reads files only: parsing a DAG must not depend on a database.

A pipeline that has a snapshot on this machine is what was applied last, whatever its folder holds and whether it has
one: a schedule that was edited takes effect once it is applied. A pipeline without a snapshot is its folder; its DAGs
do nothing until it is applied. A pipeline is retired by removing both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from tidemill.config import Settings
from tidemill.deploy import snapshots
from tidemill.deploy.check_cache import load_cached
from tidemill.errors import SpecError
from tidemill.spec import Pipeline


@dataclass(frozen=True)
class CatalogEntry:
    """A pipeline that the catalog holds."""

    pipeline: Pipeline
    rejection: str = ""
    """Why the pipeline's folder is rejected, and which applied version stays in use; empty for a valid folder."""


def read_catalog(settings: Settings, include: Callable[[str], bool] = lambda name: True) -> Iterator[CatalogEntry]:
    """The pipelines in order of name. A pipeline whose folder is rejected stays if a version of it was applied.

    Args:
        settings: where the pipeline folders and the applied versions are.
        include: whether to read the pipeline of this name.
    """
    for name in _names(settings):
        if include(name):
            with suppress(SpecError):  # list_rejections reports it
                yield find_entry(settings, name)


def find_entry(settings: Settings, name: str) -> CatalogEntry:
    """The entry of one pipeline by name.

    Raises:
        SpecError: the version applied last is rejected, or there is none and its folder is rejected.
    """
    folder, snapshot = settings.pipelines / name, snapshots.newest_snapshot(settings, name)
    if snapshot is None:
        return CatalogEntry(load_cached(settings, folder))
    pipeline = load_cached(settings, snapshot)
    if not (folder / "pipeline.yaml").exists():
        return CatalogEntry(pipeline)
    try:
        load_cached(settings, folder)
    except SpecError as error:
        return CatalogEntry(pipeline, f"{error}; version {snapshot.parent.name}, applied last, stays in use")
    return CatalogEntry(pipeline)


def list_rejections(settings: Settings) -> list[str]:
    """One sentence for each pipeline whose folder, or whose applied version, is rejected."""
    sentences = []
    for name in _names(settings):
        try:
            rejection = find_entry(settings, name).rejection
        except SpecError as error:
            rejection = str(error)
        if rejection:
            sentences.append(f"pipeline {name}: {rejection}")
    return sentences


def _names(settings: Settings) -> list[str]:
    return sorted({*snapshots.folder_names(settings), *snapshots.snapshot_names(settings)})
