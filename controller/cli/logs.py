"""Logs of one or several pods, merged as they arrive. In: pods and what is wanted of them. Out: whole lines on standard output."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.cli.containers import choose_container, host_of_pod, tell_choice
from controller.cli.output import Unwritten, writing_here
from controller.model.cluster import Pod
from controller.model.errors import HostError, NotFound
from nodeagent import protocol
from nodeagent.protocol import LogsRequest

if TYPE_CHECKING:
    from controller.act.fleet import Fleet
    from controller.cli.wiring import Wiring

PARALLEL_MAX = 50  # without -f; followers are all open at once
LINE_BYTES_MAX = 1024 * 1024  # of a line without an end, before it is printed in pieces
_LOOK_S = 0.5
_COLOURS = (36, 33, 32, 35, 34, 31)
_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*([@-~])|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_]?)")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\x1b")) + b"\x7f"


@dataclass(frozen=True, slots=True)
class Wanted:
    container: str
    follow: bool
    previous: bool
    tail: int
    since_s: float
    timestamps: bool


async def show_logs(wiring: Wiring, pods: Sequence[Pod], wanted: Wanted, pods_now: Callable[[], Sequence[Pod]]) -> bool:
    """Prints the logs of all pods → whether some could not be had.

    Args:
        pods_now: asked now and then while following several: their successors are followed too.
    Raises: NotFound when there are no pods, HostError when the only one has no log.
    """
    if not pods:
        raise NotFound("there are no pods on nodes, so there are no logs")
    merged = len(pods) > 1 or (pods[0].meta.owner is not None and len(pods_now()) > 1)
    shown = _Shown(merged)
    if not merged:
        tell_choice(wiring.world(), pods[0], wanted.container)
    async with wiring.fleet(deploy=False) as fleet:
        reading = _Reading(wiring, fleet, wanted, shown, merged)
        if wanted.follow and merged:
            return await reading.follow(pods, pods_now)
        slots = asyncio.Semaphore(PARALLEL_MAX)

        async def one(pod: Pod) -> bool:
            async with slots:
                return await reading.read(pod)

        return not all(await asyncio.gather(*map(one, pods)))


def _raise_unwritten(tasks: Iterable[asyncio.Task[bool]]) -> None:
    """Raises what one met that could not write here: the others may be silent for hours before they meet it."""
    for task in tasks:
        if task.done() and not task.cancelled() and isinstance(task.exception(), OSError | Unwritten):
            task.result()


def tame(line: bytes) -> bytes:
    """A line fit for a terminal: colours stay; other escapes and control characters, which could do harm, go."""
    return _ESCAPE.sub(lambda match: match[0] if match[1] == b"m" else b"", line).translate(None, _CONTROLS)


class _Reading:
    def __init__(self, wiring: Wiring, fleet: Fleet, wanted: Wanted, shown: _Shown, merged: bool) -> None:
        self._wiring = wiring
        self._fleet = fleet
        self._wanted = wanted
        self._shown = shown
        self._merged = merged

    async def follow(self, pods: Sequence[Pod], pods_now: Callable[[], Sequence[Pod]]) -> bool:
        """All pods, and those that come later or begin later. Ends when none is left."""
        begun = [pod for pod in pods if self._has_begun(pod)] or pods
        tasks = {pod.meta.uid: asyncio.ensure_future(self.read(pod)) for pod in begun}
        failed = False
        try:
            while any(not task.done() for task in tasks.values()):
                await asyncio.wait(tasks.values(), timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                _raise_unwritten(tasks.values())
                await asyncio.sleep(_LOOK_S)
                for pod in pods_now():
                    if pod.meta.uid not in tasks and pod.stop is None and self._has_begun(pod):
                        tasks[pod.meta.uid] = asyncio.ensure_future(self.read(pod))
            failed = not all(task.result() for task in tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
        return failed

    def _has_begun(self, pod: Pod) -> bool:
        """Whether its host says that there is a log: asked before, it would only refuse."""
        if pod.report is None:
            return False
        try:
            name = choose_container(self._wiring.world(), pod, self._wanted.container)
        except NotFound:  # told when it is read
            return False
        return any(item.name == name and item.state != "waiting" for item in pod.report.containers)

    async def read(self, pod: Pod) -> bool:
        """One pod's log to its end → whether it could be had. Of several pods, one's failure is only told."""
        try:
            await self._read(pod)
        except HostError as error:
            if not self._merged:
                raise
            print(f"note: {pod.meta.name}: {error.message}", file=sys.stderr)
            return False
        return True

    async def _read(self, pod: Pod) -> None:
        world, wanted = self._wiring.world(), self._wanted
        request = LogsRequest(
            pod.meta.uid,
            choose_container(world, pod, wanted.container),
            previous=wanted.previous,
            follow=wanted.follow,
            timestamps=wanted.timestamps,
            tail=wanted.tail,
            since_s=wanted.since_s,
        )
        stream = await self._fleet.stream(host_of_pod(self._wiring, world, pod), protocol.LOGS, request)
        begun = {protocol.STDOUT: b"", protocol.STDERR: b""}
        try:
            async for kind, piece in stream:
                *lines, begun[kind] = (begun[kind] + piece).split(b"\n")
                if len(begun[kind]) > LINE_BYTES_MAX:
                    lines, begun[kind] = [*lines, begun[kind]], b""
                self._shown.lines(pod.meta.name, lines)
            self._shown.lines(pod.meta.name, [rest for rest in begun.values() if rest])
        finally:
            stream.close()


class _Shown:
    """Standard output: raw where it is no terminal, tame where it is; a coloured prefix per pod when several are merged."""

    def __init__(self, merged: bool) -> None:
        self._tty = sys.stdout.isatty()
        self._merged = merged
        self._prefixes: dict[str, bytes] = {}

    def lines(self, pod: str, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        prefix = self._prefix(pod) if self._merged else b""
        reset = b"\x1b[0m" if self._tty else b""
        text = b"".join(
            prefix + (tame(line) + reset * (b"\x1b" in line) if self._tty else line) + b"\n" for line in lines
        )
        with writing_here("the logs"):
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()

    def _prefix(self, pod: str) -> bytes:
        if pod not in self._prefixes:
            colour = _COLOURS[len(self._prefixes) % len(_COLOURS)]
            text = f"\x1b[{colour}m[{pod}]\x1b[0m " if self._tty else f"[{pod}] "
            self._prefixes[pod] = text.encode()
        return self._prefixes[pod]
