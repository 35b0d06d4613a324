"""Waiting with a deadline: what comes in time, what does not, and a cancellation that comes with the result."""

from __future__ import annotations

import asyncio

import pytest

from nodeagent.deadline import within
from tests.simloop import simulate


def test_the_result_or_the_error_of_what_ends_in_time() -> None:
    async def work() -> str:
        await asyncio.sleep(1)
        return "done"

    async def fail() -> None:
        raise ValueError("no")

    async def check() -> None:
        assert await within(2, work()) == "done"
        assert await within(None, work()) == "done"
        with pytest.raises(ValueError, match="no"):
            await within(2, fail())

    simulate(check())


def test_what_does_not_end_in_time_is_cancelled() -> None:
    ends = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ends.append("cancelled")

    async def check() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await within(2, work())
        assert ends == ["cancelled"]

    simulate(check())


@pytest.mark.parametrize("comes", ["before", "after"])
def test_a_cancellation_that_comes_with_the_result_is_not_lost(comes: str) -> None:
    async def check() -> None:
        result: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def loop() -> None:
            await within(60, result)
            await asyncio.sleep(1000)

        task = asyncio.ensure_future(loop())
        await asyncio.sleep(1)
        if comes == "before":
            result.set_result(1)
        task.cancel()
        if comes == "after" and not result.done():
            result.set_result(1)
        await asyncio.wait([task], timeout=1)
        assert task.cancelled()

    simulate(check())


def test_who_is_cancelled_leaves_nothing_running() -> None:
    async def check() -> None:
        waiting = asyncio.ensure_future(within(60, asyncio.sleep(50)))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    simulate(check())
