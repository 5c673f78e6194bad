"""What is generated for each database. After a change that is meant: ``UPDATE_GOLDEN=1 pytest <this file>``."""

import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import sqlglot
from sqlglot import exp

from support.paths import ROOT
from support.sql_text import readable
from tidemill.errors import ConfigError, StoreError
from tidemill.spec.checks.features import parse_feature_query
from tidemill.spec.schema import Pipeline
from tidemill.store.migrations import SCHEMA_VERSIONS
from tidemill.store.sql import DIALECTS, Dialect, dialect
from tidemill.store.sql.capabilities import Capabilities
from tidemill.store.sql.identifiers import OLDER_THAN_TOMBSTONE, deletion_markers, pending, stage
from tidemill.store.sql.maintenance import MARKER_UNTIL, older_than
from tidemill.store.sql.replay import STILL_OUTDATED

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(DIALECTS)
QUERY = "SELECT o.shop, o.id, o.changed_at, o.amount, o.state = 'back' AS back, o._commit FROM orders AS o -- 5 %"
SHOP = Pipeline.model_validate(
    {
        "name": "shop",
        "owner": "nobody",
        "source": {"topic": "shop", "schema": "shop INT", "key": "shop INT, id BIGINT"},
        "tables": {
            "orders": {
                "from": "orders.sql",
                "kind": "entity",
                "key": ["shop", "id"],
                "version": "changed_at",
                "columns": {
                    "shop": "INT NOT NULL",
                    "id": "BIGINT NOT NULL",
                    "state": "VARCHAR(8)",
                    "amount": "DECIMAL(12,2)",
                    "placed_at": "DATETIME",
                    "changed_at": "DATETIME(6) NOT NULL",
                },
                "indexes": [["state", "placed_at"]],
            },
            "clicks": {
                "from": "clicks.sql",
                "kind": "event",
                "key": ["code"],
                "columns": {"code": "VARCHAR(12) NOT NULL", "page": "TEXT", "at": "DATETIME(6) NOT NULL"},
            },
        },
        "rollups": {
            "orders_by_hour": {
                "of": "orders",
                "by": {
                    "state": {"expr": "NULLIF(state, '')", "type": "VARCHAR(8)"},
                    "hour": {"expr": "DATE_FORMAT(placed_at, '%Y-%m-%d %H:00:00')", "type": "DATETIME"},
                },
                "measures": {"orders": "count(*)", "amount": "sum(amount)", "dear": "sum(amount > 100)"},
            },
            "clicks_by_page": {
                "of": "clicks",
                "by": {"page": {"expr": "LEFT(page, 20)", "type": "VARCHAR(20)"}},
                "measures": {"clicks": "count(*)"},
            },
        },
        "models": {
            "comes_back": {
                "features": "features.sql",
                "table": "orders",
                "key": ["shop", "id"],
                "label": "back",
                "known_at": "changed_at",
                "estimator": "gbt_classifier",
                "baseline": "amount",
                "train": {"schedule": "@daily"},
                "promotion": {"metric": "areaUnderROC"},
                "score": {"schedule": "@daily", "table": "order_scores"},
            }
        },
        "folder": "/nowhere",
        "digest": "0" * 64,
    }
)
SHOP = SHOP.with_queries({name: parse_feature_query(model, QUERY) for name, model in SHOP.models.items()})
UNTIL = datetime(2026, 1, 2, 3, 4, 5)


class _Generated(dict[str, tuple[str, ...]]):
    """Statements by method and what they are about."""

    def __init__(self, of: Dialect) -> None:
        super().__init__()
        self.of = of

    def put(self, method: str, *args: object, about: str = "", **options: object) -> None:
        """Call a method and keep what it says; a refusal is kept as a comment."""
        told = [about, *(f"{name}={value}" for name, value in options.items())]
        try:
            said = getattr(self.of, method)(*args, **options)
        except StoreError as error:
            said = f"-- {error}"
        self[" ".join([method, *filter(None, told)])] = (said,) if isinstance(said, str) else tuple(said)


def generated(of: Dialect) -> dict[str, tuple[str, ...]]:
    """Every statement of the made-up pipeline, by method and what it is about."""
    found = _Generated(of)
    found.put("session")
    found.put("snapshot_read")
    for method in ("first_row", "count_rows", "empty"):
        found.put(method, "data", "orders", about="orders")
    found.put("offsets_in", "data", stage("orders"), about="orders")
    for name in SHOP.tables:
        _put_table(found, name)
    for name in SHOP.rollups:
        _put_rollup(found, name)
    for name in SHOP.models:
        _put_model(found, name)
    for name in SHOP.tables:
        _put_replay(found, name)
        _put_upkeep(found, name)
    for name in SHOP.rollups:
        rollup = SHOP.rollups[name]
        found.put("differing_groups", "data", name, rollup, SHOP.tables[rollup.of], 1000, about=name)
    for name, model in SHOP.models.items():
        found.put("scored_versions", "data", model.score.table, about=name)
        found.put("count_version", "data", model.score.table, about=name)
        found.put("remove_scores", "data", model.score.table, model, about=name)
    return found


def _put_table(found: _Generated, name: str) -> None:
    table = SHOP.tables[name]
    here, columns = ("data", name, table), [*table.columns, "_offset"]
    found.put("create_table", *here, about=name)
    found.put("create_deletion_markers", *here, about=name)
    found.put("create_stage", *here, about=name)
    found.put("create_stage", *here, about=name, keyed=False)
    found.put("load", "data", stage(name), columns, about=name)
    found.put("load", "data", stage(name), columns, about=name, lenient=True)
    for method in (
        "insert_or_lock",
        "lock_existing",
        "count_known",
        "update",
        "written_offsets",
        "create_tombstones",
        "discard_recorded_tombstones",
    ):
        found.put(method, *here, about=name)
    found.put("insert_locked_key", *here, about=name)
    found.put("lock_rows_to_remove", *here, OLDER_THAN_TOMBSTONE, about=name)
    found.put("delete_locked_rows", *here, about=name)
    found.put("record_deletions", *here, about=name)
    found.put("recorded_deletions", *here, about=name)
    found.put("discard_deleted_rows", *here, about=name)


def _put_rollup(found: _Generated, name: str) -> None:
    rollup = SHOP.rollups[name]
    table = SHOP.tables[rollup.of]
    here = ("data", name, rollup, table)
    found.put("create_rollup", *here, about=name)
    found.put("create_rollup_cursor", "data", name, table, about=name)
    found.put("create_delta", *here, about=name)
    for complete in (True, False):
        found.put("move_rollup", *here, about=name, all_new=True, complete=complete)
        found.put("move_rollup", *here, about=name, all_new=False, complete=complete)
        found.put("remove_from_rollup", *here, about=name, complete=complete)
    found.put("probe_rollup", *here, about=name)
    for first in (True, False):
        found.put("next_cursor", *here, about=name, first=first)
        found.put("backfill_rollup", *here, about=name, first=first)
    found.put("recompute_rollup", "data", rollup, table, about=name)
    found.put("compare_rollup", *here, about=name)


def _put_model(found: _Generated, name: str) -> None:
    model = SHOP.models[name]
    table = SHOP.tables[model.table]
    rows = found.of.feature_rows(QUERY, model, table)
    found.put("create_scores", "data", model.score.table, model, table, about=name)
    found.put("create_scores", "data", pending(model.score.table), model, table, about=f"{name} pending")
    found.put("create_scored_view", "control", "data", SHOP, model.table, about=name)
    found.put("feature_rows", QUERY, model, table, about=name)
    found.put("committed_features", "data", QUERY, model, table, ["amount"], 7, about=name)
    found.put("create_score_stage", "data", model, table, about=name)
    found.put("upsert_scores", "data", model, about=name)
    found.put("unscored", "data", rows, model, 3, about=name)
    found.put("next_cut", "data", model.table, "id", 500, None, about=f"{name} first")
    found.put("next_cut", "data", model.table, "id", 500, 77, about=f"{name} next")
    found.put("key_ranges", "id", (33, 77), about=name)
    found.put("key_digests", model.key, 3, about=name)
    for method in ("publish_scores", "publish_part", "clear_pending", "count_pending", "count_scores", "unscored_rows"):
        found.put(method, "data", model, about=name)
    alive = model.model_copy(update={"score": model.score.model_copy(update={"live": True})})
    found.put("publish_scores", "data", alive, about=f"{name} live")
    found.put("create_snapshot", "data", name, model, about=name)
    found.put("extend_snapshot", "data", name, model, UNTIL, about=name)
    found.put("compare_snapshot", "data", name, model, ["amount"], about=name)
    found.put("count_missing", "data", name, model, UNTIL, about=name)
    past = (
        "SELECT o.shop, o.id, o.changed_at, h.orders AS amount, o.state = 'back' AS back, o._commit FROM orders AS o"
        " LEFT JOIN orders_by_hour AS h ON h.state = o.state WHERE o.id IN (SELECT id FROM orders)"
    )
    before = model.with_query(parse_feature_query(model, past))
    found.put("with_rollups_by_key", before.query, SHOP.rollups, about=name)
    found.put("without_later", "data", SHOP, before, UNTIL, about=name)
    found.put("compare_look_ahead", past, before, ["amount"], (UNTIL, UNTIL, 9), about=name)


def _put_replay(found: _Generated, name: str) -> None:
    table = SHOP.tables[name]
    here = ("data", name, table)
    for after in (False, True):
        found.put("outdated_rows", *here, 2, about=name, after=after)
    found.put("insert_tombstone", *here, about=name)
    found.put("lock_rows_to_remove", *here, STILL_OUTDATED, about=f"{name} outdated")
    found.put("count_rewritable", *here, about=name)
    found.put("deleted_concurrently", *here, about=name)


def _put_upkeep(found: _Generated, name: str) -> None:
    table, old = SHOP.tables[name], older_than({"orders": "placed_at", "clicks": "at"}[name])
    found.put("row_bounds", "data", name, about=name)
    found.put("count_expired", "data", name, old, about=name)
    found.put("clear_tombstones", "data", name, about=name)
    for first in (True, False):
        found.put("stage_expired", "data", name, table, old, about=name, source=name, first=first)
    found.put("stage_expired", "data", name, table, MARKER_UNTIL, about=name, source=deletion_markers(name), first=True)
    found.put("last_tombstone", "data", name, table, about=name)
    found.put("delete_expired_markers", "data", name, table, about=name)


def statements(of: Dialect) -> Iterator[tuple[str, str]]:
    """What is sent, and from where it comes; conditions and refusals are no statements."""
    for name, texts in generated(of).items():
        if not name.startswith(("key_ranges", "key_digests")):
            yield from ((name, text) for text in texts if not text.startswith("-- "))


def repeated(text: str) -> set[str]:
    """The temporary tables that stand more than once in a statement."""
    # A column of the target in an upsert is no second use of it.
    tables = re.findall(r"(`data`\.`(?:_stage|_delta|_tombstones|_locked|_features)_\w+`)(?!\.`)", text)
    return {table for table in tables if tables.count(table) > 1}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_generated_is_what_was_looked_at(name: str) -> None:
    """A change of any statement of any database shows in its golden file."""
    text = f"-- {dialect(name).versions}. The data are in schema `data`.\n"
    for method, texts in generated(dialect(name)).items():
        text += f"\n-- {method}\n" + "".join(f"{readable(each)};\n" for each in texts)
    path = GOLDEN / f"{name}.sql"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_every_generator_is_in_the_golden_files() -> None:
    """A method of a dialect that makes a statement has a place in each golden file; what only hooks or parts make is
    seen in the statements that use it."""
    parts = {
        *("rollup_columns", "staged_join", "rows_by_key", "gather_differences", "delta_columns", "sum_by_group"),
        *("add_differences", "is_whole_number"),
    }
    hooks = {name for name in vars(Capabilities) if not name.startswith("_")} - {"session", "snapshot_read"}
    methods = {name for name in dir(Dialect) if not name.startswith("_")} - parts - hooks
    for name in NAMES:
        assert {each.split(" ")[0] for each in generated(dialect(name))} == methods


@pytest.mark.parametrize("name", NAMES)
def test_every_statement_is_parsed(name: str) -> None:
    """An independent parser of the nearest grammar reads each statement to its end, and knows what it is.

    It knows neither LOAD DATA LOCAL nor the snapshot of a transaction, nor SingleStore's words for where rows lie, nor
    MariaDB's variables for one statement.
    """
    grammar = "singlestore" if name == "singlestore" else "mysql"
    for method, text in statements(dialect(name)):
        if not method.startswith(("load", "snapshot_read")):
            read = re.sub(r"%(\(\w+\))?s", "1", text).replace("%%", "%")
            read = re.sub(r"^SET STATEMENT \w+ = \w+ FOR ", "", read)
            [tree] = sqlglot.parse(re.sub(r"ROWSTORE (?:REFERENCE )?", "", read), dialect=grammar)
            assert tree is not None, method
            assert not isinstance(tree, exp.Command), f"{method}: {text}"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_values_fit_every_database(name: str) -> None:
    """A caller binds the same parameters whichever database it talks to."""

    def bound(of: Dialect) -> dict[str, set[str]]:
        return {method: set(re.findall(r"%\((\w+)\)s", " ".join(texts))) for method, texts in generated(of).items()}

    ours, theirs = bound(dialect("mariadb")), bound(dialect(name))
    ours["lock_existing orders"] = ours["lock_existing clicks"] = {"commit"}  # in the transaction that claims with it
    assert all(theirs[method] <= ours[method] for method in ours)


@pytest.mark.parametrize("name", NAMES)
def test_nobody_inherits_by_accident_where_databases_differ(name: str) -> None:
    """Each dialect answers for itself where there is no answer that most give."""
    asked = {"name", "versions", "collation", "share_lock", "session", "control", "table_options", "create_temporary"}
    assert asked <= vars(type(dialect(name))).keys()
    assert dialect(name).executed is (name == "mariadb")


def test_mysql_names_a_temporary_table_once_in_a_statement() -> None:
    """MySQL cannot open a temporary table twice in one statement. MariaDB's text would not do, which shows that the
    question is asked rightly."""
    assert not [method for method, text in statements(dialect("mysql")) if repeated(text)]
    assert {method.split(" ")[0] for method, text in statements(dialect("mariadb")) if repeated(text)} == {
        "move_rollup"
    }


def test_mysql_has_its_own_words() -> None:
    """What MySQL 8 does not know, or has deprecated, is not said to it."""
    unknown = re.compile(r"OR REPLACE TEMPORARY|\bVALUES\(`|tx_isolation|\bEXCEPT\b|LOCK IN SHARE MODE|nopad")
    assert not [text for _, text in statements(dialect("mysql")) if unknown.search(text)]
    found = {unknown.search(text)[0] for _, text in statements(dialect("mariadb")) if unknown.search(text)}
    assert found >= {"OR REPLACE TEMPORARY", "VALUES(`", "tx_isolation", "EXCEPT"}


def test_mysql_takes_new_and_old_rows_one_after_the_other() -> None:
    """The differences of a rollup come from two statements, the second of which changes what the first has put."""
    moved = generated(dialect("mysql"))["move_rollup orders_by_hour all_new=False complete=True"]
    new, old, add, drop = moved
    assert " AS `amount`" in new
    assert "ON DUPLICATE" not in new
    assert "-COALESCE(`t`.`amount`, 0)" in old
    assert "`data`.`_delta_orders_by_hour`.`amount` = `data`.`_delta_orders_by_hour`.`amount` + n.`amount`" in old
    assert add.startswith("INSERT INTO `data`.`orders_by_hour`")
    assert drop.startswith("DELETE r FROM")


def test_tidb_asks_for_no_shared_lock_and_no_table_of_a_query() -> None:
    """TiDB has neither; it refuses the latter with its code."""
    text = "\n".join(text for _, text in statements(dialect("tidb")))
    assert "SHARE" not in text + dialect("tidb").share_lock
    assert "READ ONLY" not in text
    assert not re.search(r"CREATE TEMPORARY TABLE [^;\n]*\) AS SELECT|TABLE \S+ LIKE", text)
    with pytest.raises(StoreError) as caught:
        dialect("tidb").create_snapshot("data", "m", SHOP.models["comes_back"])
    assert caught.value.code == "TM-STORE-NO-TABLE-FROM-QUERY"


def test_singlestore_never_assigns_a_key() -> None:
    """SingleStore refuses to change a column of a key, even to the value it has."""
    keys = {"shop", "id", "code", "_group", "model_version"}
    for _, text in statements(dialect("singlestore")):
        _, _, changes = text.partition(" ON DUPLICATE KEY UPDATE ")
        assert not keys & set(re.findall(r"(?:^|, )(?:`\w+`\.)*`(\w+)` = ", changes))


def test_singlestore_deletes_in_no_order() -> None:
    """Its DELETE has a LIMIT, and takes no ORDER BY; MariaDB's has one, which shows that the question is asked
    rightly."""
    ordered = re.compile(r"^DELETE .* ORDER BY")
    assert not [text for _, text in statements(dialect("singlestore")) if ordered.search(text)]
    assert [text for _, text in statements(dialect("mariadb")) if ordered.search(text)]


def test_singlestore_keeps_a_key_on_one_partition() -> None:
    """Stage and table have one primary key, and the shard key is that one; a cursor is on every partition."""
    made = {method: texts[-1] for method, texts in generated(dialect("singlestore")).items() if "create" in method}
    for name, key in (("orders", "`shop`, `id`"), ("clicks", "`code`")):
        assert f"PRIMARY KEY ({key})" in made[f"create_stage {name}"]
        assert f"PRIMARY KEY ({key}),\n    SHARD KEY ({key}),\n    SORT KEY ({key})" in made[f"create_table {name}"]
    assert made["create_rollup_cursor orders_by_hour"].startswith("CREATE ROWSTORE REFERENCE TABLE")
    unknown = re.compile(r"STRAIGHT_JOIN|LOCK IN SHARE|FOR SHARE|CHECK|REPEATABLE|time_zone")
    assert not [text for _, text in statements(dialect("singlestore")) if unknown.search(text)]


def control_files() -> list[Path]:
    """The control plane's own statements."""
    return sorted((ROOT / "sql" / "control").glob("*.sql"))


@pytest.mark.parametrize("name", NAMES)
def test_the_control_plane_is_said_in_every_dialect(name: str) -> None:
    """Each file becomes statements that the parser reads, with every column that MariaDB's has; so does the list of
    files."""
    for said in (SCHEMA_VERSIONS, *(path.read_text() for path in control_files())):
        ours = sqlglot.parse_one(said, dialect="mysql")
        theirs = [sqlglot.parse_one(_plain(text), dialect="mysql") for text in dialect(name).control(said)]

        def columns(trees: list[exp.Expression]) -> list[str]:
            return [column.name for tree in trees for column in tree.find_all(exp.ColumnDef)]

        assert columns(theirs) == columns([ours]), said
        assert all(isinstance(tree, exp.Create | exp.Alter | exp.Update) for tree in theirs), said


def _plain(text: str) -> str:
    return text.replace("ROWSTORE REFERENCE ", "").replace(" AUTO_ID_CACHE 1", "")


def test_control_statements_fit_their_database() -> None:
    """Defaults, checks and changes are said as each database takes them."""
    said = {name: [t for path in control_files() for t in dialect(name).control(path.read_text())] for name in NAMES}
    assert "".join(said["mariadb"]) == "".join(path.read_text() for path in control_files())
    for name in ("mysql", "tidb", "singlestore"):
        assert not [text for text in said[name] if "DEFAULT UTC_TIMESTAMP" in text]
    assert len(said["mysql"]) == len(said["mariadb"])
    assert [text for text in said["tidb"] if "nothing_lost CHECK" in text]
    upgrade = "-- Why.\nALTER TABLE commits\n    ADD COLUMN a INT NULL,\n    ADD COLUMN b INT NULL"
    assert len(dialect("tidb").control(upgrade)) == 2  # TiDB takes one change a statement
    commits = next(text for text in said["tidb"] if "EXISTS commits (" in text)
    assert commits.endswith(") AUTO_ID_CACHE 1")
    assert not [text for text in said["singlestore"] if "CHECK" in text or "CONSTRAINT" in text]
    created = [text for text in said["singlestore"] if "CREATE" in text]
    assert all("CREATE ROWSTORE REFERENCE TABLE" in text and "KEY" in text for text in created)


def test_an_unknown_database_is_refused() -> None:
    """The error names the dialects that exist."""
    with pytest.raises(ConfigError) as caught:
        dialect("postgres")
    assert (caught.value.code, caught.value.value) == ("TM-STORE-UNKNOWN-DIALECT", "postgres")
    assert caught.value.parameters == {"known": "mariadb, mysql, tidb, singlestore"}


def test_the_guide_says_what_was_executed() -> None:
    """Of every database the guide says which versions its statements are for, and whether they have been run."""
    guide = (ROOT / "docs" / "guide" / "databases.md").read_text()
    for each in DIALECTS.values():
        state = "executed" if each.executed else "generated, not executed"
        assert f"| `{each.name}` | {each.versions} | {state} |" in guide
