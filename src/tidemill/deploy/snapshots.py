"""What was applied, as it was: copies of pipeline folders in ``<state>/applied/<pipeline>/<version>/<pipeline>/``.

Drivers are started from them, and the DAGs of broken folders are built from them. A folder that is edited or broken
changes nothing until it is applied; one that is gone takes its DAGs along. A copy has the digest of its folder, which
is what makes it a version.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import SpecError, StreamError
from tidemill.spec import Pipeline, load_pipeline
from tidemill.spec.loader import digest_of, files_of
from tidemill.store.connection import translated

KEPT_VERSIONS = 3


def save(settings: Settings, pipeline: Pipeline, version: int, *, leased: Collection[int] = ()) -> Path:
    """Copy the folder of a version that was just applied, and remove what is older than the newest three.

    Args:
        settings: where the state folder is.
        pipeline: as it was applied.
        version: it was applied as.
        leased: versions that stay whatever their age, because a driver runs them.

    Returns:
        The copy.

    Raises:
        SpecError: the folder is not any more what was applied, or a copy of it is no pipeline.
    """
    place = _place(settings, pipeline.name)
    kept = place / str(version) / pipeline.name
    if not _is_whole(kept, pipeline.digest):
        place.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".", dir=place))
        try:
            _copy(pipeline, aside / pipeline.name)
            aside.chmod(0o755)
            _put(aside, kept.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    versions = _versions(place)
    # A higher number than what was applied last is of a database that is no more.
    foreign = [found for found in versions if found > version]
    former = [found for found in versions if found <= version][KEPT_VERSIONS:]
    for found in (*foreign, *former):
        if found not in leased:
            shutil.rmtree(place / str(found), ignore_errors=True)
    return kept


def newest(settings: Settings, name: str) -> Path | None:
    """The newest copy of a pipeline's folder, None if none was kept here. Touches the file system only."""
    place = _place(settings, name)
    return next((place / str(version) / name for version in _versions(place)), None)


def current(settings: Settings, connection: Connection[Any], name: str) -> tuple[Pipeline, int]:
    """The pipeline as it was applied last, and its version.

    Read from its copy; where none was kept here, from the pipelines folder, if that still is what was applied.

    Raises:
        StreamError: nothing was applied, or what was applied is nowhere to be found.
        SpecError: what was applied is not right any more, say after an upgrade.
    """
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT version, digest FROM pipelines WHERE pipeline = %s ORDER BY version DESC LIMIT 1", (name,)
        )
        row = cursor.fetchone()
    if row is None:
        raise StreamError("the pipeline is not applied", value=name, remedy=f"run ./tidemill apply {name}")
    version, digest = int(row[0]), str(row[1])
    for folder in (_place(settings, name) / str(version) / name, settings.pipelines / name):
        if _is_whole(folder, digest):
            return load_pipeline(folder), version
    raise StreamError(
        f"version {version} of the pipeline was applied and not kept here, and its folder is another one now",
        value=name,
        remedy=f"run ./tidemill apply {name}",
    )


def _place(settings: Settings, name: str) -> Path:
    return settings.state / "applied" / name


def _versions(place: Path) -> list[int]:
    """The versions that were kept, the newest first."""
    if not place.is_dir():
        return []
    return sorted((int(path.name) for path in place.iterdir() if path.name.isdecimal()), reverse=True)


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return (folder / "pipeline.yaml").is_file() and digest_of(folder) == digest
    except OSError:  # it goes while we read it
        return False


def _copy(pipeline: Pipeline, aside: Path) -> None:
    aside.mkdir()
    for inside in files_of(pipeline.folder):
        (aside / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pipeline.folder / inside, aside / inside)
    if digest_of(aside) != pipeline.digest:
        raise SpecError(
            "the folder was changed while it was applied",
            value=pipeline.folder,
            remedy=f"run ./tidemill apply {pipeline.name} again",
        )
    load_pipeline(aside)  # what it names behind a link to another folder is in no digest, and in no copy


def _put(aside: Path, place: Path) -> None:
    """Have a folder appear whole under its name. What stands there is damaged, and goes."""
    if place.exists():
        broken = Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
        place.replace(broken / place.name)
        shutil.rmtree(broken, ignore_errors=True)
    try:
        aside.replace(place)
    except OSError:
        if not place.is_dir():  # somebody else put the same version there first
            raise
