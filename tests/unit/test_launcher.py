"""The launcher, in a folder where its steps are stand-ins that say what they were asked."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from support.paths import ROOT
from tidemill import config

TOOLS = ("awk", "cat", "cksum", "dirname", "flock", "iconv", "id", "mkdir", "mv", "readlink", "rm", "sed", "sha256sum")
QUIET = "-Xlog:cds=off -Xlog:cds+dynamic=off"
INPUTS = ("requirements.txt", "pyproject.toml", "src/tidemill/devstack/ivy.xml")
LOCK = "src/tidemill/devstack/jars.lock"
JARS = ("broker/a-1.jar", "broker/b-1.jar", "db/a-1.jar", "spark/a-1.jar")


class Checkout:
    """A checkout with nothing but the launcher and what it reads, and a PATH with nothing but what it calls."""

    def __init__(self, folder: Path, project: str = "Mühle x") -> None:
        self.root = folder / project
        self.path = folder / "bin"
        self.jars = self.root / ".tidemill" / "jars"
        self.archive = self.root / ".tidemill" / "spark-17.0.15.jsa"
        self.path.mkdir(parents=True)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None
            (self.path / tool).symlink_to(found)
        for name in INPUTS:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text("uv==1.0 \\\n    --hash=sha256:00\nother==1 \\\n    --hash=sha256:11\n")
        locked = [f"{hashlib.sha256(f'{name}{chr(10)}'.encode()).hexdigest()}  {name}" for name in JARS]
        (self.root / LOCK).write_text("\n".join(locked) + "\n")
        shutil.copy(ROOT / "tidemill", self.root / "tidemill")
        self.program(self.path / "python3.11", _PYTHON)
        self.program(folder / "java" / "bin" / "java", _JAVA)
        (folder / "java" / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="17.0.15"\nOS_ARCH="x"\n')
        (self.path / "java").symlink_to(folder / "java" / "bin" / "java")

    @staticmethod
    def program(path: Path, text: str) -> None:
        """Put a shell script where a program is looked for."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the launcher from another folder."""
        return subprocess.run(
            [self.root / "tidemill", *arguments],
            env={"PATH": str(self.path), "HOME": "/nowhere", **environment},
            cwd="/",
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=60,
            check=False,
        )


# Makes an environment whose python says what it runs, and whose pip installs a uv that does.
_PYTHON = """
case "$1 $2" in
"-m venv")
    mkdir -p "$3/bin" "$3/lib/python3.11/site-packages/pyspark/jars"
    : >"$3/lib/python3.11/site-packages/pyspark/jars/ivy-1.jar"
    cat "$0" >"$3/bin/python"
    cat >"$3/bin/spark-submit" <<'END'
#!/bin/sh
made=${SPARK_SUBMIT_OPTS#*AtExit=\\'}
made=${made%%\\'*}
: >"$made"
[ ! -e "${made%/*}/interrupt" ] || kill -9 $PPID
[ ! -e "${made%/*}/no-archive" ]
END
    /bin/chmod +x "$3/bin/python" "$3/bin/spark-submit" ;;
"-m pip")
    case "$*" in *--require-hashes*) ;; *) exit 1 ;; esac
    for last; do :; done
    cat "$last"
    printf '#!/bin/sh\\necho uv "$@"\\n' >"${0%python}uv"
    /bin/chmod +x "${0%python}uv" ;;
"-m tidemill")
    shift 2
    printf 'tidemill[%s]\\n' "$@"
    echo "first on PATH: ${PATH%%:*}" "Java: $JAVA_HOME" "Spark's Python: $PYSPARK_PYTHON"
    echo "Spark's options: ${SPARK_SUBMIT_OPTS-none}"
    echo "locale: $LC_ALL, UTF-8 mode: $PYTHONUTF8" ;;
esac
"""

# Ivy's stand-in: retrieves the jars, which hold their names, unless the folder holds a file that says it shall fail.
_JAVA = """
for last; do :; done
into=${last%%/\\[*}
[ ! -e "$into/../fail" ] || { echo "no such artifact"; exit 1; }
mkdir -p "$into/spark" "$into/broker" "$into/db"
for jar in {jars}; do echo "$jar" >"$into/$jar"; done
""".replace("{jars}", " ".join(JARS))


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A fresh checkout."""
    return Checkout(tmp_path)


def steps(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The plain lines on standard error."""
    return [line.removeprefix("tidemill: ") for line in done.stderr.splitlines()]


def test_first_start_sets_up_and_runs_the_command_line(checkout: Checkout) -> None:
    """From nothing, each step is one line on standard error, and the arguments arrive as they were given."""
    done = checkout.run("check", "two words", "")
    assert done.returncode == 0, done.stderr
    made = ["making", "reading", "installing", "installing", "fetching", "archiving"]
    assert [step.split()[0] for step in steps(done)] == made
    venv = checkout.root / ".venv"
    assert done.stdout.splitlines() == [
        "tidemill[check]",
        "tidemill[two words]",
        "tidemill[]",
        f"first on PATH: {venv}/bin Java: {checkout.path.parent}/java Spark's Python: {venv}/bin/python",
        f"Spark's options: -XX:SharedArchiveFile='{checkout.archive}' {QUIET} ",
        "locale: C.UTF-8, UTF-8 mode: 1",
    ]
    assert (venv / "uv.txt").read_text() == "uv==1.0 \\\n    --hash=sha256:00\n"
    log = (checkout.root / ".tidemill" / "logs" / "setup.log").read_text()
    assert "--require-hashes" in log
    assert "--no-build-isolation" in log


def test_nobody_else_may_change_what_is_made(checkout: Checkout) -> None:
    """Though the person's mask takes no right away, group and others may not write what is executed later."""
    mask = os.umask(0)
    try:
        done = checkout.run("check")
    finally:
        os.umask(mask)
    assert done.returncode == 0, done.stderr
    made = [*(checkout.root / ".venv").rglob("*"), *(checkout.root / ".tidemill").rglob("*")]
    assert len(made) > 5
    assert [path for path in made if not path.is_symlink() and path.stat().st_mode & 0o022] == []


def test_a_set_up_of_somebody_else_is_one_sentence(checkout: Checkout) -> None:
    """Where nothing may be written, what is missing cannot be made; nothing else is tried."""
    (checkout.root / ".tidemill").touch()  # stands for a folder of another user: root may write into any folder
    done = checkout.run("check")
    assert done.returncode == 3
    assert [step.split()[0] for step in steps(done)] == ["[TM-SETUP-FOLDER]"]
    assert not (checkout.root / ".venv").exists()


def test_second_start_does_no_step(checkout: Checkout) -> None:
    """A finished set-up is not looked at again."""
    checkout.run()
    done = checkout.run("status")
    assert steps(done) == []
    assert done.stdout.startswith("tidemill[status]")


def test_interrupted_environment_is_made_again(checkout: Checkout) -> None:
    """An environment without its stamp was left half made: nothing of it is kept, nor what was made from its files."""
    debris = checkout.root / ".venv" / "lib" / "half"
    debris.mkdir(parents=True)
    assert steps(checkout.run())[0].startswith("making")
    assert not debris.exists()
    (checkout.root / ".venv" / ".tidemill-stamp").unlink()
    assert [step.split()[0] for step in steps(checkout.run())][-1] == "archiving"


@pytest.mark.parametrize("changed", INPUTS)
def test_changed_input_repeats_its_step_only(checkout: Checkout, changed: str) -> None:
    """Another lock is installed into the environment there is; other JVM parts are fetched; neither does both."""
    checkout.run()
    with (checkout.root / changed).open("a") as file:
        file.write("# changed\n")
    repeated = [step.split()[0] for step in steps(checkout.run())]
    assert repeated == (["fetching"] if changed.endswith("ivy.xml") else ["installing", "archiving"])
    assert steps(checkout.run()) == []


def test_moved_checkout_is_set_up_again(checkout: Checkout) -> None:
    """The scripts in .venv and Spark's archive hold its path: in another place both are made again, and only they."""
    checkout.run()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    again = [step.split()[0] for step in steps(checkout.run())]
    assert again == ["making", "reading", "installing", "installing", "archiving"]


def test_failed_step_is_one_sentence_with_the_log(checkout: Checkout) -> None:
    """A step that fails says which and where its output is; the next start takes up from there."""
    fail = checkout.root / ".tidemill" / "fail"
    fail.parent.mkdir()
    fail.touch()
    failed = checkout.run()
    assert failed.returncode == 3
    log = checkout.root / ".tidemill" / "logs" / "setup.log"
    assert steps(failed)[-1].endswith(f"; see the end of {log}")
    assert log.read_text().endswith("no such artifact\n")
    assert not checkout.jars.exists()
    fail.unlink()
    assert [step.split()[0] for step in steps(checkout.run())] == ["fetching", "archiving"]


def test_half_an_archive_is_never_started_from(checkout: Checkout) -> None:
    """A JVM dies of one. Killed while it was written, the set-up writes it again; nothing else is done twice."""
    interrupt = checkout.root / ".tidemill" / "interrupt"
    interrupt.parent.mkdir()
    interrupt.touch()
    assert checkout.run().returncode == -signal.SIGKILL
    assert not checkout.archive.exists()
    interrupt.unlink()
    assert [step.split()[0] for step in steps(checkout.run())] == ["archiving"]
    assert checkout.archive.exists()


def test_a_jvm_that_archives_nothing_is_no_hindrance(checkout: Checkout) -> None:
    """Spark starts as it always did, and is not asked again at the next start."""
    refuse = checkout.root / ".tidemill" / "no-archive"
    refuse.parent.mkdir()
    refuse.touch()
    done = checkout.run("x")
    assert "Spark's options: none\n" in done.stdout
    assert steps(done)[-1].startswith("Spark's classes could not be archived; Spark starts without an archive; see")
    assert steps(checkout.run()) == []
    assert not checkout.archive.exists()


def test_another_java_has_another_archive(checkout: Checkout) -> None:
    """Also one of the same place that was updated; what a person has Spark's JVM told stays as it is."""
    release = checkout.path.parent / "java" / "release"
    checkout.run()
    for version, made in (("17.0.16", ["archiving"]), ("17.0.15", []), ("17.0.16", [])):
        release.write_text(f'JAVA_VERSION="{version}"\n')
        done = checkout.run("x", SPARK_SUBMIT_OPTS="-Dmine=1")
        assert [step.split()[0] for step in steps(done)] == made
        assert f"spark-{version}.jsa' {QUIET} -Dmine=1\n" in done.stdout


def test_an_archive_that_may_not_be_written_is_done_without(checkout: Checkout) -> None:
    """A finished set-up that belongs to somebody else starts as it is."""
    checkout.run()
    (checkout.path.parent / "java" / "release").write_text('JAVA_VERSION="17.0.16"\n')
    lock = checkout.root / ".tidemill" / "setup.lock"
    lock.unlink()
    lock.mkdir()  # root may write to every file
    done = checkout.run("x")
    assert (steps(done), done.returncode) == ([], 0)
    assert "Spark's options: none\n" in done.stdout


def test_jars_go_where_the_setting_says(checkout: Checkout, tmp_path: Path) -> None:
    """Several checkouts may share one folder of JVM parts."""
    shared = tmp_path / "shared jars"
    checkout.run(TIDEMILL_JARS=str(shared))
    assert sorted(each.name for each in shared.iterdir() if each.is_dir()) == ["broker", "db", "spark"]
    assert not checkout.jars.exists()


REFUSED = [*(f"a{each}b" for each in config.REFUSED_IN_PATHS), "a\nb", "M\udcfchle"]


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_path_that_a_server_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    """Before anything is made; the same characters as in a setting, and a name that is no UTF-8."""
    checkout = Checkout(tmp_path, name)
    done = checkout.run("check")
    assert done.returncode == 3
    assert done.stderr.startswith("tidemill: [TM-SETUP-PATH] the path of this folder has a character that a server")
    assert name in done.stderr
    assert sorted(each.name for each in checkout.root.iterdir()) == [
        "pyproject.toml",
        "requirements.txt",
        "src",
        "tidemill",
    ]


def test_a_folder_of_jars_that_a_server_cannot_hold_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    """The sentence names the setting."""
    done = checkout.run("check", TIDEMILL_JARS=str(tmp_path / "a,b"))
    assert done.returncode == 3
    assert "the path of TIDEMILL_JARS has a character" in done.stderr
    assert not (tmp_path / "a,b").exists()


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1", "nowhere.UTF-8"])
def test_children_get_a_locale_of_utf_8(checkout: Checkout, locale: str) -> None:
    """Whatever a person has set, and whether or not the machine has it."""
    assert "locale: C.UTF-8, UTF-8 mode: 1\n" in checkout.run("x", LC_ALL=locale, LANG=locale).stdout


def test_missing_python_is_one_sentence(checkout: Checkout) -> None:
    """Without a Python that fits, the sentence says which ones do, and nothing is made."""
    Checkout.program(checkout.path / "python3.11", "exit 1\n")
    done = checkout.run()
    assert done.returncode == 3
    assert steps(done) == [
        "[TM-SETUP-PYTHON] no Python 3.11 or 3.12 found on PATH; "
        "install one, on Debian with 'apt-get install python3 python3-venv'"
    ]
    assert not (checkout.root / ".venv").exists()


@pytest.mark.parametrize("version", ["1.8.0_402", "11.0.2", None])
def test_missing_or_old_java_is_one_sentence_where_it_may_not_be_installed(
    checkout: Checkout, version: str | None
) -> None:
    """A Java that is too old counts as none; where there is no apt-get, the sentence says what to install."""
    if version is None:
        (checkout.path / "java").unlink()
    else:
        (checkout.path.parent / "java" / "release").write_text(f'JAVA_VERSION="{version}"\n')
    done = checkout.run()
    assert done.returncode == 3
    assert steps(done)[-1].startswith("[TM-SETUP-JAVA] no Java 17 or newer found; install one")


def test_missing_java_is_installed_where_permitted(checkout: Checkout) -> None:
    """As root on a Debian the packaged runtime is installed, and found."""
    (checkout.path / "java").unlink()
    java = checkout.path.parent / "java" / "bin" / "java"
    install = f'case "$*" in *openjdk-17-jre-headless) /bin/ln -s {java} {checkout.path}/java ;; esac\n'
    Checkout.program(checkout.path / "apt-get", install)
    (checkout.path / "id").unlink()
    Checkout.program(checkout.path / "id", "echo 0\n")
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    assert "installing openjdk-17-jre-headless" in steps(done)


def test_java_home_comes_before_path(checkout: Checkout, tmp_path: Path) -> None:
    """The runtime that JAVA_HOME names is used, unless it is too old."""
    newer = tmp_path / "newer"
    Checkout.program(newer / "bin" / "java", _JAVA)
    (newer / "release").write_text('JAVA_VERSION="21"\n')
    assert f"Java: {newer}" in checkout.run("x", JAVA_HOME=str(newer)).stdout
    (newer / "release").write_text('JAVA_VERSION="11.0.1"\n')
    assert f"Java: {tmp_path}/java" in checkout.run("x", JAVA_HOME=str(newer)).stdout


@pytest.mark.parametrize("change", ["other content", "missing", "unknown"])
@pytest.mark.parametrize("when", ["fetched", "already there"])
def test_a_jar_that_is_not_the_locked_one_is_refused(checkout: Checkout, change: str, when: str) -> None:
    """Whether it was just fetched or is there from before; the sentence names it, and how to renew the lock."""
    lock, line = checkout.root / LOCK, f"{'0' * 64}  broker/b-1.jar"
    if when == "already there":
        assert checkout.run().returncode == 0
    lines = [each for each in lock.read_text().splitlines() if "broker/b" not in each or change == "missing"]
    more = {"other content": line, "missing": line.replace("b-1", "c-1"), "unknown": line.replace("broker/b", "db/b")}
    named = {"other content": "broker/b-1.jar", "missing": "broker/c-1.jar", "unknown": "broker/b-1.jar"}
    lock.write_text("\n".join([*lines, *([] if change == "unknown" else [more[change]])]) + "\n")
    refused = checkout.run("check")
    folder = checkout.jars if when == "already there" else Path(f"{checkout.jars}.new")
    assert refused.returncode == 3
    assert refused.stdout == ""
    last = steps(refused)[-1]
    assert last.startswith("[TM-SETUP-JAR-HASH]")
    assert f"{folder}/{named[change]};" in last
    renew = last.partition(" with ")[2]
    subprocess.run(["sh", "-c", renew], check=True)
    assert checkout.run("check").returncode == 0
    assert checkout.run("check").stderr == ""


def test_two_first_starts_at_once_set_up_once(checkout: Checkout) -> None:
    """The second waits for the first and finds everything done."""
    environment = {"PATH": str(checkout.path), "HOME": "/nowhere"}
    command = [str(checkout.root / "tidemill"), "x"]
    started = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    output = [process.communicate(timeout=60)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sum(text.count("tidemill: making") for text in output) == 1
    assert sum(text.count("tidemill: fetching") for text in output) == 1


def test_ci_runs_the_tests_through_the_launcher() -> None:
    """Continuous integration does what a person does."""
    script = (ROOT / ".ci" / "run").read_text()
    assert script.splitlines()[-1] == "exec ./tidemill test"
    assert os.access(ROOT / "tidemill", os.X_OK)
