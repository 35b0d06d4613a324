"""The ledger of what changed: pod reports, pods that are gone, events. In: the present state of things. Out: what a
reader has not seen yet.

In memory only. Every change takes the next number of one sequence; a reader's cursor is (instance, sequence), and
an agent that started anew is another instance, which makes the next report a full one.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Optional

from nodeagent.protocol import AgentEvent, Cursor, PodReport
from nodeagent.records import cut

EVENTS_MAX = 500
GONE_MAX = 1000
COALESCE_S = 0.01


@dataclass(frozen=True)
class Changes:
    """What a reader gets. `full`: its cursor was of no use."""

    full: bool
    pods: tuple[PodReport, ...]
    gone: tuple[str, ...]
    events: tuple[AgentEvent, ...]
    topics: frozenset[str]  # which of the single values (capacity, images …) changed


class Ledger:
    """Create it within a running event loop. Times given in are seconds since 1970."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.sequence = 0
        self._pods: dict[str, tuple[int, PodReport]] = {}
        self._gone: deque[tuple[int, str]] = deque(maxlen=GONE_MAX)
        self._gone_lost = 0  # the newest sequence whose `gone` was dropped
        self._events: deque[AgentEvent] = deque(maxlen=EVENTS_MAX)
        self._topics: dict[str, int] = {}
        self._moved = asyncio.Event()

    def tell_pod(self, report: PodReport) -> bool:
        """Keeps the newest report of a pod; true when it differs from the one before."""
        known = self._pods.get(report.uid)
        if known is not None and known[1] == report:
            return False
        self._pods[report.uid] = (self._next(), report)
        return True

    def tell_gone(self, uid: str) -> None:
        self._pods.pop(uid, None)
        if len(self._gone) == GONE_MAX:
            self._gone_lost = self._gone[0][0]
        self._gone.append((self._next(), uid))

    def tell_topic(self, topic: str) -> None:
        """One of the values that a report holds once has changed."""
        self._topics[topic] = self._next()

    def tell_event(
        self,
        wall_s: float,
        reason: str,
        message: str,
        *,
        warning: bool = False,
        pod_uid: str = "",
        pod: str = "",
        container: str = "",
    ) -> None:
        kind = "Warning" if warning else "Normal"
        self._events.append(AgentEvent(self._next(), wall_s, kind, reason, cut(message), pod_uid, pod, container))

    def report_of(self, uid: str) -> Optional[PodReport]:
        known = self._pods.get(uid)
        return known[1] if known is not None else None

    def since(self, cursor: Optional[Cursor]) -> Changes:
        """What changed after the cursor; everything when there is none, it is another instance's, or it is too far behind."""
        if not self._usable(cursor):
            return Changes(True, self._reports(-1), (), tuple(self._events), frozenset(self._topics))
        assert cursor is not None
        seen = cursor.sequence
        return Changes(
            False,
            self._reports(seen),
            tuple(uid for sequence, uid in self._gone if sequence > seen and uid not in self._pods),
            tuple(event for event in self._events if event.sequence > seen),
            frozenset(topic for topic, sequence in self._topics.items() if sequence > seen),
        )

    async def wait(self, cursor: Optional[Cursor], wait_s: float) -> None:
        """Until there is something after the cursor, at most `wait_s`; changes that come together are waited for."""
        if not self._usable(cursor) or wait_s <= 0:
            return
        assert cursor is not None
        loop = asyncio.get_running_loop()
        end_s = loop.time() + wait_s
        while self.sequence <= cursor.sequence:
            left_s = end_s - loop.time()
            if left_s <= 0:
                return
            moved = loop.create_task(self._moved.wait())
            try:
                await asyncio.wait({moved}, timeout=left_s)
            finally:
                moved.cancel()
        await asyncio.sleep(COALESCE_S)

    def _usable(self, cursor: Optional[Cursor]) -> bool:
        if cursor is None or cursor.instance != self.instance:
            return False
        return self._gone_lost <= cursor.sequence <= self.sequence

    def _reports(self, seen: int) -> tuple[PodReport, ...]:
        return tuple(report for _, (sequence, report) in sorted(self._pods.items()) if sequence > seen)

    def _next(self) -> int:
        self.sequence += 1
        self._moved.set()
        self._moved = asyncio.Event()
        return self.sequence
