"""Runs one probe or hook against a pod: http, tcp, exec, grpc, sleep. A handler comes in, ok or not with a message goes out. Does I/O.

What counts as a success is Kubernetes' (kubelet's prober): HTTP 200–399, a TCP connect, exit code 0, gRPC status SERVING. Everything is
done by hand, since a probe runs every few seconds for every container: no client library, no image tool, no thread; http and tcp on bare
sockets, which cost a third less than asyncio's streams.
"""

import asyncio
import contextlib
import errno
import ipaddress
import re
import socket
import ssl
import struct
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, partial
from typing import Optional, Union
from urllib.parse import urljoin, urlsplit

from nodeagent import process
from nodeagent.protocol import Handler
from nodeagent.runtime import ProbeOutcome, Process, Runtime, RuntimeFault

READ_BYTES_MAX = 64 * 1024
MESSAGE_CHARS_MAX = 512
EXEC_SLACK_S = 5.0
REDIRECTS_MAX = 10  # as kubelet
NEXT_ADDRESS_S = (
    0.3  # until a name's next address is tried, as Go's dialer does: `localhost` is ::1 first, where few servers listen
)
_REMEMBERED = 1024  # of what is the same for every probe of a pod
_RESOLVER = ThreadPoolExecutor(2, thread_name_prefix="resolver")
_EXHAUSTED = (
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOBUFS,
    errno.EAGAIN,
)  # this host's lack, not the container's fault


class HostProber:
    """Probes from the host: by the pod's address, or through the engine's exec."""

    def __init__(self, runtime: Runtime, *, enter_pods: bool = False) -> None:
        """`enter_pods`: pods' addresses are not reached from here (a rootless engine's networks), connections are made inside the pod."""
        self._runtime = runtime
        self._enter_pods = enter_pods

    async def probe(
        self, handler: Handler, *, ip: str, sandbox: Optional[Process] = None, container_id: str, timeout_s: float
    ) -> ProbeOutcome:
        """One attempt, not longer than `timeout_s` (exec: and a few seconds while the engine kills). Never raises.

        Args:
            ip: the pod's address, used where the handler names no host.
            sandbox: the process that holds the pod's own network; None on the host's.
        """
        # The engine itself ends a command at the deadline; cut off before, it could not kill it.
        limit_s = timeout_s + EXEC_SLACK_S if handler.kind == "exec" else timeout_s
        try:
            return await asyncio.wait_for(self._attempt(handler, ip, sandbox, container_id, timeout_s), limit_s)
        except asyncio.TimeoutError:
            # A command that takes too long is ended by the engine, which says so: this is an engine that does not answer.
            return ProbeOutcome(False, f"no result within {timeout_s:g} s", known=handler.kind != "exec")
        except RuntimeFault as fault:
            return ProbeOutcome(False, _short(str(fault)), known=False)
        except (OSError, ssl.SSLError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            exhausted = isinstance(error, OSError) and error.errno in _EXHAUSTED
            return ProbeOutcome(
                False, _short(f"{handler.kind} probe: {error or type(error).__name__}"), known=not exhausted
            )

    async def _attempt(
        self, handler: Handler, ip: str, sandbox: Optional[Process], container_id: str, timeout_s: float
    ) -> ProbeOutcome:
        host = handler.host or ip
        inside = sandbox if self._enter_pods and not handler.host else None
        if handler.kind == "http":
            return await _http(handler, host, inside)
        if handler.kind == "tcp":
            return await _tcp(host, handler.port, inside)
        if handler.kind == "grpc":
            return await _grpc(host, handler.port, handler.service, inside)
        if handler.kind == "sleep":
            await asyncio.sleep(handler.seconds)
            return ProbeOutcome(True, "")
        if handler.kind == "exec":
            result = await self._runtime.exec(container_id, handler.command, timeout_s)
            return _exec_outcome(result.code, result.output, timeout_s)
        return ProbeOutcome(False, f"unknown kind of probe {handler.kind[:32]!r}")


def _exec_outcome(code: Optional[int], output: bytes, timeout_s: float) -> ProbeOutcome:
    if code == 0:
        return ProbeOutcome(True, "")
    how = f"exited with {code}" if code is not None else f"did not end within {timeout_s:g} s"
    return ProbeOutcome(False, _short(f"command {how}: {output.decode('utf-8', 'replace').strip()}"))


async def _connect(host: str, port: int, inside: Optional[Process]) -> socket.socket:
    """A connection from the host, or from within the network of the process `inside`. Not blocking; the caller closes it."""
    if inside is not None:
        connection = await process.connected_inside(inside, host, port)
        connection.setblocking(False)
        return connection
    *others, last = [host] if _is_address(host) else await _addresses(host, port)
    for address in others:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            return await asyncio.wait_for(_connected(address, port), NEXT_ADDRESS_S)
    return await _connected(last, port)


async def _connected(address: str, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        if not _connects_at_once(connection, address, port):
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection


def _connects_at_once(connection: socket.socket, address: str, port: int) -> bool:
    """Pods of this host mostly have answered by the time that the first call returns: the loop need not be asked when."""
    error = connection.connect_ex((address, port))
    if error == errno.EINPROGRESS:
        error = connection.connect_ex((address, port))
    return error in (0, errno.EISCONN)


async def _streams(
    connection: socket.socket, *, tls: bool = False, name: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """asyncio's streams over a connection, which they close. `name`: the server's, for TLS."""
    try:
        return await asyncio.open_connection(
            sock=connection,
            ssl=_unverified() if tls else None,
            server_hostname=name if tls else None,
            limit=READ_BYTES_MAX,
        )
    except BaseException:
        connection.close()
        raise


async def _addresses(host: str, port: int) -> list[str]:
    """Of a name. The loop's own threads make pods' files: a name server that is dead must not hold them up."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVER, ask)
    return [str(address[0]) for *_, address in found]


@lru_cache(_REMEMBERED)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _tcp(host: str, port: int, inside: Optional[Process]) -> ProbeOutcome:
    (await _connect(host, port, inside)).close()
    return ProbeOutcome(True, "")


# ---- HTTP ---------------------------------------------------------------------------------------------------------------

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_UNSAFE_IN_TARGET = re.compile(rb"[^!-~]")
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r\n]")


async def _http(handler: Handler, host: str, inside: Optional[Process]) -> ProbeOutcome:
    """Redirects to the same host name are followed, up to ten; one that leads elsewhere is a success itself (both as kubelet)."""
    scheme, port, target = handler.scheme.lower(), handler.port, _target(handler.path)
    for _ in range(REDIRECTS_MAX + 1):
        status, location, body = await _get(scheme, host, port, target, handler.headers, inside)
        if status not in (301, 302, 303, 307, 308) or not location:
            return _http_outcome(status, body)
        url = urlsplit(urljoin(f"{scheme}://{_bracketed(host)}:{port}{target}", location))
        if url.hostname != host.lower() or url.scheme not in ("http", "https"):
            return ProbeOutcome(True, f"HTTP {status} leads to another host: not followed")
        scheme, port = url.scheme, url.port or (443 if url.scheme == "https" else 80)
        target = _target(url.path + (f"?{url.query}" if url.query else ""))
    return ProbeOutcome(False, f"stopped after {REDIRECTS_MAX} redirects")


def _http_outcome(status: int, body: bytes) -> ProbeOutcome:
    if 200 <= status < 400:
        return ProbeOutcome(True, "")
    return ProbeOutcome(False, _short(f"HTTP {status}: {body.decode('utf-8', 'replace').strip()}"))


async def _get(
    scheme: str,
    host: str,
    port: int,
    target: str,
    headers: tuple[tuple[str, ...], ...],
    inside: Optional[Process],
) -> tuple[int, str, bytes]:
    """(status, Location, what of the body came along). The rest of the body is not waited for."""
    connection = await _connect(host, port, inside)
    channel = _Tls(*await _streams(connection, tls=True, name=host)) if scheme == "https" else _Plain(connection)
    try:
        await channel.send(_request(host, port, target, headers))
        answer = _Answer(channel)
        for _ in range(REDIRECTS_MAX):
            head = await answer.head()
            match = _STATUS_LINE.match(head)
            if match is None:
                raise ValueError("the answer is not HTTP/1")
            status = int(match.group(1))
            if status >= 200 or status == 101:
                break  # others below 200 are announcements before the answer
        failed = not 200 <= status < 400
        body = await answer.body() if failed and _header(head, b"content-length") != "0" else b""
        return status, _header(head, b"location"), body
    finally:
        channel.close()


class _Plain:
    """What is sent and received on a bare socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def receive(self) -> bytes:
        """What has come; b"" at the end."""
        return await asyncio.get_running_loop().sock_recv(self._connection, READ_BYTES_MAX)

    def close(self) -> None:
        self._connection.close()


class _Tls:
    """The same through TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self) -> bytes:
        return await self._reader.read(READ_BYTES_MAX)

    def close(self) -> None:
        self._writer.transport.abort()


class _Answer:
    """An answer as it comes in. What was read too far is kept for what is asked next."""

    def __init__(self, channel: Union[_Plain, _Tls]) -> None:
        self._channel = channel
        self._read = b""

    async def head(self) -> bytes:
        """Up to the empty line. A bare newline ends a line too: the smallest servers write so, and kubelet takes it."""
        seen = 0
        while True:
            end = _EMPTY_LINE.search(self._read, max(0, seen - 3))
            if end is not None:
                head, self._read = self._read[: end.end()], self._read[end.end() :]
                return head
            seen = len(self._read)
            if seen > READ_BYTES_MAX:
                raise ValueError(f"the answer's head is larger than {READ_BYTES_MAX} bytes")
            more = await self._channel.receive()
            if not more:
                raise EOFError("the connection was closed before the answer's head was whole")
            self._read += more

    async def body(self) -> bytes:
        """What of it is there, or comes next."""
        return (self._read or await self._channel.receive())[:MESSAGE_CHARS_MAX]


@lru_cache(_REMEMBERED)
def _request(host: str, port: int, target: str, headers: tuple[tuple[str, ...], ...]) -> bytes:
    fields = {"host": f"{_bracketed(host)}:{port}", "user-agent": "kube-probe/sshoal", "accept": "*/*"}
    lines = []
    for name, value in headers:
        if not _HEADER_NAME.match(name) or "\r" in value or "\n" in value:
            raise ValueError(f"header {name[:64]!r} can't be sent")
        if name.lower() in fields:
            fields[name.lower()] = value  # an empty value takes the header away, as with kubelet
        else:
            lines.append(f"{name}: {value}\r\n")
    lines += [f"{name}: {value}\r\n" for name, value in fields.items() if value]
    return f"GET {target} HTTP/1.1\r\n{''.join(lines)}Connection: close\r\n\r\n".encode("utf-8", "replace")


@lru_cache(_REMEMBERED)
def _target(path: str) -> str:
    """A request target without anything that could end the line: other bytes are percent-encoded."""
    rooted = path if path.startswith("/") else f"/{path}"
    return _UNSAFE_IN_TARGET.sub(lambda match: b"%%%02X" % match.group()[0], rooted.encode()).decode("ascii")


def _header(head: bytes, name: bytes) -> str:
    for line in head.split(b"\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip().decode("latin-1")
    return ""


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@cache
def _unverified() -> ssl.SSLContext:
    """Probes ask whether the pod answers, not who it is: kubelet does not verify either."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# ---- gRPC: one unary call of grpc.health.v1.Health/Check over HTTP/2 ----------------------------------------------------

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_SERVING = 1
_STATUS_WORDS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


async def _grpc(host: str, port: int, service: str, inside: Optional[Process]) -> ProbeOutcome:
    reader, writer = await _streams(await _connect(host, port, inside))
    try:
        writer.write(_health_call(f"{_bracketed(host)}:{port}", service))
        message = await _grpc_answer(reader, writer)
    finally:
        writer.transport.abort()
    if message is None:
        what = f"service {service!r}" if service else "the server"
        return ProbeOutcome(False, _short(f"gRPC health of {what} was not told (not implemented, or unknown there)"))
    status = _health_status(message)
    return ProbeOutcome(status == _SERVING, "" if status == _SERVING else f"gRPC {_STATUS_WORDS.get(status, status)}")


def _health_call(authority: str, service: str) -> bytes:
    headers = b"\x83\x86" + b"".join(  # :method POST and :scheme http stand in HPACK's static table
        b"\x00" + _hpack_string(name) + _hpack_string(value)
        for name, value in (
            (b":path", b"/grpc.health.v1.Health/Check"),
            (b":authority", authority.encode()),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
            (b"user-agent", b"kube-probe/sshoal"),
        )
    )
    name = service.encode()
    request = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"".join(
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            _http2_frame(_SETTINGS, 0, 0, b""),
            _http2_frame(_HEADERS, _END_HEADERS, 1, headers),
            _http2_frame(_DATA, _END_STREAM, 1, b"\x00" + struct.pack(">I", len(request)) + request),
        )
    )


async def _grpc_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Optional[bytes]:
    """The first message of stream 1; None when the server ends it without one (its error is in HPACK, which isn't decoded here)."""
    body, received = b"", 0
    while received < READ_BYTES_MAX:
        head = await reader.readexactly(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        received += 9 + length
        if received > READ_BYTES_MAX:
            break
        payload = await reader.readexactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_http2_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_http2_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY and int.from_bytes(payload[:4], "big") & 0x7FFFFFFF < 1:
            return None  # it says that it did not take our stream
        elif stream == 1 and kind == _RST_STREAM:
            return None
        elif stream == 1 and kind in (_DATA, _HEADERS):
            if kind == _DATA:
                body += payload[1 : len(payload) - payload[0]] if flags & _PADDED and payload else payload
            if len(body) >= 5 and len(body) - 5 >= int.from_bytes(body[1:5], "big"):
                return None if body[0] else body[5 : 5 + int.from_bytes(body[1:5], "big")]
            if flags & _END_STREAM:
                return None
    raise ValueError(f"the gRPC answer is larger than {READ_BYTES_MAX} bytes")


def _health_status(message: bytes) -> int:
    """Field 1 (enum) of HealthCheckResponse; absent means UNKNOWN. ValueError when it is no such message."""
    if not message:
        return 0
    if message[0] != 0x08 or len(message) < 2 or message[1] > 0x7F:
        raise ValueError("the answer is no health status")
    return message[1]


def _http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _hpack_string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    return b"\x7f" + _varint(len(text) - 127) + text


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _short(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"
