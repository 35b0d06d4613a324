"""The agent's socket and its conversations: who gets in, what is answered, what is refused, and that nothing grows without bound."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent import protocol, server
from nodeagent.agent import Refused
from nodeagent.protocol import (
    Epoch,
    ForgetRequest,
    NodeConfig,
    ReportRequest,
    SecretsRequest,
    SecretValue,
    TakeoverRequest,
    WantedSet,
)
from nodeagent.runtime import RuntimeFault
from nodeagent.server import Conversation
from tests.agent_peer import Desk, Peer, connected, serving, talking, until

EPOCH = Epoch(1, "e")
WANTED = WantedSet("cluster", EPOCH, 7, "digest", NodeConfig("node", "10.0.0.0/24", "10.0.0.0/16"))


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 50))


# ---- verbs ------------------------------------------------------------------------------------------------------------------


def test_each_verb_reaches_the_agent_as_its_dataclass_and_its_answer_comes_back(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        async with talking(desk, tmp_path) as peer:
            hello = (await peer.call(protocol.HELLO, request_id=5))["ok"]
            assert protocol.decode(protocol.Hello, hello, strict=True) == desk.hello()
            assert (await peer.call(protocol.WANT, WANTED))["ok"] == {"serial": 7}
            requests = [
                (protocol.REPORT, ReportRequest(protocol.Cursor("i", 3))),
                (protocol.SECRETS, SecretsRequest("cluster", EPOCH, {"ns/s": SecretValue("h", {"k": "dg=="})})),
                (protocol.TAKEOVER, TakeoverRequest("a", "b", EPOCH)),
                (protocol.FORGET, ForgetRequest("cluster", EPOCH)),
            ]
            for verb, request in requests:
                assert "ok" in await peer.call(verb, request)
            assert desk.taken == [WANTED, *(request for _, request in requests)]

    run(work())


def test_an_order_leaves_its_numbers_in_the_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with talking(Desk(), tmp_path) as peer:
            with caplog.at_level("INFO"):
                await peer.call(protocol.WANT, WANTED)

    run(work())
    assert "wanted set 7 of epoch 1, 0 pods" in caplog.messages


def test_a_waiting_report_does_not_hold_up_other_requests(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        async with talking(desk, tmp_path) as peer:
            peer.ask(protocol.REPORT, ReportRequest(wait_s=30.0), request_id=1)
            assert (await peer.call(protocol.HELLO, request_id=2))["id"] == 2
            desk.gate.set()
            assert (await peer.message())["id"] == 1

    run(work())


def test_what_waits_for_a_peer_that_went_away_is_cancelled(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        async with serving(desk, tmp_path) as (_, path):
            async with connected(path) as peer:
                peer.ask(protocol.REPORT, ReportRequest(wait_s=30.0))
                await until(lambda: desk.waiting == 1)
            await until(lambda: desk.waiting == 0)

    run(work())


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Refused(protocol.OWNED, "owned by X"), protocol.OWNED, "owned by X"),
        (RuntimeFault("timeout", "podman does not answer"), protocol.FAILED_CODE, "podman does not answer"),
        (OSError(28, "No space left on device"), protocol.FAILED_CODE, "No space left"),
        (Refused(protocol.FAILED_CODE, "x" * 100_000), protocol.FAILED_CODE, "x" * server.MESSAGE_CHARS_MAX),
    ],
)
def test_what_a_verb_raises_is_an_error_reply_of_bounded_size(
    tmp_path: Path, error: Exception, code: str, words: str
) -> None:
    async def work() -> None:
        desk = Desk()
        desk.answers[protocol.WANT] = error
        async with talking(desk, tmp_path) as peer:
            reply = (await peer.call(protocol.WANT, WANTED))["error"]
            assert reply["code"] == code and words in reply["message"]
            assert len(reply["message"]) <= server.MESSAGE_CHARS_MAX
            assert "ok" in await peer.call(protocol.HELLO)

    run(work())


def test_an_unforeseen_error_tells_its_class_only(tmp_path: Path) -> None:
    """Its words could hold anything, a secret too."""

    async def work() -> None:
        desk = Desk()
        desk.answers[protocol.SECRETS] = KeyError("canary")
        async with talking(desk, tmp_path) as peer:
            reply = await peer.call(protocol.SECRETS, SecretsRequest("cluster", EPOCH))
            assert "KeyError" in reply["error"]["message"] and "canary" not in json.dumps(reply)

    run(work())


def test_a_reply_too_large_for_a_frame_is_an_error_and_the_conversation_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        desk.answers[protocol.WANT] = protocol.Accepted(1, ("x" * protocol.FRAME_BYTES_MAX,))
        async with talking(desk, tmp_path) as peer:
            assert (await peer.call(protocol.WANT, WANTED))["error"]["code"] == protocol.FAILED_CODE
            assert "ok" in await peer.call(protocol.HELLO)

    run(work())


def test_an_unknown_verb_is_refused_and_the_conversation_goes_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with talking(Desk(), tmp_path) as peer:
            assert (await peer.call("dance"))["error"]["code"] == protocol.UNKNOWN_VERB
            assert "ok" in await peer.call(protocol.HELLO)

    run(work())


def test_a_wanted_set_with_an_unknown_field_is_refused_as_a_whole(tmp_path: Path) -> None:
    """It might be a security setting that this agent would drop."""

    async def work() -> None:
        desk = Desk()
        async with talking(desk, tmp_path) as peer:
            peer.send({"id": 3, "verb": "want", "body": {**protocol.encode(WANTED), "sandbox": "strong"}})
            reply = await peer.message()
            assert reply["id"] == 3 and reply["error"]["code"] == protocol.BAD_REQUEST
            assert "sandbox" in reply["error"]["message"]
            assert await peer.is_closed()
        assert desk.taken == []

    run(work())


def test_a_report_request_with_an_unknown_field_is_answered(tmp_path: Path) -> None:
    async def work() -> None:
        async with talking(Desk(), tmp_path) as peer:
            peer.send({"id": 3, "verb": "report", "body": {"newer": 1}})
            assert "ok" in await peer.message()

    run(work())


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\xff\xff\xff\xff\x00", id="frame of 4 GiB announced"),
        pytest.param(b"\x00\x00\x00\x01\x09x", id="frame of unknown kind"),
        pytest.param(protocol.data_frame(0, b"[1]"), id="not an object"),
        pytest.param(protocol.data_frame(0, b"[" * 100_000), id="deeply nested"),
        pytest.param(protocol.data_frame(0, b'{"id": NaN}'), id="NaN"),
        pytest.param(protocol.data_frame(0, b'{"id": 1}'), id="no verb"),
        pytest.param(protocol.data_frame(0, b'{"id": true, "verb": "hello"}'), id="an id that is no number"),
        pytest.param(protocol.data_frame(0, b'{"id": 1, "verb": "want", "body": 3}'), id="body that is no object"),
        pytest.param(protocol.data_frame(0, b'{"id": 1, "verb": "report", "body": {"wait_s": "x"}}'), id="wrong type"),
        pytest.param(protocol.data_frame(0, b'{"credit": 5}'), id="control without a stream"),
        pytest.param(protocol.data_frame(1, b"x"), id="data without a stream"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
    ],
)
def test_bytes_that_are_not_of_the_protocol_get_an_answer_and_the_door(tmp_path: Path, sent: bytes) -> None:
    async def work() -> None:
        desk = Desk()
        async with serving(desk, tmp_path) as (_, path):
            async with connected(path) as peer:
                peer.writer.write(sent)
                assert (await peer.message())["error"]["code"] == protocol.BAD_REQUEST
                assert await peer.is_closed()
            async with connected(path) as peer:
                assert "ok" in await peer.call(protocol.HELLO)
        assert desk.taken == []

    run(work())


class MemoryWriter:
    """The writing end of an in-memory pair, as the simulation has them."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        self.closed = True


@settings(max_examples=100, deadline=None)
@given(
    chunks=st.lists(
        st.one_of(st.binary(max_size=40), st.builds(protocol.data_frame, st.integers(0, 3), st.binary(max_size=30)))
    )
)
def test_no_bytes_make_a_conversation_raise_or_hang(chunks: list[bytes]) -> None:
    async def work() -> None:
        reader, writer = asyncio.StreamReader(), MemoryWriter()
        for chunk in chunks:
            reader.feed_data(chunk)
        reader.feed_eof()
        await Conversation(Desk(), reader, writer).run()
        assert writer.closed
        protocol.FrameReader().feed(writer.sent)

    run(work())


# ---- bounds ---------------------------------------------------------------------------------------------------------------


def test_only_so_many_requests_are_under_way_in_one_conversation(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        async with talking(desk, tmp_path) as peer:
            for number in range(server.REQUESTS_MAX + 3):
                peer.ask(protocol.REPORT, ReportRequest(wait_s=30.0), request_id=number)
            refused = [(await peer.message()) for _ in range(3)]
            assert {reply["error"]["code"] for reply in refused} == {protocol.FAILED_CODE}
            assert desk.waiting == server.REQUESTS_MAX
            desk.gate.set()
            answered = [(await peer.message())["id"] for _ in range(server.REQUESTS_MAX)]
            assert sorted(answered) == list(range(server.REQUESTS_MAX))

    run(work())


def test_beyond_the_bound_the_conversation_that_was_silent_longest_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead connections that SSH never closed must not lock the controller out."""
    monkeypatch.setattr(server, "CONVERSATIONS_MAX", 3)

    async def work() -> None:
        async with serving(Desk(), tmp_path) as (_, path):
            peers = [Peer(*await asyncio.open_unix_connection(str(path))) for _ in range(3)]
            for number in (1, 2, 0, 2):
                assert "ok" in await peers[number].call(protocol.HELLO)
            async with connected(path) as late:
                assert "ok" in await late.call(protocol.HELLO)
                assert await peers[1].is_closed()
                assert "ok" in await peers[0].call(protocol.HELLO)
                assert "ok" in await peers[2].call(protocol.HELLO)
            for peer in peers:
                peer.close()

    run(work())


def test_a_peer_that_reads_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_TIMEOUT_S", 0.2)

    async def work() -> None:
        desk = Desk()
        desk.answers[protocol.WANT] = protocol.Accepted(1, ("x" * 4_000_000,))
        async with serving(desk, tmp_path) as (running, path):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=1024)
            peer = Peer(reader, writer)
            for _ in range(4):
                peer.ask(protocol.WANT, WANTED)
            await until(lambda: len(desk.taken) == 4)
            await until(lambda: not running._conversations)
            writer.close()

    run(work())


# ---- the socket -----------------------------------------------------------------------------------------------------------


def test_the_socket_and_its_directory_are_for_the_owner_only(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(Desk(), tmp_path) as (_, path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    run(work())


def test_a_socket_that_a_killed_agent_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "run" / "agent.sock"))

    async def work() -> None:
        async with talking(Desk(), tmp_path) as peer:
            assert "ok" in await peer.call(protocol.HELLO)

    run(work())


def test_closing_ends_conversations_and_what_they_wait_for(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        async with serving(desk, tmp_path) as (running, path), connected(path) as peer:
            peer.ask(protocol.REPORT, ReportRequest(wait_s=30.0))
            await until(lambda: desk.waiting == 1)
            await running.close()
            assert desk.waiting == 0
            assert await peer.is_closed()

    run(work())


AS_NOBODY = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
with socket.socket(socket.AF_UNIX) as agent:
    agent.connect(sys.argv[1])
    agent.settimeout(10)
    try:
        agent.sendall(bytes.fromhex(sys.argv[2]))
        print(len(agent.recv(100)))
    except ConnectionError:
        print(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: run as root")
def test_another_user_is_turned_away_even_where_file_modes_would_let_it_in(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(Desk(), tmp_path) as (_, path):
            path.chmod(0o666)
            for folder in (path.parent, *path.parent.parents):
                if folder.stat().st_mode & 0o005 != 0o005 and folder != Path("/"):
                    folder.chmod(folder.stat().st_mode | 0o005)
            hello = protocol.frame({"id": 1, "verb": "hello"}).hex()
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-c", AS_NOBODY, str(path), hello, stdout=subprocess.PIPE
            )
            said, _ = await child.communicate()
            assert said == b"0\n"
            async with connected(path) as peer:
                assert "ok" in await peer.call(protocol.HELLO)

    run(work())


# ---- dial: standard input and output instead of the socket ----------------------------------------------------------------

PACKAGE = str(Path(__file__).parents[2])
RUN_DIAL = "import sys; sys.path.insert(0, {!r}); from nodeagent import dial; sys.exit(dial.main(sys.argv[1:], '/nonexistent'))"


async def dial(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", RUN_DIAL.format(PACKAGE), *arguments,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def test_dial_marks_where_the_conversation_begins_then_is_transparent(tmp_path: Path) -> None:
    async def work() -> None:
        desk = Desk()
        desk.answers[protocol.WANT] = protocol.Accepted(1, ("x" * 3_000_000,))
        async with serving(desk, tmp_path) as (_, path):
            child = await dial("--socket", str(path), "--nonce", "4f-2a")
            assert child.stdin is not None and child.stdout is not None
            assert await child.stdout.readuntil(b"4f-2a\n") == b"\nsshoal-dial 4f-2a\n"
            big = WantedSet("cluster", EPOCH, 7, "d" * 2_000_000, WANTED.node)
            child.stdin.write(protocol.frame({"id": 9, "verb": "want", "body": protocol.encode(big)}))
            (length, _) = struct.unpack(">IB", await child.stdout.readexactly(5))
            reply = json.loads(await child.stdout.readexactly(length))
            assert reply["id"] == 9 and len(reply["ok"]["missing_secrets"][0]) == 3_000_000
            assert desk.taken == [big]
            child.stdin.close()  # the controller is gone
            assert await asyncio.wait_for(child.wait(), 10) == 0

    run(work())


def test_a_conversation_that_is_stopped_before_it_began_ends() -> None:
    async def work() -> None:
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=here)
        conversation = Conversation(Desk(), reader, writer)
        conversation.stop()
        await asyncio.wait_for(conversation.run(), 10)
        assert await asyncio.to_thread(there.recv, 1) == b""
        there.close()

    run(work())


def test_dial_ends_when_the_agent_does_though_its_caller_stays(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(Desk(), tmp_path) as (running, path):
            child = await dial("--socket", str(path), "--nonce", "n")
            assert child.stdout is not None
            await child.stdout.readuntil(b"dial n\n")
            await until(lambda: running._conversations)
            await running.close()
            assert await asyncio.wait_for(child.stdout.read(), 10) == b""
            assert await asyncio.wait_for(child.wait(), 10) == 0

    run(work())


def test_dial_passes_on_the_end_of_its_input_and_still_delivers_what_comes_after(tmp_path: Path) -> None:
    async def work() -> None:
        async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            said = await reader.read()
            writer.write(b"you said " + said)
            await writer.drain()
            writer.close()

        listener = await asyncio.start_unix_server(answer_at_the_end, str(tmp_path / "s"))
        child = await dial("--socket", str(tmp_path / "s"), "--nonce", "n")
        out, _ = await asyncio.wait_for(child.communicate(b"hello"), 10)
        assert out == b"\nsshoal-dial n\nyou said hello"
        listener.close()

    run(work())


def test_dial_passes_on_the_end_of_the_agents_output_and_still_delivers_input(tmp_path: Path) -> None:
    async def work() -> None:
        heard: list[bytes] = []

        async def listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write_eof()
            heard.append(await reader.read())
            writer.close()

        listener = await asyncio.start_unix_server(listen_only, str(tmp_path / "s"))
        child = await dial("--socket", str(tmp_path / "s"), "--nonce", "n")
        assert child.stdin is not None and child.stdout is not None
        assert await asyncio.wait_for(child.stdout.read(), 10) == b"\nsshoal-dial n\n"
        with pytest.raises(asyncio.TimeoutError):  # it stays while there can be input
            await asyncio.wait_for(child.wait(), 0.5)
        child.stdin.write(b"still here")
        child.stdin.close()
        assert await asyncio.wait_for(child.wait(), 10) == 0
        await until(lambda: heard == [b"still here"])
        listener.close()

    run(work())


def test_a_forced_command_takes_the_nonce_from_what_the_caller_asked_for(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(Desk(), tmp_path) as (_, path):
            environment = {"SSH_ORIGINAL_COMMAND": "dial --nonce abc123"}
            child = await dial("--socket", str(path), env=environment)
            out, _ = await asyncio.wait_for(child.communicate(b""), 10)
            assert out == b"\nsshoal-dial abc123\n"

    run(work())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--nonce", "n"], 69),
        (["--nonce"], 2),
        (["--what", "x"], 2),
        (["--nonce", "a b"], 2),
        (["--nonce", "a\nb"], 2),
        ([], 2),
    ],
)
def test_dial_that_can_not_begin_says_why_and_prints_no_marker(arguments: list[str], code: int) -> None:
    async def work() -> None:
        child = await dial(*arguments)
        out, errors = await asyncio.wait_for(child.communicate(b""), 10)
        assert (child.returncode, out) == (code, b"")
        assert errors.startswith(b"sshoal-dial: ")

    run(work())
