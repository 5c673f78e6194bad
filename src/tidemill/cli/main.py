"""The command line: options, then settings, then one call.

Exit codes: 0 done; 1 something does not agree (``verify``, ``test``); 2 wrong usage, setting or pipeline; 3 the machine
or the stack is not ready; 4 Kafka; 5 the database; 6 fenced; 7 a stream; 8 a model.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Iterable
from getpass import getuser
from typing import Annotated, Any, NoReturn

import click
import typer

from tidemill import config
from tidemill.cli.models import app as models_app
from tidemill.config import Account, Settings
from tidemill.errors import SpecError, TidemillError, VerifyError
from tidemill.spec import Pipeline, load_pipeline, load_pipelines

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Kafka, Spark, a MySQL-protocol database and Airflow as one exactly-once platform.",
)

app.add_typer(models_app, name="models")

Json = Annotated[bool, typer.Option("--json", help="Print facts as JSON.")]
Name = Annotated[str, typer.Argument(help="Name of a folder in pipelines/.")]
Names = Annotated[list[str] | None, typer.Argument(help="Names of folders in pipelines/; all if none is given.")]


def main() -> None:
    """Run a command; an error is one sentence on standard error, and its traceback only under ``--debug``."""
    try:
        code = app(standalone_mode=False)
    except TidemillError as error:
        _fail(str(error), error.exit_code)
    except click.UsageError as error:
        _fail(f"{error.format_message()}; see ./tidemill --help", 2)
    except click.Abort:
        _fail("interrupted", 130)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    else:
        sys.exit(code or 0)


def _fail(sentence: str, code: int) -> None:
    if os.environ.get("_TIDEMILL_DEBUG"):
        traceback.print_exc()
    sys.stderr.write(f"tidemill: {sentence}\n")
    sys.exit(code)


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["_TIDEMILL_DEBUG"] = "1"


@app.command()
def up(
    until_scored: Annotated[
        bool, typer.Option("--until-scored", help="Leave with 0 once the first scores are published.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Flights to play; 0 is all 336,776.", min=0)] = 100_000,
    speed: Annotated[str, typer.Option(help="How many times real time the feed plays, or max.")] = "max",
    chaos: Annotated[str, typer.Option(help="Disturb the feed, e.g. duplicates=0.1,disorder=500,malformed=0.01.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the disturbance.")] = 1,
) -> None:
    """Start the whole trinity here, on real flights.

    Example: ./tidemill up --until-scored
    """
    from tidemill.demo.feed import FeedOptions  # noqa: PLC0415 -- each command loads only what it needs
    from tidemill.devstack.up import run  # noqa: PLC0415

    run(
        config.load(),
        FeedOptions.parse(speed=speed, limit=limit or None, seed=seed, chaos=chaos),
        until_scored=until_scored,
    )


@app.command()
def down() -> None:
    """Stop everything that `up` started, streams first and gracefully.

    Example: ./tidemill down
    """
    from tidemill.devstack.control import down as stop  # noqa: PLC0415

    if not stop(config.load(), typer.echo):
        typer.echo("nothing was up")


@app.command()
def status(as_json: Json = False) -> None:
    """Say what runs, how far it is, and what it has learned.

    Example: ./tidemill status --json
    """
    from tidemill.devstack.overview import overview, render  # noqa: PLC0415

    settings = config.load()
    facts = overview(settings, load_pipelines(settings.pipelines))
    _print_facts(facts, as_json, render(facts))


@app.command()
def check(names: Names = None, as_json: Json = False) -> None:
    """Check pipeline folders without any server.

    Example: ./tidemill check flights
    """
    settings = config.load()
    found = [{"pipeline": p.name, "digest": p.digest, "tables": [*p.tables]} for p in _chosen(settings, names)]
    _print_facts(found, as_json, [f"{row['pipeline']} is right" for row in found])


@app.command()
def plan(names: Names = None, as_json: Json = False) -> None:
    """Show what `apply` would create, without changing anything.

    Example: ./tidemill plan flights
    """
    from tidemill.deploy.apply import plan_pipeline  # noqa: PLC0415

    settings = config.load()
    steps = [step for pipeline in _chosen(settings, names) for step in plan_pipeline(settings, pipeline)]
    _print_facts(steps, as_json, steps or ["nothing to do"])


@app.command()
def apply(names: Names = None) -> None:
    """Create topics, tables, rollups and views that are missing, and register the pipelines' versions.

    Example: ./tidemill apply
    """
    from tidemill.deploy.apply import apply_all  # noqa: PLC0415

    settings = config.load()
    apply_all(settings, _chosen(settings, names), typer.echo)


@app.command()
def start(stream: Name) -> None:
    """Wish a stream to run; Airflow starts its driver. Resets a halted stream.

    Example: ./tidemill start flights
    """
    _wish(stream, "running")


@app.command()
def stop(stream: Name) -> None:
    """Wish a stream to stop; its driver finishes its batch and leaves.

    Example: ./tidemill stop flights
    """
    _wish(stream, "stopped")


@app.command()
def restart(
    stream: Name,
    wait_seconds: Annotated[float, typer.Option(help="How long the next driver may take; 0 only asks.", min=0)] = 180,
) -> None:
    """Have a stream's driver finish its batch and leave, and wait until the next one reads.

    Example: ./tidemill restart flights
    """
    from tidemill.cli.restart import restart as request_state  # noqa: PLC0415
    from tidemill.deploy.catalog import find_pipeline  # noqa: PLC0415

    settings = config.load()
    find_pipeline(settings, stream)
    epoch = request_state(settings, stream, f"{getuser()} by command", wait_seconds)
    typer.echo(f"{stream} is wanted running, with another driver" if epoch is None else f"{stream} runs: epoch {epoch}")


@app.command()
def verify(
    names: Names = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also count the records that Kafka still has.")] = False,
    as_json: Json = False,
) -> None:
    """Prove the ledger against itself, against Kafka and against the tables; exit 1 names the first difference.

    Example: ./tidemill verify flights --deep
    """
    from tidemill.kafka.audit import count_records  # noqa: PLC0415
    from tidemill.kafka.topics import admin  # noqa: PLC0415
    from tidemill.supervisor.maintenance import verify_pipeline  # noqa: PLC0415

    settings = config.load()
    found: dict[str, list[str]] = {}
    notes: list[str] = []
    for pipeline in _chosen(settings, names):
        findings = verify_pipeline(settings, pipeline, admin(settings))
        found[pipeline.name] = [*findings.differences, *(count_records(settings, pipeline) if deep else ())]
        notes += [f"{pipeline.name}: {note}" for note in findings.notes]
    lines = [f"{name}: {difference}" for name, rows in found.items() for difference in rows]
    _print_facts(found, as_json, [*(lines or [f"{name}: ledger, Kafka and tables agree" for name in found]), *notes])
    if lines:
        raise VerifyError("not everything agrees", value=lines[0], remedy="see docs/operations.md")


@app.command()
def maintain(
    names: Names = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing and say what would change.")] = False,
    as_json: Json = False,
) -> None:
    """Shorten the ledger, and remove what has had its time: rows, quarantined records, old scores, files.

    Example: ./tidemill maintain --dry-run
    """
    from tidemill.supervisor.maintenance import describe, maintain_files, maintain_pipeline  # noqa: PLC0415

    settings = config.load()
    facts = {p.name: maintain_pipeline(settings, p, dry_run=dry_run) for p in _chosen(settings, names)}
    if not names:
        facts["files"] = maintain_files(settings, dry_run=dry_run)
    said = "would be done: " if dry_run else ""
    _print_facts(facts, as_json, [f"{name}: {said}{line}" for name, row in facts.items() for line in describe(row)])


@app.command()
def quarantine(
    stream: Name,
    *,
    reason: Annotated[str | None, typer.Option(help="Part of the reason.")] = None,
    ids: Annotated[list[int] | None, typer.Option("--id", help="Only this record; may be repeated.")] = None,
    show: Annotated[int | None, typer.Option(help="Print key, value and headers of one record, by id.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that a replay has made sound, too.")] = False,
    limit: Annotated[int, typer.Option(help="Newest records to show.", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """List records that could not become rows: where they stand in Kafka, and why.

    Example: ./tidemill quarantine flights --reason "not a JSON" --limit 5
    """
    from tidemill.cli.quarantine import list_records, show_record  # noqa: PLC0415
    from tidemill.store.control.quarantine import QuarantineFilter  # noqa: PLC0415

    settings = config.load()
    load_pipeline(settings.pipelines / stream)
    facts: Any
    if show is not None:
        facts, lines = show_record(settings, stream, show)
    else:
        facts, lines = list_records(settings, stream, QuarantineFilter(reason, tuple(ids or ()), everything), limit)
    _print_facts(facts, as_json, lines)


@app.command()
def replay(
    stream: Name,
    *,
    offsets: Annotated[str | None, typer.Option(help="E.g. 0:100-200,1:0-50; the end is not included.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="earliest, or an ISO time; UTC without a zone.")] = None,
    until: Annotated[str | None, typer.Option(help="ISO time; up to now if it is left out.")] = None,
    from_quarantine: Annotated[bool, typer.Option("--quarantine", help="What could not become rows.")] = False,
    reason: Annotated[str | None, typer.Option(help="Of the quarantine: part of the reason.")] = None,
    ids: Annotated[list[int] | None, typer.Option("--id", help="Of the quarantine; may be repeated.")] = None,
    resume: Annotated[int | None, typer.Option(help="Go on with a replay that failed, by its id.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Read records again, beside the running stream: after a mended transform, or what was quarantined.

    Example: ./tidemill replay flights --from earliest --dry-run
    """
    from tidemill.cli.replay import request_here, request_of, run_here  # noqa: PLC0415
    from tidemill.replay.request import describe  # noqa: PLC0415

    settings = config.load()
    pipeline = load_pipeline(settings.pipelines / stream)
    if resume is None:
        options = {"offsets": offsets, "since": since, "until": until, "reason": reason}
        given = {name: value for name, value in options.items() if value is not None}
        asked = request_of(given, tuple(ids or ()), from_quarantine=from_quarantine, dry_run=dry_run)
        resume = request_here(settings, pipeline, asked, f"{getuser()} by command")
        sys.stderr.write(f"replay {resume} begins\n")
    done = run_here(settings, pipeline, resume)
    _print_facts(dataclasses.asdict(done), as_json, describe(done))


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def test(context: typer.Context) -> None:
    """Run the project's tests, or one pipeline's cases; further arguments go to pytest.

    Examples: ./tidemill test, ./tidemill test flights, ./tidemill test -m unit
    """
    settings = config.load()
    given = list(context.args)
    if given and (settings.pipelines / given[0]).is_dir():
        given = ["tests/spark/test_cases.py", "--pipeline", *given]
    _become(settings, "-m", "pytest", *given)


@app.command()
def bench(name: Annotated[str, typer.Argument(help="Name of a file in bench/.")] = "ingest") -> None:
    """Measure, on servers of its own: ratios within one run, medians of several.

    Example: ./tidemill bench ingest
    """
    settings = config.load()
    known = sorted(path.stem for path in (settings.root / "bench").glob("[!_]*.py"))
    if name not in known:
        raise SpecError("no such bench", value=name, remedy=f"there are: {', '.join(known)}")
    _become(settings, f"bench/{name}.py")


def _become(settings: Settings, *words: str) -> NoReturn:
    """Let Python take this process over: as our child it would be killed at Ctrl-C, before its servers are stopped."""
    sys.stdout.flush()
    os.chdir(settings.root)
    os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 -- the words are ours and the user's own


def _chosen(settings: Settings, names: list[str] | None) -> list[Pipeline]:
    if not names:
        return list(load_pipelines(settings.pipelines).values())
    return [load_pipeline(settings.pipelines / name) for name in names]


def _wish(stream: str, wanted: str) -> None:
    from tidemill.deploy.catalog import find_pipeline  # noqa: PLC0415
    from tidemill.store.connection import session  # noqa: PLC0415
    from tidemill.store.control.streams import request_state  # noqa: PLC0415

    settings = config.load()
    # A folder that broke after it was applied keeps nobody from stopping what runs.
    find_pipeline(settings, stream)
    with session(settings, Account.STREAM) as connection:
        request_state(connection, stream, wanted, f"{getuser()} by command")
    typer.echo(f"{stream} is wanted {wanted}")


def _print_facts(facts: Any, as_json: bool, lines: Iterable[str]) -> None:
    if as_json:
        typer.echo(json.dumps(facts, default=str, indent=1))
    else:
        for line in lines:
            typer.echo(line)
