"""Finds the items that the database refuses among many, where an attempt only shows whether it refuses any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tidemill.errors import StoreError, StructureError, Transient

T = TypeVar("T")


def find_refused(items: Sequence[T], attempt: Callable[[Sequence[T]], object]) -> Iterator[tuple[T, StoreError]]:
    """The items for which an attempt fails, each with its error; groups that fail are halved.

    Args:
        items: any number; finding one among n takes about 2 log2(n) attempts.
        attempt: raises StoreError if the database refuses any item of a group.

    Raises:
        Transient, StructureError: an attempt failed for a reason that has nothing to do with the items.
    """
    pending = [items] if items else []
    while pending:
        group = pending.pop()
        try:
            attempt(group)
        except StoreError as error:
            if isinstance(error, Transient | StructureError):
                raise
            half = len(group) // 2
            if half:
                pending += [group[:half], group[half:]]
            else:
                yield group[0], error
