"""One command run inside a container, with its streams: runtime.ExecSession over Podman's exec.

In: a container id and a command. Out: what it writes, its exit code. The stream is a connection of its own to Podman's socket, taken over
from HTTP as Podman's own client does it; everything else goes through podman_service. Never setns: the command runs as Podman makes it.
"""

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator
from typing import Any, Optional

from nodeagent import process, protocol
from nodeagent.podman_service import PodmanService, fault
from nodeagent.runtime import ExecResult, RuntimeFault

CALL_S = 10.0  # deadline of each single request
OUTPUT_BYTES_MAX = 64 * 1024  # of a command run to its end
_CHUNK_BYTES = protocol.STREAM_CHUNK_BYTES
_FRAME = struct.Struct(">BxxxI")
_HEADER_BYTES_MAX = 64 * 1024
RESTART_S = 4.0  # in which a service that was restarted answers again; below the slack of a probe
RESTART_POLL_S = 0.1
_CODE_POLLS = 20
_CODE_POLL_S = 0.01


async def run(service: PodmanService, container_id: str, command: tuple[str, ...], timeout_s: float) -> ExecResult:
    """Runs a command to its end, both streams together; at the deadline it is killed with all that it started.

    Raises RuntimeFault, also when its output has ended and Podman does not tell how it did: that says nothing of the command.
    """
    output = bytearray()

    async def collect() -> int:
        async for _, chunk in session:
            output.extend(chunk[: max(0, OUTPUT_BYTES_MAX - len(output))])
        code = await session.exit_code()
        if code is None:
            raise RuntimeFault("failed", "Podman does not tell how the command ended; was its service restarted?")
        return code

    session = await start(service, container_id, command, tty=False, stdin=False)
    code: Optional[int] = None
    try:
        code = await asyncio.wait_for(collect(), timeout_s)
    except asyncio.TimeoutError:
        pass
    finally:
        await session.close()
    return ExecResult(code, bytes(output))


async def start(
    service: PodmanService, container_id: str, command: tuple[str, ...], *, tty: bool, stdin: bool
) -> "PodmanExec":
    """Starts a command. Raises RuntimeFault: not-found, or failed with Podman's words (no such command, container not running)."""
    body = {"Cmd": list(command), "AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True, "Tty": tty}
    created = await service.call("POST", f"/containers/{container_id}/exec", body=body, timeout_s=CALL_S)
    exec_id = str(created.data["Id"])
    try:
        reader, writer = await asyncio.wait_for(_take_over(service, exec_id, tty), CALL_S)
    except BaseException as error:
        # Podman may have started it all the same.
        with contextlib.suppress(RuntimeFault):
            await _end(service, exec_id)
        if isinstance(error, asyncio.TimeoutError):
            raise RuntimeFault("timeout", f"Podman did not start the command within {CALL_S:g} s") from None
        raise
    return PodmanExec(service, exec_id, tty, reader, writer)


async def _inspect(service: PodmanService, exec_id: str) -> Optional[dict[str, Any]]:
    answer = await service.get(f"/exec/{exec_id}/json", timeout_s=CALL_S, expect=(404,))
    return answer.data if answer.status < 400 else None


async def _end(service: PodmanService, exec_id: str) -> None:
    """Kills the command and what it started. A service that is just being restarted is waited for."""
    clock = asyncio.get_running_loop().time
    until_s = clock() + RESTART_S
    while True:
        try:
            session = await _inspect(service, exec_id)
            break
        except RuntimeFault as trouble:
            if trouble.reason != "unavailable" or clock() >= until_s:
                raise
        await asyncio.sleep(RESTART_POLL_S)
    if session is not None and session.get("Running") and session.get("Pid"):
        process.kill_tree(int(session["Pid"]))


async def _take_over(
    service: PodmanService, exec_id: str, tty: bool
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        reader, writer = await asyncio.open_unix_connection(service.socket_path, limit=_HEADER_BYTES_MAX)
    except OSError as error:
        raise RuntimeFault("unavailable", f"Podman's service does not answer ({error})") from None
    try:
        body = json.dumps({"Detach": False, "Tty": tty}).encode()
        request = (
            f"POST {service.prefix}exec/{exec_id}/start HTTP/1.1\r\nHost: podman\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(request.encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(None, 2)[1])
        if status >= 400:
            raise fault("exec", status, (await reader.read(_CHUNK_BYTES)).decode("utf-8", "replace"))
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, IndexError, ValueError) as error:
        writer.close()
        raise RuntimeFault("unavailable", f"Podman ended the exec before it began ({type(error).__name__})") from None
    except BaseException:
        writer.close()
        raise
    return reader, writer


class PodmanExec:
    """runtime.ExecSession."""

    def __init__(
        self,
        service: PodmanService,
        exec_id: str,
        tty: bool,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._service, self._id, self._tty = service, exec_id, tty
        self._reader, self._writer = reader, writer
        self._ended = False  # as Podman says: a stream that ends may also be a service that was killed

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if self._tty:
                while chunk := await self._reader.read(_CHUNK_BYTES):
                    yield protocol.STDOUT, chunk
            else:
                while True:
                    stream, left = _FRAME.unpack(await self._reader.readexactly(_FRAME.size))
                    while left:
                        chunk = await self._reader.read(min(left, _CHUNK_BYTES))
                        if not chunk:
                            raise ConnectionError
                        left -= len(chunk)
                        yield (protocol.STDERR if stream == 2 else protocol.STDOUT), chunk

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    async def end_input(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def resize(self, rows: int, columns: int) -> None:
        with contextlib.suppress(RuntimeFault):  # it ended meanwhile
            await self._service.call(
                "POST", f"/exec/{self._id}/resize", params={"h": rows, "w": columns}, timeout_s=CALL_S
            )

    async def exit_code(self) -> Optional[int]:
        """None when Podman does not know it; call it when the streams have ended."""
        for _ in range(_CODE_POLLS):
            session = await _inspect(self._service, self._id)
            self._ended = session is None or not session.get("Running")
            if session is None:
                return None
            if self._ended:
                return int(session["ExitCode"])
            await asyncio.sleep(_CODE_POLL_S)
        return None

    async def close(self) -> None:
        """Kills the command and what it started, unless it has ended by itself."""
        try:
            if not self._ended:
                await _end(self._service, self._id)
        finally:
            self._writer.close()
