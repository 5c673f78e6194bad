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
    """Reject a feature that is computed from a column that the label is computed from.

    What identifies the row and what its time is computed from are known at that time, and so is what the label's
    subqueries compare with columns of other rows to find them.
    """
    key = {_named(each) for name in model.key for each in outputs[name].find_all(exp.Column)}
    known = key | {_named(each) for each in outputs[model.known_at].find_all(exp.Column)}
    compared = {_named(each) for each in _found_by(label)}
    label_columns = _read_from(label, key) - known - compared
    for feature in query.features:
        leaked = sorted(_read_from(outputs[feature], key) & label_columns)
        if leaked:
            raise SpecError(
                "TM-SPEC-FEATURES-LEAK",
                value=".".join(part for part in leaked[0] if part),
                file=model.features,
                feature=feature,
                known_at=model.known_at,
            )


def _named(column: exp.Column) -> tuple[str, str]:
    return column.table, column.name


def _read_from(node: exp.Expression, key: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The columns that an expression reads: its own, and those of which a query that is joined by the key makes them.

    The latter are named by each alias that their table has outside that query. A window over earlier rows is left to
    the comparison of values in training.
    """
    columns = {_named(each) for each in node.find_all(exp.Column)}
    select = node.find_ancestor(exp.Select)
    if select is None:
        return columns
    aliases: dict[str, set[str]] = {}
    for table in select.find_all(exp.Table):
        if table.parent_select is select:
            aliases.setdefault(table.name, set()).add(table.alias_or_name)
    read = set(columns)
    for alias, name in columns:
        for inner in _computing(select, alias, name) if _is_joined_by(select, alias, key) else ():
            if inner.find(exp.Window):
                continue
            for column in inner.find_all(exp.Column):
                scope = inner.parent_select
                sources = [] if scope is None else list(scope.find_all(exp.Table))
                tables = {each.name for each in sources if column.table in ("", each.alias_or_name)}
                read |= {(outer, column.name) for table in tables for outer in aliases.get(table, ())}
    return read


def _is_joined_by(select: exp.Select, alias: str, key: set[tuple[str, str]]) -> bool:
    """Whether a query's rows are those with the key of the row."""
    equal = set()
    for equality in select.find_all(exp.EQ):
        sides = [_named(each) for each in (equality.this, equality.expression) if isinstance(each, exp.Column)]
        if any(table == alias for table, _ in sides):
            equal |= {side for side in sides if side[0] != alias}
    using = {each.name for join in select.args.get("joins") or () for each in join.args.get("using") or ()}
    return all(column in equal or column[1] in using for column in key)


def _computing(select: exp.Select, alias: str, name: str) -> list[exp.Expression]:
    """The expressions that compute a column of a query in FROM, a join or WITH; none if it is a table's column."""
    joined = {each.alias: each.this for part in _sources(select) for each in part.find_all(exp.Subquery)}
    with_names = {each.alias: each.this for each in select.find_all(exp.CTE)}
    for table in select.find_all(exp.Table):
        if table.name in with_names:
            joined.setdefault(table.alias_or_name, with_names[table.name])
    query = joined.get(alias)
    if not isinstance(query, exp.Select):
        return []
    found = [each for each in query.expressions if each.alias_or_name == name]
    deeper = [
        more for each in found for column in each.find_all(exp.Column) for more in _computing(query, *_named(column))
    ]
    return [*found, *deeper]


def _found_by(label: exp.Expression) -> list[exp.Column]:
    """The columns of the row that the label's subqueries compare, by an equality, with one of the rows they read."""
    found = []
    for subquery in label.find_all(exp.Select):
        inner = {each.alias_or_name for each in subquery.find_all(exp.Table)}
        for equality in subquery.find_all(exp.EQ):
            sides = (equality.this, equality.expression)
            if all(isinstance(side, exp.Column) for side in sides) and sum(side.table in inner for side in sides) == 1:
                found += [side for side in sides if side.table not in inner]
    return found


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
