"""Ports."""

from __future__ import annotations

import os
import socket

import pytest

from tidemill.devstack import ports
from tidemill.errors import SetupError


def test_free_ports_differ_and_can_be_listened_on() -> None:
    """The ports that are found are different ones, and a server can take each."""
    found = ports.free_ports(5)
    assert len(set(found)) == 5
    assert all(ports.is_free(port) for port in found)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 -- somebody else's server
def test_taken_port_is_refused_with_holder_and_setting(address: str) -> None:
    """Who holds the port and which setting moves ours stand in the one sentence."""
    with socket.socket() as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(SetupError) as error:
            ports.require_free(port, "TIDEMILL_DB_PORT")
    assert (error.value.code, error.value.parameters["port"]) == ("TM-DEVSTACK-PORT-TAKEN", port)
    assert f"(process {os.getpid()})" in str(error.value)
    assert "TIDEMILL_DB_PORT" in error.value.remedy


def test_port_of_a_server_that_has_just_ended_is_free() -> None:
    """Connections that are still winding down do not keep a server from starting again."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
    assert ports.is_free(port)
