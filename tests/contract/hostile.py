"""Servers on loopback that do what no SSH server should. They speak as far as a test tells them to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import paramiko
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


class AtThePassword(paramiko.ServerInterface):  # type: ignore[misc]  # paramiko has no types
    """A server of paramiko that does `then` with its connection when it gets a password."""

    def __init__(self, then: Callable[[paramiko.Transport], None]) -> None:
        self._then = then

    def talk(self, connection: socket.socket, host_key: paramiko.PKey) -> None:
        self._transport = paramiko.Transport(connection)
        self._transport.add_server_key(host_key)
        self._transport.start_server(threading.Event(), self)  # without an event it waits, and raises what its end was
        self._transport.join()

    def get_allowed_auths(self, _user: str) -> str:
        return "password"

    def check_auth_password(self, _user: str, _password: str) -> int:
        self._then(self._transport)
        return int(paramiko.AUTH_FAILED)
