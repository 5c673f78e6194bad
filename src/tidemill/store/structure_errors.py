"""The database's errors of structure: what is missing, differs or is not granted, so that no record is at fault.

The numbers are those of MariaDB and MySQL. A number that a value can cause, such as 1264 (out of range) or 4025 (a
CHECK constraint), is not among them.
"""

from __future__ import annotations

import re

from pymysql.constants import ER

GRANTS = {
    ER.NONEXISTING_GRANT,
    ER.TABLEACCESS_DENIED_ERROR,
    ER.COLUMNACCESS_DENIED_ERROR,
    ER.NONEXISTING_TABLE_GRANT,
    ER.SPECIFIC_ACCESS_DENIED_ERROR,
    ER.PROCACCESS_DENIED_ERROR,
    ER.NONEXISTING_PROC_GRANT,
}
"""The account lacks a privilege on a table, a column, a function or the server."""
STRUCTURE = {
    # Schemas, tables and views.
    ER.NO_DB_ERROR,
    ER.BAD_DB_ERROR,
    ER.BAD_TABLE_ERROR,
    ER.UNKNOWN_TABLE,
    ER.NO_SUCH_TABLE,
    ER.CANT_REOPEN_TABLE,
    ER.WRONG_OBJECT,
    ER.NON_UPDATABLE_TABLE,
    ER.NONUPDATEABLE_COLUMN,
    ER.VIEW_INVALID,
    ER.VIEW_NONUPD_CHECK,
    ER.VIEW_CHECK_FAILED,
    ER.VIEW_NO_INSERT_FIELD_LIST,
    ER.VIEW_MULTIUPDATE,
    ER.VIEW_DELETE_MERGE_VIEW,
    ER.NO_DEFAULT_FOR_VIEW_FIELD,
    ER.VIEW_RECURSIVE,
    1471,  # rows cannot be inserted into it
    ER.OPEN_AS_READONLY,
    ER.ILLEGAL_HA,
    ER.FORM_NOT_FOUND,
    ER.UNKNOWN_STORAGE_ENGINE,
    # Their files are damaged or gone.
    *(ER.NOT_FORM_FILE, ER.NOT_KEYFILE, ER.OLD_KEYFILE, ER.CRASHED_ON_USAGE, ER.CRASHED_ON_REPAIR),
    *(ER.OLD_FILE_FORMAT, ER.TABLE_NEEDS_UPGRADE),
    *(1712, 1812, 1814, 1877, 1932),
    # Columns, indexes and the statement as a whole.
    ER.BAD_FIELD_ERROR,
    ER.NON_UNIQ_ERROR,
    ER.WRONG_FIELD_WITH_GROUP,
    ER.WRONG_GROUP_FIELD,
    ER.WRONG_SUM_SELECT,
    ER.WRONG_VALUE_COUNT,
    ER.WRONG_VALUE_COUNT_ON_ROW,
    ER.PARSE_ERROR,
    ER.SYNTAX_ERROR,
    ER.KEY_COLUMN_DOES_NOT_EXITS,
    ER.NO_SUCH_INDEX,
    ER.KEY_DOES_NOT_EXITS,
    ER.FIELD_SPECIFIED_TWICE,
    ER.INVALID_GROUP_FUNC_USE,
    ER.MIX_OF_GROUP_FUNC_AND_FIELDS,
    ER.UPDATE_TABLE_USED,
    ER.OPERAND_COLUMNS,
    ER.WRONG_NUMBER_OF_COLUMNS_IN_SELECT,
    ER.NO_DEFAULT_FOR_FIELD,
    ER.WRONG_USAGE,
    ER.NOT_SUPPORTED_YET,
    *(1906, 3105),  # a value for a generated column
    4078,  # MariaDB: operands of these types cannot be used together
    4079,  # MariaDB: nor a parameter of this type
    # Character sets and collations.
    ER.UNKNOWN_CHARACTER_SET,
    ER.UNKNOWN_COLLATION,
    ER.COLLATION_CHARSET_MISMATCH,
    ER.CANT_AGGREGATE_2COLLATIONS,
    ER.CANT_AGGREGATE_3COLLATIONS,
    ER.CANT_AGGREGATE_NCOLLATIONS,
    # Functions.
    *(ER.CANT_FIND_UDF, ER.CANT_INITIALIZE_UDF, ER.CANT_OPEN_LIBRARY, ER.CANT_FIND_DL_ENTRY),
    ER.FUNCTION_NOT_DEFINED,
    ER.SP_DOES_NOT_EXIST,
    ER.SP_WRONG_NO_OF_ARGS,
    ER.SP_PROC_TABLE_CORRUPT,
    ER.NO_SUCH_USER,  # the definer of a view, function or trigger
    *(1582, 1583),  # wrong number of parameters, wrong parameters
    1630,  # there is no such function
    # Triggers.
    ER.TRG_DOES_NOT_EXIST,
    ER.TRG_CANT_CHANGE_ROW,
    ER.TRG_NO_SUCH_ROW_IN_TRG,
    ER.TRG_IN_WRONG_SCHEMA,
    ER.TRG_NO_DEFINER,
    ER.STMT_NOT_ALLOWED_IN_SF_OR_TRG,
    ER.SP_NO_RETSET,
    ER.COMMIT_NOT_ALLOWED_IN_SF_OR_TRG,
    ER.SP_NO_RECURSION,
    ER.CANT_UPDATE_USED_TABLE_IN_SF_OR_TRG,
    *(1643, 1644, 1645),  # SIGNAL: only triggers and functions raise it
    # Foreign keys and partitions, which no pipeline declares.
    *(ER.NO_REFERENCED_ROW, ER.ROW_IS_REFERENCED, ER.NO_REFERENCED_ROW_2, ER.ROW_IS_REFERENCED_2, 1761, 1762),
    *(1526, 1748),
    # Options of the server.
    ER.UPDATE_WITHOUT_KEY_IN_SAFE_MODE,
    ER.TOO_BIG_SELECT,
    ER.UNKNOWN_SYSTEM_VARIABLE,
    ER.FEATURE_DISABLED,
    ER.OPTION_PREVENTS_STATEMENT,
    3098,  # MySQL: group replication does not accept the table
}
"""A table, column, index, function or trigger is missing, damaged or in the way, or an option of the server is."""

_OWN_TABLES = re.compile(r"(?<![\w$])_(?:stage|delta|locked|tombstones)_(?=\w)")


def as_declared(text: str) -> str:
    """The database's message with the names of temporary tables replaced by those that the author knows."""
    return _OWN_TABLES.sub("", text)
