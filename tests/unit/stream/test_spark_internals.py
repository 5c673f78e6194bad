"""What is read of Spark's private parts, in the form that Spark 4.2 writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.errors import SourceError
from tidemill.stream.spark_internals import batch_end_offsets

OFFSETS = """v1
{"batchWatermarkMs":0,"batchTimestampMs":1767225600000,"conf":{}}
{"tides":{"1":7,"0":12}}"""


def checkpoint(folder: Path, content: str | None) -> Path:
    """A checkpoint whose offset log has this content for batch 3."""
    (folder / "offsets").mkdir()
    if content is not None:
        (folder / "offsets" / "3").write_text(content)
    return folder


def test_the_offset_log_has_the_end_of_a_batch(tmp_path: Path) -> None:
    """Version, metadata, and a line for the one source."""
    assert batch_end_offsets(checkpoint(tmp_path, OFFSETS), 3, "tides") == {0: 12, 1: 7}


@pytest.mark.parametrize("content", [None, "", "v1\n{}", "v1\n{}\n-", 'v1\n{}\n{"ebbs":{"0":1}}', "v1\n{}\n{"])
def test_another_format_is_an_error_with_the_file(tmp_path: Path, content: str | None) -> None:
    """Guessed offsets would skip records, or commit some twice."""
    with pytest.raises(SourceError) as raised:
        batch_end_offsets(checkpoint(tmp_path, content), 3, "tides")
    assert raised.value.code == "TM-STREAM-CHECKPOINT-UNREADABLE"
    assert str(tmp_path / "offsets" / "3") in str(raised.value.value)
