"""What a task returns to the driver about several commits of one partition."""

from tidemill.store.write.ledger_rows import Counts
from tidemill.stream.task import PartitionOutcome


def test_commits_of_one_partition_add_up() -> None:
    """Counts, warnings and latencies are sums, the newest record is the newest of both."""
    first = PartitionOutcome(Counts(1, written=3, gap=1), {"odd": 2}, 0, 500, {7: 2, 9: 1})
    second = PartitionOutcome(Counts(2, written=4), {"odd": 1, "late": 1}, 1, 400, {9: 4})
    both = PartitionOutcome(Counts(2, written=7, gap=1), {"odd": 3, "late": 1}, 1, 500, {7: 2, 9: 5})
    assert first.plus(second) == both


def test_a_commit_of_an_earlier_attempt_has_no_latencies() -> None:
    """It is known from the ledger only; what comes after it is added."""
    known = PartitionOutcome(Counts(1, written=3), {})
    later = PartitionOutcome(Counts(2, written=1), {}, 0, 400, {9: 1})
    assert known.plus(later) == PartitionOutcome(Counts(2, written=4), {}, 0, 400, {9: 1})
    assert known.plus(known).newest_us is None
