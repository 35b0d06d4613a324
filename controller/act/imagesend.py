"""One image to one host, over a stream `image-load` of its agent: what the agent asks for, and nothing else. In: a SourceImage. Out: bytes
of its layers; what was sent. Reads files.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from controller.act.agents import AgentStream
from controller.act.imagefile import SourceImage, SourceLayer
from controller.model.errors import HostError, HostUnreachable
from nodeagent import protocol
from nodeagent.protocol import ImageLayer, ImageLoad, ImageWants, ProtocolError

BLOCK_BYTES = 256 * 1024
BLOCK_TIMEOUT_S = 120.0  # a host that takes not even one block in that time
LOAD_TIMEOUT_S = 900.0  # for the engine to take in what has arrived, and for other images before it
_LINE_BYTES_MAX = 1024 * 1024
_ROUNDS_MAX = 8  # an agent asks again for what was damaged, or what its engine does not find


@dataclass(slots=True)
class Sent:
    """So far. `present`: the image was there, under all its names, and nothing was asked for."""

    wanted_bytes: int = 0
    sent_bytes: int = 0
    skipped_bytes: int = 0  # of layers that the host had
    resumed_bytes: int = 0  # of layers that an attempt before had brought in part
    present: bool = False


def request_of(image: SourceImage) -> ImageLoad:
    return ImageLoad(
        image.config, image.names, tuple(ImageLayer(layer.digest, layer.size_bytes) for layer in image.layers)
    )


async def send_image(host_name: str, stream: AgentStream, image: SourceImage, tell: Callable[[Sent], None]) -> Sent:
    """Serves the agent's wishes until it says that the image is there.

    Args:
        tell: is told after each block.
    Raises: AgentRefused (what the agent ran into), HostUnreachable, HostError (it asks for what is not in the image).
    """
    layers = {layer.digest: layer for layer in image.layers}
    sent = Sent(skipped_bytes=image.size_bytes)
    rounds = 0
    async for wants in _wishes(host_name, stream):
        rounds += 1
        parts = [(layers.get(want.digest), want.offset) for want in wants.layers]
        if rounds > _ROUNDS_MAX or any(layer is None or not 0 <= at <= layer.size_bytes for layer, at in parts):
            raise HostError(host_name, "its agent asks for what is not in the image; it is not to be trusted")
        wanted = [(layer, at) for layer, at in parts if layer is not None]
        if rounds == 1:
            sent.skipped_bytes -= sum(layer.size_bytes for layer, _ in wanted)
        sent.wanted_bytes += sum(layer.size_bytes - at for layer, at in wanted)
        sent.resumed_bytes += sum(at for _, at in wanted)
        tell(sent)
        for layer, at in wanted:
            async for block in _blocks(layer, at):
                await _write(host_name, stream, block)
                sent.sent_bytes += len(block)
                tell(sent)
    sent.present = bool((stream.exit or {}).get("present"))
    return sent


async def _wishes(host_name: str, stream: AgentStream) -> AsyncIterator[ImageWants]:
    """A line of output each; the end is the agent's exit."""
    line = b""
    while True:
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                piece: Any = await anext(stream, None)
        except TimeoutError:
            problem = f"the image was not taken in within {LOAD_TIMEOUT_S:g} s"
            raise HostUnreachable(host_name, problem, hint="what has arrived is kept: push again") from None
        if piece is None:
            return
        line += piece[1]
        if line.endswith(b"\n"):
            try:
                yield protocol.decode(ImageWants, protocol.parse_json(line), strict=False)
            except ProtocolError as error:
                raise HostError(host_name, f"its agent sends nonsense: {error}") from None
            line = b""
        elif len(line) > _LINE_BYTES_MAX:
            raise HostError(host_name, "its agent sends nonsense: a line without an end")


async def _write(host_name: str, stream: AgentStream, block: bytes) -> None:
    try:
        async with asyncio.timeout(BLOCK_TIMEOUT_S):
            await stream.write(block)
    except TimeoutError:
        problem = f"it took nothing for {BLOCK_TIMEOUT_S:g} s"
        raise HostUnreachable(host_name, problem, hint="what has arrived is kept: push again") from None


async def _blocks(layer: SourceLayer, at: int) -> AsyncIterator[bytes]:
    with layer.path.open("rb") as file:
        file.seek(layer.offset + at)
        left = layer.size_bytes - at
        while left:
            block = await asyncio.to_thread(file.read, min(BLOCK_BYTES, left))
            if not block:
                raise OSError(f"{layer.path} has become shorter while it was read")
            left -= len(block)
            yield block
