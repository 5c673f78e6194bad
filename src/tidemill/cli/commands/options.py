"""Options and arguments that several commands share, and how commands print."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tidemill.config import Settings
    from tidemill.spec import Pipeline

Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]
Name = Annotated[str, typer.Argument(help="Name of a folder in pipelines/.")]
Names = Annotated[list[str] | None, typer.Argument(help="Names of folders in pipelines/; default: all.")]


def read_pipelines(settings: Settings, names: list[str] | None) -> list[Pipeline]:
    """The named pipelines, or all, as their folders are: for ``check``, ``plan`` and ``apply``, and no other command.

    Raises:
        SpecError: a folder is missing or wrong, or there is none at all, or two declare one table.
    """
    from tidemill.errors import SpecError
    from tidemill.spec import load_pipeline, load_pipelines
    from tidemill.spec.declared_objects import refuse_shared
    from tidemill.spec.dimension_files import check_dimension_files

    if names:
        pipelines = [load_pipeline(settings.pipelines / name) for name in names]
    else:
        pipelines = list(load_pipelines(settings.pipelines).values())
    if not pipelines:
        raise SpecError("TM-CLI-NO-PIPELINES", value=settings.pipelines)
    for pipeline in pipelines:
        check_dimension_files(pipeline)
    refuse_shared(pipelines)
    return pipelines


def read_applied(settings: Settings, names: list[str] | None) -> list[Pipeline]:
    """The named pipelines, or all, as they were applied last. Warns on standard error of folders that differ.

    Raises:
        SpecError: there is no pipeline of a name, or an applied version is not valid.
        StreamError: one was never applied, or its applied version is not stored on this machine.
    """
    from tidemill.config import Account
    from tidemill.deploy import snapshots
    from tidemill.store.connection import session

    with session(settings, Account.READ) as connection:
        chosen = names or [each.pipeline for each in snapshots.applied_here(settings, connection)]
        found = [snapshots.applied_pipeline(settings, connection, name) for name in chosen]
    for pipeline, version in found:
        for warning in snapshots.unapplied_changes(settings, pipeline, version):
            typer.echo(f"note: {warning}", err=True)
    return [pipeline for pipeline, _ in found]


def print_facts(facts: Any, as_json: bool, lines: Iterable[str]) -> None:
    """Print facts as JSON, or the lines that describe them."""
    if as_json:
        typer.echo(json.dumps(facts, default=str, indent=1))
        return
    for line in lines:
        typer.echo(line)


def current_user() -> str:
    """Who requests something by command, as the control plane records it."""
    from getpass import getuser

    return f"{getuser()} by command"
