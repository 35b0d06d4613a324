"""Images from the controller's side: to the real agent's server over a socket, and to agents that do not mean well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.act import imagesend
from controller.act.agents import AgentStream
from controller.act.imagefile import SourceImage, read_archive
from controller.act.imagesend import Sent, request_of, send_image
from controller.cli import push as push_to_all
from controller.model.errors import AgentRefused, HostError, HostUnreachable
from lab.layered import digest, docker_archive, layer
from nodeagent import protocol
from nodeagent.protocol import data_frame, frame
from tests.agent_peer import Desk, serving
from tests.unit.test_agent_images import Engine
from tests.unit.test_agents_client import FakeChannel

TAG = "localhost/web:v1"
A, B, C = layer("a", 3_000_000, 1), layer("b", 500_000, 2), layer("c", 10_000, 3)


class SocketChannel:
    """A Channel over a unix socket. `cut_after`: breaks once so many bytes were written."""

    def __init__(self, path: Path, cut_after: int = 2**60) -> None:
        self._path, self._left = path, cut_after
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> SocketChannel:
        self._reader, self._writer = await asyncio.open_unix_connection(str(self._path))
        return self

    async def read(self) -> bytes:
        return await self._reader.read(65536)

    async def write(self, data: bytes) -> None:
        assert self._writer is not None
        if self._left <= 0:
            self.close()
            raise HostUnreachable("web1", "the connection was lost")
        self._left -= len(data)
        self._writer.write(data)
        await self._writer.drain()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., SourceImage]:
    def made(*layers: bytes) -> SourceImage:
        path = docker_archive(tmp_path / f"{len(layers)}-{digest(layers[-1])[7:12]}.tar", TAG, layers)
        (image,) = read_archive(path, path.name, tmp_path)
        return image

    return made


async def push(path: Path, image: SourceImage, cut_after: int = 2**60) -> tuple[Sent, list[int]]:
    channel = await SocketChannel(path, cut_after).open()
    stream = await AgentStream.open("web1", channel, protocol.IMAGE_LOAD, request_of(image), timeout_s=10)
    told: list[int] = []
    try:
        return await send_image("web1", stream, image, lambda sent: told.append(sent.sent_bytes)), told
    finally:
        stream.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 50))


def test_a_host_is_sent_what_it_lacks_and_nothing_else(source: Callable[..., SourceImage], tmp_path: Path) -> None:
    async def work() -> None:
        engine = Engine()
        async with serving(Desk(engine), tmp_path, uploads=str(tmp_path / "up")) as (_, path):
            first, told = await push(path, source(A, B))
            assert (first.sent_bytes, first.wanted_bytes, first.resumed_bytes) == (len(A + B), len(A + B), 0)
            assert told == sorted(told)
            assert told[-1] == len(A + B)
            second, _ = await push(path, source(A, C))
            assert (second.sent_bytes, second.skipped_bytes) == (len(C), len(A))
            again, _ = await push(path, source(A, C))
            assert (again.sent_bytes, again.present) == (0, True)
        assert source(A, C).id in engine.images

    run(work())


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_an_archive_that_is_gone_meanwhile_is_told_of_each_host_and_ends_no_other(
    source: Callable[..., SourceImage], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    image = source(A)
    path = image.layers[0].path
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(b"")

    async def send(fleet: object, host: object, image: SourceImage, tell: object) -> Sent:
        async for _ in imagesend._blocks(image.layers[0], 0):
            pass
        return Sent()

    monkeypatch.setattr(push_to_all, "_send", send)
    seen: Any = SimpleNamespace(capacity=SimpleNamespace(arch=image.architecture))
    host: Any = SimpleNamespace(name="web1")
    fleet: Any = None
    outcome = asyncio.run(push_to_all._to_host(fleet, host, seen, [image], push_to_all.Shown()))
    assert (outcome.exit_code, "the image can't be read here any more: " in outcome.text) == (1, True)


def test_a_push_that_broke_off_goes_on_where_it_was(source: Callable[..., SourceImage], tmp_path: Path) -> None:
    async def work() -> None:
        engine = Engine()
        async with serving(Desk(engine), tmp_path, uploads=str(tmp_path / "up")) as (_, path):
            with pytest.raises(HostUnreachable):
                await push(path, source(A), cut_after=2_000_000)
            assert engine.archives == []
            sent, _ = await push(path, source(A))
            assert sent.resumed_bytes > 0
            assert sent.sent_bytes + sent.resumed_bytes == len(A)
        assert source(A).id in engine.images

    run(work())


def test_what_the_agent_ran_into_is_told_in_its_words(source: Callable[..., SourceImage], tmp_path: Path) -> None:
    async def work() -> None:
        image = source(A)
        image.layers[0].path.write_bytes(bytes(4_000_000))  # changed after it was read
        async with serving(Desk(Engine()), tmp_path, uploads=str(tmp_path / "up")) as (_, path):
            with pytest.raises(AgentRefused, match="arrived damaged"):
                await push(path, image)

    run(work())


# ---- agents that do not mean well ---------------------------------------------------------------------------------------


def wants(*layers: tuple[str, int]) -> bytes:
    listed = [{"digest": digest, "offset": offset} for digest, offset in layers]
    return data_frame(protocol.STDOUT, json.dumps({"layers": listed}).encode() + b"\n")


async def against(image: SourceImage, *said: bytes) -> Sent:
    channel = FakeChannel()
    channel.say(frame({"id": 1, "ok": {}}), *said)
    stream = await AgentStream.open("web1", channel, protocol.IMAGE_LOAD, request_of(image), timeout_s=10)
    try:
        return await send_image("web1", stream, image, lambda sent: None)
    finally:
        stream.close()


@pytest.mark.parametrize(
    "said",
    [
        wants(("sha256:" + "0" * 64, 0)),
        wants((digest(C), -1)),
        wants((digest(C), len(C) + 1)),
        data_frame(protocol.STDOUT, b"[]\n"),
        data_frame(protocol.STDOUT, b'{"layers": [{}]}\n'),
    ],
    ids=["another layer", "before its beginning", "behind its end", "no object", "no layer"],
)
def test_an_agent_that_asks_for_what_is_not_in_the_image_gets_nothing(
    source: Callable[..., SourceImage], said: bytes
) -> None:
    with pytest.raises(HostError, match=r"asks for what is not in the image|nonsense"):
        asyncio.run(against(source(C), said))


def test_an_agent_that_asks_again_and_again_is_left(source: Callable[..., SourceImage]) -> None:
    with pytest.raises(HostError, match="not to be trusted"):
        asyncio.run(against(source(C), *[wants((digest(C), 0))] * 20))


def test_a_host_that_takes_nothing_any_more_is_given_up(
    source: Callable[..., SourceImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grants no credit after its first window; what it has stays with it."""
    monkeypatch.setattr(imagesend, "BLOCK_TIMEOUT_S", 0.2)
    with pytest.raises(HostUnreachable, match="took nothing"):
        asyncio.run(against(source(A), wants((digest(A), 0))))


def test_an_engine_that_does_not_end_is_given_up(
    source: Callable[..., SourceImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagesend, "LOAD_TIMEOUT_S", 0.2)
    with pytest.raises(HostUnreachable, match="not taken in"):
        asyncio.run(against(source(C), wants((digest(C), 0))))
