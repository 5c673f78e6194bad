"""Errors compared by their code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tidemill.errors import TidemillError


def coded(code: str, **expected: Any) -> Callable[[BaseException], bool]:
    """For ``pytest.raises(…, check=…)``: the error has this code, and these parameters or this ``value``."""

    def check(error: BaseException) -> bool:
        assert isinstance(error, TidemillError)
        shown = {"value": error.value, **error.parameters}
        return error.code == code and all(shown.get(name) == value for name, value in expected.items())

    return check
