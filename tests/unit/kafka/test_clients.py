"""The options that every client has."""

from __future__ import annotations

from support.paths import ROOT
from tidemill.config import Settings
from tidemill.kafka import clients

FACTORIES = ("AdminClient(", "Consumer(", "Producer(")


def builders(text: str) -> list[str]:
    """Lines that build a client of librdkafka directly."""
    return [line.strip() for line in text.splitlines() if any(f" {name}" in line for name in FACTORIES)]


def test_one_module_builds_clients() -> None:
    """A time-out or a security option has one place; a client that is built elsewhere would be found."""
    package = ROOT / "src" / "tidemill"
    modules = [path for path in package.rglob("*.py") if path != package / "kafka" / "clients.py"]
    assert {str(path): found for path in modules if (found := builders(path.read_text()))} == {}
    assert builders("    client = AdminClient({})") != []


def test_every_client_can_be_built(settings: Settings) -> None:
    """librdkafka refuses an option that it does not know, and options that contradict each other."""
    clients.admin(settings)
    clients.readiness_probe(settings)
    clients.producer(settings, {"transactional.id": "test"})
    clients.consumer(settings, "test", {"enable.partition.eof": True}).close()


def test_time_outs_of_the_stream_fit_each_other(settings: Settings) -> None:
    """Kafka refuses a request time-out over that of the whole call; a batch query keeps Kafka's."""
    options = clients.stream_source_options(settings)
    assert int(options["kafka.request.timeout.ms"]) <= int(options["kafka.default.api.timeout.ms"])
    assert options.items() >= clients.source_options(settings).items()
    assert options["kafka.isolation.level"] == "read_committed"
