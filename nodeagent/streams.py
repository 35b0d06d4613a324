"""The streams of a conversation: exec, port-forward (others: logs.py, imageload.py). In: requests and frames. Out: frames. Does I/O.

Either side sends STREAM_WINDOW_BYTES of data frames, then waits for credit; the receiver grants what it has used up. So a reader that
stands still holds up its own stream and a bounded number of bytes, nothing else.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, Callable, Union

from nodeagent import protocol
from nodeagent.agent import Refused
from nodeagent.protocol import STREAM_CHUNK_BYTES, STREAM_WINDOW_BYTES, ExecRequest, ForwardRequest, ProtocolError
from nodeagent.runtime import RuntimeFault

CONNECT_TIMEOUT_S = 10.0
QUEUED_MAX = 4096  # frames; their bytes are bounded by the window

EOF = "eof"
Incoming = Union[bytes, str, tuple[int, int]]  # data, EOF, or a new size (rows, columns)


class Channel:
    """The stream's two directions as its handler sees them.

    Attributes:
        opened: the peer was told that the stream has begun.
    """

    def __init__(self, send_frame: Callable[[bytes], Awaitable[None]], request_id: int) -> None:
        self.opened = False
        self._send_frame = send_frame
        self._request_id = request_id
        self._credit = STREAM_WINDOW_BYTES
        self._credited = asyncio.Event()
        self._incoming: asyncio.Queue[Incoming] = asyncio.Queue()
        self._window = STREAM_WINDOW_BYTES
        self._allowed = self._window  # what the peer may still send
        self._used = 0  # what was received and not granted again

    async def open(self) -> None:
        """The reply to the request; errors before it are error replies, later ones come with the exit."""
        self.opened = True
        await self._send_frame(protocol.frame({"id": self._request_id, "ok": {}}))

    async def send(self, kind: int, data: bytes) -> None:
        """Sends data in chunks, waiting for credit."""
        start = 0
        while start < len(data):
            while self._credit <= 0:
                self._credited.clear()
                await self._credited.wait()
            chunk = data[start : start + min(STREAM_CHUNK_BYTES, self._credit)]
            self._credit -= len(chunk)
            start += len(chunk)
            await self._send_frame(protocol.data_frame(kind, chunk))

    async def send_eof(self) -> None:
        await self._send_frame(protocol.frame({"eof": True}))

    async def receive(self) -> Incoming:
        """What the peer sent next. Asking for more is what grants it credit."""
        if self._used >= self._window // 4:
            granted, self._used = self._used, 0
            await self._grant(granted)
        item = await self._incoming.get()
        if isinstance(item, bytes):
            self._used += len(item)
        return item

    def is_waiting(self) -> bool:
        """Whether receive() would return at once."""
        return not self._incoming.empty()

    async def widen(self, window_bytes: int) -> None:
        """Lets the peer send more before it hears from us: for much data that this side takes in large pieces."""
        self._window, more = window_bytes, window_bytes - self._window
        await self._grant(more)

    async def _grant(self, count: int) -> None:
        self._allowed += count
        await self._send_frame(protocol.frame({"credit": count}))

    def feed(self, kind: int, message: Any) -> bool:
        """Takes a frame from the peer → whether it cancels the stream. Raises ProtocolError when it oversteps its credit."""
        if kind == protocol.STDIN:
            self._allowed -= len(message)
            if self._allowed < 0:
                raise ProtocolError(f"more than {self._window} bytes sent without credit")
            if message:
                self._put(message)
        elif kind != protocol.JSON:
            raise ProtocolError("output can't be sent to an agent")
        elif message.get("cancel") is True:
            return True
        elif message.get("eof") is True:
            self._put(EOF)
        elif "credit" in message:
            self._credit += _number(message["credit"], 2**31)
            self._credited.set()
        elif "resize" in message:
            size = message["resize"]
            if not isinstance(size, list) or len(size) != 2:
                raise ProtocolError("resize is [rows, columns]")
            self._put((_number(size[0], 2**16), _number(size[1], 2**16)))
        else:
            raise ProtocolError("unknown control message")
        return False

    def _put(self, item: Incoming) -> None:
        if self._incoming.qsize() >= QUEUED_MAX:
            raise ProtocolError("too many frames at once")
        self._incoming.put_nowait(item)


def _number(value: Any, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ProtocolError("a number is out of range")
    return value


async def exec_stream(agent: Any, request: ExecRequest, channel: Channel) -> dict[str, Any]:
    """A command in a running container, with its input, output and terminal size."""
    container_id, _ = agent.find_container(request.uid, request.container)
    if container_id is None:
        raise Refused(protocol.NOT_FOUND, f"container {request.container!r} does not run")
    session = await agent.runtime.exec_stream(container_id, request.command, request.tty, request.stdin)
    try:
        await channel.open()
        if request.tty and request.rows and request.columns:
            await session.resize(request.rows, request.columns)
        typing = asyncio.ensure_future(_copy_input(session, channel, request.stdin))
        try:
            async for kind, data in session:
                await channel.send(kind, data)
        finally:
            typing.cancel()
        return {"code": await session.exit_code()}
    finally:
        await asyncio.shield(session.close())


async def _copy_input(session: Any, channel: Channel, stdin: bool) -> None:
    """Ends quietly when the command takes no more: its output and exit code are still to come."""
    try:
        while True:
            item = await channel.receive()
            if isinstance(item, tuple):
                await session.resize(*item)
            elif stdin and item == EOF:
                await session.end_input()
            elif stdin:
                await session.write(item)
    except (OSError, RuntimeFault):
        return


async def forward(agent: Any, request: ForwardRequest, channel: Channel) -> dict[str, Any]:
    """Bytes to and from a port inside the pod's network, each direction closed by itself."""
    if not 0 < request.port < 65536:
        raise ProtocolError(f"not a port: {request.port}")
    process = agent.pod_process(request.uid)
    reader, writer = await agent.runtime.connect(process, request.port, CONNECT_TIMEOUT_S)
    try:
        await channel.open()
        await _both(_from_pod(reader, channel), _to_pod(writer, channel))
        return {}
    finally:
        writer.close()


async def _from_pod(reader: Any, channel: Channel) -> None:
    while True:
        data = await reader.read(STREAM_CHUNK_BYTES)
        if not data:
            await channel.send_eof()
            return
        await channel.send(protocol.STDOUT, data)


async def _to_pod(writer: Any, channel: Channel) -> None:
    try:
        while True:
            item = await channel.receive()
            if item == EOF:
                writer.write_eof()
                return
            if isinstance(item, bytes):
                writer.write(item)
                await writer.drain()
    except OSError:
        return  # the pod closed its end: the other direction tells


async def _both(first: Coroutine[Any, Any, None], other: Coroutine[Any, Any, None]) -> None:
    """Runs both to their end. An error of either ends both and is raised."""
    tasks = [asyncio.ensure_future(first), asyncio.ensure_future(other)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
