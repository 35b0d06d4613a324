"""An asyncio event loop whose time is virtual: when nothing is ready it jumps to the next timer. Deterministic, no threads, no I/O.

In: coroutines of production code. Out: what they return, at once, however many hours they slept. A loop with nothing ready and nothing
scheduled can never go on: that is reported as a deadlock rather than waited for.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits, and no timer will ever wake one."""


class SimLoop(asyncio.SelectorEventLoop):
    """`loop.time()` starts at 0 and moves only from timer to timer. Unhandled exceptions of callbacks and tasks are kept in `mishaps`."""

    def __init__(self) -> None:
        self._selector_of_time = _JumpingSelector()
        super().__init__(self._selector_of_time)
        self._clock_resolution = 1e-9
        self.mishaps: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.mishaps.append(context))

    def time(self) -> float:
        return self._selector_of_time.now_s


class _JumpingSelector(selectors.SelectSelector):
    """Waiting costs nothing: the time just passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("every task waits and no timer is set")
        self.now_s += max(0.0, timeout)
        return []


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end in virtual time, then cancels what is left. Raises what main raises, or the first mishap in the background."""
    loop = SimLoop()
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(main)
        _cancel_rest(loop)
        for mishap in loop.mishaps:
            if isinstance(mishap.get("exception"), asyncio.CancelledError):
                continue  # a timer of a process that was killed: in life nobody would be there to fire it
            raise mishap.get("exception") or RuntimeError(mishap["message"])
        return result
    finally:
        _cancel_rest(loop)
        asyncio.set_event_loop(None)
        loop.close()


def _cancel_rest(loop: SimLoop) -> None:
    rest = asyncio.all_tasks(loop)
    for task in rest:
        task.cancel()
    if rest:
        loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
