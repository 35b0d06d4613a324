"""The agent's side of the protocol. In: byte streams of peers. Out: calls of the agent's verbs, replies, and one stream a conversation.

`Conversation` works on any (reader, writer) pair, so that the simulation drives it in memory; `serve` is the unix socket around it.
Only root and the agent's own user get in. Everything a peer can make grow has a bound.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Optional

from nodeagent import imageload, logs, protocol, streams
from nodeagent.agent import Refused
from nodeagent.layers import LayerStore
from nodeagent.protocol import ProtocolError, frame
from nodeagent.runtime import RuntimeFault, StorageCorrupt
from nodeagent.storage import own_directory

CONVERSATIONS_MAX = 64
REQUESTS_MAX = 16  # in flight, in one conversation
READ_BYTES = 256 * 1024
WRITE_TIMEOUT_S = 60.0
MESSAGE_CHARS_MAX = 2000

_log = logging.getLogger("sshoal.server")

# verb: (dataclass of the body or None, read strictly)
_REQUESTS: dict[str, tuple[Any, bool]] = {
    protocol.HELLO: (None, False),
    protocol.REPORT: (protocol.ReportRequest, False),
    protocol.USAGE: (protocol.UsageRequest, False),
    protocol.WANT: (protocol.WantedSet, True),
    protocol.SECRETS: (protocol.SecretsRequest, False),
    protocol.TAKEOVER: (protocol.TakeoverRequest, False),
    protocol.FORGET: (protocol.ForgetRequest, False),
    protocol.RESOLVE: (protocol.ResolveRequest, False),
    protocol.LOGS: (protocol.LogsRequest, False),
    protocol.EXEC: (protocol.ExecRequest, False),
    protocol.FORWARD: (protocol.ForwardRequest, False),
    protocol.IMAGE_LOAD: (protocol.ImageLoad, True),
}
_STREAMS = (protocol.LOGS, protocol.EXEC, protocol.FORWARD, protocol.IMAGE_LOAD)


async def serve(agent: Any, socket_path: str, *, uploads: Optional[str] = None) -> "Server":
    """Listens on a unix socket of mode 0600 in a directory of mode 0700; a stale socket there is replaced.

    Args:
        uploads: where layers of images wait until an image is whole; without it, image-load is refused.
    Raises: OSError.
    """
    images = imageload.ImageDesk(LayerStore(Path(uploads))) if uploads is not None else None
    server = Server(agent, images)
    await server.listen(socket_path)
    return server


class Server:
    def __init__(self, agent: Any, images: Optional[imageload.ImageDesk]) -> None:
        self._agent = agent
        self._images = images
        self._conversations: dict[Conversation, asyncio.Task[Any]] = {}
        self._listener: Optional[asyncio.AbstractServer] = None

    async def listen(self, socket_path: str) -> None:
        own_directory(Path(socket_path).parent)
        self._listener = await asyncio.start_unix_server(self._accept, socket_path)
        os.chmod(socket_path, 0o600)  # noqa: PTH101 - a socket file: nothing to wait for

    async def close(self) -> None:
        """Stops listening and ends all conversations. The socket file stays: the next agent replaces it."""
        if self._listener is not None:
            self._listener.close()
        for conversation in list(self._conversations):
            conversation.stop()
        if self._conversations:
            await asyncio.wait(list(self._conversations.values()), timeout=WRITE_TIMEOUT_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _peer_uid(writer)
        if uid not in (0, os.geteuid()):
            _log.warning("refused a connection of user %d", uid)
            writer.transport.abort()
            return
        if len(self._conversations) >= CONVERSATIONS_MAX:
            # Connections that SSH never closed pile up on a bad network; they must not lock the controller out.
            min(self._conversations, key=lambda conversation: conversation.active_s).stop()
        conversation = Conversation(self._agent, reader, writer, images=self._images)
        task = asyncio.ensure_future(conversation.run())
        self._conversations[conversation] = task
        task.add_done_callback(lambda _: self._conversations.pop(conversation, None))
        await asyncio.wait([task])


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    credentials = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


class _BadRequest(Exception):
    def __init__(self, request_id: Optional[int], message: str) -> None:
        super().__init__(message)
        self.request_id = request_id


class Conversation:
    """One peer's byte stream. `reader` has read(n), `writer` has write, drain and close, as asyncio's streams have.

    Attributes:
        active_s: when the peer last sent something, on the event loop's clock.
    """

    def __init__(self, agent: Any, reader: Any, writer: Any, *, images: Optional[imageload.ImageDesk] = None) -> None:
        self.active_s = asyncio.get_running_loop().time()
        self._agent = agent
        self._reader = reader
        self._writer = writer
        self._images = images
        self._frames = protocol.FrameReader()
        self._requests: set[asyncio.Task[None]] = set()
        self._channel: Optional[streams.Channel] = None
        self._writing = asyncio.Lock()
        self._reading: Optional[asyncio.Task[None]] = None
        self._stopped = False

    async def run(self) -> None:
        """Until the peer or stop() ends it. Never raises; what is still under way is cancelled."""
        self._reading = asyncio.ensure_future(self._read())
        if self._stopped:  # before this began
            self._reading.cancel()
        try:
            await asyncio.wait([self._reading])
        finally:
            tasks = [self._reading, *self._requests]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._writer.close()

    def stop(self) -> None:
        self._stopped = True
        if self._reading is not None:
            self._reading.cancel()

    # ---- reading ----

    async def _read(self) -> None:
        try:
            while True:
                received = await self._reader.read(READ_BYTES)
                if not received:
                    return
                self.active_s = asyncio.get_running_loop().time()
                for kind, message in self._feed(received):
                    await self._take(kind, message)
        except _BadRequest as bad:
            await self._send_error(bad.request_id, protocol.BAD_REQUEST, str(bad))
        except OSError:
            pass  # the peer is gone

    def _feed(self, received: bytes) -> list[tuple[int, Any]]:
        try:
            return self._frames.feed(received)
        except ProtocolError as error:
            raise _BadRequest(None, str(error)) from None

    async def _take(self, kind: int, message: Any) -> None:
        if kind == protocol.JSON and "id" in message:
            await self._take_request(message)
        elif self._channel is None:
            raise _BadRequest(None, "there is no stream in this conversation")
        else:
            try:
                cancelled = self._channel.feed(kind, message)
            except ProtocolError as error:
                raise _BadRequest(None, str(error)) from None
            if cancelled:
                self.stop()

    async def _take_request(self, message: dict[str, Any]) -> None:
        """Starts the request, or refuses it here and now: a peer that does not read its refusals is not read from either."""
        request_id, verb, body = message["id"], message.get("verb"), message.get("body", {})
        if type(request_id) is not int or not 0 <= request_id < 2**53:
            raise _BadRequest(None, "the id of a request is a number from 0 to 2^53")
        if not isinstance(verb, str):
            raise _BadRequest(request_id, "a request has a verb")
        if verb not in _REQUESTS:
            await self._send_error(request_id, protocol.UNKNOWN_VERB, f"unknown verb {verb[:64]!r}")
        elif len(self._requests) >= REQUESTS_MAX:
            await self._send_error(request_id, protocol.FAILED_CODE, f"{REQUESTS_MAX} requests are under way already")
        else:
            self._start(self._respond(request_id, verb, self._decoded(request_id, verb, body)))

    def _decoded(self, request_id: int, verb: str, body: Any) -> Any:
        kind, strict = _REQUESTS[verb]
        if kind is None:
            return None
        try:
            return protocol.decode(kind, body, strict=strict)
        except ProtocolError as error:
            raise _BadRequest(request_id, str(error)) from None

    # ---- answering ----

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._requests.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._requests.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, OSError):  # OSError: the peer went away before its answer
            _log.error("a request could not be answered", exc_info=error)

    async def _respond(self, request_id: int, verb: str, request: Any) -> None:
        if verb in _STREAMS:
            await self._stream(request_id, verb, request)
            return
        try:
            result = await self._call(verb, request)
            reply = frame({"id": request_id, "ok": {} if result is None else protocol.encode(result)})
        except Exception as error:  # whatever a verb runs into is the answer to it, and ends nothing else
            await self._send_error(request_id, *_explain(verb, error))
        else:
            await self._send(reply)

    async def _call(self, verb: str, request: Any) -> Any:
        if verb == protocol.HELLO:
            return self._agent.hello()
        if verb == protocol.REPORT:
            return await self._agent.report(request)
        if verb == protocol.USAGE:
            return self._agent.usage(request)
        if verb == protocol.WANT:
            accepted = await self._agent.want(request)
            # By these two the controller's record of operations says who ordered it, and why.
            _log.info("wanted set %d of epoch %d, %d pods", request.serial, request.epoch.number, len(request.pods))
            return accepted
        if verb == protocol.SECRETS:
            return await self._agent.secrets(request)
        if verb == protocol.RESOLVE:
            return await self._agent.resolve(request)
        if verb == protocol.TAKEOVER:
            return await self._agent.takeover(request)
        return await self._agent.forget(request)

    async def _stream(self, request_id: int, verb: str, request: Any) -> None:
        if self._channel is not None:
            await self._send_error(request_id, protocol.FAILED_CODE, "this conversation has a stream already")
            return
        channel = self._channel = streams.Channel(self._send, request_id)
        try:
            end = {"exit": await self._run_stream(verb, request, channel)}
        except Exception as error:  # as above
            code, message = _explain(verb, error)
            if not channel.opened:
                self._channel = None
                await self._send_error(request_id, code, message)
                return
            end = {"exit": {"error": {"code": code, "message": message}}}
        await self._send(frame(end))
        self.stop()

    async def _run_stream(self, verb: str, request: Any, channel: streams.Channel) -> dict[str, Any]:
        if verb == protocol.LOGS:
            return await logs.logs(self._agent, request, channel)
        if verb == protocol.EXEC:
            return await streams.exec_stream(self._agent, request, channel)
        if verb == protocol.FORWARD:
            return await streams.forward(self._agent, request, channel)
        if self._images is None:
            raise OSError("this agent takes no images")
        return await self._images.load(self._agent, request, channel)

    async def _send_error(self, request_id: Optional[int], code: str, message: str) -> None:
        error = {"code": code, "message": message[:MESSAGE_CHARS_MAX]}
        await self._send(frame({"id": request_id, "error": error}))

    async def _send(self, data: bytes) -> None:
        """Raises OSError when the peer is gone or takes nothing for a minute; the conversation then ends."""
        try:
            async with self._writing:
                self._writer.write(data)
                await asyncio.wait_for(self._writer.drain(), WRITE_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):
            self.stop()
            raise ConnectionResetError("the peer is gone") from None


def _explain(verb: str, error: Exception) -> tuple[str, str]:
    """(code, message) for the peer. Of an unforeseen error only its class: its words could hold anything, a secret too."""
    if isinstance(error, Refused):
        return error.code, str(error)
    if isinstance(error, (RuntimeFault, StorageCorrupt, OSError, ProtocolError)):
        return protocol.FAILED_CODE, str(error) or type(error).__name__
    _log.error("%s failed", verb, exc_info=error)
    return protocol.FAILED_CODE, f"internal error of the agent: {type(error).__name__}; its journal has the rest"
