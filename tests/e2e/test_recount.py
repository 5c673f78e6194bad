"""Verification against a real broker: its offsets, and its records one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic
from typer.testing import CliRunner

from support.writes import Writer, make_writer
from tidemill.cli.main import app
from tidemill.config import Account, Settings
from tidemill.errors import VerifyError
from tidemill.kafka import clients
from tidemill.kafka.audit import count_records
from tidemill.kafka.clients import admin
from tidemill.store.connection import session
from tidemill.supervisor.maintenance import maintain_pipeline, verify_and_report


@pytest.fixture
def writer(mariadb: Settings, kafka: Settings, tmp_path: Path) -> Writer:
    """A stream whose topic has four partitions: records, aborted ones and transaction markers."""
    writer = make_writer(mariadb, tmp_path, "entity")
    topic = writer.pipeline.source.topic
    client = admin(kafka)
    client.create_topics([NewTopic(topic, 4, 1)])[topic].result(60)
    producer = clients.producer(kafka, {"transactional.id": topic})
    producer.init_transactions(60)
    for records, keep in ((3, True), (2, False), (4, True)):
        producer.begin_transaction()
        for number in range(records):
            producer.produce(topic, f"{number}", partition=0)
        if keep:
            producer.commit_transaction(30)
        else:
            # Sent first: what never arrived leaves no trace to be passed over.
            producer.flush(60)
            producer.abort_transaction(30)
    return writer


def ledger_incidents(writer: Writer) -> list[tuple[str, bool]]:
    """The incidents of the ledger: message, and whether it is closed."""
    with session(writer.settings, Account.READ) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT message, closed_at IS NOT NULL FROM incidents WHERE subject = %s AND kind = 'ledger' ORDER BY id",
            (f"stream {writer.pipeline.name}",),
        )
        return [(str(sentence), bool(closed)) for sentence, closed in cursor.fetchall()]


def execute(writer: Writer, statement: str) -> None:
    """Damage, or fix, the control plane."""
    with session(writer.settings, Account.STREAM) as connection, connection.cursor() as cursor:
        cursor.execute(statement + f" WHERE stream = '{writer.pipeline.name}' AND partition_id = 0")


def test_what_kafka_delivers_is_counted_commit_by_commit(writer: Writer, kafka: Settings) -> None:
    """Markers and aborted records are gaps; a ledger that took one for a record is found out, merged or not."""
    rows = [(key, "red", 1, key) for key in range(7)]
    writer.write(rows[:3], gap=1)
    writer.write(rows[3:6], gap=3)
    assert count_records(writer.settings, writer.pipeline) == []
    writer.write(rows[6:], gap=1)
    assert count_records(writer.settings, writer.pipeline) == []
    execute(writer, "UPDATE commits SET committed_at = committed_at - INTERVAL 31 DAY")
    assert maintain_pipeline(writer.settings, writer.pipeline)["merged_commits"] == 1
    assert count_records(writer.settings, writer.pipeline) == []
    execute(writer, "UPDATE commits SET written_rows = written_rows + gap_rows, gap_rows = 0")
    first, second = count_records(writer.settings, writer.pipeline)
    assert first.endswith("counts 10 records in offsets 0 to 10, Kafka delivers 6")
    assert second.endswith("counts 2 records in offsets 10 to 12, Kafka delivers 1")


def test_a_difference_is_an_incident_until_it_is_over(writer: Writer, kafka: Settings) -> None:
    """One that stays is reported once."""
    client = admin(kafka)
    writer.write([(1, "red", 1, 1)])
    assert verify_and_report(writer.settings, writer.pipeline, client).differences == ()
    assert ledger_incidents(writer) == []
    execute(writer, "UPDATE offsets SET position = 99")
    difference = "partition 0: the position is 99, the ledger ends at 1"
    for _ in range(2):
        with pytest.raises(VerifyError, match=difference):
            verify_and_report(writer.settings, writer.pipeline, client)
    [(sentence, closed)] = ledger_incidents(writer)
    assert sentence == f"{difference}; and 1 more"
    assert not closed
    execute(writer, "UPDATE offsets SET position = 1")
    verify_and_report(writer.settings, writer.pipeline, client)
    assert ledger_incidents(writer) == [(sentence, True)]


def test_the_commands_print_their_findings(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run changes nothing; verification names the first difference and leaves with 1."""
    name = writer.pipeline.name
    monkeypatch.setenv("TIDEMILL_PIPELINES", str(writer.pipeline.folder.parent))
    for key in range(3):
        writer.write([(key, "red", 1, key)])
    execute(writer, "UPDATE commits SET committed_at = committed_at - INTERVAL 31 DAY")

    def printed(*arguments: str) -> str:
        found = CliRunner().invoke(app, [*arguments, name])
        assert found.exception is None
        return found.output.strip()

    assert printed("verify", "--deep") == f"{name}: ledger, Kafka and tables agree"
    for _ in range(2):
        assert printed("maintain", "--dry-run") == f"{name}: would be done: 1 merged commits"
    assert json.loads(printed("maintain", "--json"))[name]["merged_commits"] == 1
    assert printed("maintain") == f"{name}: nothing to do"
    execute(writer, "UPDATE offsets SET position = 2")
    found = CliRunner().invoke(app, ["verify", name])
    assert isinstance(found.exception, VerifyError)
    assert found.exception.exit_code == 1
    assert found.output.startswith(f"{name}: partition 0: the position is 2, the ledger ends at 3\n")
