"""The database server as its administrator, and schemas that exist for one test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pymysql

from tidemill.config import Account, Settings
from tidemill.devstack import secrets

_NUMBERS = itertools.count(1)


@contextmanager
def root(settings: Settings) -> Iterator[Callable[[str], Any]]:
    """A function that runs a statement as the administrator and returns the first value of its result."""
    connection = pymysql.connect(
        host="127.0.0.1",
        port=settings.db_port,
        user="root",
        password=settings.secret(secrets.DB_ROOT).get_secret_value(),
        autocommit=True,
        ssl_disabled=True,
    )

    def run(statement: str) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            row = cursor.fetchone()
        return row[0] if row else None

    with closing(connection):
        yield run


@contextmanager
def empty_control_schema(settings: Settings) -> Iterator[Settings]:
    """Settings whose control schema is new and empty, with a migrate account of its own; dropped after the block."""
    own = settings.model_copy(update={"db_control": f"control_{next(_NUMBERS)}"})
    user, password = f"'{own.user(Account.MIGRATE)}'@'%'", own.password(Account.MIGRATE).get_secret_value()
    with root(settings) as run:
        run(f"CREATE DATABASE {own.db_control}")
        run(f"CREATE USER {user} IDENTIFIED BY '{password}'")
        run(f"GRANT ALL PRIVILEGES ON {own.db_control}.* TO {user}")
        try:
            yield own
        finally:
            run(f"DROP DATABASE {own.db_control}")
            run(f"DROP USER {user}")
