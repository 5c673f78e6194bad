"""What a task returns to the driver about several commits of one partition."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.store.write.ledger_rows import Counts, Rejected
from tidemill.stream.task import PartitionOutcome, RejectedRecords


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


@given(
    sizes=st.lists(st.sampled_from([None, 0, 1, 300_000, 1_000_000, 2_500_000]), max_size=9), batches=st.integers(1, 3)
)
def test_rejected_records_are_the_same_however_they_are_divided(sizes: list[int | None], batches: int) -> None:
    """Each is there once and in order, with its bytes, whether it is iterated over or asked for by its index."""
    rows = [
        {
            "_offset": offset,
            "_error": f"reason {offset}",
            "_timestamp": offset * 1_000,
            "_key": None if offset % 2 else b"key",
            "_value": None if size is None else b"%d" % (offset % 10) * size,
            "_headers": '[{"key": "a", "value": "MTA="}, {"key": "b"}]' if offset % 3 else None,
            "_value_bytes": size,
        }
        for offset, size in enumerate(sizes)
    ]
    types = {"_offset": pa.int64(), "_error": pa.string(), "_timestamp": pa.timestamp("us", "UTC"), "_key": pa.binary()}
    types |= {"_value": pa.binary(), "_headers": pa.string(), "_value_bytes": pa.int64()}
    schema = pa.schema(list(types.items()))
    parts = [pa.Table.from_pylist(rows[number::batches], schema) for number in range(batches)]
    records = RejectedRecords(pa.concat_tables(parts).sort_by("_offset"), slice_bytes=100)
    headers = '[["a", "MTA="], ["b", null]]'
    expected = [
        Rejected(
            row["_offset"], row["_error"], row["_timestamp"], row["_key"], row["_value"],
            headers if row["_headers"] else None, row["_value_bytes"],
        )
        for row in rows
    ]  # fmt: skip
    assert len(records) == len(expected)
    assert list(records) == expected
    assert [records[index] for index in range(len(rows))] == expected
    assert list(records[1:]) == expected[1:]
    with pytest.raises(IndexError):
        records[len(rows)]
