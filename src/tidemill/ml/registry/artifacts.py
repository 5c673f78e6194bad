"""Where fitted models lie, in Spark's own format: a folder of this machine, or a URI of any file system of Hadoop's.

Everything here runs in the Spark job, which has Hadoop's client; a URI such as ``hdfs://…`` or ``s3a://…`` needs the
credentials and jars that Spark itself needs for it.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from tidemill.config import is_uri
from tidemill.errors import ModelError


def below(models: Path | str, *parts: str) -> str:
    """A place below the folder or the URI of all models."""
    return "/".join([str(models).rstrip("/"), *parts])


def for_spark(place: str) -> str:
    """A place as Spark is to be told: without a scheme it would look in the cluster's default file system."""
    return place if is_uri(place) else Path(place).absolute().as_uri()


def exists(place: str) -> bool:
    """Whether a fitted model lies there, by the folder that every one has."""
    inside = below(place, "metadata")
    if is_uri(place):
        return bool(_files(place).exists(_path(inside)))
    return Path(inside).is_dir()


def rename(old: str, new: str) -> None:
    """Give a fitted model its name, in place of what an interrupted training may have left under it.

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
        raise ModelError("a fitted model cannot be given its name", value=new, remedy="see the log of its file system")


def checksum(place: str) -> str:
    """SHA-256 over names and contents of a model's files, in order of name.

    Left out is what a copy may lack: Hadoop's own checksums and its marks of success.
    """
    with at_hand(place) as folder:
        return _checksum(folder)


@contextmanager
def at_hand(place: str) -> Iterator[Path]:
    """A folder of this machine with a model's files: where they lie, or a copy of them for as long as it is needed."""
    if not is_uri(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="tidemill-model-") as local:
        copy = Path(local, "model")
        _files(place).copyToLocalFile(False, _path(place), _path(copy.as_uri()), True)
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


def _jvm() -> Any:
    return SparkSession.active().sparkContext._jvm


def _path(place: str) -> Any:
    return _jvm().org.apache.hadoop.fs.Path(place)


def _files(place: str) -> Any:
    """The file system that a URI names, with Spark's configuration of it."""
    context: Any = SparkSession.active().sparkContext
    return _path(place).getFileSystem(context._jsc.hadoopConfiguration())
