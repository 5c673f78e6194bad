"""A line to the database that breaks where a test says: a TCP proxy that reads MySQL's packets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from enum import StrEnum
from typing import Self

_HEADER_BYTES = 4
_QUERY = b"\x03"


class Cut(StrEnum):
    """Where the line breaks, once."""

    BEFORE_COMMIT = "before COMMIT"
    """The server never hears of it."""
    ANSWER_LOST = "the answer to COMMIT is lost"
    """The server has committed when the line breaks."""
    COMMIT_UNDER_WAY = "COMMIT is under way"
    """The client is cut off at once; the server hears COMMIT when :meth:`Proxy.deliver` is called."""
    IN_LOAD = "in the middle of LOAD DATA"
    """The server gets half of the first packet of rows."""


class Proxy:
    """Listens on a port of its own and hands everything on, until it is told to cut. A context manager."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.happened = threading.Event()
        """Set when the cut that was asked for last has been made."""
        self.at_cut: Callable[[], None] = lambda: None
        """Called in the moment of a cut, before the client can notice."""
        self._cut: Cut | None = None
        self._late = threading.Event()
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._threads = [threading.Thread(target=self._accept, name="proxy")]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._late.set()
        with suppress(OSError):  # wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._open.close()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), thread

    def cut(self, where: Cut) -> None:
        """Break the next connection that gets there."""
        self.happened.clear()
        self._late.clear()
        self._cut = where

    def deliver(self) -> None:
        """Let the server hear the COMMIT that is under way."""
        self._late.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._server)
            except OSError:  # the server is down: the client is told so by the end of its connection
                client.close()
                continue
            line = _Line(self, client, server)
            with self._lock:
                self._open.callback(line.close)
                for target in (line.to_server, line.to_client):
                    thread = threading.Thread(target=target, name=f"proxy {target.__name__}")
                    self._threads.append(thread)
                    thread.start()

    def claim(self, where: Cut) -> bool:
        """Whether to cut here: one line gets to."""
        with self._lock:
            if self._cut is not where:
                return False
            self._cut = None
            return True

    def made(self) -> None:
        """A cut is about to be seen."""
        self.at_cut()
        self.happened.set()

    def wait_for_delivery(self) -> None:
        """Hold COMMIT back."""
        self._late.wait(60)


class _Line:
    """One client's connection."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self._swallow = False
        """The server's next answer is the one to lose."""
        self._loading = False

    def to_server(self) -> None:
        """Hand on the client's packets, one by one, and cut where it was asked for."""
        with suppress(OSError):
            while packet := self._packet():
                if not self._forward(packet):
                    break
        self.close()

    def to_client(self) -> None:
        """Hand on what the server says."""
        with suppress(OSError):
            while answer := self.server.recv(65_536):
                if self._swallow:
                    self.proxy.made()
                    break
                self.client.sendall(answer)
        self.close()

    def close(self) -> None:
        """Break both halves."""
        for each in (self.client, self.server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _packet(self) -> bytes:
        header = self._exactly(_HEADER_BYTES)
        return header + self._exactly(int.from_bytes(header[:3], "little")) if header else b""

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size and (part := self.client.recv(size - len(found))):
            found += part
        return bytes(found)

    def _forward(self, packet: bytes) -> bool:
        """Whether the line still stands afterwards."""
        content = packet[_HEADER_BYTES:]
        if content == _QUERY + b"COMMIT":
            return self._commit(packet)
        if self._loading and content and self.proxy.claim(Cut.IN_LOAD):
            self.server.sendall(packet[: len(packet) // 2])
            self.proxy.made()
            return False
        self._loading = content.startswith(_QUERY + b"LOAD DATA") or (self._loading and bool(content))
        self.server.sendall(packet)
        return True

    def _commit(self, packet: bytes) -> bool:
        if self.proxy.claim(Cut.BEFORE_COMMIT):
            self.proxy.made()
            return False
        if self.proxy.claim(Cut.COMMIT_UNDER_WAY):
            self.proxy.made()
            self.client.close()
            self.proxy.wait_for_delivery()
            self.server.sendall(packet)
            self.server.recv(65_536)
            return False
        self._swallow = self.proxy.claim(Cut.ANSWER_LOST)
        self.server.sendall(packet)
        return True
