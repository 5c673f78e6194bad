"""TCP ports on 127.0.0.1: free ones, and the process that holds a taken one."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

import psutil

from tidemill.errors import SetupError

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """``count`` different ports that are free now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def free_port() -> int:
    """A port that is free now."""
    return free_ports(1)[0]


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1 and this port."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier server in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise SetupError("TM-DEVSTACK-PORT-UNUSABLE", value=error.strerror, port=port) from error
    return True


def holder(port: int) -> str | None:
    """The process that listens on the port, as ``name (process 123)``; None if this user may not see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return None
    for each in connections:
        if each.status == psutil.CONN_LISTEN and each.laddr[1:] == (port,) and each.pid is not None:
            try:
                return f"{psutil.Process(each.pid).name()} (process {each.pid})"
            except psutil.NoSuchProcess:
                return None
    return None


def require_free(port: int, setting: str) -> None:
    """Reject a taken port.

    Raises:
        SetupError: a process listens on the port; the error names it and the setting to change.
    """
    if is_free(port):
        return
    process = holder(port) or "a process that this user may not see"
    raise SetupError("TM-DEVSTACK-PORT-TAKEN", value=process, port=port, setting=setting)
