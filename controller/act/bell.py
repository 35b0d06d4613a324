"""A doorbell beside the store: who changes desired state rings it, and the active controller looks at once.

Only a hint: a ring that is lost costs the second until the controller looks by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path


class Bell:
    """The controller's end. Use it as a context manager inside a running event loop; `rung` is set when somebody rang."""

    def __init__(self, path: Path | None) -> None:
        """`path`: of the socket; None: nobody can ring."""
        self.rung = asyncio.Event()
        self._path = path
        self._socket: socket.socket | None = None

    def __enter__(self) -> Bell:
        if self._path is not None:
            with contextlib.suppress(OSError):  # a path too long for a socket, say: the hint is not needed
                self._path.unlink(missing_ok=True)
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.bind(str(self._path))
                self._socket.setblocking(False)
                asyncio.get_running_loop().add_reader(self._socket, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket is not None and self._path is not None:
            self._path.unlink(missing_ok=True)  # the pass lock is still held: it is ours
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _hear(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                self.rung.set()


def ring(path: Path) -> None:
    """Wakes the active controller, if there is one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        bell.setblocking(False)
        bell.sendto(b"!", str(path))
