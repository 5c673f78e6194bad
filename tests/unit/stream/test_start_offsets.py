"""What a comparison of positions with Kafka's offsets finds."""

from tidemill.store.write.context import Range
from tidemill.stream.start_offsets import describe_ranges, lost_ranges, truncated_ranges


def test_a_range_is_lost_from_the_position_to_the_first_offset_that_is_left() -> None:
    """By partition, in order; partitions whose position is still there have lost nothing."""
    assert lost_ranges({2: 5, 0: 10, 1: 7}, {0: 25, 1: 7, 2: 6}) == (Range(0, 10, 25), Range(2, 5, 6))


def test_a_partition_that_begins_at_its_position_has_lost_nothing() -> None:
    """Nor has one that Kafka emptied after everything in it was read."""
    assert lost_ranges({0: 25}, {0: 25}) == ()
    assert truncated_ranges({0: 25}, {0: 25}) == ()


def test_a_partition_that_ends_before_its_position_has_lost_what_was_read() -> None:
    """All of it where the partition is gone."""
    assert truncated_ranges({0: 10, 1: 7, 2: 0}, {0: 4}) == (Range(0, 4, 10), Range(1, 0, 7))


def test_ranges_are_named_with_their_size() -> None:
    """The end is not included; very many are cut, so that the sentence fits an incident."""
    assert describe_ranges((Range(0, 10, 25), Range(3, 0, 1))) == "partition 0: 10–25 (15), partition 3: 0–1 (1)"
    many = describe_ranges(tuple(Range(number, 10**12, 10**12 + 10**9) for number in range(100)))
    assert many.endswith(", and 70 more partitions")
    assert len(many) < 2000
