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
    """The named pipelines, or all.

    Raises:
        SpecError: a folder is missing or wrong, or there is none at all.
    """
    from tidemill.errors import SpecError
    from tidemill.spec import load_pipeline, load_pipelines

    if not names:
        pipelines = list(load_pipelines(settings.pipelines).values())
        if not pipelines:
            raise SpecError("TM-CLI-NO-PIPELINES", value=settings.pipelines)
        return pipelines
    return [load_pipeline(settings.pipelines / name) for name in names]


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
