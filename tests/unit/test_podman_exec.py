"""nodeagent.podman_exec against a stand-in for Podman's service: commands are real processes, and none is left running."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nodeagent import podman_exec
from nodeagent.podman_service import PodmanService
from nodeagent.runtime import ExecResult, RuntimeFault


class Engine:
    """Starts a process for each exec; what it then does with the connection is its `mode`."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.mode = "hang"
        self.serving = self.refused = 0
        self.is_away = False  # as a service that is being restarted
        self.started = asyncio.Event()
        self.processes: list[subprocess.Popen[bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request per connection."""
        self.serving += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lengths = [line for line in head.split("\r\n") if line.lower().startswith("content-length:")]
            await reader.readexactly(int(lengths[0].split(":")[1]) if lengths else 0)
            path = head.split()[1]
            if self.is_away:
                self.refused += 1
            elif path.endswith("/start"):
                await self.start(reader, writer)
            else:
                answer = json.dumps({"Id": "x"} if path.endswith("/exec") else self.state()).encode()
                kind = b"Connection: close\r\nContent-Type: application/json\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n" % (kind, len(answer)) + answer)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.serving -= 1

    def state(self) -> dict[str, object]:
        last = self.processes[-1]
        code = last.poll()
        return {"Running": code is None, "Pid": last.pid, "ExitCode": code or 0}

    async def start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.processes.append(subprocess.Popen(["true" if self.mode == "end" else "sleep", "300"]))
        self.started.set()
        if self.mode == "hang":
            await reader.read()
            return
        if self.mode == "end":
            await asyncio.to_thread(self.processes[-1].wait)
        frame = struct.pack(">BxxxI", 1, 2) + b"hi"
        if self.mode == "torn":
            frame += b"\x01\x00"
        writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + frame)
        await writer.drain()


@contextlib.asynccontextmanager
async def engine(directory: Path) -> AsyncIterator[tuple[Engine, PodmanService]]:
    made = Engine(directory / "s")
    server = await asyncio.start_unix_server(made.serve, made.socket)
    service = PodmanService(str(made.socket))
    try:
        yield made, service
    finally:
        service.close()
        server.close()
        while made.serving:  # each ends with its connection
            await asyncio.sleep(0.01)
        for one in made.processes:
            one.kill()
            one.wait()


async def gone(made: Engine) -> None:
    """Returns when the last command is no more."""
    await asyncio.wait_for(asyncio.to_thread(made.processes[-1].wait), 10)


def test_a_command_whose_start_is_not_answered_is_ended_and_told_as_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_over = podman_exec._take_over
    monkeypatch.setattr(podman_exec, "_take_over", lambda *given: asyncio.wait_for(take_over(*given), 0.5))

    async def scenario() -> None:
        async with engine(tmp_path) as (made, service):
            with pytest.raises(RuntimeFault) as late:
                await podman_exec.run(service, "c", ("x",), 1)
            assert late.value.reason == "timeout"
            await gone(made)

    asyncio.run(scenario())


def test_a_command_is_ended_when_nobody_waits_for_its_start_any_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engine(tmp_path) as (made, service):
            starting = asyncio.ensure_future(podman_exec.start(service, "c", ("x",), tty=False, stdin=False))
            await made.started.wait()
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await gone(made)

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["cut", "torn"])
def test_a_command_whose_connection_breaks_is_ended(tmp_path: Path, mode: str) -> None:
    """As when Podman's service is killed or restarted: that looks like the end of the output, and must not count as a failed probe."""

    async def scenario() -> None:
        async with engine(tmp_path) as (made, service):
            made.mode = mode
            with pytest.raises(RuntimeFault, match="does not tell how the command ended"):
                await podman_exec.run(service, "c", ("x",), 5)
            await gone(made)

    asyncio.run(scenario())


def test_a_command_is_ended_when_the_service_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engine(tmp_path) as (made, service):
            made.mode = "cut"
            running = await podman_exec.start(service, "c", ("x",), tty=False, stdin=False)
            made.is_away = True
            closing = asyncio.ensure_future(running.close())
            while made.refused < 2:
                await asyncio.sleep(0.01)
            assert made.processes[-1].poll() is None
            made.is_away = False
            await closing
            await gone(made)

    asyncio.run(scenario())


def test_a_command_that_ends_has_its_output_and_code(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with engine(tmp_path) as (made, service):
            made.mode = "end"
            assert await podman_exec.run(service, "c", ("x",), 5) == ExecResult(0, b"hi")

    asyncio.run(scenario())
