"""The assets of a pipeline, for Airflow's asset graph and for OpenLineage: tables, models, scores and commits.

An asset's URI names the pipeline and not the server, so that it stays the same when the database moves. Its scheme
begins with ``x-``, which Airflow reserves for schemes without a provider of their own: reading DAG files then loads no
other provider's rules. OpenLineage receives the dataset behind the asset (see ``docs/guide/airflow.md``).
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
    """The published scores, by the name of their table."""
    return _asset(pipeline, "scores", name)


def commits(pipeline: str, number: int) -> Asset:
    """Updated each time the stream has made this many commits."""
    watcher = AssetWatcher(name=f"{pipeline}: every {number} commits", trigger=CommitTrigger(pipeline, number))
    return _asset(pipeline, "commits", str(number), watchers=[watcher])


def _asset(pipeline: str, kind: str, name: str, **more: Any) -> Asset:
    return Asset(name=f"{pipeline}/{kind}/{name}", uri=f"{SCHEME}://{pipeline}/{kind}/{name}", **more)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check a URI of this scheme for Airflow and return it unchanged: each asset has exactly one spelling.

    Raises:
        ValueError: the URI does not name a pipeline and an asset of it.
    """
    if not uri.netloc or len(uri.path.strip("/").split("/")) != 2:
        raise ValueError(f"an asset URI of Tidemill has the form {SCHEME}://<pipeline>/<kind>/<name>: {uri.geturl()}")
    return uri


def to_openlineage(asset: Any, lineage_context: Any = None) -> Any:
    """The OpenLineage dataset behind an asset, named as OpenLineage names MySQL tables. Called by its provider only."""
    from openlineage.client.event_v2 import Dataset  # noqa: PLC0415 -- installed wherever this is called

    settings, parts = config.load(), urlsplit(asset.uri)
    kind, name = parts.path.strip("/").split("/")
    server = f"{settings.db_host}:{settings.db_port}"
    if kind == "models":
        return Dataset(namespace=f"tidemill://{server}/{settings.db_control}", name=f"{parts.netloc}.{name}")
    table = f"{settings.db_control}.commits" if kind == "commits" else f"{settings.db_data}.{name}"
    return Dataset(namespace=f"mysql://{server}", name=table)
