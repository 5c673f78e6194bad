"""The catalog of pipelines: each from its folder or, while the folder is rejected, from the version deployed last."""

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
    """Why the pipeline's folder is rejected, and which deployed version is used instead; empty for a valid folder."""


def read_catalog(settings: Settings, include: Callable[[str], bool] = lambda name: True) -> Iterator[CatalogEntry]:
    """The pipelines in order of name. A pipeline whose folder is rejected stays if a version of it was deployed.

    Args:
        settings: where the pipeline folders and the deployed versions are.
        include: whether to read the folder of this name.
    """
    for name in _folders(settings):
        if include(name):
            with suppress(SpecError):  # list_rejections reports it
                yield find_entry(settings, name)


def find_pipeline(settings: Settings, name: str) -> Pipeline:
    """One pipeline by name, from its folder or from the version deployed last.

    Raises:
        SpecError: as for :func:`find_entry`.
    """
    return find_entry(settings, name).pipeline


def find_entry(settings: Settings, name: str) -> CatalogEntry:
    """The entry of one pipeline by name.

    Raises:
        SpecError: its folder is rejected, and there is no deployed version, or that one is rejected, too.
    """
    try:
        return CatalogEntry(load_cached(settings, settings.pipelines / name))
    except SpecError as error:
        snapshot = snapshots.newest_snapshot(settings, name)
        if snapshot is None:
            raise
        with suppress(SpecError):
            pipeline = load_cached(settings, snapshot)
            return CatalogEntry(pipeline, f"{error}; version {snapshot.parent.name}, deployed last, stays in use")
        raise


def list_rejections(settings: Settings) -> list[str]:
    """One sentence for each pipeline folder that is rejected."""
    sentences = []
    for name in _folders(settings):
        try:
            rejection = find_entry(settings, name).rejection
        except SpecError as error:
            rejection = str(error)
        if rejection:
            sentences.append(f"pipeline {name}: {rejection}")
    return sentences


def _folders(settings: Settings) -> list[str]:
    return sorted(path.parent.name for path in settings.pipelines.glob("*/pipeline.yaml"))
