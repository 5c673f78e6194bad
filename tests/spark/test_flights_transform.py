"""The transform of the example pipeline over the real feed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from support import expected
from support.cases import outcome
from support.paths import ROOT
from tidemill.demo.chaos import Chaos, FaultKind
from tidemill.demo.feed import Feed, FeedOptions
from tidemill.spec import Pipeline, load_pipeline

FLIGHTS = 3000


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """The example pipeline."""
    return load_pipeline(ROOT / "pipelines" / "flights")


def test_last_records_become_the_final_table(spark: SparkSession, pipeline: Pipeline) -> None:
    """The newest record of each flight is, transformed, the row that the data itself gives."""
    feed = Feed(FeedOptions(limit=FLIGHTS), partitions=1)
    newest = {key: value for key, value, _, _ in feed.messages(feed.remaining([0]))}
    rows, quarantine = outcome(spark, pipeline, "flights", list(newest.values()))
    assert quarantine == []
    assert list(rows[0]) == list(expected.final_flights(1).columns)
    assert expected.differences(expected.final_flights(FLIGHTS), pd.DataFrame(rows, dtype=object), ["id"]) == []


def test_every_malformed_record_is_set_aside(spark: SparkSession, pipeline: Pipeline) -> None:
    """Whatever kind of malformed record chaos makes, the decoder or the table refuses it, and nothing else."""
    feed = Feed(FeedOptions(limit=100, chaos=Chaos(malformed=1.0)), partitions=1)
    bad = feed.sequence.kind > FaultKind.DUPLICATE
    assert set(feed.sequence.kind[bad]) == {kind for kind in FaultKind if kind > FaultKind.DUPLICATE}
    values = [value for _, value, _, _ in feed.messages(feed.remaining([0]))]
    rows, quarantine = outcome(spark, pipeline, "flights", values)
    assert len(quarantine) == np.count_nonzero(bad)
    assert len(rows) == len(feed.records)
