"""Waiting with a deadline, where a cancellation must not be lost. In: an awaitable, seconds. Out: its result. Pure asyncio."""

import asyncio
from collections.abc import Awaitable
from typing import Optional, TypeVar

T = TypeVar("T")


async def within(timeout_s: Optional[float], work: Awaitable[T]) -> T:
    """Awaits `work`. Raises asyncio.TimeoutError when it has not ended in time and is cancelled, else what it raises. None: no deadline.

    asyncio.wait_for of Python before 3.12 gives the result when a cancellation comes at the same moment, and forgets the cancellation
    (python/cpython#86296): a loop around it then goes on for ever. Here the result is what is lost, so that this is not for work that opens
    something.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(
        lambda done: done.cancelled() or done.exception()
    )  # looked at, also where nobody waits any more
    try:
        await asyncio.wait([task], timeout=timeout_s)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()
