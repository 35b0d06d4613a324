"""The controller's end of the agent's protocol, against a scripted agent in memory; and the picture that reports add up to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.act.agents import EVENTS_MAX, PODS_MAX, AgentClient, AgentStream, Picture
from controller.model.errors import AgentRefused, HostError, HostUnreachable
from nodeagent import protocol
from nodeagent.protocol import (
    STREAM_WINDOW_BYTES,
    AgentEvent,
    Capacity,
    Condition,
    Cursor,
    Epoch,
    ExecRequest,
    ImageReport,
    NodeConfig,
    PodReport,
    Report,
    WantedSet,
    data_frame,
    frame,
)

HELLO = {
    "version": [1, 0],
    "agent": "a1",
    "instance": "i1",
    "bundle": "b1",
    "boot_id": "boot",
    "boottime_s": 1.0,
    "wall_s": 2.0,
}


class FakeChannel:
    """Both ends of a byte stream: the client's (Channel) and the scripted agent's (`sent`, `say`, `hang_up`)."""

    def __init__(self) -> None:
        self.closed = False
        self.takes_nothing = False
        self._to_client: asyncio.Queue[bytes | HostError] = asyncio.Queue()
        self._reader = protocol.FrameReader()
        self._frames: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()

    async def read(self) -> bytes:
        item = await self._to_client.get()
        if isinstance(item, HostError):
            raise item
        return item

    async def write(self, data: bytes) -> None:
        if self.takes_nothing:
            raise HostUnreachable("web1", "the agent closed the conversation")
        for one in self._reader.feed(data):
            self._frames.put_nowait(one)

    def close(self) -> None:
        self.closed = True

    async def sent(self) -> tuple[int, Any]:
        """The next frame that the client sent."""
        return await self._frames.get()

    def has_sent(self) -> bool:
        return not self._frames.empty()

    def say(self, *frames: bytes) -> None:
        self._to_client.put_nowait(b"".join(frames))

    def hang_up(self, error: HostError | None = None) -> None:
        self._to_client.put_nowait(error or b"")


def talk(work: Callable[[AgentClient, FakeChannel], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        channel = FakeChannel()
        client = AgentClient("web1", channel)
        async with asyncio.timeout(10):
            await work(client, channel)
        client.close()
        await asyncio.sleep(0)

    asyncio.run(main())


async def settle() -> None:
    """Lets every task run until all of them wait."""
    for _ in range(10):
        await asyncio.sleep(0)


# ---- requests -------------------------------------------------------------------------------------------------------


def test_a_request_and_its_reply() -> None:
    async def work(client: AgentClient, channel: FakeChannel) -> None:
        asking = asyncio.ensure_future(client.hello(5))
        assert await channel.sent() == (protocol.JSON, {"id": 1, "verb": "hello", "body": {}})
        channel.say(frame({"id": 1, "ok": HELLO}))
        assert (await asking).bundle == "b1"

    talk(work)


def test_replies_find_their_requests_in_any_order_and_in_pieces() -> None:
    async def work(client: AgentClient, channel: FakeChannel) -> None:
        first = asyncio.ensure_future(client.report(Cursor("i1", 3), 20.0, 30))
        second = asyncio.ensure_future(client.hello(5))
        assert (await channel.sent())[1]["body"] == {"cursor": {"instance": "i1", "sequence": 3}, "wait_s": 20.0}
        answers = frame({"id": 2, "ok": HELLO}) + frame({"id": 1, "ok": protocol.encode(report(4))})
        for position in range(len(answers)):
            channel.say(answers[position : position + 1])
        assert (await second).agent == "a1"
        assert (await first).cursor == Cursor("i1", 4)

    talk(work)


def test_a_refusal_carries_the_agents_code_and_its_words_without_escapes() -> None:
    async def work(client: AgentClient, channel: FakeChannel) -> None:
        asking = asyncio.ensure_future(client.want(wanted(), 5))
        await channel.sent()
        channel.say(frame({"id": 1, "error": {"code": "owned", "message": "by \x1b[31mX\x1b[0m\n"}}))
        with pytest.raises(AgentRefused) as caught:
            await asking
        assert (caught.value.code, caught.value.problem) == ("owned", "by X")
        assert client.is_open

    talk(work)


def test_a_deadline_passes_for_its_own_request_only_and_the_late_reply_is_dropped() -> None:
    async def work(client: AgentClient, channel: FakeChannel) -> None:
        with pytest.raises(HostUnreachable, match="did not answer"):
            await client.hello(0.01)
        channel.say(frame({"id": 1, "ok": HELLO}))
        asking = asyncio.ensure_future(client.hello(5))
        await settle()
        channel.say(frame({"id": 2, "ok": {**HELLO, "bundle": "b2"}}))
        assert (await asking).bundle == "b2"

    talk(work)


@pytest.mark.parametrize("error", [None, HostUnreachable("web1", "cable cut")], ids=["orderly", "broken"])
def test_the_end_of_the_conversation_fails_all_requests_under_way_and_later_ones(error: HostError | None) -> None:
    async def work(client: AgentClient, channel: FakeChannel) -> None:
        asking = [asyncio.ensure_future(client.hello(5)) for _ in range(3)]
        await settle()
        channel.hang_up(error)
        for one in asking:
            with pytest.raises(HostUnreachable):
                await one
        with pytest.raises(HostUnreachable):
            await client.hello(5)
        assert channel.closed
        assert not client.is_open

    talk(work)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff\xff\x00",
        data_frame(protocol.JSON, b"{nonsense"),
        data_frame(protocol.JSON, b"[" * 100_000),
        data_frame(protocol.STDOUT, b"output"),
        frame({"id": 7, "ok": {}}),
        frame({"id": True, "ok": {}}),
        frame({"id": 1}),
        frame({"id": 1, "ok": []}),
        frame({"id": 1, "ok": {**HELLO, "bundle": 5}}),
        frame({"id": 1, "error": "no"}),
    ],
    ids=range(10),
)
def test_nonsense_harms_this_host_only_and_ends_the_conversation(answer: bytes) -> None:
    async def work(client: AgentClient, channel: FakeChannel) -> None:
        asking = asyncio.ensure_future(client.hello(5))
        await channel.sent()
        channel.say(answer)
        with pytest.raises(HostError, match=r"answers nonsense") as caught:
            await asking
        assert caught.value.host == "web1"

    talk(work)


def test_a_request_that_is_too_large_is_not_sent() -> None:
    async def work(client: AgentClient, channel: FakeChannel) -> None:
        huge = replace(wanted(), sealed="x" * (protocol.FRAME_BYTES_MAX + 1))
        with pytest.raises(HostError, match=r"cannot be sent"):
            await client.want(huge, 5)
        assert not channel.has_sent()

    talk(work)


def wanted() -> WantedSet:
    return WantedSet("c1", Epoch(1, "e"), 1, "d", NodeConfig("web1", "10.86.0.0/24", "10.86.0.0/16"))


# ---- streams --------------------------------------------------------------------------------------------------------


def stream(work: Callable[[AgentStream, FakeChannel], Coroutine[Any, Any, None]]) -> None:
    """An exec stream that the agent has opened."""

    async def main() -> None:
        channel = FakeChannel()
        opening = asyncio.ensure_future(
            AgentStream.open("web1", channel, protocol.EXEC, ExecRequest("u", "c", ("sh",)), timeout_s=5)
        )
        assert (await channel.sent())[1]["verb"] == "exec"
        channel.say(frame({"id": 1, "ok": {}}))
        opened = await opening
        async with asyncio.timeout(10):
            await work(opened, channel)
        opened.close()
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_stream_yields_output_then_its_exit() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        channel.say(
            data_frame(protocol.STDOUT, b"out"), data_frame(protocol.STDERR, b"err"), frame({"exit": {"code": 3}})
        )
        assert [piece async for piece in opened] == [(protocol.STDOUT, b"out"), (protocol.STDERR, b"err")]
        assert opened.exit == {"code": 3}

    stream(work)


def test_input_end_and_resize_are_sent_as_the_protocol_says() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        await opened.write(b"in")
        await opened.resize(24, 80)
        await opened.end_input()
        assert [await channel.sent() for _ in range(3)] == [
            (protocol.STDIN, b"in"),
            (protocol.JSON, {"resize": [24, 80]}),
            (protocol.JSON, {"eof": True}),
        ]

    stream(work)


def test_input_waits_for_credit() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        writing = asyncio.ensure_future(opened.write(b"x" * (STREAM_WINDOW_BYTES + 10)))
        received = 0
        while received < STREAM_WINDOW_BYTES:
            received += len((await channel.sent())[1])
        await settle()
        assert not writing.done()
        assert not channel.has_sent()
        channel.say(frame({"credit": 100}))
        assert len((await channel.sent())[1]) == 10
        await writing

    stream(work)


def test_credit_is_granted_as_output_is_consumed_and_not_before() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        chunk = data_frame(protocol.STDOUT, b"x" * (STREAM_WINDOW_BYTES // 8))
        channel.say(*[chunk] * 8)
        await settle()
        assert not channel.has_sent()
        for _ in range(3):
            await anext(opened)
        assert await channel.sent() == (protocol.JSON, {"credit": STREAM_WINDOW_BYTES // 4})

    stream(work)


def test_what_an_agent_sent_before_it_hung_up_arrives_to_the_last_byte() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        chunk = data_frame(protocol.STDOUT, b"x" * (STREAM_WINDOW_BYTES // 4))
        channel.say(*[chunk] * 4)
        channel.takes_nothing = True
        pieces = [await anext(opened) for _ in range(4)]
        assert sum(len(piece) for _, piece in pieces) == STREAM_WINDOW_BYTES
        channel.say(frame({"exit": {"code": 0}}))
        assert [piece async for piece in opened] == []
        assert opened.exit == {"code": 0}

    stream(work)


def test_an_agent_that_sends_without_credit_is_cut_off() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        channel.say(*[data_frame(protocol.STDOUT, b"x" * (STREAM_WINDOW_BYTES // 2))] * 3)
        with pytest.raises(HostError, match=r"without credit"):
            [piece async for piece in opened]
        assert channel.closed

    stream(work)


def test_an_agent_ends_its_output_once() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        channel.say(frame({"eof": True}) * 1000)
        with pytest.raises(HostError, match=r"second end of output"):
            [piece async for piece in opened]
        assert channel.closed

    stream(work)


def test_a_stream_that_breaks_off_is_no_orderly_end() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        channel.say(data_frame(protocol.STDOUT, b"part"))
        channel.hang_up()
        assert await anext(opened) == (protocol.STDOUT, b"part")
        with pytest.raises(HostUnreachable, match=r"broke off"):
            await anext(opened)
        with pytest.raises(HostUnreachable):
            await opened.write(b"x")

    stream(work)


def test_a_failure_after_the_start_comes_with_the_exit() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        channel.say(frame({"exit": {"error": {"code": "failed", "message": "disk full"}}}))
        with pytest.raises(AgentRefused, match=r"disk full"):
            await anext(opened)

    stream(work)


def test_a_writer_that_waits_for_credit_is_woken_by_the_end() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        writing = asyncio.ensure_future(opened.write(b"x" * (STREAM_WINDOW_BYTES + 1)))
        await settle()
        channel.say(frame({"exit": {"code": 0}}))
        with pytest.raises(HostUnreachable, match=r"has ended"):
            await writing

    stream(work)


def test_a_half_closed_output_is_an_empty_piece() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        channel.say(frame({"eof": True}))
        assert await anext(opened) == (protocol.STDOUT, b"")
        await opened.write(b"still open")
        channel.say(frame({"exit": {}}))
        with pytest.raises(StopAsyncIteration):
            await anext(opened)

    stream(work)


def test_cancelling_tells_the_agent() -> None:
    async def work(opened: AgentStream, channel: FakeChannel) -> None:
        await opened.cancel()
        assert await channel.sent() == (protocol.JSON, {"cancel": True})
        assert channel.closed

    stream(work)


def test_a_stream_that_is_refused_is_not_opened() -> None:
    async def main() -> None:
        channel = FakeChannel()
        channel.say(frame({"id": 1, "error": {"code": "not-found", "message": "no such pod"}}))
        with pytest.raises(AgentRefused, match=r"no such pod"):
            await AgentStream.open("web1", channel, protocol.EXEC, ExecRequest("u", "c", ("sh",)), timeout_s=5)
        assert channel.closed

    asyncio.run(main())


# ---- the picture ----------------------------------------------------------------------------------------------------


def report(sequence: int, instance: str = "i1", **fields: Any) -> Report:
    return replace(Report("a1", Cursor(instance, sequence), "boot1", float(sequence), 100.0 + sequence), **fields)


def pod(uid: str, phase: str = "Running") -> PodReport:
    return PodReport(uid, "default", f"pod-{uid}", "h", phase)


def picture(*reports: Report) -> Picture:
    drawn = Picture("web1")
    for one in reports:
        drawn.update(one)
    return drawn


def test_deltas_add_up_to_what_a_full_report_says() -> None:
    drawn = picture(
        report(1, full=True, pods=(pod("a"), pod("b")), capacity=Capacity(cpu_m=4000), images=(ImageReport("x"),)),
        report(2, pods=(pod("c"), pod("a", "Failed")), gone=("b",)),
        report(3, conditions=(Condition("DiskPressure", "full", "95 %"),)),
    )
    assert drawn.pods == {"a": pod("a", "Failed"), "c": pod("c")}
    assert drawn.capacity == Capacity(cpu_m=4000)
    assert drawn.images == (ImageReport("x"),)
    assert drawn.conditions == (Condition("DiskPressure", "full", "95 %"),)
    assert drawn.cursor == Cursor("i1", 3)


@pytest.mark.parametrize(
    "late",
    [
        report(1, full=True),
        report(9, "i0", full=True),
        report(9, "i2"),
        replace(report(9, "i9", full=True), boot_id="boot0"),
        replace(report(5, full=True), boottime_s=4.0),
    ],
    ids=["older sequence", "former instance", "delta of an instance never heard", "former boot", "same, but earlier"],
)
def test_a_late_report_changes_nothing(late: Report) -> None:
    before = (replace(report(3, "i0", full=True), boot_id="boot0"), report(5, full=True, pods=(pod("a"),)))
    drawn = picture(*before)
    assert not drawn.update(late)
    assert drawn == picture(*before)


def test_a_restarted_agent_begins_anew_and_its_predecessor_is_not_believed_again() -> None:
    drawn = picture(report(50, full=True, pods=(pod("a"),)), report(1, "i2", full=True, pods=(pod("b"),)))
    assert set(drawn.pods) == {"b"}
    assert not drawn.update(report(51, full=True, pods=(pod("a"),)))


def test_another_agents_report_is_an_error_and_changes_nothing() -> None:
    drawn = picture(report(1, full=True, pods=(pod("a"),)))
    with pytest.raises(HostError, match=r"another agent answers now: a2 instead of a1"):
        drawn.update(replace(report(2, full=True), agent="a2"))
    assert drawn == picture(report(1, full=True, pods=(pod("a"),)))


def test_more_pods_than_a_host_can_have_are_not_believed() -> None:
    drawn = picture(report(1, full=True))
    with pytest.raises(HostError, match=r"reports 2001 pods"):
        drawn.update(report(2, pods=tuple(pod(str(number)) for number in range(PODS_MAX + 1))))
    assert drawn.pods == {}


def test_each_event_is_handed_out_once_and_only_the_newest_are_kept() -> None:
    def event(sequence: int) -> AgentEvent:
        return AgentEvent(sequence, 0.0, "Normal", "Started", "")

    drawn = picture(report(1, full=True, events=(event(1), event(2))), report(2, events=(event(2), event(3))))
    assert [one.sequence for one in drawn.take_events()] == [1, 2, 3]
    assert drawn.take_events() == ()
    drawn.update(report(3, events=tuple(event(number) for number in range(4, 4 + 2 * EVENTS_MAX))))
    assert [one.sequence for one in drawn.take_events()][-1] == 3 + 2 * EVENTS_MAX
    drawn.update(report(1, "i2", full=True, events=(event(1),)))
    assert [one.sequence for one in drawn.take_events()] == [1]


@given(st.permutations(range(1, 7)), st.lists(st.integers(1, 6), max_size=6))
def test_whatever_the_order_and_however_often_the_newest_report_wins(order: list[int], again: list[int]) -> None:
    full = {number: report(number, full=True, pods=(pod(str(number)),)) for number in range(1, 7)}
    drawn = picture(*(full[number] for number in [*order, *again]))
    assert drawn.pods == {"6": pod("6")}
    assert drawn.cursor == Cursor("i1", 6)
