"""Where hosts were last reached by name, for the time when their names do not resolve (FAULTS B14).

In: a name and the address that served it after its host key was verified. Out: that address, on another day. It proves nothing: whoever
answers there has to show the key that is trusted for the name, as at any address. Kept in one small file of the context.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import socket
from pathlib import Path
from typing import Any

NAMES_MAX = 10_000


class LastAddresses:
    """`path`: where they are kept between commands; None: for this process only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, list[Any]] | None = None

    def remember(self, name: str, peer: object) -> None:
        """`peer`: a socket's address of the other end, as getpeername gives it. What is no name or no address is passed over."""
        if _is_address(name) or not isinstance(peer, tuple) or len(peer) < 2 or not _is_address(str(peer[0])):
            return
        known = self._load()
        place = [str(peer[0]), int(peer[1])]
        if known.get(name) == place or (name not in known and len(known) >= NAMES_MAX):
            return
        known[name] = place
        self._save(known)

    def of(self, name: str) -> tuple[str, int] | None:
        """Address and port that served `name` last."""
        place = self._load().get(name)
        if (
            not isinstance(place, list)
            or len(place) != 2
            or not _is_address(str(place[0]))
            or type(place[1]) is not int
        ):
            return None
        return str(place[0]), place[1]

    def _load(self) -> dict[str, list[Any]]:
        if self._known is None:
            known = None
            if self._path is not None:
                with contextlib.suppress(OSError, ValueError):
                    known = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = known if isinstance(known, dict) else {}
        return self._known

    def _save(self, known: dict[str, list[Any]]) -> None:
        """As well as it can: on a full disk the next command has to resolve names itself."""
        if self._path is None:
            return
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new.write_text(json.dumps(known), encoding="utf-8")
            new.replace(self._path)


async def connect(place: tuple[str, int], loop: Any) -> socket.socket:
    """A connected socket, not blocking. Raises OSError."""
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    connecting = socket.socket(family, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(connecting, place)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
