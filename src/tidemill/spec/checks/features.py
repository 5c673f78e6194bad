"""The feature query: what it must select, and that no feature reads what the label is made of."""

from __future__ import annotations

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from tidemill.errors import SpecError
from tidemill.spec.schema import Model

COMMIT = "_commit"
"""Column of the feature query that says which commit wrote the row being scored."""


def check_features(name: str, model: Model, sql: str) -> None:
    """Check a model's feature query.

    Raises:
        SpecError: a column is missing, or a feature reads a column that the label is made of.
    """
    select = _parse(model.features, sql)
    outputs = {projection.alias_or_name: projection for projection in select.expressions}
    for column in (*model.key, model.known_at, model.label, model.baseline, COMMIT):
        if column is not None and column not in outputs:
            raise SpecError(
                f"{model.features} does not select what models.{name} names", value=column, remedy="select it"
            )
    if model.label is None:
        return
    secret = {(c.table, c.name) for c in outputs[model.label].find_all(exp.Column)}
    for output in feature_names(model, sql):
        leaked = [c for c in outputs[output].find_all(exp.Column) if (c.table, c.name) in secret]
        if leaked:
            raise SpecError(
                f"{model.features}: feature {output} reads what the label is made of",
                value=leaked[0].sql(dialect="mysql"),
                remedy="use only what was known at " + model.known_at,
            )


def feature_names(model: Model, sql: str) -> tuple[str, ...]:
    """The query's columns that are features: all but key, time, label and commit. In the query's order."""
    other = {*model.key, model.known_at, model.label, COMMIT}
    names = [projection.alias_or_name for projection in _parse(model.features, sql).expressions]
    return tuple(name for name in names if name not in other)


def _parse(file: str, sql: str) -> exp.Select:
    try:
        parsed = sqlglot.parse_one(sql, dialect="mysql")
    except SqlglotError as error:
        raise SpecError(
            f"{file} cannot be parsed", value=" ".join(str(error).split())[:200], remedy="mend it"
        ) from None
    if not isinstance(parsed, exp.Select):
        raise SpecError(f"{file} is not one SELECT", value=type(parsed).__name__, remedy="write one SELECT")
    return parsed


_OF_ALL_ROWS = {
    "group": "GROUP BY",
    "having": "HAVING",
    "distinct": "DISTINCT",
    "limit": "LIMIT",
    "windows": "WINDOW",
    "with_": "WITH",
}


def check_live(place: str, model: Model, sql: str) -> None:
    """Refuse a feature query that the database cannot ask of single rows: every commit would compute it for all.

    Raises:
        SpecError: it groups, counts or numbers rows at its top, or in a query that it joins.
    """
    select = _parse(model.features, sql)
    found = next((word for key, word in _OF_ALL_ROWS.items() if select.args.get(key)), None)
    derived = [each.this for part in _sources(select) for each in part.find_all(exp.Subquery)]
    for query in (select, *(each for each in derived if isinstance(each, exp.Select))):
        for projection in query.expressions:
            for each in projection.find_all(exp.AggFunc, exp.Window):
                if each.parent_select is query:
                    found = found or each.sql(dialect="mysql")
    if found:
        raise SpecError(
            f"{place}.score.live: {model.features} is computed over all rows, at every commit",
            value=found,
            remedy="join a rollup instead, or remove live",
        )


def _sources(select: exp.Select) -> list[exp.Expression]:
    """What a query reads from: its FROM and its joins, without their conditions."""
    first = select.args.get("from_")
    joined = [join.this for join in select.args.get("joins") or ()]
    return [*([first.this] if first else []), *joined]
