"""What ended a driver's JVM, by what it printed last."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.stream.jvm_end import named_by_log
from tidemill.stream.log_rotation import LOG


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Terminating due to java.lang.OutOfMemoryError: Java heap space\n", "TM-STREAM-JVM-OUT-OF-MEMORY"),
        # Survived long before: not what ended the JVM.
        ("26/12/01 00:23:33 WARN Kafka: org.apache.kafka.common.errors.TimeoutException: listNodes\n", None),
        ("", None),
    ],
)
def test_only_what_ends_a_process_is_taken_for_the_cause(tmp_path: Path, text: str, code: str | None) -> None:
    """A JVM that is killed from outside prints nothing."""
    (tmp_path / "log").write_text(text)
    found = named_by_log("flights", {LOG: str(tmp_path / "log")})
    assert (found and found.code) == code


def test_a_driver_without_a_log_of_its_own_names_nothing(tmp_path: Path) -> None:
    """Where a cluster runs it, or the log was removed."""
    assert named_by_log("flights", {}) is None
    assert named_by_log("flights", {LOG: str(tmp_path / "log")}) is None
