"""One connection of asyncssh as a Session (framed_session.py): commands and forwarded sockets. The other half of ssh.py."""

from __future__ import annotations

import asyncio
from typing import Any

from controller.act.asyncssh_import import asyncssh
from controller.act.framed_session import SIGNALS, FramedSession, Stream, Taker, Wire
from controller.act.transport import AgentPlaces, Channel
from controller.model.inventory import Connection


class AsyncsshSession(FramedSession):
    """See transport.Session."""

    def __init__(
        self, host_name: str, connection: Connection, opened: asyncssh.SSHClientConnection, agent: AgentPlaces
    ) -> None:
        super().__init__(host_name, connection, opened.get_extra_info("username"), agent)
        self._opened = opened

    @property
    def host_key(self) -> str:
        key = self._opened.get_server_host_key()
        return str(key.get_fingerprint()) if key is not None else ""

    @property
    def is_closed(self) -> bool:
        return bool(self._opened.is_closed())

    async def close(self) -> None:
        self._opened.close()
        try:
            async with asyncio.timeout(2):
                await self._opened.wait_closed()
        except TimeoutError:
            self._opened.abort()

    async def _try_start(self, command: str, taker: Taker) -> Wire:
        try:
            channel, _ = await self._opened.create_session(lambda: _ExecSession(taker), command, encoding=None)
        except asyncssh.ChannelOpenError as error:
            raise (self._broken(error) if self.is_closed else self._no_session(error.reason)) from None
        except (asyncssh.Error, OSError) as error:
            raise self._broken(error) from None
        return channel

    async def _forward(self) -> Channel | None:
        stream = Stream(self.host_name)
        path = await self._socket()
        try:
            await self._opened.create_unix_connection(lambda: _ForwardedSocket(stream), path, encoding=None)
        except asyncssh.ChannelOpenError:
            return None
        except (asyncssh.Error, OSError) as error:
            raise self._broken(error) from None
        return stream


class _ExecSession(asyncssh.SSHClientSession[bytes]):
    """asyncssh's callbacks for a command."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker
        self._channel: Any = None

    def connection_made(self, chan: Any) -> None:
        self._channel = chan
        self._taker.opened(chan)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if not self._taker.received(data, datatype is not None):
            self._channel.abort()

    def exit_status_received(self, status: int) -> None:
        self._taker.exited(status)

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        self._taker.exited(128 + SIGNALS.get(signal, 15))

    def pause_writing(self) -> None:
        self._taker.writing(False)

    def resume_writing(self) -> None:
        self._taker.writing(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._taker.end(exc)


class _ForwardedSocket(asyncssh.SSHUNIXSession[bytes]):
    """asyncssh's callbacks for a forwarded socket."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def connection_made(self, chan: Any) -> None:
        self._stream.opened(chan)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self._stream.received(data, False)

    def eof_received(self) -> bool:
        self._stream.half_closed()
        return False

    def pause_writing(self) -> None:
        self._stream.writing(False)

    def resume_writing(self) -> None:
        self._stream.writing(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream.end(exc)
