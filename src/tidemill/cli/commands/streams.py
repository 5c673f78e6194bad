"""Commands for streams and what they have written: start, stop, restart, verify, maintain, quarantine, replay."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Any

import typer

from tidemill.cli.commands.options import Json, Name, Names, current_user, print_facts, read_applied
from tidemill.errors import VerifyError


def start(stream: Name) -> None:
    """Request that a stream starts; Airflow starts its driver. This also closes an open circuit of the stream.

    Example: ./tidemill start flights
    """
    _request(stream, "running")


def stop(stream: Name) -> None:
    """Request that a stream stops; its driver finishes its batch and exits.

    Example: ./tidemill stop flights
    """
    _request(stream, "stopped")


def restart(
    stream: Name,
    wait_seconds: Annotated[
        float, typer.Option(help="How long to wait for the next driver; 0 does not wait.", min=0)
    ] = 180,
) -> None:
    """Request that a stream's driver exits after its batch, and wait until the next driver reads.

    Example: ./tidemill restart flights
    """
    from tidemill import config
    from tidemill.cli.restart import restart as restart_stream
    from tidemill.config import Account
    from tidemill.deploy.snapshots import applied_version
    from tidemill.store.connection import session

    settings = config.load()
    with session(settings, Account.STREAM) as connection:
        stream = applied_version(settings, connection, stream).pipeline
    epoch = restart_stream(settings, stream, current_user(), wait_seconds)
    typer.echo(f"{stream}: restart requested" if epoch is None else f"{stream}: running, epoch {epoch}")


def _request(stream: str, desired_state: str) -> None:
    from tidemill import config
    from tidemill.config import Account
    from tidemill.deploy.snapshots import applied_version
    from tidemill.store.connection import session
    from tidemill.store.control.streams import request_state

    settings = config.load()
    with session(settings, Account.STREAM) as connection:
        # The version is not loaded: one that is no longer valid must not keep a person from stopping its stream.
        stream = applied_version(settings, connection, stream).pipeline
        request_state(connection, stream, desired_state, current_user())
    typer.echo(f"{stream}: desired state is {desired_state}")


def verify(
    names: Names = None,
    deep: Annotated[bool, typer.Option("--deep", help="Verify all commits, and count the records in Kafka.")] = False,
    as_json: Json = False,
) -> None:
    """Compare the ledger with itself, with Kafka and with the tables; exit code 1 if they differ.

    The ledger is compared from where the last verification found it right; with --deep from its beginning.

    Example: ./tidemill verify flights --deep
    """
    from tidemill import config
    from tidemill.kafka.audit import count_records
    from tidemill.kafka.clients import admin
    from tidemill.supervisor.maintenance import verify_pipeline

    settings = config.load()
    facts: dict[str, list[str]] = {}
    notes: list[str] = []
    for pipeline in read_applied(settings, names):
        findings = verify_pipeline(settings, pipeline, admin(settings), whole=deep)
        facts[pipeline.name] = [*findings.differences, *(count_records(settings, pipeline) if deep else ())]
        notes += [f"{pipeline.name}: {note}" for note in findings.notes]
    lines = [f"{name}: {difference}" for name, differences in facts.items() for difference in differences]
    print_facts(facts, as_json, [*(lines or [f"{name}: ledger, Kafka and tables agree" for name in facts]), *notes])
    if lines:
        raise VerifyError("TM-CLI-VERIFY-DIFFERENCES", value=lines[0], count=len(lines))


def maintain(
    names: Names = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Compact the ledger, and remove what is past its retention: rows, quarantined records, old scores, files.

    Example: ./tidemill maintain --dry-run
    """
    from tidemill import config
    from tidemill.supervisor.maintenance import describe, maintain_files, maintain_pipeline

    settings = config.load()
    facts = {each.name: maintain_pipeline(settings, each, dry_run=dry_run) for each in read_applied(settings, names)}
    if not names:
        facts["files"] = maintain_files(settings, dry_run=dry_run)
    prefix = "would be done: " if dry_run else ""
    print_facts(facts, as_json, [f"{name}: {prefix}{line}" for name, row in facts.items() for line in describe(row)])


def quarantine(
    stream: Name,
    *,
    reason: Annotated[str | None, typer.Option(help="Only records whose reason contains this text.")] = None,
    ids: Annotated[list[int] | None, typer.Option("--id", help="Only this record; may be repeated.")] = None,
    show: Annotated[int | None, typer.Option(help="Print key, value and headers of the record with this id.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also records that a replay has turned into rows.")] = False,
    limit: Annotated[int, typer.Option(help="How many of the newest records to list.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """List records that could not become rows, with their coordinates in Kafka and the reason.

    Example: ./tidemill quarantine flights --reason "not JSON" --limit 5
    """
    from tidemill import config
    from tidemill.cli.quarantine import list_records, show_record
    from tidemill.config import Account
    from tidemill.deploy.snapshots import applied_version
    from tidemill.store.connection import session
    from tidemill.store.control.quarantine import QuarantineFilter

    settings = config.load()
    with session(settings, Account.READ) as connection:
        stream = applied_version(settings, connection, stream).pipeline
    facts: Any
    if show is not None:
        facts, lines = show_record(settings, stream, show)
    else:
        facts, lines = list_records(settings, stream, QuarantineFilter(reason, tuple(ids or ()), everything), limit)
    print_facts(facts, as_json, lines)


def replay(
    stream: Name,
    *,
    offsets: Annotated[str | None, typer.Option(help="E.g. 0:100-200,1:0-50; the end is not included.")] = None,
    from_time: Annotated[
        str | None, typer.Option("--from", help="earliest, or an ISO time; UTC if it has no zone.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="ISO time; default: now.")] = None,
    from_quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Read the records that could not become rows.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(help="Only quarantined records whose reason contains this text.")
    ] = None,
    ids: Annotated[
        list[int] | None, typer.Option("--id", help="Only this quarantined record; may be repeated.")
    ] = None,
    resume: Annotated[int | None, typer.Option(help="Continue a failed replay, by its id.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Read records again beside the running stream: after a fix of the transform, or from the quarantine.

    Example: ./tidemill replay flights --from earliest --dry-run
    """
    from tidemill import config
    from tidemill.cli.replay import request_here, request_of, run_here
    from tidemill.replay.request import check_request, describe

    settings = config.load()
    options = {"offsets": offsets, "since": from_time, "until": until, "reason": reason}
    chosen = {name: value for name, value in options.items() if value is not None}
    if resume is not None and (chosen or ids or from_quarantine or dry_run):
        raise typer.BadParameter("a replay continues with what it was requested with", param_hint="'--resume'")
    request = None
    if resume is None:
        request = request_of(chosen, tuple(ids or ()), from_quarantine=from_quarantine, dry_run=dry_run)
        check_request(request)  # before any request to a server
    [pipeline] = read_applied(settings, [stream])
    if resume is None:
        assert request is not None
        resume = request_here(settings, pipeline, request, current_user())
        sys.stderr.write(f"replay {resume} begins\n")
    done = run_here(settings, pipeline, resume)
    print_facts(dataclasses.asdict(done), as_json, describe(done))
