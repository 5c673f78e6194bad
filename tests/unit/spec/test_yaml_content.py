"""What a folder means does not depend on how YAML 1.1 reads words, on the encoding of a file or on the locale."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.paths import ROOT
from tidemill.errors import SpecError
from tidemill.spec import Pipeline, load_pipeline
from tidemill.spec.loader import read_content, validate_content

SHOP: dict[str, Any] = {
    "name": "shop",
    "owner": "Größe 中 😀",
    "source": {"topic": "shop", "start": "latest", "schema": "id BIGINT, city STRING", "key": "id BIGINT"},
    "dimensions": {"cities": {"path": "/cities.csv", "key": ["id"], "nulls": "NA"}},
    "tables": {
        "orders": {
            "from": "größe.sql",
            "kind": "event",
            "key": ["id"],
            "columns": {"id": "BIGINT NOT NULL", "city": "VARCHAR(20)"},
            "indexes": [["city"]],
        }
    },
    "rollups": {
        "by_city": {
            "of": "orders",
            "by": {"city": {"expr": "city", "type": "VARCHAR(20)"}},
            "measures": {"n": "count(*)"},
        }
    },
    "checks": [{"name": "known", "table": "orders", "expect": "city <> 'é'", "otherwise": "warn"}],
    "resources": {"driver": {"memory": "512m"}, "conf": {"spark.network.timeout": "60s"}},
}
SQL = "SELECT id,\n  city || 'é' AS city\nFROM records"
TRAPS = (
    "no", "No", "on", "off", "yes", "y", "n", "True", "null", "~", "12", "-1", "1.10", "1e3", "012", "0o17", "0x1F",
    "1_000", "1_000.5", "+5", ".5", "5.", "12:30", "1:20:30.5", "2026-01-01", "2026-01-01T00:00:00Z", "2026-1-1 1:0:0",
    ".inf", ".nan", "=", "<<", "9" * 5000, "-0", "1e999",
)  # fmt: skip
"""Plain scalars that YAML 1.1, or this project's reader, could take for something else than text."""


def write(folder: Path, text: str, sql: str = SQL) -> Path:
    """The pipeline's folder with this text as its pipeline.yaml."""
    place = folder / "shop"
    place.mkdir(exist_ok=True)
    (place / "pipeline.yaml").write_text(text, encoding="utf-8")
    (place / "größe.sql").write_text(sql, encoding="utf-8")
    return place


def dump(content: object) -> str:
    """YAML whose strings are written as they are."""
    return str(yaml.safe_dump(content, allow_unicode=True, width=1_000_000))


def validated(folder: Path) -> Pipeline | None:
    """The folder as it is read; None if it is refused."""
    try:
        return validate_content(folder, read_content(folder), "")
    except SpecError:
        return None


def texts_of(content: object, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of each text below a mapping or a list."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        if isinstance(value, str):
            yield (*place, key)
        yield from texts_of(value, (*place, key))


def at(content: Any, place: tuple[Any, ...]) -> Any:
    """What stands at a place."""
    for key in place:
        content = content[key]
    return content


@pytest.mark.full
@pytest.mark.parametrize("place", list(texts_of(SHOP)), ids=lambda place: ".".join(map(str, place)))
def test_a_text_is_what_its_author_wrote_or_is_refused(tmp_path: Path, place: tuple[Any, ...]) -> None:
    """Each field that holds a text gets exactly the characters of the file, for each word that YAML 1.1 converts."""
    for trap in TRAPS:
        content = copy.deepcopy(SHOP)
        at(content, place[:-1])[place[-1]] = "HERE"
        folder = write(tmp_path, dump(content).replace("HERE", trap))
        pipeline = validated(folder)
        if pipeline is not None:
            received = at(pipeline.model_dump(by_alias=True, mode="json"), place)
            assert received == trap or (received is None and trap in ("null", "~")), trap


@pytest.mark.parametrize("trap", TRAPS)
def test_a_key_is_what_its_author_wrote_or_is_refused(tmp_path: Path, trap: str) -> None:
    """A name that the author chooses is a key of the file; none becomes a boolean, a number or a date."""
    content = copy.deepcopy(SHOP)
    content["resources"]["conf"] = {"HERE": "x"}
    folder = write(tmp_path, dump(content).replace("HERE", trap))
    pipeline = validated(folder)
    assert pipeline is None or list(pipeline.resources.conf) == [trap]


def test_numbers_and_booleans_stay_what_they_are(tmp_path: Path) -> None:
    """Fields of other types are read as before, and so are the parameters of an estimator."""
    text = "{a: 20, b: 0.001, c: 1e-6, d: true, e: null, f: auto, g: [1, -2.5]}"
    folder = write(tmp_path, f"parameters: {text}")
    expected = {"a": 20, "b": 0.001, "c": 1e-6, "d": True, "e": None, "f": "auto", "g": [1, -2.5]}
    found = read_content(folder)["parameters"]
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("name: shop\nowner: a\nname: store\n", "name", (1, 3)),
        ("name: shop\ntables:\n  orders: {}\n  clicks: {}\n  orders: {}\n", "orders", (3, 5)),
        ('checks:\n- {name: a,\n   "name": b}\n', "name", (2, 3)),
        ("a: &x {k: 1}\nb:\n  <<: *x\n  k: 2\n  k: 3\n", "k", (4, 5)),
    ],
)
def test_a_key_that_is_written_twice_is_refused_with_both_lines(
    tmp_path: Path, text: str, key: str, lines: tuple[int, int]
) -> None:
    """At any depth; the first of the two would be dropped without a word."""
    with pytest.raises(SpecError, match="TM-SPEC-KEY-DUPLICATE") as caught:
        read_content(write(tmp_path, text))
    assert (caught.value.value, caught.value.parameters["first"], caught.value.parameters["second"]) == (key, *lines)


def test_an_anchor_may_be_overridden(tmp_path: Path) -> None:
    """A merged key is no second one."""
    assert read_content(write(tmp_path, "a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}\n"))["b"] == {"k": 3, "l": 2}


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 200_000,
        "a: " + "{a: " * 5_000,
        "a: &a [*a]",
        "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
        "a: !!int x",
        "a: !!bool maybe",
        "a: !!timestamp x",
        "a: !!python/object/apply:os.getcwd []",
        "? [a]\n: b",
        "a: b: c",
        "a: 1\n---\na: 2",
        "a: \x01",
    ],
    ids=range(12),
)
def test_what_is_no_sensible_yaml_is_one_sentence(tmp_path: Path, text: str) -> None:
    """Nothing in a file ends the process that reads it, or fills its memory."""
    started = time.process_time()
    with pytest.raises(SpecError, match="TM-SPEC-YAML-INVALID") as caught:
        read_content(write(tmp_path, text))
    assert "\n" not in caught.value.sentence
    assert len(caught.value.sentence) < 1_000
    assert time.process_time() - started < 60


@pytest.mark.parametrize("file", ["pipeline.yaml", "größe.sql"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "latin-1", "cp1252"])
def test_another_encoding_is_refused_with_file_and_line(tmp_path: Path, file: str, encoding: str) -> None:
    """Whichever it is, and whichever file."""
    place = write(tmp_path, dump(SHOP))
    text = "# one\n# two\n# é\n" if file.endswith("yaml") else "-- one\n-- two\n-- é\nSELECT"
    (place / file).write_bytes(text.encode(encoding))
    with pytest.raises(SpecError, match="TM-SPEC-NOT-UTF-8") as caught:
        load_pipeline(place)
    assert Path(str(caught.value.parameters["path"])).name == file
    assert caught.value.parameters["line"] == (3 if encoding in ("latin-1", "cp1252") else 1)


def meaning(pipeline: Pipeline) -> dict[str, Any]:
    """All that a pipeline says, without the place and the bytes of its files."""
    sql = {name: pipeline.sql(table.from_) for name, table in pipeline.tables.items()}
    return {**pipeline.model_dump(mode="json", exclude={"folder", "digest"}), "sql": sql}


@pytest.mark.parametrize(("mark", "end"), [("\ufeff", "\n"), ("", "\r\n"), ("\ufeff", "\r\n"), ("", "\r")])
def test_a_byte_order_mark_and_line_ends_change_nothing(tmp_path: Path, mark: str, end: str) -> None:
    """Files that were written on another system mean the same."""
    place = write(tmp_path, dump(SHOP))
    expected = meaning(load_pipeline(place))
    for file in ("pipeline.yaml", "größe.sql"):
        text = (place / file).read_text(encoding="utf-8")
        (place / file).write_bytes((mark + text.replace("\n", end)).encode())
    assert meaning(load_pipeline(place)) == expected


IN_A_LOCALE = """
import json, sys
from pathlib import Path
from tidemill.errors import SpecError
from tidemill.spec import load_pipeline
try:
    pipeline = load_pipeline(Path(sys.argv[1]))
    found = [pipeline.digest, pipeline.owner, pipeline.sql(pipeline.tables["orders"].from_)]
except SpecError as error:
    found = [error.code, error.parameters["line"]]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A locale whose encoding is Latin-1; it is made here, because few machines have one."""
    folder = tmp_path_factory.mktemp("locales")
    subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / "de_DE"], check=True)
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE"}


@pytest.mark.parametrize(
    "locale", ["C", *(pytest.param(name, marks=pytest.mark.full) for name in ("POSIX", "latin-1"))]
)
def test_no_locale_changes_what_a_folder_means(tmp_path: Path, locale: str, request: pytest.FixtureRequest) -> None:
    """Digest, texts, names of files and refusals are the same for a process that Python leaves in its locale."""
    place = write(tmp_path, dump(SHOP))
    here = load_pipeline(place)
    chosen = request.getfixturevalue("latin_1") if locale == "latin-1" else {"LC_ALL": locale}
    # In such a locale neither Python's site module nor the product reads the path of a checkout that is not ASCII: the
    # launcher sees to that. This test is about what is in the files.
    interpreter, links = Path(sys.base_prefix, "bin", "python3"), (tmp_path / "src", tmp_path / "packages")
    links[0].symlink_to(ROOT / "src")
    links[1].symlink_to(sysconfig.get_path("purelib"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    environment |= {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TIDEMILL_ROOT": str(tmp_path)} | chosen
    environment["PYTHONPATH"] = os.pathsep.join(map(str, links))

    def answer(*argv: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([interpreter, *argv], env=environment, capture_output=True, check=False)

    encoding = answer("-c", "import locale; print(locale.getpreferredencoding())").stdout
    assert encoding.strip() in (b"ANSI_X3.4-1968", b"US-ASCII", b"ISO-8859-1")
    found = answer("-c", IN_A_LOCALE, str(place))
    assert json.loads(found.stdout) == [here.digest, here.owner, SQL], found.stderr
    (place / "größe.sql").write_bytes("SELECT\n'é'".encode("latin-1"))
    assert json.loads(answer("-c", IN_A_LOCALE, str(place)).stdout) == ["TM-SPEC-NOT-UTF-8", 2]
    (place / "pipeline.yaml").write_text(dump({**SHOP, "ownér": 1}), encoding="utf-8")
    refused = answer("-m", "tidemill", "check", str(place))
    assert (refused.returncode, refused.stderr.count(b"\n")) == (2, 1), refused.stderr
