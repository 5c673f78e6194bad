"""Where the artifacts of models are, as Hadoop reads it."""

from __future__ import annotations

import pytest

from tidemill.ml.registry import artifacts


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        pytest.param("/srv/Mühle x/1", "file:///srv/Mühle x/1", id="folder"),
        pytest.param("file:///srv/M%C3%BChle%20x/1", "file:///srv/Mühle x/1", id="uri-of-a-folder"),
        pytest.param("hdfs://name:9000/models/1", "hdfs://name:9000/models/1", id="hadoop"),
    ],
)
def test_a_folder_is_not_escaped_for_hadoop(location: str, expected: str) -> None:
    """Hadoop does not decode a URI: an escaped blank would be another folder than the one that is renamed later."""
    assert artifacts.for_spark(location) == expected
