"""Hostile records: what a producer may put into Kafka, by mistake or on purpose, drawn from a seed."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NOW_MS = 1_770_000_000_000
FIRST_BAD_ID = 10**9
MODES = ("raise", "millis", "element", "assert")
"""What the transform does for a record: each may raise, in the JVM."""
SCHEMA = "id BIGINT, note STRING, mode STRING, ms BIGINT, amount DECIMAL(12,2), tags ARRAY<STRING>, deep STRUCT<a: INT>"
SELECT = """
SELECT id,
    CASE mode
        WHEN 'raise' THEN raise_error(note)
        WHEN 'millis' THEN CAST(timestamp_millis(ms) AS STRING)
        WHEN 'element' THEN element_at(array('a', 'b'), CAST(ms AS INT))
        WHEN 'assert' THEN CAST(assert_true(ms < 0) AS STRING)
        ELSE substr(note, 1, 16)
    END AS note
FROM records
"""


@dataclass(frozen=True)
class Hostile:
    """One record as it is produced."""

    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    timestamp_ms: int = NOW_MS
    row: tuple[int, str | None] | None = None
    """What is in the table if it is written; None if that is not compared."""


def good(number: int) -> Hostile:
    """A record that has to be written, as what follows from it."""
    note = f"good {number}"
    return Hostile(json.dumps({"id": number, "note": note}).encode(), row=(number, note))


class Drawn:
    """Draws hostile records; each has an id of its own."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._next = FIRST_BAD_ID

    def record(self) -> Hostile:
        """The next one."""
        self._next += 1
        drawn: list[Callable[[int], Hostile]] = [self._raises, self._number, self._text, self._shape, self._envelope]
        return self.chance.choices(drawn, [2, 3, 3, 3, 1])[0](self._next)

    def _raises(self, number: int) -> Hostile:
        ms = self.chance.choice([9 * 10**18, -(2**63), 2**63 - 1, 0, 1, 3, -5, self.chance.randrange(-(2**63), 2**63)])
        value = {"id": number, "note": self._characters(), "mode": self.chance.choice(MODES), "ms": ms}
        return Hostile(json.dumps(value).encode())

    def _number(self, number: int) -> Hostile:
        """Numbers of any length and form in every field."""
        digits = "9" * self.chance.choice([1, 12, 19, 20, 38, 39, 400, 5_000])
        form = self.chance.choice(
            ["{d}", "-{d}", "0.{d}", "{d}.{d}", "1e{e}", "-1E-{e}", "0{d}", "+{d}", "{d}e", "NaN"]
        )
        text = form.format(d=digits, e=self.chance.choice([1, 10, 400, 9_999]))
        name = self.chance.choice(["amount", "ms", "note", "tags", "deep", "unknown"])
        return Hostile(f'{{"id": {number}, "{name}": {text}}}'.encode())

    def _text(self, number: int) -> Hostile:
        """Characters of every plane, escapes, lone surrogates, bytes that are no text."""
        kind = self.chance.randrange(4)
        if kind == 0:
            note = self._characters()
            return Hostile(
                json.dumps({"id": number, "note": note}, ensure_ascii=False).encode(), row=(number, note[:16])
            )
        if kind == 1:
            surrogate = f"\\u{self.chance.randrange(0xD800, 0xE000):04x}"
            return Hostile(f'{{"id": {number}, "note": "a{surrogate}"}}'.encode())
        if kind == 2:
            return Hostile(b'{"id": %d, "note": "%s"}' % (number, self.chance.randbytes(8)))
        return Hostile(self.chance.randbytes(self.chance.randrange(200)))

    def _shape(self, number: int) -> Hostile:
        """Depth, width, duplicated names, wrong types, text after the object, halves of objects."""
        size = self.chance.choice([1, 10, 500, 3_000])
        whole, nested = json.dumps({"id": number, "note": "whole"}), '{"a":' * size + "1" + "}" * size
        shapes: list[str] = [
            f'{{"id": {number}, "deep": {nested}}}',
            f'{{"id": {number}, "tags": {"[" * size + "]" * size}}}',
            json.dumps({"id": number} | {f"f{n}": n for n in range(size)}),
            json.dumps({"id": number, "tags": ["t"] * size}),
            f'{{"id": {number}, "id": {number}, "note": "twice"}}',
            json.dumps({"id": number, "note": self._wrong()}),
            json.dumps(self._wrong()),
            whole + " trailing",
            whole[: self.chance.randrange(len(whole))],
            f"[{whole}]",
            " " * size * 10 + whole,
            "\ufeff" + whole,
        ]
        return Hostile(self.chance.choice(shapes).encode())

    def _wrong(self) -> Any:
        return self.chance.choice([None, True, 1.5, [], {}, [None], {"a": {}}, "", 0, -1, "text"])

    def _envelope(self, number: int) -> Hostile:
        """Tombstones, empty values, keys, headers, and times of any 64 bits."""
        chance = self.chance
        value = chance.choice([None, b"", json.dumps({"id": number, "note": "timely"}).encode()])
        headers = [(chance.choice(["", "h", "ключ"]), chance.choice([None, b"", chance.randbytes(20)]))]
        at = chance.choice([1, 2**31 * 1000, 253_402_300_800_000, 2**53, NOW_MS * 1000, NOW_MS * 10**6, 2**63 - 1])
        return Hostile(value, chance.choice([None, b"", b"\xff", b"{}"]), headers * chance.randrange(4), at)

    def _characters(self) -> str:
        """Any characters but surrogates."""
        codes = (self.chance.randrange(sys.maxunicode + 1 - 0x800) for _ in range(self.chance.randrange(1, 24)))
        return "".join(chr(code if code < 0xD800 else code + 0x800) for code in codes)
