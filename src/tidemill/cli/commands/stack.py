"""Commands for the embedded stack: up, down, status."""

from __future__ import annotations

from typing import Annotated

import typer

from tidemill.cli.commands.options import Json, print_facts
from tidemill.errors import SetupError


def up(
    until_scored: Annotated[
        bool, typer.Option("--until-scored", help="Exit with 0 once the first scores are published.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Flights to play; 0 plays all 336,776.", min=0)] = 100_000,
    speed: Annotated[str, typer.Option(help="Speed of the feed as a factor of real time, or max.")] = "max",
    chaos: Annotated[
        str, typer.Option(help="Faults added to the feed, e.g. duplicates=0.1,disorder=500,malformed=0.01.")
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of the random faults.")] = 1,
) -> None:
    """Start Kafka, MariaDB, Airflow and the streams on this machine, with real flights.

    Example: ./tidemill up --until-scored
    """
    from tidemill import config
    from tidemill.demo.feed import FeedOptions
    from tidemill.devstack.up import run

    run(
        config.load(),
        FeedOptions.parse(speed=speed, limit=limit or None, seed=seed, chaos=chaos),
        until_scored=until_scored,
    )


def down() -> None:
    """Stop everything that `up` started; the streams stop first and finish their batches.

    Example: ./tidemill down
    """
    from tidemill import config
    from tidemill.devstack import control

    if not control.down(config.load(), typer.echo):
        typer.echo("the stack was not running")


def status(as_json: Json = False) -> None:
    """Show the state of the stack, the streams and the models; exit code 3 if the stack is not running.

    Example: ./tidemill status --json
    """
    from tidemill import config
    from tidemill.devstack import control
    from tidemill.devstack.describe import describe_overview

    settings = config.load()
    try:
        control.require_database(settings)
    except SetupError as error:
        facts = control.stack_facts(settings) | {"problems": [str(error)]}
        print_facts(facts, as_json, ["stack: not running"])
        raise
    from tidemill.devstack.overview import overview

    facts = overview(settings)
    print_facts(facts, as_json, describe_overview(facts))
