"""A high share of quarantined records is an incident and, where the pipeline says so, stops the stream."""

from __future__ import annotations

import pytest

from support.writes import Writer
from tidemill.spec.schema import Quarantine
from tidemill.store.control import streams
from tidemill.store.write.ledger_rows import Counts
from tidemill.stream.quarantine_share import KIND, QuarantineShare


def noted(writer: Writer, share: QuarantineShare, good: int, bad: int) -> bool:
    """Report a batch of so many written and so many quarantined records; whether it stopped the stream."""
    share.note([Counts(1, written=good, gap=5_000), Counts(2, quarantined=bad)])
    return share.report(writer.settings, writer.pipeline)


def incidents(writer: Writer) -> list[str]:
    """The messages of the open incidents."""
    with writer.connection.cursor() as cursor:
        cursor.execute(
            "SELECT message FROM incidents WHERE subject = %s AND kind = %s AND closed_at IS NULL",
            (f"stream {writer.pipeline.name}", KIND),
        )
        return [str(message) for (message,) in cursor.fetchall()]


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([(0, 99)], None),
        ([(0, 100)], 1.0),
        ([(80, 20)], 0.2),
        ([(5_000, 5_000)], 0.5),
        ([(0, 500), (999, 0)], 500 / 1499),
        ([(0, 500), (1_000, 0)], 0.0),
        ([(0, 1), (0, 1), (98, 0)], 0.02),
    ],
)
def test_the_share_is_that_of_the_newest_records(batches: list[tuple[int, int]], expected: float | None) -> None:
    """Batches that the newest 1,000 records do not reach no longer count; of fewer than 100 there is no share."""
    share = QuarantineShare()
    for good, bad in batches:
        share.note([Counts(1, written=good, quarantined=bad)])
    assert share.share == expected


def test_a_high_share_is_an_incident_until_it_falls(entity: Writer) -> None:
    """Above a fifth it opens, with the share; a driver that finds it open closes it when the share is low."""
    share = QuarantineShare()
    assert not noted(entity, share, 800, 200)
    assert incidents(entity) == []
    assert not noted(entity, share, 0, 100)
    assert incidents(entity) == ["27% of the newest 1100 records are in quarantine"]
    assert not noted(entity, share, 1_000, 0)
    assert incidents(entity) == []
    assert not noted(entity, share, 0, 1_000)
    assert incidents(entity) == ["100% of the newest 1000 records are in quarantine"]
    assert not noted(entity, QuarantineShare(), 99, 0)
    assert len(incidents(entity)) == 1
    assert not noted(entity, QuarantineShare(), 100, 0)
    assert incidents(entity) == []


def test_the_stream_stops_at_the_share_that_the_pipeline_declares(entity: Writer) -> None:
    """As a person would stop it, with the reason; the driver that a person starts counts anew."""
    entity.pipeline = entity.pipeline.model_copy(update={"quarantine": Quarantine(pause_at=0.1)})
    share = QuarantineShare()
    assert not noted(entity, share, 1_000, 0)
    assert noted(entity, share, 0, 112)
    row = streams.read_stream(entity.connection, entity.pipeline.name)
    assert row is not None
    assert (row.desired_state, row.requested_by) == ("stopped", "quarantine.pause_at: 0.1")
    (message,) = incidents(entity)
    assert message.endswith("; the stream is stopped, because quarantine.pause_at is 0.1")
    streams.request_state(entity.connection, entity.pipeline.name, "running", "a person")
    assert not noted(entity, QuarantineShare(), 95, 5)
    assert incidents(entity) == []
