"""Rows are scored in the transaction that writes them, by the versions that readers may see."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest

from support.models import own_schemas
from support.scores import FEATURES, Parcel, Post, by_hand, open_post
from tidemill.config import Account, Settings
from tidemill.errors import Contention, SpecError
from tidemill.ml.registry.versions import lock_model, transaction
from tidemill.store.connection import connect, session
from tidemill.store.sql import dialect
from tidemill.store.write import transaction as commit  # its internals, for one process to act as two
from tidemill.testing import wait_until

SOME = [Parcel(1, "Ulm", 1.5, 0.1, 0), Parcel(2, None, None, None, None), Parcel(3, "Kiel", 2.0, 0.7, 1)]


@pytest.fixture
def post(mariadb: Settings, tmp_path: Path) -> Iterator[Post]:
    """A stream with nothing in it, and no champion."""
    with own_schemas(mariadb, tmp_path / "models") as settings:
        post = open_post(settings, tmp_path)
        yield post
        post.connection.close()


def test_without_a_champion_nothing_is_scored(post: Post) -> None:
    """The rows are written all the same."""
    assert post.write(SOME).written == 3
    assert post.query("SELECT COUNT(*), COUNT(score) FROM parcels_scored") == [(3, 0)]


def test_rows_are_visible_with_their_scores(post: Post) -> None:
    """Every row that a commit writes has its score with it, the changed ones a new one, the stale ones none."""
    post.put(1)
    post.point(1, 1)
    first = post.write(SOME)
    assert post.query("SELECT id, score, model_version, as_of_commit FROM parcels_scored ORDER BY id") == [
        (1, 0.1, 1, first.commit_id),
        (2, 0.25, 1, first.commit_id),
        (3, 0.7, 1, first.commit_id),
    ]
    second = post.write([Parcel(1, "Ulm", 1.5, 0.9, 0, version=5), Parcel(3, "Kiel", 2.0, 5.0, 1, version=-5)])
    assert (second.written, second.stale) == (1, 1)
    assert post.scores(1) == {1: 0.9, 2: 0.25, 3: 0.7}
    assert (
        post.query("SELECT id FROM parcel_scores AS s JOIN parcels AS p USING (id) WHERE scored_commit <> _commit")
        == []
    )


def test_features_are_read_as_the_commit_leaves_the_tables(post: Post) -> None:
    """A feature from a rollup counts the rows of this very commit."""
    post.put(1, by_hand(inputs=["parcels"]))
    post.point(1, 1)
    post.write([Parcel(1, "Ulm", 1.0, 0.1, 0), Parcel(2, "Ulm", 1.0, 0.1, 0)])
    assert post.scores(1) == {1: 2.0, 2: 2.0}
    post.write([Parcel(3, "Ulm", 1.0, 0.1, 0)])
    assert post.scores(1) == {1: 2.0, 2: 2.0, 3: 3.0}


def test_a_dry_run_scores_nothing(post: Post) -> None:
    """Nor does it keep anything else."""
    post.put(1)
    post.point(1, 1)
    post.write(SOME, dry_run=True)
    assert post.scores(1) == {}


def test_a_promotion_reaches_the_next_commit(post: Post) -> None:
    """The new champion scores beside the version that is still published: the move of the pointer leaves no gap."""
    for version, factor in ((1, 1.0), (2, 10.0)):
        post.put(version, by_hand(factor))
    post.point(1, 1)
    post.write(SOME[:1])
    post.point(2, 1)
    post.write(SOME[2:])
    assert post.query("SELECT id, score, model_version FROM parcels_scored ORDER BY id") == [(1, 0.1, 1), (3, 0.7, 1)]
    post.point(2, 2)
    assert post.query("SELECT id, score, model_version FROM parcels_scored ORDER BY id") == [
        (1, None, None),
        (3, 7.0, 2),
    ]
    post.write([Parcel(4, None, None, 2.0, None)])
    assert post.scores(2) == {3: 7.0, 4: 20.0}


def test_a_commit_waits_for_a_promotion_under_way(post: Post) -> None:
    """Between promotion and commit there is an order: the commit after it scores with the new champion."""
    for version in (1, 2):
        post.put(version, by_hand(float(version)))
    post.point(1, 1)
    promoting = connect(post.settings, Account.STREAM)
    with transaction(promoting):
        lock_model(promoting, "post", post.model)
        writing = threading.Thread(target=post.write, args=(SOME,))
        writing.start()
        waits = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        wait_until(lambda: _asked(post, waits), 60, "the commit waits")
        with promoting.cursor() as cursor:
            cursor.execute("UPDATE models SET champion_version = 2")
    writing.join(60)
    promoting.close()
    assert post.scores(2) == {1: 0.2, 2: 0.5, 3: 1.4}


def _asked(post: Post, sql: str) -> bool:
    root = pymysql.connect(
        host=post.settings.db_host,
        port=post.settings.db_port,
        user="root",
        password=post.settings.secret("root").get_secret_value(),
    )
    try:
        with root.cursor() as cursor:
            return bool(cursor.execute(sql))
    finally:
        root.close()


def test_a_model_that_cannot_score_stops_no_stream(post: Post, mariadb: Settings, tmp_path: Path) -> None:
    """A feature query that the database refuses costs the scores and nothing else: one incident says so, until the
    model scores again."""
    other = open_post(
        post.settings, tmp_path, features=FEATURES.replace("p.weight", "p.weight / (SELECT 1 UNION SELECT 2) AS weight")
    )
    other.put(1, by_hand(inputs=["weight"]))
    other.point(1, 1)
    assert other.write(SOME).written == 3
    other.write([Parcel(4, None, 1.0, 2.0, None)])
    assert other.scores(1) == {}
    ((subject, kind, sentence),) = other.query("SELECT subject, kind, message FROM {control}.incidents")
    assert (subject, kind) == ("model post.breaks", "live_scores")
    assert "continues without scores" in sentence
    other.connection.close()
    mended = open_post(post.settings, tmp_path)
    mended.position, mended.batch_id = other.position, other.batch_id
    mended.write([Parcel(5, None, 1.0, 2.0, None)])
    assert mended.scores(1) == {5: 1.0}
    assert mended.query("SELECT COUNT(*), COUNT(closed_at) FROM {control}.incidents") == [(1, 1)]
    mended.connection.close()


def test_a_row_without_a_number_as_score_has_null_and_its_neighbours_have_theirs(post: Post) -> None:
    """Also in place of an earlier score, which was of other content; one incident counts them and names one."""
    post.put(1, by_hand(1e300))
    post.point(1, 1)
    afar = replace(SOME[0], distance=1e10)
    assert post.write([afar, *SOME[1:]]).written == 3
    assert post.scores(1) == {1: None, 2: 0.25e300, 3: 0.7e300}
    assert post.query("SELECT id, score FROM parcels_scored ORDER BY id") == [(1, None), (2, 0.25e300), (3, 0.7e300)]
    post.write([replace(afar, distance=0.5, version=1), replace(SOME[2], distance=-1e10, version=1)])
    assert post.scores(1) == {1: 0.5e300, 2: 0.25e300, 3: None}
    assert post.query("SELECT subject, kind, message, closed_at FROM {control}.incidents") == [
        (
            "model post.breaks",
            "unscored_rows",
            "version 1 of model post.breaks gave no number as score for 1 row, such as id 1: their score is NULL, the"
            " others are scored",
            None,
        )
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"torn", "TM-STORE-MODEL-DAMAGED", id="damaged-model"),
        pytest.param(None, "denied", id="a-table-that-only-readers-may-see"),
    ],
)
def test_whatever_keeps_a_model_from_scoring_is_an_incident(
    post: Post, tmp_path: Path, content: bytes | None, said: str
) -> None:
    """Not only what the database calls a wrong statement."""
    query = FEATURES
    if content is None:
        hidden = f"{post.settings.db_data}_hidden"
        _as_root(post, f"CREATE DATABASE {hidden}", f"CREATE TABLE {hidden}.weights (id BIGINT, weight DOUBLE)")
        query = FEATURES.replace("p.weight", f"(SELECT MAX(w.weight) FROM {hidden}.weights AS w) AS weight")
    other = open_post(post.settings, tmp_path, features=query)
    other.put(1, by_hand(inputs=["weight"]))
    if content is not None:
        with other.connection.cursor() as cursor:
            cursor.execute("UPDATE portable_models SET content = %s", (content,))
    other.point(1, 1)
    assert other.write(SOME).written == 3
    assert other.scores(1) == {}
    [(sentence,)] = other.query("SELECT message FROM {control}.incidents")
    assert said in sentence
    if content is None:
        _as_root(post, f"DROP DATABASE {post.settings.db_data}_hidden")
    other.connection.close()


def _as_root(post: Post, *statements: str) -> None:
    root = pymysql.connect(
        host=post.settings.db_host,
        port=post.settings.db_port,
        user="root",
        password=post.settings.secret("root").get_secret_value(),
    )
    with contextlib.closing(root), root.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_a_champion_of_other_features_scores_nothing(post: Post) -> None:
    """One trained on a feature that the query does not select any more waits to be replaced; that is no incident."""
    post.put(1, by_hand(inputs=["volume"]))
    post.point(1, 1)
    assert post.write(SOME).written == 3
    assert post.scores(1) == {}
    assert post.query("SELECT * FROM {control}.incidents") == []


def test_what_cannot_score_live_is_refused(post: Post, tmp_path: Path) -> None:
    """A feature query that would be computed anew for all rows with every commit, and a model that only Spark can
    evaluate."""
    grouped = (
        "SELECT p.id, MAX(p.sent_at) AS known_at, 1 AS distance, p.broken, p._commit FROM parcels AS p GROUP BY p.id"
    )
    with pytest.raises(SpecError, match="TM-SPEC-FEATURES-NOT-ROW-WISE") as caught:
        open_post(post.settings, tmp_path, features=grouped)
    assert caught.value.value == "GROUP BY"
    with pytest.raises(SpecError, match="TM-SPEC-SCORE-LIVE-ESTIMATOR"):
        open_post(post.settings, tmp_path, estimator="als", promotion={"metric": "rmse"})


def test_the_cost_does_not_grow_with_the_tables(post: Post) -> None:
    """Each row of a commit is found by its key, also where the database believes that the keys tell nothing apart, as
    it may in the midst of a load: it would rather compare all that is staged with all that there is."""
    schema, d = post.settings.db_data, dialect(post.settings.db_dialect)
    post.write([Parcel(n, f"c{n}", 1.0, 0.5, 0) for n in range(1, 3_001)])
    for table in ("parcels", "parcels_by_city"):
        _as_root(
            post,
            f"ANALYZE TABLE {schema}.{table}",
            "UPDATE mysql.innodb_index_stats SET stat_value = 1 WHERE stat_name LIKE 'n_diff%'"
            f" AND database_name = '{schema}' AND table_name = '{table}'",
            "COMMIT",
            f"FLUSH TABLES {schema}.{table}",
        )
    table, model = post.pipeline.tables["parcels"], post.pipeline.models[post.model]
    query = d.with_rollups_by_key(model.query, post.pipeline.rollups)
    asked = d.committed_features(schema, query, model, table, ["distance", "parcels"], 1)
    with session(post.settings, Account.STREAM, schema=schema) as connection, connection.cursor() as cursor:
        for sql in d.create_stage(schema, "parcels", table):
            cursor.execute(sql)
        columns = ", ".join([*table.columns, "_offset"])
        cursor.execute(f"INSERT INTO _stage_parcels ({columns}) SELECT {columns} FROM parcels")
        cursor.execute(asked.replace("SELECT", "EXPLAIN SELECT", 1))
        plan = {row[2]: (row[3], row[-1]) for row in cursor.fetchall()}
    assert {name: way for name, (way, _) in plan.items()} == {"s": "ALL", "p": "eq_ref", "h": "ref"}, plan


def test_partitions_do_not_stand_in_each_others_way(post: Post) -> None:
    """Keys of two partitions lie between each other, and are scored anew by both at once: nobody has to give way."""
    post.put(1)
    post.point(1, 1)
    gave_way: list[Contention] = []
    together = threading.Barrier(2, timeout=60)

    def work(partition: int) -> None:
        connection = connect(post.settings, Account.STREAM)
        for number in range(6):
            parcels = [Parcel(n, f"c{n}", 1.0, float(number), 0, version=number) for n in range(partition, 1_200, 2)]
            batch = replace(post.batch(parcels, partition), batch_id=number)
            together.wait()
            while True:
                try:
                    commit._Transaction(connection, post.settings, post.pipeline, post.write_context, batch).run()
                    break
                except Contention as error:
                    gave_way.append(error)
                    connection.rollback()
            post.position[partition] = batch.range.until
        connection.close()

    writers = [threading.Thread(target=work, args=(partition,)) for partition in (0, 1)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert gave_way == []
    assert set(post.scores(1).values()) == {5.0}
    assert len(post.scores(1)) == 1_200
