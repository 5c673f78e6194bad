"""The command line's entry: parse, run one command, report its error as one sentence.

Exit codes: 0 done; 1 a comparison found differences (``verify``) or tests failed; 2 wrong usage, setting or pipeline
folder; 3 the machine or the stack is not ready; 4 Kafka; 5 the database; 6 fenced; 7 a stream; 8 a model.
"""

from __future__ import annotations

import io
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from tidemill.cli.commands import develop, models, pipelines, stack, streams
from tidemill.cli.usage import PROGRAM, Commands, usage_error
from tidemill.errors import TidemillError

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Kafka, Spark, a MySQL-protocol database and Airflow as one exactly-once platform.",
)

for _command in (
    stack.up,
    stack.down,
    stack.status,
    pipelines.check,
    pipelines.paths,
    pipelines.plan,
    pipelines.apply,
    streams.start,
    streams.stop,
    streams.restart,
    streams.verify,
    streams.maintain,
    streams.quarantine,
    streams.replay,
):
    app.command()(_command)
app.command("test", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(develop.run_tests)
app.command()(develop.bench)
app.add_typer(models.app, name="models")


class _Shown:
    """What is printed of an error beside its sentence."""

    traceback = False


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    _Shown.traceback = debug


def main() -> None:
    """Run a command; an error is one sentence on standard error, with its traceback only under ``--debug``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in a locale without some character, it is shown as its number
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name=PROGRAM, standalone_mode=False)
    except TidemillError as error:
        _exit(str(error), error.exit_code)
    except typer.TyperException as error:
        usage = usage_error(error)
        _exit(str(usage), usage.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _exit("interrupted", 130)
    else:
        sys.exit(code or 0)


def _exit(sentence: str, code: int) -> NoReturn:
    if _Shown.traceback:
        traceback.print_exc()
    sys.stderr.write("tidemill: {}\n".format(sentence.replace("\n", " ")))
    sys.exit(code)
