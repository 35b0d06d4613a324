"""`port-forward`: sockets on 127.0.0.1, each connection its own stream to a port of a pod."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from controller.cli.containers import host_of_pod, spec_of_pod
from controller.model.cluster import Pod, World
from controller.model.errors import HostError, NotFound, UsageError
from nodeagent import protocol
from nodeagent.protocol import ForwardRequest

if TYPE_CHECKING:
    from controller.act.agents import AgentStream
    from controller.act.fleet import Fleet
    from controller.cli.wiring import Wiring
    from controller.model.inventory import Host

LISTEN_ADDRESS = "127.0.0.1"
_BLOCK_BYTES = 32 * 1024


def parse_ports(words: Sequence[str]) -> list[tuple[int, str]]:
    """ "8080", "9000:8080", ":http" → (local port, 0 for any free one; remote port or its name). Raises UsageError."""
    pairs = []
    for word in words:
        local, colon, remote = word.rpartition(":")
        remote = remote if colon else word
        named = re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", remote) is not None
        local = local if colon else (remote if remote.isdigit() else "0")
        if not named or not re.fullmatch(r"[0-9]{0,5}", local) or int(local or 0) > 65535 or _is_no_port(remote):
            raise UsageError(
                f"{word!r} is no port", hint="for example 8080, 9000:8080, or :8080 for any free local port"
            )
        pairs.append((int(local or 0), remote))
    return pairs


async def forward(wiring: Wiring, pod: Pod, pairs: Sequence[tuple[int, str]]) -> None:
    """Listens until interrupted. Raises UsageError when a local port is taken, HostError when the host is not reachable."""
    world = wiring.world()
    host = host_of_pod(wiring, world, pod)
    ports = [(local, _number(world, pod, remote)) for local, remote in pairs]
    async with wiring.fleet(deploy=False) as fleet:
        await fleet.session(host)  # what is wrong with the host is told now, not at the first connection
        with contextlib.ExitStack() as stack:
            for local, remote in ports:
                server = await _listen(fleet, host, pod, local, remote)
                stack.callback(server.close)
                port = server.sockets[0].getsockname()[1]
                print(f"{LISTEN_ADDRESS}:{port} → {pod.meta.name}:{remote}", flush=True)
            await asyncio.Event().wait()


async def _listen(fleet: Fleet, host: Host, pod: Pod, local: int, remote: int) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            stream = await fleet.stream(host, protocol.FORWARD, ForwardRequest(pod.meta.uid, remote))
            try:
                await _both_ways(stream, reader, writer)
            finally:
                stream.close()
        except (HostError, ConnectionError) as error:
            if server.is_serving():  # else we are ending, and so are the connections
                print(f"port {remote} of {pod.meta.name}: {error}", file=sys.stderr)
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(serve, LISTEN_ADDRESS, local)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {LISTEN_ADDRESS}:{local}: {error.strerror}", hint=f":{remote} takes any free port"
        ) from None
    return server


async def _both_ways(stream: AgentStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each direction ends by itself, as in TCP; when the pod's side is done with both, so are we."""

    async def send() -> None:
        with contextlib.suppress(HostError, ConnectionError):
            while data := await reader.read(_BLOCK_BYTES):
                await stream.write(data)
            await stream.end_input()

    sending = asyncio.ensure_future(send())
    try:
        async for _, data in stream:
            if data:
                writer.write(data)
                await writer.drain()
            elif writer.can_write_eof():
                writer.write_eof()
    finally:
        sending.cancel()


def _number(world: World, pod: Pod, remote: str) -> int:
    """A port's number, by its name where it has one. Raises NotFound."""
    if remote.isdigit():
        return int(remote)
    names: dict[object, object] = {}
    for container in spec_of_pod(world, pod).get("containers") or ():
        names |= {port.get("name"): port.get("containerPort") for port in container.get("ports") or ()}
    number = names.get(remote)
    if not isinstance(number, int):
        known = ", ".join(sorted(str(name) for name in names if name)) or "none"
        raise NotFound(f"pod {pod.meta.name} has no port named {remote!r}", hint=f"named ports: {known}")
    return number


def _is_no_port(text: str) -> bool:
    return text.isdigit() and not (len(text) <= 5 and 0 < int(text) < 65536)
