"""The probe loops of one running container: when to probe, how results are counted, what they mean. Waits by asyncio;
the probing itself is a Prober's.

Thresholds and periods are Kubernetes'. Three things differ from kubelet, all for speed or fairness:
- The first startup or readiness probe runs as soon as the initial delay is over (kubelet sees a start only at its
  next sync). While these fail within the first period they are repeated after 50, 100, 200 … ms and not counted: a
  server that needs a moment to listen is ready a moment later, not a period later. From the end of the first period
  on each failure counts, once a period.
- The first liveness probe waits a second (or a period, if shorter) more than its initial delay, about as long as
  kubelet takes to see a start.
- After a restart of the agent, probes of running containers begin spread over a period; what was ready stays so until
  a probe fails.
"""

import asyncio
from collections.abc import Awaitable
from typing import Callable

from nodeagent.protocol import Container, Probe
from nodeagent.runtime import ProbeOutcome

STARTUP, READINESS, LIVENESS = "Startup", "Readiness", "Liveness"
FAST_FIRST_S = 0.05
LIVENESS_DELAY_S = 1.0

Run = Callable[[Probe], Awaitable[ProbeOutcome]]
Tell = Callable[[str, bool, str], None]  # (kind, passed, message): a threshold was reached
Note = Callable[[str, str], None]  # (kind, message): the first failure of a row


class Probing:
    """All probes of one attempt of a container; `run` ends when the startup or liveness probe has failed for good."""

    def __init__(self, container: Container, run: Run, tell: Tell, note: Note) -> None:
        self._container = container
        self._run = run
        self._tell = tell
        self._note = note

    async def run(self, *, age_s: float, started: bool, adopted: bool, spread: float) -> None:
        """Probes until cancelled.

        Args:
            age_s: how long the container has been running.
            started: its startup probe has passed before.
            adopted: it was running before this agent.
            spread: 0 … 1, where within the first period an adopted container's probes begin.
        """
        container = self._container
        clock = asyncio.get_running_loop().time
        # Initial delays count from the container's start, however long the startup probe took
        began_s = clock() - age_s
        if container.startup is not None and not started:
            first_s = max(0.0, began_s + container.startup.initial_delay_s - clock())
            await self._loop(STARTUP, container.startup, first_s, adopted=adopted)
        loops = []
        for kind, probe in ((READINESS, container.readiness), (LIVENESS, container.liveness)):
            if probe is None:
                continue
            first_s = max(0.0, began_s + probe.initial_delay_s - clock())
            if adopted:
                first_s += spread * probe.period_s
            elif kind == LIVENESS:
                first_s += min(LIVENESS_DELAY_S, probe.period_s)
            loops.append(self._loop(kind, probe, first_s, adopted=adopted))
        await asyncio.gather(*loops)

    async def _loop(self, kind: str, probe: Probe, first_s: float, *, adopted: bool) -> None:
        """Tells once per change of mind. A startup probe ends with its first verdict, a liveness probe with a bad one."""
        clock = asyncio.get_running_loop().time
        period_s = max(1, probe.period_s)
        next_s = clock() + first_s
        fast_s, fast_end_s = FAST_FIRST_S, next_s + period_s
        hasty = kind != LIVENESS and not adopted
        passed = failed = 0
        while True:
            await asyncio.sleep(max(0.0, next_s - clock()))
            outcome = await self._run(probe)
            if not outcome.known:
                pass  # neither a success nor a failure: a hung engine must not make healthy containers be restarted
            elif outcome.ok:
                passed, failed, hasty = passed + 1, 0, False
                if passed == probe.success_threshold:
                    self._tell(kind, True, "")
                    if kind == STARTUP:
                        return
            elif hasty:
                next_s = min(clock() + fast_s, fast_end_s)
                fast_s *= 2
                hasty = next_s < fast_end_s
                continue
            else:
                passed, failed = 0, failed + 1
                if failed == 1:
                    self._note(kind, outcome.message)
                if failed == probe.failure_threshold:
                    self._tell(kind, False, outcome.message)
                    if kind != READINESS:
                        await asyncio.Event().wait()  # it is about to be killed; the others go no further either
            next_s = max(next_s + period_s, clock())
