"""The streams of FakePodman: commands run inside its containers, and connections into its pods. No processes, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nodeagent import protocol


class FakeExec:
    """runtime.ExecSession over a handful of commands; `cat` answers with what it is sent."""

    def __init__(self, command: tuple[str, ...], stdin: bool) -> None:
        self._echo = command == ("cat",) and stdin
        self._code, output, self._duration_s = outcome(command)
        self._output: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self.sizes: list[tuple[int, int]] = []
        if output:
            self._output.put_nowait(output)
        if not self._echo:
            asyncio.get_running_loop().call_later(self._duration_s, self._finish, self._code)

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        while (chunk := await self._output.get()) is not None:
            yield protocol.STDOUT, chunk

    async def write(self, data: bytes) -> None:
        if self._echo:
            self._output.put_nowait(data)

    async def end_input(self) -> None:
        if self._echo:
            self._finish(0)

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def exit_code(self) -> int | None:
        return await asyncio.shield(self._done)

    async def close(self) -> None:
        self._finish(None)

    def _finish(self, code: int | None) -> None:
        if not self._done.done():
            self._done.set_result(code)
            self._output.put_nowait(None)


class Echo:
    """The writing end of a connection whose peer sends back what it gets."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader()

    def write(self, data: bytes) -> None:
        self.reader.feed_data(data)

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def write_eof(self) -> None:
        self.reader.feed_eof()

    def close(self) -> None:
        if not self.reader.at_eof():
            self.reader.feed_eof()

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)


def outcome(command: tuple[str, ...]) -> tuple[int, bytes, float]:
    """Exit code, output and duration of the few commands this engine knows; any other succeeds in silence."""
    if command[:1] == ("sleep",):
        return 0, b"", float(command[1])
    if command[:1] == ("echo",):
        return 0, " ".join(command[1:]).encode() + b"\n", 0.0
    if command[:1] == ("false",):
        return 1, b"", 0.0
    if command[:2] == ("sh", "-c") and command[2].startswith("exit "):
        return int(command[2].split()[1]), b"", 0.0
    return 0, b"", 0.0
