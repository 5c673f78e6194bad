"""Which numbers of the database are errors of structure, and what their sentences say. No server is asked."""

from itertools import combinations

import pymysql
import pytest
from pymysql.constants import ER

from support.errors import coded
from tidemill.errors import StoreError, StructureError, Transient
from tidemill.store import connection
from tidemill.store.structure_errors import GRANTS, STRUCTURE, as_declared

OF_VALUES = {
    ER.BAD_NULL_ERROR,
    ER.DUP_ENTRY,
    ER.DIVISION_BY_ZERO,
    ER.WARN_DATA_OUT_OF_RANGE,
    ER.WARN_DATA_TRUNCATED,
    ER.TRUNCATED_WRONG_VALUE,
    ER.TRUNCATED_WRONG_VALUE_FOR_FIELD,
    ER.DATA_TOO_LONG,
    ER.WRONG_VALUE_FOR_TYPE,
    ER.ILLEGAL_VALUE_FOR_TYPE,
    ER.INVALID_CHARACTER_STRING,
    ER.REGEXP_ERROR,
    ER.DATETIME_FUNCTION_OVERFLOW,
    ER.CANT_CREATE_GEOMETRY_OBJECT,
    ER.TOO_BIG_ROWSIZE,
    ER.CONSTRAINT_FAILED,
    *(1690, 3140, 3141, 3819),
}


@pytest.mark.parametrize("number", sorted(GRANTS | STRUCTURE))
def test_an_error_of_structure_blames_no_record(number: int) -> None:
    """It is neither transient nor an error of a value, and a temporary table is called by its table's name."""
    with pytest.raises(StructureError) as found, connection.translated():
        raise pymysql.ProgrammingError(number, "about 'data._stage_orders'")
    assert not isinstance(found.value, Transient)
    assert found.value.value == f"{number}: about 'data.orders'"


@pytest.mark.parametrize("number", sorted(OF_VALUES))
def test_an_error_of_a_value_is_none_of_structure(number: int) -> None:
    """A single record may cause it, so that a stream that ended with it would never continue."""
    with pytest.raises(StoreError, check=coded("TM-STORE-STATEMENT-REFUSED")) as found, connection.translated():
        raise pymysql.DataError(number, "of a value")
    assert type(found.value) is StoreError


def test_each_number_has_one_meaning() -> None:
    """The sets of numbers do not overlap."""
    sets = [numbers for numbers, _, _ in connection._STORE_ERRORS]
    assert [one & other for one, other in combinations(sets, 2) if one & other] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Unknown column 's.a' in '_delta_hourly'", "Unknown column 's.a' in 'hourly'"),
        ("`d`.`_locked_t`, `d`.`_tombstones_t`", "`d`.`t`, `d`.`t`"),
        ("my_stage_t, '_deleted_t' and '_stage'", "my_stage_t, '_deleted_t' and '_stage'"),
    ],
)
def test_a_message_names_tables_as_declared(text: str, shown: str) -> None:
    """Only the names of temporary tables are replaced."""
    assert as_declared(text) == shown


def test_a_sentence_begins_with_what_the_author_declared() -> None:
    """The innermost name is kept: a rollup of a table, rather than the table."""
    with pytest.raises(StructureError) as found, connection.naming("table t"), connection.naming("rollup r"):
        raise StructureError("TM-STORE-STRUCTURE", value="1054: Unknown column 'a' in 'SELECT'")
    assert found.value.value == "rollup r: 1054: Unknown column 'a' in 'SELECT'"
