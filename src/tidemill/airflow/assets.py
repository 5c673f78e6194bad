"""What Airflow's asset graph, and OpenLineage, show of a pipeline: tables, models, scores, and its commits.

An asset's URI names the pipeline and not the server, so that it stays what it is when the database moves. The scheme
begins with ``x-``, which Airflow keeps for what nobody else defines: it looks for no other provider's rules while DAG
files are read. OpenLineage gets the dataset that is meant (see ``docs/guide/airflow.md``).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, urlsplit

from airflow.sdk import Asset, AssetWatcher

from tidemill import config
from tidemill.airflow.triggers.commit_events import CommitTrigger

SCHEME = "x-tidemill"


def table(pipeline: str, name: str) -> Asset:
    """An operational table."""
    return _asset(pipeline, "tables", name)


def model(pipeline: str, name: str) -> Asset:
    """A model, whichever version is champion."""
    return _asset(pipeline, "models", name)


def scores(pipeline: str, name: str) -> Asset:
    """The scores that readers see, by the name of their table."""
    return _asset(pipeline, "scores", name)


def commits(pipeline: str, number: int) -> Asset:
    """Updated whenever the stream has made so many commits."""
    watcher = AssetWatcher(name=f"{pipeline}: {number} commits", trigger=CommitTrigger(pipeline, number))
    return _asset(pipeline, "commits", str(number), watchers=[watcher])


def _asset(pipeline: str, kind: str, name: str, **more: Any) -> Asset:
    return Asset(name=f"{pipeline}/{kind}/{name}", uri=f"{SCHEME}://{pipeline}/{kind}/{name}", **more)


def keep_uri(uri: SplitResult) -> SplitResult:
    """A URI of ours as it is, for Airflow. There is one way to write each.

    Raises:
        ValueError: it names no pipeline, or nothing in it.
    """
    if not uri.netloc or len(uri.path.strip("/").split("/")) != 2:
        raise ValueError(f"a URI of ours is {SCHEME}://<pipeline>/<kind>/<name>")
    return uri


def to_openlineage(asset: Any, lineage_context: Any = None) -> Any:
    """The dataset that an asset stands for, by OpenLineage's names for MySQL. Called by its provider only."""
    from openlineage.client.event_v2 import Dataset  # noqa: PLC0415 -- a provider that is there where it is used

    settings, parts = config.load(), urlsplit(asset.uri)
    kind, name = parts.path.strip("/").split("/")
    server = f"{settings.db_host}:{settings.db_port}"
    if kind == "models":
        return Dataset(namespace=f"tidemill://{server}/{settings.db_control}", name=f"{parts.netloc}.{name}")
    table = f"{settings.db_control}.commits" if kind == "commits" else f"{settings.db_data}.{name}"
    return Dataset(namespace=f"mysql://{server}", name=table)
