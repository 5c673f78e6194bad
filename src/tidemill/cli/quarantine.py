"""The quarantine as the command line shows it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from tidemill.config import Account, Settings
from tidemill.errors import SpecError
from tidemill.store.connection import session
from tidemill.store.control.quarantine import QuarantineFilter, newest, read_one

_SHOWN_BYTES = 4_096


def list_records(
    settings: Settings, stream: str, choice: QuarantineFilter, limit: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The newest records set aside, as facts and as lines."""
    with session(settings, Account.READ) as connection:
        found = newest(connection, stream, choice, limit)
    lines = [
        f"{each.id}: {each.topic}/{each.partition_id}@{each.record_offset}, "
        f"{'no value' if each.value_bytes is None else f'{each.value_bytes:,} bytes'}"
        f"{', resolved' if each.resolved_commit else ''}: {each.reason}"
        for each in found
    ]
    return [dataclasses.asdict(each) for each in found], lines or ["nothing is quarantined"]


def show_record(settings: Settings, stream: str, number: int) -> tuple[dict[str, Any], list[str]]:
    """One record with what is kept of it; bytes that are not text with escapes.

    Raises:
        SpecError: the stream's quarantine has no such record.
    """
    with session(settings, Account.READ) as connection:
        found = read_one(connection, stream, number)
    if found is None:
        raise SpecError("the quarantine has no such record", value=number, remedy=f"see ./tidemill quarantine {stream}")
    headers = json.loads(found.headers) if found.headers else []
    key, value = _text(found.key), _text(found.value)
    facts = {
        "id": found.id,
        "offset": found.record_offset,
        "key": key,
        "value": value,
        "value_bytes": found.value_bytes,
        "headers": headers,
    }
    lines = [f"key: {_short(key)}", f"value: {_short(value)}"]
    if found.partial:
        lines.append("not all of it is kept here")
    return facts, lines + [f"header {name}: {value}" for name, value in headers]


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "backslashreplace")


def _short(text: str | None) -> str:
    if text is None:
        return "none"
    return text if len(text) <= _SHOWN_BYTES else f"{text[:_SHOWN_BYTES]}… ({len(text):,} characters)"
