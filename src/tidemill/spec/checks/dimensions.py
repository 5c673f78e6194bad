"""Checks what a pipeline declares of its dimensions, and the types of what its transforms join."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from sqlglot import exp

from tidemill.errors import SpecError
from tidemill.spec.checks.parsing import parse_expression, parse_select
from tidemill.spec.dimension_files import TYPES, normal_type, text_encoding
from tidemill.spec.folder import is_versioned
from tidemill.spec.schema import Dimension, Pipeline

_WHOLE_NUMBERS = ("TINYINT", "SMALLINT", "INT", "BIGINT")


def check_dimension(place: str, dimension: Dimension) -> None:
    """Check a dimension's declaration. Its file is read by commands and drivers: other machines may not have it.

    Raises:
        SpecError: the first rule that it breaks.
    """
    # An absolute path may name any file of the machine; a change of it makes no new version.
    is_inside = "://" not in dimension.path and not PurePath(dimension.path).is_absolute()
    if is_inside and not is_versioned(PurePath(dimension.path)):
        raise SpecError("TM-SPEC-FILE-NOT-VERSIONED", value=dimension.path, place=f"{place}.path")
    if text_encoding(dimension.encoding) is None:
        raise SpecError("TM-SPEC-DIMENSION-ENCODING", value=dimension.encoding, place=place)
    for column, declared in dimension.types.items():
        if normal_type(declared) is None:
            known = ", ".join(TYPES)
            raise SpecError("TM-SPEC-DIMENSION-TYPE", value=declared, place=f"{place}.types.{column}", known=known)


def compared_sides(sql: str, file: str) -> Iterator[tuple[exp.EQ, str]]:
    """The equalities of the joins of a transform, each with a query that selects its two sides."""
    select = parse_select(file, sql, "spark")
    for join in select.args.get("joins") or ():
        condition = join.args.get("on")
        for equality in condition.find_all(exp.EQ) if condition is not None else ():
            query = select.copy()
            query.set("where", None)
            query.set("expressions", [exp.alias_(equality.left.copy(), "a"), exp.alias_(equality.right.copy(), "b")])
            yield equality, query.sql("spark")


def check_joins(sql: str, file: str, pipeline: Pipeline) -> None:
    """Check that a column of a record and one of a dimension that a transform compares have types of one kind.

    What is no plain column with a known table is checked by the driver, whose Spark knows the types of expressions.

    Raises:
        SpecError: Spark would convert one of the two, and 1234 would equal '01234'.
    """
    select = parse_select(file, sql, "spark")
    tables = {each.alias_or_name: each.name for each in select.find_all(exp.Table)}
    for equality, _ in compared_sides(sql, file):
        sides = [(side, _declared(side, tables, pipeline)) for side in (equality.left, equality.right)]
        (left, left_type), (right, right_type) = sides
        if left_type and right_type and not are_comparable(left_type, right_type):
            value = f"{left.sql('spark')} {left_type} = {right.sql('spark')} {right_type}"
            raise SpecError("TM-SPEC-DIMENSION-JOIN", value=value, file=file)


def are_comparable(left: str, right: str) -> bool:
    """Whether values of two types of Spark are compared without a conversion that could make different ones equal."""
    left, right = left.upper(), right.upper()
    return left == right or all(kind in _WHOLE_NUMBERS or kind.startswith("DECIMAL") for kind in (left, right))


def _declared(side: exp.Expr, tables: dict[str, str], pipeline: Pipeline) -> str | None:
    """The declared type of a plain column, or None."""
    if not isinstance(side, exp.Column) or not side.table:
        return None
    table = tables.get(side.table, "")
    if table in pipeline.dimensions:
        return normal_type(pipeline.dimensions[table].types.get(side.name, "STRING"))
    parsed = parse_expression("source.schema", f"CREATE TABLE r ({pipeline.source.schema_ddl})", "spark")
    kinds = {column.name: column.args.get("kind") for column in parsed.find_all(exp.ColumnDef)}
    kind = kinds.get(side.name)
    return None if kind is None else normal_type(kind.sql("spark"))
