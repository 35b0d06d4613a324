"""The stream `image-load`: an image comes over SSH, only those layers that this host lacks. In: an ImageLoad and frames. Out: the image in
the engine. Does I/O.

The agent says which layers it wants and from which byte on; each is verified as soon as it is whole, and only then the engine is given
an archive of them. What an upload that broke off has brought stays for the next one. One image at a time: further ones wait.
"""

import asyncio
import json
import shutil
from collections.abc import Sequence
from typing import Any, Callable

from nodeagent import protocol
from nodeagent.deadline import within
from nodeagent.imagefile import LayeredImage, layered
from nodeagent.layers import Incoming, LayerDamaged, LayerStore
from nodeagent.protocol import ImageLayer, ImageLoad, ImageWants, LayerWanted
from nodeagent.runtime import RuntimeFault
from nodeagent.streams import EOF, Channel

RESERVE_BYTES = 512 * 1024 * 1024  # disk that stays free
COPIES = 5  # of what comes, for a moment: ours, and what Podman makes of it (its archive, unpacked, checked, stored)
CHECK_BYTES = 16 * 1024 * 1024
WINDOW_BYTES = 2 * 1024 * 1024  # under way while the disk is busy
WRITE_BYTES = 512 * 1024  # handed to the disk at once, at most
SILENCE_S = 60.0  # a peer that sends nothing for so long is gone; others wait for their turn


class ImageDesk:
    """Where images are taken in. Create it within a running event loop."""

    def __init__(self, store: LayerStore) -> None:
        self._store = store
        self._turn = asyncio.Lock()

    async def load(self, agent: Any, request: ImageLoad, channel: Channel) -> dict[str, Any]:
        """Raises ProtocolError, OSError (no room, damaged, nothing came), RuntimeFault."""
        image = layered(request)
        await channel.open()
        await channel.widen(WINDOW_BYTES)
        async with self._turn:
            there = await agent.runtime.image(image.id)
            if there is not None and set(image.names) <= set(there.names):
                return {"image": image.id, "present": True}
            await self._bring(agent.runtime, image, channel)
        await agent.images_changed()  # pods that wait for it go on
        return {"image": image.id}

    async def _bring(self, runtime: Any, image: LayeredImage, channel: Channel) -> None:
        there = await runtime.layers()
        while True:
            lacking = [layer for layer in dict.fromkeys(image.layers) if layer.digest not in there]
            await asyncio.to_thread(self._store.clean, [layer.digest for layer in lacking])
            await self._fetch(lacking, channel)
            try:
                await runtime.load_image(image.archive([layer.digest for layer in lacking], self._store.read))
                break
            except RuntimeFault as fault:
                if not there or fault.reason in ("timeout", "unavailable", "no-space"):
                    raise
                # A layer has gone meanwhile, or is one that this Podman cannot use again: all of them shall come.
                there = frozenset()
        for name in image.names[1:]:
            await runtime.tag(image.id, name)
        if await runtime.image(image.id) is None:
            raise RuntimeFault("failed", f"Podman has taken the image in, but under another id than {image.id[:19]}")
        await asyncio.to_thread(self._store.drop, lacking)

    async def _fetch(self, layers: Sequence[ImageLayer], channel: Channel) -> None:
        """Until all of them are here, verified."""
        inflow = _Inflow(channel)
        while missing := await asyncio.to_thread(self._store.missing, layers):
            self._check_space(COPIES * sum(layer.size_bytes - have for layer, have in missing.items()))
            wants = ImageWants(tuple(LayerWanted(layer.digest, have) for layer, have in missing.items()))
            await channel.send(protocol.STDOUT, json.dumps(protocol.encode(wants)).encode() + b"\n")
            for layer, have in missing.items():
                try:
                    await self._receive(layer, inflow)
                except LayerDamaged:
                    if not have:
                        raise
                    # The part that was here may be what is damaged: it is gone now, and asked for again from its beginning.

    async def _receive(self, layer: ImageLayer, inflow: "_Inflow") -> None:
        incoming: Incoming = await asyncio.to_thread(self._store.receive, layer)
        unchecked = 0
        try:
            while incoming.size_bytes < layer.size_bytes:
                pieces = await inflow.take(min(WRITE_BYTES, layer.size_bytes - incoming.size_bytes))
                await _to_its_end(incoming.write, pieces)
                unchecked += sum(map(len, pieces))
                if unchecked >= CHECK_BYTES:
                    unchecked = 0
                    self._check_space(0)
            await _to_its_end(incoming.finish)
        finally:
            incoming.close()

    def _check_space(self, needed_bytes: int) -> None:
        free = shutil.disk_usage(self._store.directory).free
        if free < needed_bytes + RESERVE_BYTES:
            raise OSError(
                f"{free >> 20} MiB are free in {self._store.directory}; the image needs {needed_bytes >> 20} MiB for a moment"
                f" ({COPIES} times what comes), and {RESERVE_BYTES >> 20} MiB must stay free: free some space there"
            )


async def _to_its_end(write: Callable[..., None], *pieces: Sequence[bytes]) -> None:
    """In a thread; when this is cancelled, not before it has ended: whoever comes next reads what is on the disk."""
    writing = asyncio.ensure_future(asyncio.to_thread(write, *pieces))
    try:
        await asyncio.shield(writing)
    finally:
        await asyncio.wait([writing])


class _Inflow:
    """The peer's bytes as they come."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._left = b""

    async def take(self, size: int) -> list[bytes]:
        """What is there, at least one byte and at most `size`. Raises OSError when nothing comes."""
        taken, count = [], 0
        while count < size and (not count or self._left or self._channel.is_waiting()):
            piece = self._left or await self._next()
            taken.append(piece[: size - count])
            self._left = piece[size - count :]
            count += len(taken[-1])
        return taken

    async def _next(self) -> bytes:
        while True:
            try:
                item = await within(SILENCE_S, self._channel.receive())
            except asyncio.TimeoutError:
                raise OSError(f"nothing came for {SILENCE_S:g} s; what has arrived is kept") from None
            if item == EOF:
                raise OSError("the input ended too early; what has arrived is kept")
            if isinstance(item, bytes):
                return item
