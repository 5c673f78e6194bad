"""Dates and instants in text: one form, ISO 8601, of which every text means exactly one value.

Spark's own cast also takes ``12:30`` (of today), ``2026`` (its first day), zones by name, in which an hour of
autumn is two hours, and cuts off what is beyond a microsecond.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6}0*)?)?"
_ZONE = r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)"


def date_of(text: Column) -> Column:
    """``2026-02-28`` as a DATE; NULL for any other form, and for a day that there is not."""
    return F.when(text.rlike(rf"\A{_DATE}\z"), text.try_cast("date"))


def instant_of(text: Column) -> Column:
    """``2026-02-28T23:59:59.999999+01:00`` as a TIMESTAMP; NULL for any other form, and for a time that there is not.

    A blank may replace the T. Seconds, fraction and zone may be left out, and so may the whole time: it is midnight
    then. Without a zone it is UTC.
    """
    return F.when(text.rlike(rf"\A{_DATE}(?:[T ]{_TIME}{_ZONE}?)?\z"), text.try_cast("timestamp"))


def local_time_of(text: Column) -> Column:
    """The same without a zone, as a TIMESTAMP_NTZ."""
    return F.when(text.rlike(rf"\A{_DATE}(?:[T ]{_TIME})?\z"), text.try_cast("timestamp_ntz"))
