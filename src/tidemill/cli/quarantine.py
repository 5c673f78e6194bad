"""``tidemill quarantine``: the records of a stream that could not become rows."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from tidemill.config import Account, Settings
from tidemill.errors import SpecError
from tidemill.store.connection import session
from tidemill.store.control.quarantine import QuarantineFilter, latest_records, read_one

_SHOWN_BYTES = 4_096


def list_records(
    settings: Settings, stream: str, choice: QuarantineFilter, limit: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The newest quarantined records, as facts and as lines."""
    with session(settings, Account.READ) as connection:
        records = latest_records(connection, stream, choice, limit)
    lines = [
        f"{each.id}: {each.topic}/{each.partition_id}@{each.record_offset}, "
        f"{'no value' if each.value_bytes is None else f'{each.value_bytes:,} bytes'}"
        f"{', resolved' if each.resolved_commit else ''}: {each.reason}"
        for each in records
    ]
    return [dataclasses.asdict(each) for each in records], lines or ["no quarantined records"]


def show_record(settings: Settings, stream: str, number: int) -> tuple[dict[str, Any], list[str]]:
    """Key, value and headers of one record; bytes that are not UTF-8 are escaped.

    Raises:
        SpecError: the quarantine of the stream has no record with this id.
    """
    with session(settings, Account.READ) as connection:
        record = read_one(connection, stream, number)
    if record is None:
        raise SpecError("TM-CLI-RECORD-UNKNOWN", value=number, stream=stream)
    headers = json.loads(record.headers) if record.headers else []
    key, value = _text(record.key), _text(record.value)
    facts = {
        "id": record.id,
        "offset": record.record_offset,
        "key": key,
        "value": value,
        "value_bytes": record.value_bytes,
        "headers": headers,
    }
    lines = [f"key: {_short(key)}", f"value: {_short(value)}"]
    if record.partial:
        lines.append("the record is longer: only its beginning is kept")
    return facts, lines + [f"header {name}: {value}" for name, value in headers]


def _text(content: bytes | None) -> str | None:
    return None if content is None else content.decode("utf-8", "backslashreplace")


def _short(text: str | None) -> str:
    if text is None:
        return "none"
    return text if len(text) <= _SHOWN_BYTES else f"{text[:_SHOWN_BYTES]}… ({len(text):,} characters)"
