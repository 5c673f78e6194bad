"""``tidemill models``: where the models stand, what is known of one, and what a person decides about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from getpass import getuser
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill import config
from tidemill.config import Account
from tidemill.spec import load_pipelines

if TYPE_CHECKING:
    from tidemill.ml.registry.history import ModelHistory, VersionRecord

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="List models, show one, approve or reject what waits, or roll back.\n\nExample: ./tidemill models",
)
Model = Annotated[str, typer.Argument(help="<pipeline>.<model>")]
Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]
_TOP = 5
"""Of the importance of features, so many."""


@app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List models: champion, its measure beside the baseline's, what is published.

    Example: ./tidemill models show flights.late_arrival
    """
    if context.invoked_subcommand is not None:
        return
    from tidemill.devstack.overview import describe_model  # noqa: PLC0415
    from tidemill.ml.serving.publish import model_status  # noqa: PLC0415 -- each command loads only what it needs
    from tidemill.store.connection import session  # noqa: PLC0415

    settings = config.load()
    with session(settings, Account.READ) as connection:
        rows = [
            row for p in load_pipelines(settings.pipelines).values() for row in model_status(connection, settings, p)
        ]
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(row) for row in rows], default=str, indent=1))
    for row in () if as_json else rows:
        typer.echo(describe_model(row))


@app.command()
def show(model: Model, as_json: Json = False) -> None:
    """Show a model's versions with their measures, its drift, and what was decided.

    Example: ./tidemill models show flights.late_arrival
    """
    from tidemill.ml.registry.history import read_history  # noqa: PLC0415
    from tidemill.ml.registry.review import find_model  # noqa: PLC0415
    from tidemill.store.connection import session  # noqa: PLC0415

    settings = config.load()
    spec, name = find_model(settings, model)
    with session(settings, Account.READ) as connection:
        found = read_history(connection, spec.name, name, spec.models[name].promotion.metric)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), default=str, indent=1))
    for line in () if as_json else describe(found):
        typer.echo(line)


@app.command()
def approve(
    model: Model, version: Annotated[int | None, typer.Option(help="The one that waits, if left out.")] = None
) -> None:
    """Let the challenger that waits become champion.

    Example: ./tidemill models approve flights.late_arrival
    """
    _act(model, "approve", version)


@app.command()
def reject(
    model: Model, version: Annotated[int | None, typer.Option(help="The one that waits, if left out.")] = None
) -> None:
    """Reject the challenger that waits; the champion stays.

    Example: ./tidemill models reject flights.late_arrival
    """
    _act(model, "reject", version)


@app.command()
def rollback(
    model: Model,
    to: Annotated[int | None, typer.Option(help="A version; the one published before, if left out.")] = None,
) -> None:
    """Go back to an earlier version, at once: champion and what readers see.

    Example: ./tidemill models rollback flights.late_arrival --to 3
    """
    _act(model, "rollback", to)


def _act(model: str, action: str, version: int | None) -> None:
    from tidemill.ml.registry.review import apply_action  # noqa: PLC0415
    from tidemill.store.connection import session  # noqa: PLC0415

    settings = config.load()
    with session(settings, Account.STREAM) as connection:
        typer.echo(apply_action(connection, settings, model, action, version, f"{getuser()} by command"))


def describe(found: ModelHistory) -> Iterator[str]:
    """All of it, as lines."""
    champion, published = found.champion_version or "none", found.published_version or "none"
    yield f"{found.pipeline}.{found.model}: champion {champion}, published {published}"
    if found.waiting_version is not None:
        yield f"version {found.waiting_version} waits: ./tidemill models approve {found.pipeline}.{found.model}"
    for each in found.versions:
        yield from _version(each)
    if found.drift:
        yield f"drift (PSI) of {found.drift[0].drift_rows:,} new rows:"
    for feature in found.drift:
        allowed = "may move" if feature.allowed is None else f"{feature.allowed:g} allowed"
        yield f"  {feature.feature} {feature.psi:.3f} ({allowed}){', beyond' if feature.is_beyond else ''}"
    if found.decisions:
        yield "decisions:"
    for decision in found.decisions:
        yield (
            f"  {decision.decided_at:%Y-%m-%d %H:%M:%S} UTC: version {decision.version} {decision.verdict} "
            f"by {decision.decided_by}: {decision.reason}"
        )


def _version(each: VersionRecord) -> Iterator[str]:
    yield (
        f"version {each.version}, {each.state}: trained {each.trained_at:%Y-%m-%d %H:%M:%S} UTC on {each.train_rows:,} "
        f"rows, measured on {each.holdout_rows:,} of {each.holdout_from:%Y-%m-%d} to {each.holdout_until:%Y-%m-%d}"
    )
    for measure in each.measures:
        sure = (
            "" if measure.low is None or measure.high is None else f" (95 %: {measure.low:.4g} to {measure.high:.4g})"
        )
        rivals = {"champion": measure.champion, "baseline": measure.baseline}
        beside = [f"{name} {value:.4g}" for name, value in rivals.items() if value is not None]
        yield f"  {measure.metric} {_said(measure.value)}{sure}{'; ' if beside else ''}{', '.join(beside)}"
    if each.parameters:
        yield f"  parameters: {', '.join(f'{name} {value}' for name, value in each.parameters.items())}"
    if each.importance:
        first = list(each.importance.items())[:_TOP]
        yield f"  by importance: {', '.join(f'{name} {part:.2f}' for name, part in first)}"
    if each.calibration:
        tenths = (f"{tenth['predicted']:.2f}→{tenth['observed']:.2f}" for tenth in each.calibration)
        yield f"  predicted→observed: {' '.join(tenths)}"


def _said(value: Any) -> str:
    return "could not be measured" if value is None else f"{value:.4g}"
