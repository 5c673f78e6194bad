"""Wrong usage of the command line: one sentence, exit code 2, the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.main

from tidemill.cli import main as cli


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code and what is on standard error."""
    monkeypatch.setattr("sys.argv", ["tidemill", *words])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    return int(exited.value.code or 0), capsys.readouterr().err


def commands() -> dict[tuple[str, ...], typer.core.TyperCommand]:
    """Every command by the words that name it."""
    top = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    inner = {("models", name): command for name, command in top["models"].commands.items()}
    return {(name,): command for name, command in top.items()} | inner


COMMANDS = commands()
PARSED = [words for words in COMMANDS if words != ("test",)]
"""`test` hands its words to pytest."""


def required(words: tuple[str, ...]) -> list[str]:
    """A value for each argument that the command requires."""
    return ["x" for each in COMMANDS[words].params if each.param_type_name == "argument" and each.required]


@pytest.mark.parametrize("words", PARSED, ids=" ".join)
def test_an_unknown_option_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """Every command answers an option that it has not with exit code 2, and refers to its own help."""
    code, text = run(monkeypatch, capsys, *words, *required(words), "--no-such-option")
    assert code == 2
    assert text.startswith("tidemill: [TM-CLI-UNKNOWN-OPTION] there is no such option: --no-such-option; ")
    assert text.endswith(f"see ./tidemill {' '.join(words)} --help\n")
    assert text.count("\n") == 1


@pytest.mark.parametrize("words", [each for each in PARSED if required(each)], ids=" ".join)
def test_a_missing_argument_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """It names the argument."""
    code, text = run(monkeypatch, capsys, *words)
    name = next(each.name for each in COMMANDS[words].params if each.param_type_name == "argument")
    assert (code, text.count("\n")) == (2, 1)
    assert f"[TM-CLI-USAGE] the command is not valid: missing argument '{name}'; see" in text


@pytest.mark.parametrize(
    "words",
    [each for each in PARSED if each != ("models",) and not any(p.nargs == -1 for p in COMMANDS[each].params)],
    ids=" ".join,
)
def test_an_extra_argument_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """No word is ignored."""
    code, text = run(monkeypatch, capsys, *words, *required(words), "one", "two")
    assert (code, text.count("\n")) == (2, 1)
    assert "[TM-CLI-USAGE] the command is not valid: got unexpected extra argument" in text


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ("fly", "TM-CLI-UNKNOWN-COMMAND", "no such command: fly; the nearest is apply; see ./tidemill --help"),
        ("statsu --json", "TM-CLI-UNKNOWN-COMMAND", "no such command: statsu; the nearest is status; see ./tidemill"),
        ("zzz", "TM-CLI-UNKNOWN-COMMAND", "there is no such command: zzz; see ./tidemill --help"),
        (
            "models shw a.b",
            "TM-CLI-UNKNOWN-COMMAND",
            "no such command: shw; the nearest is show; see ./tidemill",
        ),
        ("check --jso", "TM-CLI-UNKNOWN-OPTION", "option: --jso; the nearest is --json; see ./tidemill check --help"),
        ("up --limit x", "TM-CLI-USAGE", "invalid value for '--limit'"),
        ("up --limit -1", "TM-CLI-USAGE", "invalid value for '--limit'"),
        ("up --limit", "TM-CLI-USAGE", "option '--limit' requires an argument"),
        ("restart x --wait-seconds soon", "TM-CLI-USAGE", "invalid value for '--wait-seconds'"),
        ("quarantine x --id one", "TM-CLI-USAGE", "invalid value for '--id'"),
        ("models rollback a.b --to one", "TM-CLI-USAGE", "invalid value for '--to'"),
        ("test flight", "TM-CLI-UNKNOWN-TESTS", "with this name: flight; use one of the pipelines (flights), or"),
        ("test --resume", "TM-CLI-USAGE", "invalid value for '--resume': it continues a run of --full"),
        ("replay flights --until 2013-06-01", "TM-CLI-REPLAY-SOURCE", "and quarantine: --until without --from; use"),
        ("replay flights --resume 1 --dry-run", "TM-CLI-USAGE", "a replay continues with what it was requested with"),
        ("models show late_arrival", "TM-ML-NAME-WITHOUT-PIPELINE", "has no pipeline: late_arrival; write"),
        ("models show .late_arrival", "TM-ML-NAME-WITHOUT-PIPELINE", "has no pipeline: .late_arrival; write"),
        ("bench nothing", "TM-CLI-UNKNOWN-BENCH", "there is no such bench: nothing; use one of "),
    ],
)
def test_what_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, code: str, sentence: str
) -> None:
    """With the nearest name where one is similar."""
    exit_code, text = run(monkeypatch, capsys, *words.split())
    assert (exit_code, text.count("\n")) == (2, 1)
    assert text.startswith(f"tidemill: [{code}] ")
    assert sentence in text


@pytest.mark.parametrize("content", [b"[]", b'"x"', b"{", b"\xff"])
def test_a_damaged_file_of_secrets_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes
) -> None:
    """Whatever is in it, the answer is a sentence."""
    (tmp_path / "secrets.json").write_bytes(content)
    monkeypatch.setenv("TIDEMILL_STATE", str(tmp_path))
    monkeypatch.delenv("TIDEMILL_DB_STREAM_PASSWORD", raising=False)
    code, text = run(monkeypatch, capsys, "start", "flights")
    assert (code, text.startswith("tidemill: [TM-CONFIG-SECRET-MISSING] ")) == (2, True)


def test_no_pipeline_at_all_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A check of nothing would pass, as a wrong TIDEMILL_PIPELINES would."""
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(tmp_path))
    code, text = run(monkeypatch, capsys, "check")
    assert (code, text.count("\n")) == (2, 1)
    assert f"[TM-CLI-NO-PIPELINES] no folder with a pipeline.yaml is in the folder of the pipelines: {tmp_path}" in text


def test_a_line_break_in_a_word_does_not_break_the_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script that reads one line per error reads the whole error."""
    assert run(monkeypatch, capsys, "two\nlines")[1].count("\n") == 1


def test_a_traceback_is_shown_under_debug_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence is the last line all the same."""
    text = run(monkeypatch, capsys, "--debug", "bench", "nothing")[1]
    assert text.startswith("Traceback")
    assert text.splitlines()[-1].startswith("tidemill: [TM-CLI-UNKNOWN-BENCH]")
    assert not run(monkeypatch, capsys, "bench", "nothing")[1].startswith("Traceback")


def test_no_words_show_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As ``--help`` does."""
    monkeypatch.setattr("sys.argv", ["tidemill"])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 0
    assert capsys.readouterr().out.startswith("Usage: ./tidemill [OPTIONS] COMMAND")
