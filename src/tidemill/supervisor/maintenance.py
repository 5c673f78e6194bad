"""Maintenance as a command and as a task: both make the same calls; differences that are found become an incident."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from confluent_kafka.admin import AdminClient

from tidemill.config import Account, Settings
from tidemill.errors import VerifyError
from tidemill.kafka.topics import offsets_at
from tidemill.ml.registry.pruning import prune_versions
from tidemill.spec import Pipeline
from tidemill.store.connection import session
from tidemill.store.control import incidents, streams
from tidemill.store.maintenance.run import maintain
from tidemill.store.maintenance.verify import Findings, record_verified, verify_snapshot
from tidemill.supervisor.cleanup import remove_stale_files

LEDGER = "ledger"
"""Kind of the incident that is open while a verification finds differences."""


def maintain_pipeline(settings: Settings, pipeline: Pipeline, *, dry_run: bool = False) -> dict[str, Any]:
    """Maintain a pipeline's tables, ledger and models; returns counts by name."""
    with session(settings, Account.STREAM) as connection:
        maintained = maintain(connection, settings, pipeline, dry_run=dry_run)
        pruned = prune_versions(connection, settings, pipeline, dry_run=dry_run)
    return dataclasses.asdict(maintained) | dataclasses.asdict(pruned)


def maintain_files(settings: Settings, *, dry_run: bool = False) -> dict[str, int]:
    """Remove the files that former drivers left on this machine; returns counts by name."""
    with session(settings, Account.STREAM) as connection:
        epochs = {row.stream: int(row.epoch) for row in streams.read_streams(connection)}
    return dataclasses.asdict(remove_stale_files(settings, epochs, dry_run=dry_run))


def verify_pipeline(settings: Settings, pipeline: Pipeline, client: AdminClient, *, whole: bool = False) -> Findings:
    """Verify a pipeline beside its running stream, Kafka included.

    Args:
        settings: where the database is.
        pipeline: which is verified.
        client: of the pipeline's Kafka.
        whole: whether the ledger is verified from its beginning, and not from where the last verification ended.
    """
    offsets = partial(offsets_at, client, pipeline.source.topic)
    with session(settings, Account.READ) as connection:
        findings = verify_snapshot(connection, settings, pipeline, offsets, whole=whole)
    with session(settings, Account.STREAM) as connection:
        record_verified(connection, pipeline.name, findings)
    return findings


def verify_and_report(settings: Settings, pipeline: Pipeline, client: AdminClient) -> Findings:
    """Verify a pipeline; differences open an incident of its stream, which closes when a verification finds none.

    Raises:
        VerifyError: there are differences; its value is the first one.
    """
    findings = verify_pipeline(settings, pipeline, client)
    subject = f"stream {pipeline.name}"
    with session(settings, Account.STREAM) as connection:
        if findings.differences:
            more = len(findings.differences) - 1
            sentence = findings.differences[0] + (f"; and {more} more" if more else "")
            incidents.open_incident(connection, subject, LEDGER, sentence)
        else:
            incidents.close_incident(connection, subject, LEDGER)
    if findings.differences:
        raise VerifyError("TM-SUPERVISOR-VERIFY-DIFFERENCES", pipeline=pipeline.name, value=findings.differences[0])
    return findings


def describe(facts: dict[str, Any]) -> list[str]:
    """Counts as ``3 merged commits, 20 removed rows (trips)``, and the notes after them."""
    parts = []
    for name, value in facts.items():
        counts = {f" ({table})": number for table, number in value.items()} if isinstance(value, dict) else {"": value}
        parts += [
            f"{number} {name.replace('_', ' ')}{of}"
            for of, number in counts.items()
            if isinstance(number, int) and number
        ]
    return [", ".join(parts) or "nothing to do", *facts.get("notes", [])]
