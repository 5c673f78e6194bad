"""What the commands that a person runs most often import: the answer is there in a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"airflow", "mlflow", "numpy", "pandas", "pyarrow", "pyspark", "scipy", "sqlalchemy"}
"""Each takes longer than everything else that a command imports."""
SERVERS = {"confluent_kafka", "httpx", "psutil", "pymysql"}
FORBIDDEN = {
    "--help": HEAVY | SERVERS | {"pydantic", "rich", "sqlglot", "yaml"},
    "check --help": HEAVY | SERVERS | {"rich", "sqlglot", "yaml"},
    "check": HEAVY | SERVERS | {"rich"},
    "status": HEAVY | {"httpx", "rich"},
}
"""Words of a command -> packages that it does not import."""

_RUN = """
import sys
from tidemill.cli.main import main
try:
    main()
finally:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def imported(state: Path, words: str) -> set[str]:
    """The packages that a command imports."""
    ran = subprocess.run(
        [sys.executable, "-c", _RUN, *words.split()],
        env={"TIDEMILL_STATE": str(state)}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return set(ran.stderr.splitlines()[-1].split())


def test_the_overview_of_a_running_stack_needs_no_engine() -> None:
    """Nor does what ``status`` imports to ask the database and Kafka."""
    ran = subprocess.run(
        [sys.executable, "-c", "import sys, tidemill.devstack.overview; print(*sys.modules)"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    packages = {name.partition(".")[0] for name in ran.stdout.split()}
    assert "pymysql" in packages
    assert packages & (HEAVY | {"httpx", "rich"}) == set()


@pytest.mark.parametrize("words", FORBIDDEN)
def test_a_command_imports_what_it_needs(tmp_path: Path, words: str) -> None:
    """A package on the list would be seen: typer is needed, and is there."""
    packages = imported(tmp_path, words)
    assert "typer" in packages
    assert packages & FORBIDDEN[words] == set()
