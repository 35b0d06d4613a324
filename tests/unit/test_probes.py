"""HostProber against real servers on loopback: HTTP, TLS, bare sockets, and a peer that speaks HTTP/2 by the letter of RFC 9113."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent import probes, process
from nodeagent.probes import HostProber
from nodeagent.protocol import Handler
from nodeagent.runtime import ExecResult, ProbeOutcome, RuntimeFault


class ExecRuntime:
    """The one method of a runtime that probes use."""

    def __init__(self, result: Any) -> None:
        self.result = result
        self.asked: list[tuple[str, tuple[str, ...], float]] = []

    async def exec(self, container_id: str, command: tuple[str, ...], timeout_s: float) -> ExecResult:
        self.asked.append((container_id, command, timeout_s))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def probe(handler: Handler, *, runtime: Any = None, timeout_s: float = 5.0, ip: str = "127.0.0.1") -> ProbeOutcome:
    async def run() -> ProbeOutcome:
        return await HostProber(runtime).probe(handler, ip=ip, container_id="c1", timeout_s=timeout_s)

    return asyncio.run(run())


class Peer:
    """A server that answers each connection with what `answer(request head)` gives, and remembers the requests."""

    def __init__(self, answer: Callable[[bytes], bytes], *, until: bytes = b"\r\n\r\n") -> None:
        self.answer = answer
        self.until = until
        self.requests: list[bytes] = []
        self.ended = 0  # connections whose end was seen here

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(self.until)
            self.requests.append(request)
            writer.write(self.answer(request))
            await writer.drain()
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended += 1
            writer.close()


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], **options: Any
) -> AsyncIterator[int]:
    writers = []

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    server = await asyncio.start_server(served, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for _ in range(
            10
        ):  # turns of the loop: a connection that a server accepts while it closes is never closed (CPython 3.11)
            await asyncio.sleep(0)
        server.close()
        for writer in writers:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def probe_peer(peer: Peer, handler: Callable[[int], Handler], timeout_s: float = 5.0, **options: Any) -> ProbeOutcome:
    async def run() -> ProbeOutcome:
        async with listening(peer.serve, **options) as port:
            outcome = await HostProber(None).probe(  # type: ignore[arg-type]
                handler(port), ip="127.0.0.1", container_id="c1", timeout_s=timeout_s
            )
            for _ in range(500):
                if peer.ended == len(peer.requests):
                    break
                await asyncio.sleep(0.01)
            assert peer.ended == len(peer.requests), "a probe left its socket open"
            return outcome

    return asyncio.run(run())


def answer(status: int, headers: str = "", body: str = "") -> bytes:
    return f"HTTP/1.1 {status} x\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def test_names_that_nobody_resolves_hold_up_nothing_but_their_own_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of pods are made by the threads that name lookups would take by default."""
    asked, over = [], threading.Event()

    def dead(host: str, *_: object, **__: object) -> NoReturn:
        asked.append(host)
        over.wait(30)
        raise OSError("nobody answers")

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        monkeypatch.setattr(socket, "getaddrinfo", dead)
        handler = Handler("tcp", port=1, host="db.example")
        prober = HostProber(None)  # type: ignore[arg-type]
        outcome = await prober.probe(handler, ip="192.0.2.1", container_id="", timeout_s=0.2)
        assert outcome == ProbeOutcome(False, "no result within 0.2 s")
        assert asked == ["db.example"]
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "made"), 10) == "made"
        over.set()

    try:
        asyncio.run(run())
    finally:
        over.set()


def test_a_name_is_resolved_and_goes_along_as_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Peer(lambda _: answer(200))
    assert probe_peer(peer, lambda port: Handler("http", port=port, host="localhost")).ok
    assert b"localhost:" in peer.requests[0]


@pytest.mark.parametrize("addresses", [("::1", "127.0.0.1"), ("127.0.0.1", "::1"), ("0.0.0.1", "::1", "127.0.0.1")])
def test_of_a_name_with_several_addresses_one_that_serves_is_enough(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    """As Go's dialer has it, and so the kubelet: `localhost` is ::1 first on most hosts."""

    def resolve(_: str, port: int, **__: Any) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    peer = Peer(lambda _: answer(200))
    assert probe_peer(peer, lambda port: Handler("http", port=port, host="app.example")).ok
    assert len(peer.requests) == 1


def test_a_name_none_of_whose_addresses_serves_fails_with_the_last_ones_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (a, 1)) for a in ("::1", "127.0.0.1")])
    outcome = probe_peer(Peer(lambda _: answer(200)), lambda _: Handler("tcp", port=1, host="app.example"))
    assert (outcome.ok, outcome.known) == (False, True)
    assert "127.0.0.1" in outcome.message


def test_without_a_thread_for_the_pods_network_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    async def run() -> ProbeOutcome:
        prober = HostProber(None, enter_pods=True)  # type: ignore[arg-type]
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            return await prober.probe(
                Handler("tcp", port=1), ip="192.0.2.1", sandbox=process.Process(1, 1), container_id="", timeout_s=1
            )

    outcome = asyncio.run(run())
    assert (outcome.ok, outcome.known) == (False, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a network namespace wants root")
@pytest.mark.parametrize("kind", ["http", "tcp", "grpc"])
def test_where_addresses_are_not_reached_the_connection_is_made_inside_the_pod(kind: str) -> None:
    """The pod is a process with a network of its own, in which something listens at an address that is nowhere else."""
    server = (
        "import socket, subprocess\n"
        "subprocess.run('ip link set lo up; ip address add 192.0.2.77/32 dev lo', shell=True, check=True)\n"
        "s = socket.create_server(('192.0.2.77', 8080)); print('up', flush=True)\n"
        "while True:\n    c, _ = s.accept(); c.sendall(b'HTTP/1.0 204 x\\r\\n\\r\\n'); c.close()\n"
    )
    with subprocess.Popen(["unshare", "--net", sys.executable, "-c", server], stdout=subprocess.PIPE) as pod:
        try:
            assert pod.stdout is not None and pod.stdout.readline() == b"up\n"
            sandbox = process.find(pod.pid)
            assert sandbox is not None

            async def run(enter_pods: bool) -> ProbeOutcome:
                prober = HostProber(None, enter_pods=enter_pods)  # type: ignore[arg-type]
                handler = Handler(kind, port=8080)
                timeout_s = 20 if enter_pods else 2
                return await prober.probe(
                    handler, ip="192.0.2.77", sandbox=sandbox, container_id="", timeout_s=timeout_s
                )

            inside = asyncio.run(run(True))
            assert inside.ok == (kind != "grpc")
            assert kind != "grpc" or "bytes" in inside.message, "it was reached, and speaks no gRPC"
            assert not asyncio.run(run(False)).ok
        finally:
            pod.kill()


# ---- http -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (204, True), (304, True), (399, True), (400, False), (404, False), (500, False)]
)
def test_http_statuses_from_200_to_399_are_a_success(status: int, ok: bool) -> None:
    outcome = probe_peer(Peer(lambda _: answer(status)), lambda port: Handler("http", port=port))
    assert outcome.ok is ok


def test_the_message_of_a_failed_http_probe_has_status_and_body() -> None:
    outcome = probe_peer(Peer(lambda _: answer(503, body="no database")), lambda port: Handler("http", port=port))
    assert outcome == ProbeOutcome(False, "HTTP 503: no database")


def test_a_request_carries_path_host_header_and_what_the_handler_says() -> None:
    peer = Peer(lambda _: answer(200))
    headers = (("X-Key", "v"), ("Host", "web.example"), ("Accept", ""))
    probe_peer(peer, lambda port: Handler("http", port=port, path="/health?deep=1", headers=headers))
    lines = peer.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /health?deep=1 HTTP/1.1"
    assert {"X-Key: v", "host: web.example", "Connection: close", "user-agent: kube-probe/sshoal"} <= set(lines)
    assert not [line for line in lines if line.lower().startswith("accept")]


def test_without_a_host_header_the_address_and_port_are_sent() -> None:
    peer = Peer(lambda _: answer(200))
    ports = []
    probe_peer(peer, lambda port: ports.append(port) or Handler("http", port=port))  # type: ignore[func-returns-value]
    assert f"host: 127.0.0.1:{ports[0]}\r\n".encode() in peer.requests[0]


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX-Evil: 1", "/ü"])
def test_no_path_can_break_out_of_the_request_line(path: str) -> None:
    peer = Peer(lambda _: answer(200))
    assert probe_peer(peer, lambda port: Handler("http", port=port, path=path)).ok
    assert peer.requests[0].split(b"\r\n")[0].count(b" ") == 2
    assert b"\r\nX-Evil" not in peer.requests[0]


@pytest.mark.parametrize("header", [("X-A", "1\r\nX-Evil: 1"), ("X A", "1"), ("", "1")])
def test_a_header_that_would_add_another_line_is_refused(header: tuple[str, str]) -> None:
    async def run() -> ProbeOutcome:
        async with listening(Peer(lambda _: answer(200)).serve) as port:
            handler = Handler("http", port=port, headers=(header,))
            return await HostProber(None).probe(handler, ip="127.0.0.1", container_id="", timeout_s=5)  # type: ignore[arg-type]

    outcome = asyncio.run(run())
    assert not outcome.ok and "header" in outcome.message


def test_a_redirect_on_the_same_host_is_followed() -> None:
    def serve(request: bytes) -> bytes:
        return answer(302, "Location: /login\r\n") if request.startswith(b"GET / ") else answer(500)

    peer = Peer(serve)
    assert not probe_peer(peer, lambda port: Handler("http", port=port)).ok
    assert peer.requests[1].startswith(b"GET /login ")


def test_a_redirect_to_another_host_is_a_success_and_not_followed() -> None:
    peer = Peer(lambda _: answer(302, "Location: http://192.0.2.1/\r\n"))
    outcome = probe_peer(peer, lambda port: Handler("http", port=port))
    assert outcome.ok and "another host" in outcome.message
    assert len(peer.requests) == 1


def test_redirects_in_a_circle_end_as_a_failure() -> None:
    peer = Peer(lambda _: answer(301, "Location: /\r\n"))
    assert not probe_peer(peer, lambda port: Handler("http", port=port)).ok
    assert len(peer.requests) == probes.REDIRECTS_MAX + 1


def test_a_server_that_ends_lines_with_bare_newlines_is_understood() -> None:
    peer = Peer(lambda _: b"HTTP/1.0 200\nX: y\n\nfine")
    assert probe_peer(peer, lambda port: Handler("http", port=port)).ok


def test_an_answer_is_understood_however_it_is_cut() -> None:
    """Also in the middle of the empty line, and with the answer in one piece with its announcement."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # the prober leaves once it knows enough
            await reader.readuntil(b"\r\n\r\n")
            for at in range(len(whole)):
                writer.write(whole[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    async def run() -> ProbeOutcome:
        async with listening(serve) as port:
            return await HostProber(None).probe(  # type: ignore[arg-type]
                Handler("http", port=port), ip="127.0.0.1", container_id="", timeout_s=5
            )

    whole = b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(503, body="not yet")
    outcome = asyncio.run(run())
    assert not outcome.ok and outcome.message.startswith("HTTP 503: ")


def test_probes_that_are_cut_off_leave_no_socket_behind() -> None:
    """A server whose queue is full answers no connect."""

    async def run() -> None:
        with socket.socket() as full, contextlib.ExitStack() as waiting:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            for _ in range(4):
                one = waiting.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            gc.collect()  # what other tests left
            before = len(list(Path("/proc/self/fd").iterdir()))
            for kind in ("http", "tcp", "grpc"):
                outcome = await HostProber(None).probe(  # type: ignore[arg-type]
                    Handler(kind, port=port), ip="127.0.0.1", container_id="", timeout_s=0.1
                )
                assert outcome == ProbeOutcome(False, "no result within 0.1 s")
            assert len(list(Path("/proc/self/fd").iterdir())) <= before

    asyncio.run(run())


def test_an_announcement_before_the_answer_is_skipped() -> None:
    peer = Peer(lambda _: b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(200))
    assert probe_peer(peer, lambda port: Handler("http", port=port)).ok


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"",
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"X" * 200_000,
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000,
        b"HTTP/1.1 200 OK\n" + b"A: x\n" * 50_000,
    ],
)
def test_an_answer_that_is_not_http_or_endless_fails(reply: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
        writer.close()

    async def run() -> ProbeOutcome:
        async with listening(serve) as port:
            return await HostProber(None).probe(  # type: ignore[arg-type]
                Handler("http", port=port), ip="127.0.0.1", container_id="", timeout_s=5
            )

    assert not asyncio.run(run()).ok


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*argv, "-keyout", key, "-out", cert, "-subj", "/CN=other", "-days", "2"], check=True, capture_output=True
    )
    return cert, key


def test_https_is_probed_without_verifying_the_certificate(certificate: tuple[str, str]) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    peer = Peer(lambda _: answer(200))
    assert probe_peer(peer, lambda port: Handler("http", port=port, scheme="HTTPS"), ssl=context) == ProbeOutcome(
        True, ""
    )


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_server_that_never_answers_fails_at_the_timeout_and_its_socket_is_closed(kind: str) -> None:
    peer = Peer(lambda _: b"", until=b"\r\n\r\n")
    outcome = probe_peer(peer, lambda port: Handler(kind, port=port), timeout_s=0.2)
    assert outcome == ProbeOutcome(False, "no result within 0.2 s")


# ---- tcp, exec, sleep -------------------------------------------------------------------------------------------------------


def test_tcp_is_a_success_once_connected() -> None:
    async def run() -> ProbeOutcome:
        async with listening(Peer(lambda _: b"").serve) as port:
            return await HostProber(None).probe(Handler("tcp", port=port), ip="127.0.0.1", container_id="", timeout_s=5)  # type: ignore[arg-type]

    assert asyncio.run(run()) == ProbeOutcome(True, "")


@pytest.mark.parametrize("kind", ["tcp", "http", "grpc"])
def test_a_closed_port_fails(kind: str, closed_port: int) -> None:
    outcome = probe(Handler(kind, port=closed_port))
    assert not outcome.ok and outcome.message


@pytest.fixture
def closed_port() -> int:
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ExecResult(0, b"fine"), ProbeOutcome(True, "")),
        (ExecResult(3, b"no disk\n"), ProbeOutcome(False, "command exited with 3: no disk")),
        (ExecResult(None, b"half"), ProbeOutcome(False, "command did not end within 2 s: half")),
    ],
)
def test_exec_goes_by_the_exit_code(result: Any, expected: ProbeOutcome) -> None:
    runtime = ExecRuntime(result)
    assert probe(Handler("exec", command=("check", "-x")), runtime=runtime, timeout_s=2) == expected
    assert runtime.asked == [("c1", ("check", "-x"), 2)]


@pytest.mark.parametrize("reason", ["unavailable", "timeout", "failed", "not-found"])
def test_an_engine_that_cannot_start_the_command_is_no_verdict_on_the_pod(reason: str) -> None:
    """As kubelet, which drops the result of a probe that it could not run: else a hung Podman would have healthy containers killed."""
    outcome = probe(
        Handler("exec", command=("x",)), runtime=ExecRuntime(RuntimeFault(reason, "podman does not answer"))
    )
    assert outcome == ProbeOutcome(False, "podman does not answer", known=False)


def test_a_host_without_free_descriptors_says_nothing_of_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_more(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", no_more)
    assert not probe(Handler("tcp", port=1)).known


def test_a_long_output_is_cut_in_the_message() -> None:
    outcome = probe(Handler("exec", command=("x",)), runtime=ExecRuntime(ExecResult(1, b"\xff" * 60_000)))
    assert len(outcome.message) <= probes.MESSAGE_CHARS_MAX


def test_sleep_is_a_success_and_bounded_by_the_timeout() -> None:
    assert probe(Handler("sleep", seconds=0)).ok
    assert not probe(Handler("sleep", seconds=60), timeout_s=0.05).ok


def test_an_unknown_kind_is_a_failure_not_an_error() -> None:
    assert not probe(Handler("telepathy")).ok


# ---- grpc -------------------------------------------------------------------------------------------------------------------


def h2(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def health(status: bytes) -> bytes:
    return b"\x00" + struct.pack(">I", len(status)) + status


SETTINGS, HEADERS_OK = h2(4, 0, 0, b""), h2(1, 4, 1, b"\x88")  # :status 200 is entry 8 of HPACK's static table


@pytest.mark.parametrize(
    ("frames", "ok"),
    [
        pytest.param(SETTINGS + HEADERS_OK + h2(0, 0, 1, health(b"\x08\x01")), True, id="serving"),
        pytest.param(SETTINGS + HEADERS_OK + h2(0, 0, 1, health(b"\x08\x02")), False, id="not serving"),
        pytest.param(SETTINGS + HEADERS_OK + h2(0, 0, 1, health(b"")), False, id="unknown: the default of the enum"),
        pytest.param(SETTINGS + h2(1, 5, 1, b"\x88"), False, id="trailers only, as for an unknown service"),
        pytest.param(SETTINGS + h2(3, 0, 1, b"\0\0\0\7"), False, id="stream refused"),
        pytest.param(SETTINGS + h2(7, 0, 0, b"\0" * 8), False, id="server goes away before our stream"),
        pytest.param(
            SETTINGS + h2(7, 0, 0, b"\0\0\0\1\0\0\0\0") + h2(0, 0, 1, health(b"\x08\x01")),
            True,
            id="goes away after it",
        ),
        pytest.param(h2(6, 0, 0, b"12345678") + h2(0, 0, 1, health(b"\x08\x01")), True, id="ping first"),
        pytest.param(h2(0, 8, 1, b"\x03" + health(b"\x08\x01") + b"\0\0\0"), True, id="padded"),
        pytest.param(
            h2(0, 0, 1, health(b"\x08\x01")[:3]) + h2(0, 1, 1, health(b"\x08\x01")[3:]), True, id="in two pieces"
        ),
        pytest.param(h2(0, 0, 3, health(b"\x08\x01")) + h2(3, 0, 1, b"\0\0\0\7"), False, id="another stream's data"),
        pytest.param(h2(0, 0, 1, b"\x01\0\0\0\2\x08\x01"), False, id="compressed though not asked for"),
        pytest.param(h2(0, 0, 1, health(b"\xff\xff")), False, id="not a health answer"),
        pytest.param(h2(0, 8, 1, b""), False, id="padded but empty"),
        pytest.param(b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 70_000, False, id="a frame too large"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", False, id="an HTTP/1 server"),
    ],
)
def test_grpc_goes_by_the_health_answer(frames: bytes, ok: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"SM\r\n\r\n")
            writer.write(frames)
            await writer.drain()
            writer.write_eof()
            await reader.read()
        writer.close()

    async def run() -> ProbeOutcome:
        async with listening(serve) as port:
            return await HostProber(None).probe(
                Handler("grpc", port=port), ip="127.0.0.1", container_id="", timeout_s=5
            )  # type: ignore[arg-type]

    assert asyncio.run(run()).ok is ok


@pytest.mark.parametrize("service", ["", "shop.Cart", "s" * 300])
def test_a_grpc_request_is_well_formed_for_any_length_of_names(service: str) -> None:
    call = probes._health_call("h" * 200 + ":1", service)
    assert call.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    rest, kinds = call[24:], []
    while rest:
        length = int.from_bytes(rest[:3], "big")
        kinds.append((rest[3], rest[4], int.from_bytes(rest[5:9], "big"), rest[9 : 9 + length]))
        rest = rest[9 + length :]
    assert [kind[:3] for kind in kinds] == [(4, 0, 0), (1, 4, 1), (0, 1, 1)]
    data = kinds[2][3]
    assert int.from_bytes(data[1:5], "big") == len(data) - 5
    assert data.endswith(service.encode())


@settings(max_examples=40, deadline=None)
@given(reply=st.binary(max_size=300), kind=st.sampled_from(["http", "grpc"]))
def test_whatever_a_server_answers_is_an_outcome_never_an_error(reply: bytes, kind: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            await writer.drain()
        writer.close()

    async def run() -> ProbeOutcome:
        async with listening(serve) as port:
            return await HostProber(None).probe(Handler(kind, port=port), ip="127.0.0.1", container_id="", timeout_s=2)  # type: ignore[arg-type]

    assert isinstance(asyncio.run(run()), ProbeOutcome)
