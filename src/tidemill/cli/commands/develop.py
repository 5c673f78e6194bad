"""Commands for people who change Tidemill or a pipeline: test, bench."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tidemill.errors import SpecError

if TYPE_CHECKING:
    from tidemill.config import Settings


def run_tests(
    context: typer.Context,
    full: Annotated[bool, typer.Option("--full", help="Run every test, lane by lane, with a new seed.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="With --full: run the lanes that have not passed.")] = False,
    lanes: Annotated[list[str] | None, typer.Option("--lane", help="Run this lane only; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draw all random input from this number.")] = None,
) -> None:
    """Run the project's tests, or the cases of one pipeline; further arguments go to pytest.

    Examples: ./tidemill test, ./tidemill test flights, ./tidemill test --lane unit, ./tidemill test --full --resume
    """
    from tidemill import config

    settings = config.load()
    words = list(context.args)
    if resume and (words or not full):
        raise typer.BadParameter("it continues a run of --full without further arguments", param_hint="'--resume'")
    # As one word: pytest, before it knows the option, would take the lane dags for the folder of that name.
    options = [f"--lane={lane}" for lane in lanes or ()]
    options += [] if seed is None else ["--seed", str(seed)]
    if full and not words:
        _exec_python(settings, "tests/full.py", *options, *(["--resume"] if resume else []))
    if words and not words[0].startswith("-"):
        known = sorted(path.parent.name for path in settings.pipelines.glob("*/pipeline.yaml"))
        if words[0] in known:
            folder = settings.pipelines / words[0]
            if not any(folder.glob("cases/*.yaml")):
                raise SpecError("TM-CLI-NO-CASES", value=folder / "cases", pipeline=words[0])
            words = ["tests/spark/test_cases.py", "--pipeline", str(folder), *words[1:]]
        elif not (settings.root / words[0].partition("::")[0]).exists():
            raise SpecError("TM-CLI-UNKNOWN-TESTS", value=words[0], known=", ".join(known) or "none")
    _exec_python(settings, "-m", "pytest", *options, *(["--full"] if full else []), *words)


def bench(name: Annotated[str, typer.Argument(help="Name of a file in bench/.")] = "ingest") -> None:
    """Measure, on servers of its own: ratios within one run, medians of several.

    Example: ./tidemill bench ingest
    """
    from tidemill import config

    settings = config.load()
    known = sorted(path.stem for path in (settings.root / "bench").glob("[!_]*.py"))
    if name not in known:
        raise SpecError("TM-CLI-UNKNOWN-BENCH", value=name, known=", ".join(known))
    _exec_python(settings, f"bench/{name}.py")


def _exec_python(settings: Settings, *words: str) -> NoReturn:
    """Replace this process: a child would be killed by the terminal's Ctrl-C before it has stopped its servers."""
    sys.stdout.flush()
    os.chdir(settings.root)
    os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 -- the words are from this module and the user
