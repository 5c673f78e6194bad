"""The artifacts of models: Spark's own format, in a folder of this machine or behind a URI that Hadoop's client reads.

Runs in the Spark jobs, whose JVM has Hadoop's client. A URI such as ``hdfs://…`` or ``s3a://…`` needs the credentials
and jars that Spark itself needs for it. PySpark is imported when the first URI is met.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tidemill.config import folder_of, is_uri
from tidemill.errors import ModelError


def location_below(models: Path | str, *parts: str) -> str:
    """A location below the folder or the URI of all models."""
    return "/".join([str(models).rstrip("/"), *parts])


def for_spark(location: str) -> str:
    """A location as Hadoop reads one: Spark looks up one without a scheme in the cluster's default file system.

    Hadoop takes the characters of a location as they are. It would not decode a blank or an umlaut that a URI escapes,
    but write to another folder, with ``%20`` in its name.
    """
    folder = folder_of(location)
    return location if folder is None else f"file://{folder.absolute()}"


def exists(location: str) -> bool:
    """Whether a location holds a fitted model, by the folder ``metadata`` that every one has."""
    inside = location_below(location, "metadata")
    if is_uri(location):
        return bool(_files(location).exists(_path(inside)))
    return Path(inside).is_dir()


def rename(old: str, new: str) -> None:
    """Move a fitted model to its final location, and replace what an interrupted training may have left there.

    Raises:
        ModelError: the file system refuses.
    """
    if not is_uri(old):
        shutil.rmtree(new, ignore_errors=True)
        Path(old).rename(new)
        return
    files = _files(old)
    files.delete(_path(new), True)
    if not files.rename(_path(old), _path(new)):
        raise ModelError("TM-ML-ARTIFACT-NOT-MOVED", value=old, location=new)


def checksum(location: str) -> str:
    """SHA-256 over names and contents of a model's files, in order of name.

    It leaves out the files that a copy may lack: Hadoop's own checksums and ``_SUCCESS``.
    """
    with local_copy(location) as folder:
        return _checksum(folder)


@contextmanager
def local_copy(location: str) -> Iterator[Path]:
    """A folder of this machine with a model's files: their own, or a copy that is removed after the block."""
    if not is_uri(location):
        yield Path(location)
        return
    with tempfile.TemporaryDirectory(prefix="tidemill-model-") as local:
        copy = Path(local, "model")
        _files(location).copyToLocalFile(False, _path(location), _path(str(copy)), True)
        yield copy


def _checksum(folder: Path) -> str:
    digest = hashlib.sha256()
    for inside in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        name = inside.rpartition("/")[2]
        if name == "_SUCCESS" or name.endswith(".crc"):
            continue
        content = (folder / inside).read_bytes()
        digest.update(f"{inside}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _spark() -> Any:
    from pyspark.sql import SparkSession  # noqa: PLC0415 -- Airflow and the command line import the registry, too

    return SparkSession.active()


def _jvm() -> Any:
    return _spark().sparkContext._jvm


def _path(location: str) -> Any:
    return _jvm().org.apache.hadoop.fs.Path(for_spark(location))


def _files(location: str) -> Any:
    """The file system that a URI names, with Spark's configuration of it."""
    context = _spark().sparkContext
    return _path(location).getFileSystem(context._jsc.hadoopConfiguration())
