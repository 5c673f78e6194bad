"""The group of commands ``tidemill models``: list, show, approve, reject, rollback."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from tidemill.cli.commands.options import Json, current_user, print_facts
from tidemill.cli.usage import Commands

app = typer.Typer(
    cls=Commands,
    invoke_without_command=True,
    rich_markup_mode=None,
    help="List models, show one, decide on a challenger, or roll back.\n\nExample: ./tidemill models",
)
Model = Annotated[str, typer.Argument(help="<pipeline>.<model>")]


@app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List models: the champion, its metric beside the baseline's, and the published version.

    Example: ./tidemill models show flights.late_arrival
    """
    if context.invoked_subcommand is not None:
        return
    from tidemill import config
    from tidemill.config import Account
    from tidemill.deploy.snapshots import applied_pipelines
    from tidemill.devstack.describe import describe_model
    from tidemill.ml.serving.publish import model_status
    from tidemill.store.connection import session

    settings = config.load()
    with session(settings, Account.READ) as connection:
        rows = [
            dataclasses.asdict(row)
            for pipeline in applied_pipelines(settings, connection)
            for row in model_status(connection, settings, pipeline)
        ]
    print_facts(rows, as_json, [describe_model(row) for row in rows])


@app.command()
def show(model: Model, as_json: Json = False) -> None:
    """Show a model's versions with their metrics, its drift, and the decisions about it.

    Example: ./tidemill models show flights.late_arrival
    """
    from tidemill import config
    from tidemill.cli.model_report import describe
    from tidemill.config import Account
    from tidemill.ml.registry.history import read_history
    from tidemill.ml.registry.review import find_model, split_name
    from tidemill.store.connection import session

    settings = config.load()
    split_name(model)  # before any request to a server
    with session(settings, Account.READ) as connection:
        spec, name = find_model(connection, settings, model)
        history = read_history(connection, spec.name, name, spec.models[name].promotion.metric)
    print_facts(dataclasses.asdict(history), as_json, describe(history))


@app.command()
def approve(
    model: Model,
    version: Annotated[int | None, typer.Option(help="Default: the version that waits for a decision.")] = None,
) -> None:
    """Promote the challenger that waits for a decision.

    Example: ./tidemill models approve flights.late_arrival
    """
    _act(model, "approve", version)


@app.command()
def reject(
    model: Model,
    version: Annotated[int | None, typer.Option(help="Default: the version that waits for a decision.")] = None,
) -> None:
    """Reject the challenger that waits for a decision; the champion stays.

    Example: ./tidemill models reject flights.late_arrival
    """
    _act(model, "reject", version)


@app.command()
def rollback(
    model: Model,
    to: Annotated[int | None, typer.Option(help="Default: the version that was published before.")] = None,
) -> None:
    """Go back to an earlier version at once: the champion, and the scores that readers see.

    Example: ./tidemill models rollback flights.late_arrival --to 3
    """
    _act(model, "rollback", to)


def _act(model: str, action: str, version: int | None) -> None:
    from tidemill import config
    from tidemill.config import Account
    from tidemill.ml.registry.review import apply_action
    from tidemill.store.connection import session

    settings = config.load()
    with session(settings, Account.STREAM) as connection:
        typer.echo(apply_action(connection, settings, model, action, version, current_user()))
