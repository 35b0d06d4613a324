"""The controller's end of the agent's protocol for tests, and an agent that does what a test says: real frames over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from nodeagent import protocol
from nodeagent.agent import Refused
from nodeagent.protocol import Accepted, FrameReader, Hello, Report, data_frame, frame
from nodeagent.runtime import Process
from nodeagent.server import Server, serve


class Desk:
    """Takes what the server passes on, and answers as the test has put it there."""

    def __init__(self, runtime: Any = None) -> None:
        self.runtime = runtime
        self.taken: list[Any] = []
        self.answers: dict[str, Any] = {}  # verb -> result or exception
        self.gate = threading.Event()  # reports wait for it when they were asked to wait
        self.waiting = 0
        self.containers: dict[tuple[str, bool], tuple[str | None, str | None]] = {}
        self.ended: set[str | None] = set()  # ids of containers
        self.process = Process(1, 1)
        self.images_seen = 0

    def hello(self) -> Hello:
        return Hello(protocol.VERSION, "agent-1", "instance-1", "bundle-1", "boot-1", 5.0, 6.0)

    async def report(self, request: Any) -> Any:
        if request.wait_s:
            self.waiting += 1
            try:
                while not self.gate.is_set():
                    await asyncio.sleep(0.005)
            finally:
                self.waiting -= 1
        return self._answer(
            protocol.REPORT, request, Report("agent-1", protocol.Cursor("instance-1", 1), "boot-1", 5.0, 6.0)
        )

    async def want(self, wanted: Any) -> Any:
        return self._answer(protocol.WANT, wanted, Accepted(wanted.serial))

    async def secrets(self, request: Any) -> Any:
        return self._answer(protocol.SECRETS, request, None)

    async def takeover(self, request: Any) -> Any:
        return self._answer(protocol.TAKEOVER, request, None)

    async def forget(self, request: Any) -> Any:
        return self._answer(protocol.FORGET, request, None)

    def _answer(self, verb: str, request: Any, usual: Any) -> Any:
        self.taken.append(request)
        answer = self.answers.get(verb, usual)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def find_container(self, uid: str, container: str, previous: bool = False) -> tuple[str | None, str | None]:
        if (container, previous) not in self.containers:
            raise Refused(protocol.NOT_FOUND, f"pod {uid} has no container {container!r}")
        return self.containers[container, previous]

    def has_ended(self, uid: str, container: str, container_id: str | None) -> bool:
        return container_id in self.ended

    def pod_process(self, uid: str) -> Process:
        return self.process

    async def images_changed(self) -> None:
        self.images_seen += 1


class Peer:
    """Sends requests and stream frames, and hands out what comes back in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = FrameReader()
        self._come: list[tuple[int, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.writer.write(frame(message))

    def send_data(self, data: bytes, kind: int = protocol.STDIN) -> None:
        self.writer.write(data_frame(kind, data))

    def ask(self, verb: str, body: Any = None, request_id: int = 1) -> None:
        self.send({"id": request_id, "verb": verb, "body": {} if body is None else protocol.encode(body)})

    async def next(self) -> tuple[int, Any]:
        """The next frame as (kind, message or bytes). Raises EOFError when the agent has closed."""
        while not self._come:
            received = await asyncio.wait_for(self.reader.read(65536), 20)
            if not received:
                raise EOFError
            self._come += self._frames.feed(received)
        return self._come.pop(0)

    async def message(self) -> dict[str, Any]:
        kind, message = await self.next()
        assert kind == protocol.JSON, (kind, message[:200])
        answer: dict[str, Any] = message
        return answer

    async def call(self, verb: str, body: Any = None, request_id: int = 1) -> dict[str, Any]:
        self.ask(verb, body, request_id)
        return await self.message()

    async def to_exit(self, credit: bool = True) -> tuple[bytes, bytes, Any]:
        """(standard output, standard error, what the exit says) of the rest of a stream; grants credit on the way."""
        collected = {protocol.STDOUT: b"", protocol.STDERR: b""}
        while True:
            kind, message = await self.next()
            if kind != protocol.JSON:
                collected[kind] += message
                if credit:
                    self.send({"credit": len(message)})
            elif "exit" in message:
                return collected[protocol.STDOUT], collected[protocol.STDERR], message["exit"]

    async def is_closed(self) -> bool:
        """Waits for the agent's end of the connection; False when a frame comes instead."""
        try:
            await self.next()
        except (EOFError, ConnectionError):
            return True
        return False

    def close(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def serving(agent: Any, folder: Path, **options: Any) -> AsyncIterator[tuple[Server, Path]]:
    path = folder / "run" / "agent.sock"
    server = await serve(agent, str(path), **options)
    try:
        yield server, path
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Peer]:
    peer = Peer(*await asyncio.open_unix_connection(str(path)))
    try:
        yield peer
    finally:
        peer.close()


@contextlib.asynccontextmanager
async def talking(agent: Any, folder: Path, **options: Any) -> AsyncIterator[Peer]:
    async with serving(agent, folder, **options) as (_, path), connected(path) as peer:
        yield peer


async def until(condition: Any) -> None:
    """Waits for something that happens soon."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")
