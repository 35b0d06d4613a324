"""The agent's protocol as the controller speaks it: one kept conversation, streams, and the picture that reports add up to.

In: Channels of a Session (or of the simulation) and messages of nodeagent.protocol. Out: replies, or HostErrors. Time comes from the
event loop only; no thread, socket or file is touched, so that the simulation runs this very code. What an agent says is bounded and
checked here; a host that answers nonsense harms itself alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, TypeVar

from controller.act.transport import Channel
from controller.model.errors import AgentRefused, HostError, HostUnreachable
from controller.model.text import printable
from nodeagent import protocol
from nodeagent.protocol import (
    STREAM_CHUNK_BYTES,
    STREAM_WINDOW_BYTES,
    Accepted,
    AgentEvent,
    Capacity,
    Condition,
    Cursor,
    ForgetRequest,
    FrameReader,
    Hello,
    ImageReport,
    Owner,
    PodReport,
    ProtocolError,
    Report,
    ReportRequest,
    Resolved,
    ResolveRequest,
    SecretsRequest,
    TakeoverRequest,
    Usage,
    UsageRequest,
    VolumeReport,
    WantedSet,
)

T = TypeVar("T")

_DIGEST = re.compile("sha256:[0-9a-f]{64}")
PODS_MAX = 2000
IMAGES_MAX = 5000
VOLUMES_MAX = 5000
CONDITIONS_MAX = 100
EVENTS_MAX = 2000
CONTAINERS_MAX = 128  # of one pod
TEXT_CHARS_MAX = 4096  # of each text in a report; longer ones are cut: what one host says must not fill the store
ID_CHARS_MAX = 128
PAST_MAX = 16  # boots and instances of the agent that are remembered as over


class AgentClient:
    """One conversation with one agent; several requests may be under way. Closed by its first failure: open a new one then."""

    def __init__(self, host_name: str, channel: Channel) -> None:
        self.host_name = host_name
        self._channel = channel
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._failure: HostError | None = None

    async def hello(self, timeout_s: float) -> Hello:
        """Who answers. An agent of another bundle may speak another version of the protocol: push the right one before going on."""
        return await self._call(protocol.HELLO, None, Hello, timeout_s)

    async def report(self, cursor: Cursor | None, wait_s: float, timeout_s: float) -> Report:
        """What changed since `cursor`; held back by the agent until something did, at most `wait_s`."""
        return await self._call(protocol.REPORT, ReportRequest(cursor, wait_s), Report, timeout_s)

    async def usage(self, since_s: float, timeout_s: float) -> Usage:
        """What was used since a moment of the agent's boot clock. AgentRefused(UNKNOWN_VERB): an older agent."""
        return await self._call(protocol.USAGE, UsageRequest(since_s), Usage, timeout_s)

    async def want(self, wanted: WantedSet, timeout_s: float) -> Accepted:
        """AgentRefused with OWNED, OLD_EPOCH, FORKED, OLD_SERIAL, CONFLICT or BAD_REQUEST when the agent does not obey."""
        return await self._call(protocol.WANT, wanted, Accepted, timeout_s)

    async def resolve(self, request: ResolveRequest, timeout_s: float) -> str:
        """What a tag stands for in its registry: "sha256:…". AgentRefused in the registry's words when the agent cannot learn it."""
        digest = (await self._call(protocol.RESOLVE, request, Resolved, timeout_s)).digest
        if not _DIGEST.fullmatch(digest):
            raise self._fail(_nonsense(self.host_name, ProtocolError("no digest of a manifest")))
        return digest

    async def secrets(self, request: SecretsRequest, timeout_s: float) -> None:
        await self._request(protocol.SECRETS, request, timeout_s)

    async def takeover(self, request: TakeoverRequest, timeout_s: float) -> None:
        await self._request(protocol.TAKEOVER, request, timeout_s)

    async def forget(self, request: ForgetRequest, timeout_s: float) -> None:
        """Stops and removes all of ours that the agent runs; returns when that is done."""
        await self._request(protocol.FORGET, request, timeout_s)

    @property
    def is_open(self) -> bool:
        return self._failure is None

    def close(self) -> None:
        """Ends the conversation; requests under way fail. May be called twice."""
        self._fail(HostUnreachable(self.host_name, "the conversation was closed"))

    async def _call(self, verb: str, request: Any, kind: type[T], timeout_s: float) -> T:
        answer = await self._request(verb, request, timeout_s)
        try:
            return protocol.decode(kind, answer, strict=False)
        except ProtocolError as error:
            raise self._fail(_nonsense(self.host_name, error)) from None

    async def _request(self, verb: str, request: Any, timeout_s: float) -> Any:
        """The body of the reply. Raises AgentRefused, HostUnreachable, HostError (nonsense, or a request too large to send)."""
        if self._failure is not None:
            raise self._failure
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        self._last_id += 1
        data = _request_frame(self.host_name, self._last_id, verb, request)
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._last_id] = reply
        request_id = self._last_id
        try:
            async with asyncio.timeout(timeout_s):
                await self._channel.write(data)
                message = await reply
        except TimeoutError:
            raise HostUnreachable(self.host_name, f"its agent did not answer within {timeout_s:g} s") from None
        except HostUnreachable as error:
            raise self._fail(error) from None
        finally:
            self._waiting.pop(request_id, None)
        try:
            return _result(self.host_name, message)
        except ProtocolError as error:
            raise self._fail(_nonsense(self.host_name, error)) from None

    async def _read(self) -> None:
        try:
            await _take_in(self.host_name, self._channel, self._take, "its agent ended the conversation")
        except HostError as error:
            self._fail(error)

    def _take(self, kind: int, message: Any) -> bool:
        if kind != protocol.JSON:
            raise ProtocolError("stream data outside a stream")
        request_id = message.get("id")
        if request_id is None and "error" in message:  # what we sent was not understood at all
            _result(self.host_name, message)
        if type(request_id) is not int or not 0 < request_id <= self._last_id:
            raise ProtocolError("an answer to no question")
        waiting = self._waiting.get(request_id)
        if waiting is not None and not waiting.done():  # else it comes too late: its caller has given up
            waiting.set_result(message)
        return True

    def _fail(self, error: HostError) -> HostError:
        if self._failure is None:
            self._failure = error
            self._channel.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(error)
                    waiting.exception()  # it may be the caller's own, who hears of the error otherwise
            if self._reading is not None and self._reading is not asyncio.current_task():
                self._reading.cancel()
        return error


class AgentStream:
    """One stream (logs, exec, forward, image-load) on a channel of its own. Iterating yields (STDOUT or STDERR, bytes).

    An empty piece means that the other side ended its output while its exit is still to come (port-forward's half-close). After the
    last piece `exit` holds what the agent said of the end. Credit: a reader that stands still holds up this stream only.
    """

    def __init__(self, host_name: str, channel: Channel) -> None:
        self.exit: dict[str, Any] | None = None
        self._host_name = host_name
        self._channel = channel
        self._sending = asyncio.Lock()
        self._credit = STREAM_WINDOW_BYTES
        self._credited = asyncio.Event()
        self._pieces: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._allowed = STREAM_WINDOW_BYTES  # what the agent may still send
        self._used = 0  # what was consumed and not granted again
        self._output_ended = False
        self._opened: asyncio.Future[dict[str, Any]] | None = None
        self._failure: HostError | None = None
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, host_name: str, channel: Channel, verb: str, request: Any, *, timeout_s: float) -> AgentStream:
        """Starts `verb` (LOGS, EXEC, FORWARD, IMAGE_LOAD) on a fresh channel, which the stream then owns.

        Raises AgentRefused, HostUnreachable, HostError.
        """
        stream = cls(host_name, channel)
        try:
            async with asyncio.timeout(timeout_s):
                await stream._open(verb, request)
        except TimeoutError:
            stream.close()
            raise HostUnreachable(host_name, f"its agent did not answer within {timeout_s:g} s") from None
        except BaseException:
            stream.close()
            raise
        return stream

    async def _open(self, verb: str, request: Any) -> None:
        self._opened = asyncio.get_running_loop().create_future()
        self._reading = asyncio.ensure_future(self._read())
        await self._channel.write(_request_frame(self._host_name, 1, verb, request))
        try:
            _result(self._host_name, await self._opened)
        except ProtocolError as error:
            raise _nonsense(self._host_name, error) from None

    def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        return self

    async def __anext__(self) -> tuple[int, bytes]:
        """Raises AgentRefused when the agent says that the stream failed, HostUnreachable when it broke."""
        if self._used >= STREAM_WINDOW_BYTES // 4 and self.exit is None:
            granted, self._used = self._used, 0
            self._allowed += granted
            # An agent that has said everything may have hung up while its last pieces wait here: how it ended comes after them.
            with contextlib.suppress(HostError):
                await self._control({"credit": granted})
        piece = await self._pieces.get()
        if piece is None:
            self._pieces.put_nowait(None)  # asked again: the same answer
            if self._failure is not None:
                raise self._failure
            raise StopAsyncIteration
        self._used += len(piece[1])
        return piece

    async def write(self, data: bytes) -> None:
        """Sends input, as fast as the agent uses it up. HostUnreachable when the stream is over."""
        start = 0
        while start < len(data):
            while self._credit <= 0:
                self._credited.clear()
                self._check_open()
                await self._credited.wait()
            self._check_open()
            end = min(len(data), start + self._credit)
            self._credit -= end - start
            chunks = (data[at : min(at + STREAM_CHUNK_BYTES, end)] for at in range(start, end, STREAM_CHUNK_BYTES))
            await self._send(b"".join(protocol.data_frame(protocol.STDIN, chunk) for chunk in chunks))
            start = end

    async def end_input(self) -> None:
        await self._control({"eof": True})

    async def resize(self, rows: int, columns: int) -> None:
        await self._control({"resize": [rows, columns]})

    async def cancel(self) -> None:
        """Asks the agent to end the stream, and ends it here."""
        with contextlib.suppress(HostError):
            await self._control({"cancel": True})
        self.close()

    def close(self) -> None:
        """Ends the stream now; may be called twice."""
        self._end(HostUnreachable(self._host_name, "the stream was closed"))

    async def _control(self, message: dict[str, Any]) -> None:
        self._check_open()
        await self._send(protocol.frame(message))

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self._channel.write(data)

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self.exit is not None:
            raise HostUnreachable(self._host_name, "the stream has ended")

    async def _read(self) -> None:
        try:
            await _take_in(self._host_name, self._channel, self._take, "the stream broke off")
        except HostError as error:
            self._end(error)

    def _take(self, kind: int, message: Any) -> bool:
        if kind in (protocol.STDOUT, protocol.STDERR):
            self._allowed -= len(message)
            if self._allowed < 0:
                raise ProtocolError(f"more than {STREAM_WINDOW_BYTES} bytes sent without credit")
            if message:
                self._pieces.put_nowait((kind, message))
        elif kind != protocol.JSON:
            raise ProtocolError("input can't come from an agent")
        elif "id" in message:
            if self._opened is None or self._opened.done():
                _result(self._host_name, message)  # an error about what we sent ends the stream
                raise ProtocolError("an answer to no question")
            self._opened.set_result(message)
        elif isinstance(message.get("exit"), dict):
            self._take_exit(message["exit"])
        elif message.get("eof") is True:
            if self._output_ended:
                raise ProtocolError("a second end of output")
            self._output_ended = True
            self._pieces.put_nowait((protocol.STDOUT, b""))
        elif type(message.get("credit")) is int and 0 <= message["credit"] < 2**31:
            self._credit += message["credit"]
            self._credited.set()
        else:
            raise ProtocolError("unknown control message")
        return self.exit is None

    def _take_exit(self, exit_: dict[str, Any]) -> None:
        self.exit = exit_
        if "error" in exit_:
            self._end(_refusal(self._host_name, exit_["error"]))
        else:
            self._end(None)

    def _end(self, failure: HostError | None) -> None:
        if self._failure is None and (failure is None or self.exit is None or "error" in self.exit):
            self._failure = failure
        self._pieces.put_nowait(None)
        self._credited.set()
        self._channel.close()
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(failure or HostUnreachable(self._host_name, "the stream broke off"))
            self._opened.exception()  # looked at even when nobody waits any more
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()


@dataclass(slots=True)
class Picture:
    """All that one agent has said, added up from its reports. Pure.

    It is bound to the first agent it hears: another agent's report is an error, since a host speaks about itself only. That the pods in it
    are bound to this node is for the decision to check.
    """

    host_name: str
    agent: str = ""
    cursor: Cursor | None = None
    boot_id: str = ""
    boottime_s: float = 0.0
    wall_s: float = 0.0
    version: str = ""
    owner: Owner | None = None
    pods: dict[str, PodReport] = field(default_factory=dict)
    images: tuple[ImageReport, ...] = ()
    capacity: Capacity | None = None
    conditions: tuple[Condition, ...] = ()
    missing_secrets: tuple[str, ...] = ()
    volumes: dict[str, VolumeReport] | None = None
    _events: deque[AgentEvent] = field(default_factory=lambda: deque(maxlen=EVENTS_MAX))
    _last_event: int = -1
    _past_boots: deque[str] = field(default_factory=lambda: deque(maxlen=PAST_MAX))
    _past_instances: deque[str] = field(default_factory=lambda: deque(maxlen=PAST_MAX))

    def update(self, report: Report) -> bool:
        """Takes a report in → whether it counted. A late one (older sequence, former boot or instance) changes nothing.

        Raises HostError when another agent speaks, or when there is more of something than a host can have.
        """
        _check_ids(self.host_name, report)
        if self.agent and report.agent != self.agent:
            raise HostError(
                self.host_name,
                f"another agent answers now: {printable(report.agent, 40)} instead of {printable(self.agent, 40)}",
                hint="a reinstalled host, a clone, or two hosts behind one address: sshoal node list shows which",
            )
        if self._is_late(report):
            return False
        pods = {} if report.full else {uid: pod for uid, pod in self.pods.items() if uid not in report.gone}
        pods.update((pod.uid, _cut(pod)) for pod in report.pods)
        images = self.images if report.images is None else _cut(report.images)
        _check_count(self.host_name, "pods", len(pods), PODS_MAX)
        _check_count(
            self.host_name,
            "containers of one pod",
            max((len(p.containers) for p in report.pods), default=0),
            CONTAINERS_MAX,
        )
        _check_count(self.host_name, "images", len(images), IMAGES_MAX)
        volumes = self.volumes if report.volumes is None else {item.name: item for item in _cut(report.volumes)}
        _check_count(self.host_name, "volumes", len(volumes or ()), VOLUMES_MAX)
        _check_count(self.host_name, "conditions", len(report.conditions), CONDITIONS_MAX)
        self._remember_past(report)
        self.agent, self.cursor, self.boot_id = report.agent, report.cursor, report.boot_id
        self.boottime_s, self.wall_s = report.boottime_s, report.wall_s
        self.version, self.owner = report.version, report.owner
        self.pods, self.images, self.volumes = pods, images, volumes
        self.conditions, self.missing_secrets = _cut(report.conditions), report.missing_secrets
        if report.capacity is not None:
            self.capacity = _cut(report.capacity)
        self._take_events(report)
        return True

    def take_events(self) -> tuple[AgentEvent, ...]:
        """Events that came since this was last called; the oldest are dropped beyond EVENTS_MAX."""
        taken = tuple(self._events)
        self._events.clear()
        return taken

    def _is_late(self, report: Report) -> bool:
        if report.boot_id in self._past_boots or report.cursor.instance in self._past_instances:
            return True
        if self.cursor is None or report.cursor.instance != self.cursor.instance:
            return not report.full  # a delta to something that was never heard
        if report.cursor.sequence != self.cursor.sequence:
            return report.cursor.sequence < self.cursor.sequence
        return report.boottime_s < self.boottime_s

    def _remember_past(self, report: Report) -> None:
        if self.boot_id and report.boot_id != self.boot_id:
            self._past_boots.append(self.boot_id)
        if self.cursor is not None and report.cursor.instance != self.cursor.instance:
            self._past_instances.append(self.cursor.instance)
            self._last_event = -1

    def _take_events(self, report: Report) -> None:
        for event in report.events[-EVENTS_MAX:]:
            if event.sequence > self._last_event:
                self._last_event = event.sequence
                self._events.append(_cut(event))


async def _take_in(host_name: str, channel: Channel, take: Callable[[int, Any], bool], ended: str) -> None:
    """Gives `take` each frame until it says that no more is to come. Raises HostError: nonsense came, or the channel broke or `ended`."""
    frames = FrameReader()
    try:
        while received := await channel.read():
            for kind, message in frames.feed(received):
                if not take(kind, message):
                    return
    except ProtocolError as error:
        raise _nonsense(host_name, error) from None
    raise HostUnreachable(host_name, ended)


def _check_count(host_name: str, what: str, count: int, limit: int) -> None:
    if count > limit:
        raise HostError(host_name, f"reports {count} {what}; more than {limit} are not believed")


def _check_ids(host_name: str, report: Report) -> None:
    for text in (
        report.agent,
        report.boot_id,
        report.cursor.instance,
        report.version,
        *(pod.uid for pod in report.pods),
    ):
        if len(text) > ID_CHARS_MAX:
            raise HostError(host_name, f"its agent answers nonsense: an id of {len(text)} characters")


def _cut(value: T) -> T:
    """The same with every text in it cut to TEXT_CHARS_MAX; the very same object where nothing is too long."""
    if isinstance(value, str):
        return value if len(value) <= TEXT_CHARS_MAX else value[: TEXT_CHARS_MAX - 1] + "…"  # type: ignore[return-value]
    if isinstance(value, tuple):
        parts = tuple(map(_cut, value))
        return value if all(map(operator.is_, parts, value)) else parts  # type: ignore[return-value]
    if not is_dataclass(value) or isinstance(value, type):
        return value
    cut = {name: new for name in value.__dataclass_fields__ if (new := _cut(old := getattr(value, name))) is not old}
    return replace(value, **cut) if cut else value


def _request_frame(host_name: str, request_id: int, verb: str, request: Any) -> bytes:
    body = {} if request is None else protocol.encode(request)
    try:
        return protocol.frame({"id": request_id, "verb": verb, "body": body})
    except ProtocolError as error:
        raise HostError(
            host_name, f"what it shall run cannot be sent: {error}", hint="make config maps smaller, or fewer"
        ) from None


def _result(host_name: str, message: dict[str, Any]) -> Any:
    """The body of a reply; AgentRefused when it is an error, ProtocolError when it is neither."""
    if "ok" in message:
        return message["ok"]
    if "error" in message:
        raise _refusal(host_name, message["error"])
    raise ProtocolError("a reply holds ok or error")


def _refusal(host_name: str, error: Any) -> HostError:
    code, text = (error.get("code"), error.get("message")) if isinstance(error, dict) else (None, None)
    if not isinstance(code, str) or not isinstance(text, str):
        return _nonsense(host_name, ProtocolError("an error holds a code and a message"))
    hint = f"sshoal node takeover {host_name} shows whose it is, and asks" if code == protocol.OWNED else ""
    return AgentRefused(host_name, printable(code, 64), printable(text, 500), hint=hint)


def _nonsense(host_name: str, error: ProtocolError) -> HostError:
    return HostError(host_name, f"its agent answers nonsense: {printable(str(error))}")
