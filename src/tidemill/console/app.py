"""The application that the plugin mounts, built at the first request: every process of Airflow imports plugins."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from typing import Any

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


async def console(scope: _Scope, receive: _Receive, send: _Send) -> None:
    """The console as an ASGI application."""
    await _application()(scope, receive, send)


@cache
def _application() -> Any:
    return importlib.import_module("tidemill.console.routes").build()
