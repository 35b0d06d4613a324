"""One connection of paramiko as a Session (framed_session.py), and the threads behind it. The other half of paramiko_transport.py.

paramiko blocks: it may wait on the socket, for a window or for new keys, in every call. So no call of it is made on the event loop's
thread: each connection has a small pool of threads for its commands, and others, as many as it takes, for what waits for the server
alone. Everything that waits in them ends when the connection is closed.
paramiko knows no forwarding of unix sockets, so that channels to the agent are always dialled: each takes one of sshd's sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import paramiko
from paramiko.common import (
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
)

from controller.act.framed_session import SIGNALS, FramedSession, Taker, Wire
from controller.act.hops import KEEPALIVE_COUNT_MAX, KEEPALIVE_INTERVAL_S
from controller.act.hostkeys import HostKey
from controller.act.transport import AgentPlaces
from controller.model.inventory import Connection

COMMANDS_MAX = 6  # threads open a session before sshd has counted the last one off: with eight, some are refused first
THREADS_MAX = 32  # of one connection: a reader and a sender for each of its commands, and what opens and closes them
WAITING_MAX = 4096  # threads for tunnels that open and for signs of life: more than a pass has hosts at once
OPEN_DEADLINE_S = 60  # of a thread that opens a command; whoever waits for it has a shorter deadline of its own
END_DEADLINE_S = 2
CHUNK_BYTES = 64 * 1024
WRITE_AHEAD_BYTES = 256 * 1024
PACKET_BYTES_MAX = 256 * 1024  # as OpenSSH has it; what we let servers send at once is 32 KiB
NO_MORE_AUTH_METHODS = 14  # RFC 4253, why a server disconnects

T = TypeVar("T")


class Link:
    """A connection of paramiko with the threads that wait for it. All of them end with close()."""

    def __init__(self, host_name: str, carrier: socket.socket | paramiko.Channel, timeout_s: float) -> None:
        """`carrier`: a connected socket, or a channel of a jump host; it belongs to the link. `timeout_s`: until logged in.

        Raises ConnectionResetError when the other end has gone already.
        """
        self._carrier = carrier
        try:
            self.peer = carrier.getpeername()
        except OSError as error:
            carrier.close()
            raise ConnectionResetError(*error.args) from None
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix=f"ssh {host_name}")
        # A host behind this one that does not answer holds its thread for the connect timeout; nobody else may wait for that.
        self._waiting = ThreadPoolExecutor(WAITING_MAX, thread_name_prefix=f"ssh {host_name} waits")
        self._keepalive: asyncio.Task[None] | None = None
        self._ended: asyncio.Event | None = None
        self.ssh = _Transport(carrier)
        self.ssh.name = f"ssh {host_name}"
        # Whoever connects gives up at its own deadline and closes this; these only bound the threads.
        self.ssh.banner_timeout = self.ssh.handshake_timeout = self.ssh.auth_timeout = 2 * timeout_s
        self.user = ""  # who is logged in

    @property
    def is_closed(self) -> bool:
        return self._ended is not None or not self.ssh.is_active()

    async def blocking(self, call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
        """`call` in a thread. Nobody waits for it after a cancellation; what it then still returns is given to `undo`."""
        return await self._outcome(self._pool, call, undo)

    async def _outcome(
        self, pool: ThreadPoolExecutor, call: Callable[[], T], undo: Callable[[T], object] | None = None
    ) -> T:
        try:
            future = pool.submit(call)
        except RuntimeError:
            raise EOFError("the connection is closed") from None
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if undo is not None:
                future.add_done_callback(lambda done: _undo(done, undo))
            raise

    async def open_channel(self, kind: str, timeout_s: float, to: tuple[str, int] | None = None) -> paramiko.Channel:
        """Raises paramiko.ChannelException when the server refuses; SSHException or EOFError when the connection broke.

        `timeout_s` bounds the thread. `to`: address and port, for "direct-tcpip".
        """

        def open_() -> paramiko.Channel:
            try:
                return self.ssh.open_channel(kind, to, ("127.0.0.1", 0), timeout=timeout_s)
            except paramiko.ChannelException:
                raise
            except paramiko.SSHException as error:
                # paramiko keeps one exception for all who wait: of two refusals at once, one comes without its reason.
                if self.ssh.is_active():
                    raise paramiko.ChannelException(0, str(error)) from None
                raise

        pool = self._pool if to is None else self._waiting
        return await self._outcome(pool, open_, undo=lambda late: late.close())

    def in_background(self, call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # closed: paramiko has told its channels
            self._pool.submit(call)

    def tell(self, callback: Callable[..., object], *args: Any) -> None:
        """Called by threads: runs `callback` on the event loop."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody is there to be told
            self._loop.call_soon_threadsafe(callback, *args)

    async def sign_of_life(self) -> None:
        """Returns when the server has answered: no server knows this request, and each has to say so."""
        await self._outcome(self._waiting, lambda: self.ssh.global_request("keepalive@openssh.com", wait=True))

    def keep_alive(self) -> None:
        """From now on the server is asked for a sign of life; one that gives none has lost the connection."""
        self._keepalive = asyncio.create_task(self._ask_for_signs_of_life())

    async def close(self) -> None:
        """Ends the connection and its threads; may be called twice."""
        if self._ended is None:
            self._ended = asyncio.Event()
            if self._keepalive is not None:
                self._keepalive.cancel()
            threading.Thread(target=self._end, args=(self._ended,), name=self.ssh.name, daemon=True).start()
        with contextlib.suppress(TimeoutError):  # then it ends later: nothing that it waits for lasts
            async with asyncio.timeout(END_DEADLINE_S):
                await self._ended.wait()

    def _end(self, ended: asyncio.Event) -> None:
        if isinstance(self._carrier, socket.socket):
            with contextlib.suppress(OSError):  # the other end has gone first
                self._carrier.shutdown(socket.SHUT_RDWR)  # wakes paramiko's thread
        self.ssh.close()
        self._carrier.close()
        if self.ssh.ident is not None:
            self.ssh.join()
        self._pool.shutdown(wait=True)
        self._waiting.shutdown(wait=True)
        self.tell(ended.set)

    async def _ask_for_signs_of_life(self) -> None:
        while self.ssh.is_active():
            await asyncio.sleep(KEEPALIVE_INTERVAL_S)
            try:
                async with asyncio.timeout(KEEPALIVE_INTERVAL_S * KEEPALIVE_COUNT_MAX):
                    await self.sign_of_life()
            except TimeoutError:
                with contextlib.suppress(RuntimeError):  # closed meanwhile
                    self._waiting.submit(self.ssh.close)
            except (paramiko.SSHException, OSError, EOFError):
                return


class ParamikoSession(FramedSession):
    """See transport.Session."""

    def __init__(self, host_name: str, connection: Connection, link: Link, agent: AgentPlaces) -> None:
        super().__init__(host_name, connection, link.user, agent, COMMANDS_MAX)
        self._link = link

    @property
    def host_key(self) -> str:
        key = self._link.ssh.host_key  # get_remote_server_key() raises once the connection has ended
        return HostKey(key.get_name(), key.get_base64()).fingerprint

    @property
    def is_closed(self) -> bool:
        return self._link.is_closed

    async def close(self) -> None:
        await self._link.close()

    async def _try_start(self, command: str, taker: Taker) -> Wire:
        link = self._link
        try:
            channel = await link.open_channel("session", OPEN_DEADLINE_S)
            wire = _Wire(link, channel, taker)
            try:
                await link.blocking(lambda: channel.exec_command(command))
            except BaseException:
                wire.abort()
                raise
        except paramiko.ChannelException as error:
            raise self._no_session(error.text) from None
        except Exception as error:  # SSHException, OSError, EOFError, and whatever bytes of a server made paramiko's thread stumble over
            raise self._broken(error) from None
        taker.opened(wire)
        wire.start_reading()
        return wire


class _Wire:
    """A command that runs. Its methods are called on the event loop; a thread reads, another sends when there is something to send."""

    def __init__(self, link: Link, channel: paramiko.Channel, taker: Taker) -> None:
        self._link = link
        self._channel = channel
        self._taker = taker
        self._ready = _Ready()
        channel.in_buffer.set_event(self._ready)
        channel.in_stderr_buffer.set_event(self._ready)
        self._may_read = threading.Event()
        self._paused = False
        self._outgoing = bytearray()
        self._sending = False
        self._eof_wanted = False
        self._ended = False

    def start_reading(self) -> None:
        self._link.in_background(self._read)

    def write(self, data: bytes) -> None:
        if self._ended:
            raise BrokenPipeError("the command has ended")
        self._outgoing += data
        if len(self._outgoing) > WRITE_AHEAD_BYTES:
            self._taker.writing(False)
        self._send_on()

    def write_eof(self) -> None:
        self._eof_wanted = True
        self._send_on()

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._may_read.set()

    def abort(self) -> None:
        if not self._ended:
            self._end(None)
            self._link.in_background(self._channel.close)

    # ---- on the event loop, told by the threads -------------------------------------------------------------------------

    def _take(self, data: bytes, is_error: bool) -> None:
        if not self._ended and not self._taker.received(data, is_error):
            self.abort()
        if not self._paused:
            self._may_read.set()

    def _has_exited(self, code: int) -> None:
        if self._ended:
            return
        if code >= 0:
            self._taker.exited(code)
        # A server says how a command ended before it closes the channel; when it did not, the connection broke.
        self._end(None if code >= 0 else ConnectionError("the connection was lost"))

    def _end(self, error: Exception | None) -> None:
        self._ended = True
        self._outgoing.clear()
        self._may_read.set()
        self._taker.end(error)

    def _send_on(self) -> None:
        if self._sending or self._ended:
            return
        if self._outgoing:
            data = bytes(self._outgoing)
            self._outgoing.clear()
            self._sending = True
            self._link.in_background(lambda: self._send(data))
        elif self._eof_wanted:
            self._eof_wanted = False
            self._sending = True
            self._link.in_background(self._send_eof)
        else:
            self._taker.writing(True)

    def _has_sent(self) -> None:
        self._sending = False
        self._send_on()

    # ---- threads --------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._read_to_the_end()
            self._channel.status_event.wait()
            with self._channel.lock:  # ended is what the server has closed: only then it counts one session less
                while not self._channel.closed:
                    self._channel.out_buffer_cv.wait()
        except (paramiko.SSHException, OSError, EOFError):
            pass  # the connection broke: there is no exit status then
        self._link.tell(self._has_exited, self._channel.exit_status)

    def _read_to_the_end(self) -> None:
        while True:
            self._ready.wait()
            # Before looking: all there is has arrived then
            is_over = self._channel.eof_received or self._channel.closed
            while data := self._arrived():
                self._may_read.clear()
                self._link.tell(self._take, *data)
                self._may_read.wait()  # one chunk on its way at a time: a reader that does not keep up makes the host wait
            if is_over:
                return

    def _arrived(self) -> tuple[bytes, bool] | None:
        if self._ended:
            return None
        if self._channel.recv_ready():
            return self._channel.recv(CHUNK_BYTES), False
        if self._channel.recv_stderr_ready():
            return self._channel.recv_stderr(CHUNK_BYTES), True
        return None

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):  # it has ended; the reader tells how
            position = 0
            while position < len(data):
                position += self._channel.send(data[position : position + CHUNK_BYTES])
        self._link.tell(self._has_sent)

    def _send_eof(self) -> None:
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            self._channel.shutdown_write()
        self._link.tell(self._has_sent)


class _Ready:
    """The event of both of a channel's buffers. Each clears it when itself is empty, which says nothing of the other: only wait() does."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def wait(self) -> None:
        self._event.wait()
        self._event.clear()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        pass


def _request(channel: paramiko.Channel, message: paramiko.Message) -> None:
    """A message about a running command. paramiko passes over the one that says which signal ended it."""
    start = message.packet.tell()
    if message.get_text() == "exit-signal":
        message.get_boolean()
        channel.exit_status = 128 + SIGNALS.get(message.get_text(), 15)
        channel.status_event.set()
    else:
        message.packet.seek(start)
        channel._handle_request(message)


class _Packetizer(paramiko.Packetizer):  # type: ignore[misc]  # paramiko has no types
    """Reads no packet that is too long: paramiko takes in up to 4 GiB, before the server has shown its key."""

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        if not 0 <= n <= PACKET_BYTES_MAX:
            raise paramiko.SSHException(f"a packet of {n} bytes")
        return bytes(super().read_all(n, check_rekey))


class _Transport(paramiko.Transport):  # type: ignore[misc]  # paramiko has no types
    _channel_handler_table = {**paramiko.Transport._channel_handler_table, MSG_CHANNEL_REQUEST: _request}  # noqa: RUF012

    def __init__(self, carrier: socket.socket | paramiko.Channel) -> None:
        super().__init__(carrier, packetizer_class=_Packetizer)
        self._order = threading.Lock()
        self._ended_for_failures = False

    @property
    def has_refused(self) -> bool:
        """Whether the server answered the last attempt to log in by a no; asked after the attempt has failed."""
        return self._ended_for_failures or self.auth_handler.username is None

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        code, reason = message.get_int(), message.get_text()
        self._ended_for_failures = code == NO_MORE_AUTH_METHODS or "authentication failures" in reason.lower()

    def _send_user_message(self, message: paramiko.Message) -> None:
        """Nothing goes to a channel after its end.

        One thread may be about to send when another answers that the server closed the channel; sshd ends the whole connection
        when it gets bytes for a channel that is no more.
        """
        with self._order:
            if not self._is_late(message.asbytes()):
                super()._send_user_message(message)

    def _is_late(self, message: bytes) -> bool:
        if message[0] not in _TO_OPEN_CHANNELS:
            return False
        number = int.from_bytes(message[1:5])
        return not any(one.active and one.remote_chanid == number and not one.closed for one in self._channels.values())


_TO_OPEN_CHANNELS = {
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EXTENDED_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_REQUEST,
    MSG_CHANNEL_WINDOW_ADJUST,
}


def _undo(done: Future[T], undo: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        undo(done.result())
