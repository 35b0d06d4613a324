"""Servers on loopback that do what no SSH server should. They speak as far as a test tells them to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

Talk = Callable[[socket.socket], None]  # what a server does with one connection
Listen = Callable[[Talk], int]  # starts one, and says at which port


@pytest.fixture
def listen() -> Iterator[Listen]:
    with contextlib.ExitStack() as started:

        def start(talk: Talk) -> int:
            listener = socket.create_server(("127.0.0.1", 0))
            thread = threading.Thread(target=_serve, args=(listener, talk))
            thread.start()
            started.callback(thread.join, timeout=5)
            started.callback(listener.close)
            started.callback(listener.shutdown, socket.SHUT_RDWR)
            return int(listener.getsockname()[1])

        yield start


def _serve(listener: socket.socket, talk: Talk) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            talk(connection)


def packet(payload: bytes) -> bytes:
    """As SSH sends it before keys are agreed upon."""
    padding = 8 - (5 + len(payload)) % 8
    padding += 8 if padding < 4 else 0
    return struct.pack(">IB", len(payload) + padding + 1, padding) + payload + bytes(padding)


def until_the_end(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass
