"""Snapshots: copies of applied pipeline folders in ``<state>/applied/<pipeline>/<version>/<pipeline>/``.

Everything that acts on tables, topics and models gets its pipeline from :func:`applied_pipeline`, and DAGs, whose
parsing must not ask a database, are built from the newest snapshot. So a folder that is edited, broken or removed
changes nothing until it is applied; ``check``, ``plan``, ``apply`` and ``test`` alone read it. A snapshot has the same
digest as the folder it was copied from; that makes it a version.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymysql.connections import Connection

from tidemill.config import Settings
from tidemill.errors import SpecError, StreamError
from tidemill.errors.suggestion import suggestion
from tidemill.spec import Pipeline, load_pipeline
from tidemill.spec.folder import digest_of, files_of
from tidemill.store.connection import translated

KEPT_VERSIONS = 3


@dataclass(frozen=True)
class AppliedVersion:
    """The version of a pipeline that was applied last, as the control plane records it."""

    pipeline: str
    version: int
    digest: str


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


def snapshot_names(settings: Settings) -> list[str]:
    """The pipelines that have a snapshot on this machine, in order of name. Reads the file system only."""
    applied = settings.state / "applied"
    return sorted(path.name for path in applied.iterdir() if _versions(path)) if applied.is_dir() else []


def applied_pipeline(settings: Settings, connection: Connection[Any], name: str) -> tuple[Pipeline, int]:
    """A pipeline as it was applied last, and the number of that version.

    It is loaded from its snapshot. Where this machine has no such snapshot, it is loaded from the pipeline's folder if
    that has no unapplied changes.

    Args:
        settings: where the state folder and the pipeline folders are.
        connection: to the control plane, as any account.
        name: of the pipeline; a slash that a shell has completed is ignored.

    Raises:
        SpecError: there is neither an applied version nor a folder of this name; or the checks reject the applied
            version, for instance after an upgrade of Tidemill.
        StreamError: no version was applied, or neither snapshot nor folder has the content of the version.
    """
    applied = applied_version(settings, connection, name)
    return load_applied(settings, applied), applied.version


def applied_here(settings: Settings, connection: Connection[Any]) -> list[AppliedVersion]:
    """The applied version of each pipeline that has a snapshot or a folder on this machine, in order of name.

    A pipeline that has neither was retired by removing both.
    """
    here = {*snapshot_names(settings), *folder_names(settings)}
    return [applied for name, applied in applied_versions(connection).items() if name in here]


def applied_pipelines(settings: Settings, connection: Connection[Any]) -> list[Pipeline]:
    """The pipelines of :func:`applied_here`.

    Raises:
        SpecError: as for :func:`load_applied`.
        StreamError: as for :func:`load_applied`.
    """
    return [load_applied(settings, applied) for applied in applied_here(settings, connection)]


def applied_versions(connection: Connection[Any]) -> dict[str, AppliedVersion]:
    """The version that was applied last of each pipeline, by name and in order of name. One query."""
    newest = "SELECT pipeline, MAX(version) AS version FROM pipelines GROUP BY pipeline"
    with translated(), connection.cursor() as cursor:
        cursor.execute(
            f"SELECT p.pipeline, p.version, p.digest FROM pipelines AS p JOIN ({newest}) AS n"
            " ON n.pipeline = p.pipeline AND n.version = p.version ORDER BY p.pipeline"
        )
        return {str(row[0]): AppliedVersion(str(row[0]), int(row[1]), str(row[2])) for row in cursor.fetchall()}


def applied_version(settings: Settings, connection: Connection[Any], name: str) -> AppliedVersion:
    """The version of a pipeline that was applied last. It is not loaded, so it need not be valid.

    Raises:
        SpecError: there is neither an applied version nor a folder of this name.
        StreamError: no version was applied.
    """
    known, name = applied_versions(connection), name.rstrip("/")
    if name in known:
        return known[name]
    folders = folder_names(settings)
    if name not in folders:
        raise SpecError("TM-SPEC-PIPELINE-UNKNOWN", value=name, suggestion=suggestion(name, sorted({*known, *folders})))
    raise StreamError("TM-DEPLOY-NEVER-APPLIED", value=name, pipeline=name)


def load_applied(settings: Settings, applied: AppliedVersion) -> Pipeline:
    """Load an applied version.

    Raises:
        StreamError: neither its snapshot nor the pipeline's folder has its content.
        SpecError: the checks reject it.
    """
    name = applied.pipeline
    for folder in (_versions_folder(settings, name) / str(applied.version) / name, settings.pipelines / name):
        if _is_complete(folder, applied.digest):
            return load_pipeline(folder)
    raise StreamError("TM-DEPLOY-SNAPSHOT-MISSING", value=name, pipeline=name, version=applied.version)


def unapplied_changes(settings: Settings, pipeline: Pipeline, version: int) -> list[str]:
    """A warning if a pipeline's folder differs from the version that was applied last; none if it is the same."""
    name = pipeline.name
    if _is_complete(settings.pipelines / name, pipeline.digest):
        return []
    stays = f"version {version} of {name}, which was applied last, stays in use"
    if name not in folder_names(settings):
        return [f"{stays}, although its folder is missing in {settings.pipelines}"]
    try:
        load_pipeline(settings.pipelines / name)
    except SpecError as error:
        return [f"{stays}, because the folder is rejected: {error}"]
    return [f"{stays}: the folder has unapplied changes; run ./tidemill apply {name} to apply them"]


def folder_names(settings: Settings) -> list[str]:
    """The names of the pipeline folders, in order."""
    return sorted(path.parent.name for path in settings.pipelines.glob("*/pipeline.yaml"))


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
