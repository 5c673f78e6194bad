"""Snapshots: copies of deployed pipeline folders in ``<state>/applied/<pipeline>/<version>/<pipeline>/``.

Drivers are started from snapshots, and while a pipeline's folder is rejected its DAGs are built from the newest one.
So an edited or broken folder changes nothing until it is applied. Removing a pipeline's folder removes its DAGs. A
snapshot has the same digest as the folder it was copied from; that makes it a version.
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
from tidemill.spec.folder import digest_of, files_of
from tidemill.store.connection import translated

KEPT_VERSIONS = 3


def save_snapshot(settings: Settings, pipeline: Pipeline, version: int, *, leased: Collection[int] = ()) -> Path:
    """Copy the folder of a version that was just applied, and prune all but the newest three versions.

    Args:
        settings: where the state folder is.
        pipeline: the pipeline that was applied.
        version: its version number in the control plane.
        leased: versions that drivers run; these are kept whatever their age.

    Returns:
        The folder of the snapshot.

    Raises:
        SpecError: the folder has changed since it was applied, or its copy is not a valid pipeline.
    """
    versions_folder = _versions_folder(settings, pipeline.name)
    snapshot = versions_folder / str(version) / pipeline.name
    if not _is_complete(snapshot, pipeline.digest):
        versions_folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=versions_folder))
        try:
            # A folder in it, because the temporary one has mode 0700 whatever the mask of this process.
            made = temporary / str(version)
            made.mkdir()
            _copy(pipeline, made / pipeline.name)
            _replace(made, snapshot.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    _prune(versions_folder, version, leased)
    return snapshot


def newest_snapshot(settings: Settings, name: str) -> Path | None:
    """The folder of a pipeline's newest snapshot, None if there is none. Reads the file system only."""
    versions_folder = _versions_folder(settings, name)
    return next((versions_folder / str(version) / name for version in _versions(versions_folder)), None)


def load_deployed(settings: Settings, connection: Connection[Any], name: str) -> tuple[Pipeline, int]:
    """The deployed pipeline, which is the version that was applied last, and its version number.

    It is loaded from its snapshot. Where this machine has no such snapshot, it is loaded from the pipeline's folder if
    that has no unapplied changes.

    Raises:
        StreamError: no version was applied, or neither snapshot nor folder has the content of the version.
        SpecError: the checks reject the deployed version, for instance after an upgrade of Tidemill.
    """
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT version, digest FROM pipelines WHERE pipeline = %s ORDER BY version DESC LIMIT 1", (name,)
        )
        row = cursor.fetchone()
    if row is None:
        raise StreamError("TM-DEPLOY-NEVER-APPLIED", value=name, pipeline=name)
    version, digest = int(row[0]), str(row[1])
    for folder in (_versions_folder(settings, name) / str(version) / name, settings.pipelines / name):
        if _is_complete(folder, digest):
            return load_pipeline(folder), version
    raise StreamError("TM-DEPLOY-SNAPSHOT-MISSING", value=name, pipeline=name, version=version)


def _versions_folder(settings: Settings, name: str) -> Path:
    return settings.state / "applied" / name


def _versions(versions_folder: Path) -> list[int]:
    """The version numbers of the snapshots in the folder, the newest first."""
    if not versions_folder.is_dir():
        return []
    return sorted((int(path.name) for path in versions_folder.iterdir() if path.name.isdecimal()), reverse=True)


def _is_complete(folder: Path, digest: str) -> bool:
    try:
        return (folder / "pipeline.yaml").is_file() and digest_of(folder) == digest
    except OSError:  # another process removes it at the same time
        return False


def _copy(pipeline: Pipeline, copy: Path) -> None:
    copy.mkdir()
    for file in files_of(pipeline.folder):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pipeline.folder / file, copy / file)
    if digest_of(copy) != pipeline.digest:
        raise SpecError("TM-DEPLOY-FOLDER-CHANGED", value=pipeline.folder, pipeline=pipeline.name)
    load_pipeline(copy)  # fails if the pipeline names a file in a linked folder, which neither digest nor copy hold


def _replace(temporary: Path, version_folder: Path) -> None:
    """Rename the temporary folder, so that the snapshot appears completely or not at all. A folder that already has
    the name is damaged and is removed."""
    if version_folder.exists():
        damaged = Path(tempfile.mkdtemp(prefix=".", dir=version_folder.parent))
        version_folder.replace(damaged / version_folder.name)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        temporary.replace(version_folder)
    except OSError:
        if not version_folder.is_dir():  # otherwise another process has just created the same version
            raise


def _prune(versions_folder: Path, version: int, leased: Collection[int]) -> None:
    versions = _versions(versions_folder)
    # Snapshots with a higher number were made for a database that no longer exists.
    foreign = [each for each in versions if each > version]
    outdated = [each for each in versions if each <= version][KEPT_VERSIONS:]
    for each in (*foreign, *outdated):
        if each not in leased:
            shutil.rmtree(versions_folder / str(each), ignore_errors=True)
