"""The endpoint that Prometheus scrapes: GET /metrics, plain HTTP, on the address that was asked for.

Little is understood here on purpose: one request of bounded size on a connection, within a deadline. There is nothing to write to.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable

from controller.model.errors import SshoalError, UsageError
from controller.model.metrics import CONTENT_TYPE
from controller.model.text import printable

_DEADLINE_S = 10.0
_REQUEST_BYTES_MAX = 16 * 1024
_CONNECTIONS_MAX = 16

_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


def parse_address(text: str) -> tuple[str, int]:
    """ "127.0.0.1:9464", "[::1]:9464", or "9464" for loopback. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host = "127.0.0.1"
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number < 65536:
        raise UsageError(f"{text!r} is no address to listen on", hint="for example 127.0.0.1:9464")
    return host, number


def is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


@contextlib.asynccontextmanager
async def serving(host: str, port: int, text: Callable[[], str]) -> AsyncIterator[int]:
    """Answers while inside; `text` is called for each scrape; a SshoalError of its is the answer, with status 503.

    Gives the port (that of the system's choice for 0). Raises SshoalError.
    """
    talking: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        try:
            if len(talking) < _CONNECTIONS_MAX:  # else it is closed without a word
                talking[me] = writer
                with contextlib.suppress(TimeoutError, OSError, asyncio.LimitOverrunError, asyncio.IncompleteReadError):
                    async with asyncio.timeout(_DEADLINE_S):  # whoever asks may go, or be too slow or too talkative
                        status, body, is_head = await _respond(reader, text)
                        writer.write(_response(status, body.encode(), is_head))
                        await writer.drain()
        finally:
            talking.pop(me, None)  # whatever happened: a place that is not given back is gone for good
            writer.close()

    try:
        server = await asyncio.start_server(answer, host, port, limit=_REQUEST_BYTES_MAX)
    except OSError as error:
        raise SshoalError(
            f"metrics cannot be served on {host}:{port}: {error.strerror}", hint="another --metrics-listen"
        ) from None
    async with server:
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for writer in talking.values():
                writer.transport.abort()
            if talking:
                await asyncio.wait(list(talking), timeout=_DEADLINE_S)


async def _respond(reader: asyncio.StreamReader, text: Callable[[], str]) -> tuple[int, str, bool]:
    """(status, body, whether only its head is wanted)."""
    request = await reader.readuntil(b"\r\n\r\n")
    words = request.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return 400, "this is not HTTP\n", False
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        return 405, "metrics are only read\n", False
    is_head = method == "HEAD"
    if target.partition("?")[0] != "/metrics":
        return 404, "metrics are at /metrics\n", is_head
    try:
        return 200, text(), is_head
    except SshoalError as error:  # the store is busy or cannot be read; the next scrape may find it well
        return 503, f"{printable(error.message)}\n", is_head


def _response(status: int, body: bytes, is_head: bool) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_PHRASES[status]}\r\n"
        f"Content-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n"
    )
    head += "Allow: GET, HEAD\r\n" if status == 405 else ""
    return head.encode() + b"\r\n" + (b"" if is_head else body)
