"""Parses and checks the feature query: which columns it selects, and that no feature reads the label's columns."""

from __future__ import annotations

from sqlglot import exp

from tidemill.errors import SpecError
from tidemill.spec.checks.functions import check_functions
from tidemill.spec.checks.parsing import parse_select
from tidemill.spec.feature_query import COMMIT, FeatureQuery, TableReference
from tidemill.spec.schema import Model

_ROW = "t"
"""Alias of a row of the row source in :attr:`FeatureQuery.row_time`."""


def parse_feature_query(model: Model, sql: str) -> FeatureQuery:
    """Parse a feature query, without the checks of :func:`check_features`.

    Args:
        model: names the key, the time and the label among the query's columns.
        sql: the author's text.

    Raises:
        SpecError: it is not one SELECT.
    """
    sql = sql.strip().removesuffix(";")
    return _as_value(model, sql, parse_select(model.features, sql, "mysql"))


def check_features(name: str, model: Model, sql: str) -> FeatureQuery:
    """Parse a model's feature query and check it.

    Args:
        name: the model's name.
        model: its block in pipeline.yaml.
        sql: the content of the file that ``features:`` names.

    Raises:
        SpecError: a column is missing, a feature is computed from a column of the label, or the model scores live and
            the query cannot be restricted to the rows of one commit.
    """
    sql = sql.strip().removesuffix(";")
    select = parse_select(model.features, sql, "mysql")
    defined = {each.alias.lower() for each in select.find_all(exp.CTE, exp.Subquery)}
    check_functions(model.features, sql, "mysql", over_rows=True, named=defined)
    query = _as_value(model, sql, select)
    outputs = {projection.alias_or_name: projection for projection in select.expressions}
    for column in (*model.key, model.known_at, model.label, model.baseline, COMMIT):
        if column is not None and column not in outputs:
            raise SpecError("TM-SPEC-FEATURES-COLUMN-MISSING", value=column, file=model.features, model=name)
    if model.label is not None:
        _check_leak(model, query, outputs, outputs[model.label])
    if model.score.live:
        _check_live(f"models.{name}", model, select)
    return query


def _check_leak(model: Model, query: FeatureQuery, outputs: dict[str, exp.Expression], label: exp.Expression) -> None:
    label_columns = {(c.table, c.name) for c in label.find_all(exp.Column)}
    for feature in query.features:
        leaked = [c for c in outputs[feature].find_all(exp.Column) if (c.table, c.name) in label_columns]
        if leaked:
            raise SpecError(
                "TM-SPEC-FEATURES-LEAK",
                value=leaked[0].sql(dialect="mysql"),
                file=model.features,
                feature=feature,
                known_at=model.known_at,
            )


def _as_value(model: Model, sql: str, select: exp.Select) -> FeatureQuery:
    others = {*model.key, model.known_at, model.label, COMMIT}
    names = [projection.alias_or_name for projection in select.expressions]
    defined = {each.alias for each in select.find_all(exp.CTE)}
    # A function that returns a table has no position in the text.
    tables = [each for each in select.find_all(exp.Table) if each.name not in defined and "start" in each.this.meta]
    row_source, row_time = _row_source(model, select, tables)
    references = [_reference(each, is_row_source=each is row_source) for each in tables]
    return FeatureQuery(
        sql=sql,
        features=tuple(name for name in names if name not in others),
        tables=tuple(sorted(references, key=lambda each: each.start)),
        row_time=row_time,
    )


def _reference(table: exp.Table, *, is_row_source: bool) -> TableReference:
    alias = table.args.get("alias")
    return TableReference(
        name=table.name,
        schema_name=table.db,
        start=int(table.this.meta["start"]),
        end=int(table.this.meta["end"]) + 1,
        alias_end=int((alias.this if alias else table.this).meta["end"]) + 1,
        has_alias=bool(table.alias),
        has_hint=bool(table.args.get("hints")),
        has_partition=bool(table.args.get("partition")),
        is_row_source=is_row_source,
    )


def _row_source(model: Model, select: exp.Select, tables: list[exp.Table]) -> tuple[exp.Table | None, str | None]:
    """The table whose rows the query is about, and the time of such a row; None and None if the time is not computed
    from one row of one table."""
    time = next((each.unalias() for each in select.expressions if each.alias_or_name == model.known_at), None)
    if time is None or time.find(exp.AggFunc, exp.Window, exp.Select):
        return None, None
    owners = {column.table for column in time.find_all(exp.Column)}
    sources = [
        each for each in tables if not each.db and each.parent_select is select and {each.alias_or_name} == owners
    ]
    if len(sources) != 1:
        return None, None
    row_time = time.copy()
    for column in list(row_time.find_all(exp.Column)):
        column.set("table", exp.to_identifier(_ROW))
    return sources[0], row_time.sql(dialect="mysql")


_OF_ALL_ROWS = {
    "group": "GROUP BY",
    "having": "HAVING",
    "distinct": "DISTINCT",
    "limit": "LIMIT",
    "windows": "WINDOW",
    "with_": "WITH",
}


def _check_live(place: str, model: Model, select: exp.Select) -> None:
    """Reject a query that groups, aggregates or numbers rows, itself or in a subquery that it joins. The database
    cannot restrict it to the rows of one commit, so every commit would compute it for the whole table."""
    found = next((word for key, word in _OF_ALL_ROWS.items() if select.args.get(key)), None)
    derived = [each.this for part in _sources(select) for each in part.find_all(exp.Subquery)]
    for query in (select, *(each for each in derived if isinstance(each, exp.Select))):
        for projection in query.expressions:
            for each in projection.find_all(exp.AggFunc, exp.Window):
                if each.parent_select is query:
                    found = found or each.sql(dialect="mysql")
    if found:
        raise SpecError("TM-SPEC-FEATURES-NOT-ROW-WISE", value=found, place=place, file=model.features)


def _sources(select: exp.Select) -> list[exp.Expression]:
    """What a query reads from: its FROM and its joins, without their conditions."""
    first = select.args.get("from_")
    joined = [join.this for join in select.args.get("joins") or ()]
    return [*([first.this] if first else []), *joined]
