"""What a batch leaves behind in the driver."""

import weakref
from typing import Any

from tidemill.config import Settings
from tidemill.spec import load_pipeline
from tidemill.store.write.context import WriteContext
from tidemill.stream.query import BatchCommitter


class JavaThing:
    """Refers to itself, as py4j's objects do once a method of theirs was asked for."""

    def __init__(self) -> None:
        self.methods = {"count": self}


class Thrifty(BatchCommitter):
    """Makes such a thing for each batch."""

    thing: weakref.ref[JavaThing]

    def _commit(self, batch: Any, batch_id: int) -> None:
        self.thing = weakref.ref(JavaThing())


def test_a_batch_leaves_no_java_objects_behind(settings: Settings) -> None:
    """What the JVM keeps for the objects of a batch, its broadcasts above all, goes with the batch."""
    pipeline = load_pipeline(settings.pipelines / "flights")
    committer = Thrifty(settings, pipeline, WriteContext("flights", 1, 1, "flights"), {0: 0})
    committer._batch(None, 0)  # type: ignore[arg-type]
    assert committer.thing() is None
