"""Streams through the whole server: logs from files as conmon writes them, exec, port-forward over TCP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent import logs, protocol
from nodeagent.protocol import STREAM_WINDOW_BYTES, ExecRequest, ForwardRequest, LogsRequest
from nodeagent.runtime import Process, RuntimeFault
from tests.agent_peer import Desk, Peer, talking, until


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 50))


class Engine:
    """What streams ask of a runtime."""

    def __init__(self) -> None:
        self.session: Any = None
        self.port_fault: Exception | None = None

    async def exec_stream(self, container_id: str, command: tuple[str, ...], tty: bool, stdin: bool) -> Any:
        self.session = await Session.start(command)
        return self.session

    async def connect(self, process: Process, port: int, timeout_s: float) -> Any:
        if self.port_fault:
            raise self.port_fault
        return await asyncio.open_connection("127.0.0.1", port)


class Session:
    """An exec session over a real process of this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.sizes: list[tuple[int, int]] = []
        self.closed = False

    @classmethod
    async def start(cls, command: tuple[str, ...]) -> Session:
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe))

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(4)

        async def pump(kind: int, reader: Any) -> None:
            while data := await reader.read(65536):
                await queue.put((kind, data))
            await queue.put((kind, b""))

        pumps = [
            asyncio.ensure_future(pump(protocol.STDOUT, self.process.stdout)),
            asyncio.ensure_future(pump(protocol.STDERR, self.process.stderr)),
        ]
        try:
            open_ends = 2
            while open_ends:
                kind, data = await queue.get()
                if data:
                    yield kind, data
                else:
                    open_ends -= 1
        finally:
            for task in pumps:
                task.cancel()

    async def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def end_input(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def exit_code(self) -> int | None:
        return await self.process.wait()

    async def close(self) -> None:
        self.closed = True
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(Engine())
    desk.containers["web", False] = ("c1", str(tmp_path / "0.log"))
    return desk


async def last_message(peer: Peer) -> dict[str, Any]:
    while "credit" in (message := await peer.message()):
        pass
    return message


async def opened(peer: Peer, verb: str, body: Any = None) -> None:
    assert await peer.call(verb, body) == {"id": 1, "ok": {}}


# ---- logs -------------------------------------------------------------------------------------------------------------------


def line(text: str, second: int = 0, stream: str = "stdout", tag: str = "F", date: str = "2026-11-23T13:00") -> str:
    return f"{date}:{second:02}.000000000+00:00 {stream} {tag} {text}\n"


def write_log(desk: Desk, *lines: str) -> Path:
    path = Path(desk.containers["web", False][1] or "")
    path.write_text("".join(lines))
    return path


def read_logs(desk: Desk, tmp_path: Path, **fields: Any) -> tuple[str, str, Any]:
    got: list[Any] = []

    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.LOGS, LogsRequest("u1", "web", **fields))
            got.extend(await peer.to_exit())

    run(work())
    return got[0].decode(), got[1].decode(), got[2]


def test_both_streams_come_in_their_own_frames(desk: Desk, tmp_path: Path) -> None:
    write_log(desk, line("one"), line("bad", stream="stderr"), line("two"))
    assert read_logs(desk, tmp_path) == ("one\ntwo\n", "bad\n", {})


def test_pieces_of_a_line_are_joined_even_when_the_other_stream_comes_between(desk: Desk, tmp_path: Path) -> None:
    write_log(desk, line("a", tag="P"), line("x", stream="stderr"), line("b", tag="P"), line("c"), line("d"))
    assert read_logs(desk, tmp_path) == ("abc\nd\n", "x\n", {})


def test_timestamps_stand_at_the_beginning_of_each_line_only(desk: Desk, tmp_path: Path) -> None:
    write_log(desk, line("a", 1, tag="P"), line("b", 2), line("", 3))
    out, _, _ = read_logs(desk, tmp_path, timestamps=True)
    assert out == "2026-11-23T13:00:01.000000000+00:00 ab\n2026-11-23T13:00:03.000000000+00:00 \n"


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(-1, "0\n1\n2\n34\n5\n"), (0, ""), (1, "5\n"), (2, "34\n5\n"), (3, "2\n34\n5\n"), (99, "0\n1\n2\n34\n5\n")],
)
def test_tail_counts_whole_lines(desk: Desk, tmp_path: Path, tail: int, expected: str) -> None:
    write_log(desk, line("0"), line("1"), line("2"), line("3", tag="P"), line("4"), line("5"))
    assert read_logs(desk, tmp_path, tail=tail)[0] == expected


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.tuples(st.text("ab ", max_size=40), st.booleans()), max_size=30),
    tail=st.integers(0, 35),
    block=st.integers(1, 200),
)
def test_tail_of_any_log_is_the_end_of_all_of_it(
    tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, bool]], tail: int, block: int
) -> None:
    """Whatever the size of the blocks that are read backwards."""
    path = tmp_path_factory.mktemp("tail") / "log"
    path.write_text("".join(line(text, tag="P" if piece else "F") for text, piece in texts))
    joined = "".join(text + ("" if piece else "\n") for text, piece in texts)
    whole = joined.split("\n")[:-1]
    rest = joined.split("\n")[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "BLOCK_BYTES", block)
        file = logs._LogFile(str(path))
        file.open()
        file.seek_tail(tail)
        lines = []
        while more := file.read_lines():
            lines += more
        file.close()
    read = "".join(
        item.decode().split(" ", 3)[3] + ("\n" if item.decode().split(" ")[2] == "F" else "") for item in lines
    )
    assert read == "".join(f"{text}\n" for text in whole[max(0, len(whole) - tail) :] if tail) + rest


def test_since_leaves_out_what_is_older(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.logs.time.time", lambda: 1795438830.0)  # 2026-11-23 13:00:30 UTC
    local = "2026-11-23T15:00:25.5+02:00 stdout F local\n"
    write_log(desk, line("old", 5), line("older", 19), local, line("young", 26))
    assert read_logs(desk, tmp_path, since_s=10.0)[0] == "local\nyoung\n"


def test_the_limit_cuts_within_a_line_and_counts_both_streams(desk: Desk, tmp_path: Path) -> None:
    write_log(desk, line("12345"), line("678", stream="stderr"), line("9"))
    assert read_logs(desk, tmp_path, limit_bytes=8) == ("12345\n", "67", {})
    assert read_logs(desk, tmp_path, limit_bytes=8, follow=True) == ("12345\n", "67", {})


def test_a_torn_or_foreign_line_is_left_out(desk: Desk, tmp_path: Path) -> None:
    write_log(desk, "\0\0\0\0\n", line("good"), "2026-11-23T13:00:00 stdout\n", line("last")[:-4])
    assert read_logs(desk, tmp_path)[0] == "good\n"


def test_the_previous_container_has_its_own_log(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "old.log").write_text(line("before"))
    desk.containers["web", True] = ("c0", str(tmp_path / "old.log"))
    assert read_logs(desk, tmp_path, previous=True, follow=True)[0] == "before\n"


@pytest.mark.parametrize("path", [None, "/nonexistent/0.log"])
def test_a_container_without_a_log_is_not_found(desk: Desk, tmp_path: Path, path: str | None) -> None:
    desk.containers["web", False] = (None, path)

    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            reply = await peer.call(protocol.LOGS, LogsRequest("u1", "web"))
            assert reply["error"]["code"] == protocol.NOT_FOUND
            assert "ok" in await peer.call(protocol.HELLO)

    run(work())


def test_following_goes_on_over_rotation_and_truncation_and_ends_with_the_container(desk: Desk, tmp_path: Path) -> None:
    path = write_log(desk, line("1"))

    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.LOGS, LogsRequest("u1", "web", follow=True))
            assert await peer.next() == (protocol.STDOUT, b"1\n")
            with path.open("a") as file:
                file.write(line("2")[:-3])
                file.flush()
                await asyncio.sleep(0.3)
                file.write(line("2")[-3:])
            assert await peer.next() == (protocol.STDOUT, b"2\n")
            (tmp_path / "new").write_text(line("3" * 50))
            (tmp_path / "new").replace(path)
            assert await peer.next() == (protocol.STDOUT, b"3" * 50 + b"\n")
            path.write_text(line("4"))  # shorter than what was read
            assert await peer.next() == (protocol.STDOUT, b"4\n")
            desk.ended.add("c1")
            with path.open("a") as file:
                file.write(line("last words"))
            assert await peer.to_exit() == (b"last words\n", b"", {})
            assert await peer.is_closed()

    run(work())


def test_a_follower_reads_a_file_to_its_end_before_it_goes_to_the_one_that_replaced_it(
    desk: Desk, tmp_path: Path
) -> None:
    """conmon puts a new file in place of one that reached its cap."""
    path = write_log(desk, line("0"))
    numbers = range(1, 5000)

    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.LOGS, LogsRequest("u1", "web", follow=True))
            assert await peer.next() == (protocol.STDOUT, b"0\n")
            with path.open("a") as file:
                file.write("".join(line(str(number)) for number in numbers))
            (tmp_path / "new").write_text(line("new"))
            (tmp_path / "new").replace(path)
            desk.ended.add("c1")
            output, _, _ = await peer.to_exit()
            assert output.decode().split() == [*map(str, numbers), "new"]

    run(work())


def test_a_follower_that_is_cancelled_leaves_at_once(desk: Desk, tmp_path: Path) -> None:
    write_log(desk, line("1"))

    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.LOGS, LogsRequest("u1", "web", follow=True))
            await peer.next()
            peer.send({"cancel": True})
            assert await peer.is_closed()

    run(work())


# ---- flow control -------------------------------------------------------------------------------------------------------------


def test_a_sender_stops_after_its_window_until_it_is_granted_more(desk: Desk, tmp_path: Path) -> None:
    write_log(desk, *(line("x" * 999) for _ in range(2000)))

    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.LOGS, LogsRequest("u1", "web"))
            received = 0
            while received < STREAM_WINDOW_BYTES:
                received += len((await peer.next())[1])
            assert received == STREAM_WINDOW_BYTES
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(peer.next(), 0.3)
            peer.send({"credit": 1000})
            assert len((await peer.next())[1]) == 1000
            peer.send({"credit": 2_000_000})
            out, _, end = await peer.to_exit(credit=False)
            assert (received + 1000 + len(out), end) == (2_000_000, {})

    run(work())


def test_a_peer_that_sends_more_than_its_window_is_thrown_out(desk: Desk, tmp_path: Path) -> None:
    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.EXEC, ExecRequest("u1", "web", ("sleep", "60"), stdin=True))
            for _ in range(STREAM_WINDOW_BYTES // 1024 * 4):
                peer.send_data(b"x" * 1024)
            assert (await last_message(peer))["error"]["code"] == protocol.BAD_REQUEST
            assert await peer.is_closed()
            await until(lambda: desk.runtime.session.closed)

    run(work())


@pytest.mark.parametrize(
    "control", [{"credit": -1}, {"credit": "x"}, {"resize": [1]}, {"resize": [1, 10**9]}, {"what": 1}]
)
def test_a_control_message_that_makes_no_sense_ends_the_conversation(desk: Desk, tmp_path: Path, control: Any) -> None:
    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.EXEC, ExecRequest("u1", "web", ("sleep", "60")))
            peer.send(control)
            assert (await peer.message())["error"]["code"] == protocol.BAD_REQUEST
            assert await peer.is_closed()
            await until(lambda: desk.runtime.session.closed)

    run(work())


def test_a_second_stream_in_a_conversation_is_refused_and_the_first_goes_on(desk: Desk, tmp_path: Path) -> None:
    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.EXEC, ExecRequest("u1", "web", ("cat",), stdin=True))
            assert (await peer.call(protocol.LOGS, LogsRequest("u1", "web"), 2))["error"][
                "code"
            ] == protocol.FAILED_CODE
            peer.send_data(b"on")
            peer.send({"eof": True})
            assert await peer.to_exit() == (b"on", b"", {"code": 0})

    run(work())


# ---- exec -------------------------------------------------------------------------------------------------------------------


def test_exec_carries_input_both_outputs_and_the_exit_code(desk: Desk, tmp_path: Path) -> None:
    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            command = ("sh", "-c", "cat; echo oops >&2; exit 3")
            await opened(peer, protocol.EXEC, ExecRequest("u1", "web", command, stdin=True))
            peer.send_data(b"hello ")
            peer.send_data(b"world")
            peer.send({"eof": True})
            assert await peer.to_exit() == (b"hello world", b"oops\n", {"code": 3})
            assert await peer.is_closed()
        assert desk.runtime.session.closed

    run(work())


def test_more_input_than_any_window_passes_as_credit_comes_back(desk: Desk, tmp_path: Path) -> None:
    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.EXEC, ExecRequest("u1", "web", ("wc", "-c"), stdin=True))
            left, credit = 3_000_000, STREAM_WINDOW_BYTES
            while left:
                while not credit:
                    credit += (await peer.message())["credit"]
                size = min(left, credit, 32768)
                peer.send_data(b"x" * size)
                left, credit = left - size, credit - size
            peer.send({"eof": True})
            while (frame := await peer.next())[0] == protocol.JSON:
                assert set(frame[1]) == {"credit"}
            assert frame == (protocol.STDOUT, b"3000000\n")

    run(work())


def test_sizes_reach_the_terminal(desk: Desk, tmp_path: Path) -> None:
    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            request = ExecRequest("u1", "web", ("cat",), stdin=True, tty=True, rows=24, columns=80)
            await opened(peer, protocol.EXEC, request)
            peer.send({"resize": [50, 132]})
            peer.send({"eof": True})
            assert (await peer.to_exit())[2] == {"code": 0}
            assert desk.runtime.session.sizes == [(24, 80), (50, 132)]

    run(work())


def test_a_command_ends_with_the_peer_that_started_it(desk: Desk, tmp_path: Path) -> None:
    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            await opened(peer, protocol.EXEC, ExecRequest("u1", "web", ("sleep", "60")))
            peer.close()
            await until(lambda: desk.runtime.session.closed)

    run(work())


def test_input_that_a_command_no_longer_takes_does_not_lose_its_output(desk: Desk, tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            command = ("sh", "-c", f"exec <&-; until [ -e {go} ]; do sleep 0.05; done; echo done; exit 4")
            await opened(peer, protocol.EXEC, ExecRequest("u1", "web", command, stdin=True))
            for _ in range(5):
                peer.send_data(b"x" * 1000)
                await asyncio.sleep(0.02)
            go.touch()
            assert await peer.to_exit() == (b"done\n", b"", {"code": 4})

    run(work())


def test_exec_in_a_container_that_does_not_run_is_not_found(desk: Desk, tmp_path: Path) -> None:
    desk.containers["web", False] = (None, None)

    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            assert (await peer.call(protocol.EXEC, ExecRequest("u1", "web", ("id",))))["error"][
                "code"
            ] == protocol.NOT_FOUND
            assert (await peer.call(protocol.EXEC, ExecRequest("u1", "no", ("id",))))["error"][
                "code"
            ] == protocol.NOT_FOUND

    run(work())


# ---- port-forward ---------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def pod_port(serve: Any) -> AsyncIterator[int]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_bytes_pass_both_ways_and_each_direction_ends_by_itself(desk: Desk, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"welcome\n")
        said = await reader.read()
        writer.write(b"you said %d bytes" % len(said))
        writer.close()

    async def work() -> None:
        async with pod_port(serve) as port, talking(desk, tmp_path) as peer:
            await opened(peer, protocol.FORWARD, ForwardRequest("u1", port))
            assert await peer.next() == (protocol.STDOUT, b"welcome\n")
            peer.send_data(b"x" * 100_000)
            peer.send({"eof": True})
            assert await peer.next() == (protocol.STDOUT, b"you said 100000 bytes")
            assert await peer.message() == {"eof": True}
            assert await peer.message() == {"exit": {}}
            assert await peer.is_closed()

    run(work())


def test_the_connection_into_the_pod_ends_with_the_peer(desk: Desk, tmp_path: Path) -> None:
    ended = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.append(True)
        writer.close()

    async def work() -> None:
        async with pod_port(serve) as port, talking(desk, tmp_path) as peer:
            await opened(peer, protocol.FORWARD, ForwardRequest("u1", port))
            peer.close()
            await until(lambda: ended)

    run(work())


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_a_port_that_can_not_be_is_refused(desk: Desk, tmp_path: Path, port: int) -> None:
    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            assert "not a port" in (await peer.call(protocol.FORWARD, ForwardRequest("u1", port)))["error"]["message"]

    run(work())


def test_a_port_where_nothing_listens_is_an_error_reply(desk: Desk, tmp_path: Path) -> None:
    desk.runtime.port_fault = RuntimeFault("failed", "connection refused")

    async def work() -> None:
        async with talking(desk, tmp_path) as peer:
            reply = await peer.call(protocol.FORWARD, ForwardRequest("u1", 80))
            assert reply["error"] == {"code": protocol.FAILED_CODE, "message": "connection refused"}

    run(work())
