"""Logs of containers of one or several pods, merged as they arrive. In: pods and what is wanted of them. Out: whole lines."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from controller.cli.containers import choose_container, containers_of, host_of_pod, tell_choice
from controller.cli.output import Unwritten, writing_here
from controller.model.cluster import Pod, World
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
    container: str  # "": the default one of each pod
    follow: bool
    previous: bool
    tail: int
    since_s: float
    timestamps: bool
    all_containers: bool = False


class Log(NamedTuple):
    """What one container writes."""

    pod: Pod
    container: str


async def show_logs(wiring: Wiring, pods: Sequence[Pod], wanted: Wanted, pods_now: Callable[[], Sequence[Pod]]) -> bool:
    """Prints the logs of all pods → whether some could not be had.

    Args:
        pods_now: asked now and then while following several: their successors are followed too.
    Raises: NotFound when there are no pods or a pod has no such container, HostError when the only one has no log.
    """
    if not pods:
        raise NotFound("there are no pods on nodes, so there are no logs")
    logs = _logs_of(wiring.world(), pods, wanted)
    merged = len(logs) > 1 or (pods[0].meta.owner is not None and len(pods_now()) > 1)
    shown = _Shown(merged, wanted.all_containers)
    if not merged:
        tell_choice(wiring.world(), pods[0], wanted.container)
    async with wiring.fleet(deploy=False) as fleet:
        reading = _Reading(wiring, fleet, wanted, shown, merged)
        if wanted.follow and merged:
            return await reading.follow(logs, pods_now)
        slots = asyncio.Semaphore(PARALLEL_MAX)

        async def one(log: Log) -> bool:
            async with slots:
                return await reading.read(log)

        return not all(await asyncio.gather(*map(one, logs)))


def _logs_of(world: World, pods: Iterable[Pod], wanted: Wanted) -> list[Log]:
    if not wanted.all_containers:
        return [Log(pod, wanted.container) for pod in pods]
    return [Log(pod, name) for pod in pods for name in containers_of(world, pod) or ("",)]


def _raise_unwritten(tasks: Iterable[asyncio.Task[bool]]) -> None:
    """Raises what one met that could not write here: the others may be silent for hours before they meet it."""
    # Of all: asyncio tells of those that nobody looked at.
    met = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    for error in met:
        if isinstance(error, OSError | Unwritten):
            raise error


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

    async def follow(self, logs: Sequence[Log], pods_now: Callable[[], Sequence[Pod]]) -> bool:
        """All logs, and those that come later or begin later. Ends when none is left."""
        begun = [log for log in logs if self._has_begun(log)] or logs
        tasks = {_key(log): asyncio.ensure_future(self.read(log)) for log in begun}
        failed = False
        try:
            while any(not task.done() for task in tasks.values()):
                await asyncio.wait(tasks.values(), timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                _raise_unwritten(tasks.values())
                await asyncio.sleep(_LOOK_S)
                staying = [pod for pod in pods_now() if pod.stop is None]
                for log in _logs_of(self._wiring.world(), staying, self._wanted):
                    if _key(log) not in tasks and self._has_begun(log):
                        tasks[_key(log)] = asyncio.ensure_future(self.read(log))
            failed = not all(task.result() for task in tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
        return failed

    def _has_begun(self, log: Log) -> bool:
        """Whether its host says that there is a log: asked before, it would only refuse."""
        if log.pod.report is None:
            return False
        try:
            name = choose_container(self._wiring.world(), log.pod, log.container)
        except NotFound:  # told when it is read
            return False
        return any(item.name == name and item.state != "waiting" for item in log.pod.report.containers)

    async def read(self, log: Log) -> bool:
        """One log to its end → whether it could be had. Of several, one's failure is only told."""
        try:
            await self._read(log)
        except HostError as error:
            if not self._merged:
                raise
            print(f"note: {self._shown.title(log)}: {error.message}", file=sys.stderr)
            return False
        return True

    async def _read(self, log: Log) -> None:
        world, wanted = self._wiring.world(), self._wanted
        request = LogsRequest(
            log.pod.meta.uid,
            choose_container(world, log.pod, log.container),
            previous=wanted.previous,
            follow=wanted.follow,
            timestamps=wanted.timestamps,
            tail=wanted.tail,
            since_s=wanted.since_s,
        )
        stream = await self._fleet.stream(host_of_pod(self._wiring, world, log.pod), protocol.LOGS, request)
        begun = {protocol.STDOUT: b"", protocol.STDERR: b""}
        try:
            async for kind, piece in stream:
                *lines, begun[kind] = (begun[kind] + piece).split(b"\n")
                if len(begun[kind]) > LINE_BYTES_MAX:
                    lines, begun[kind] = [*lines, begun[kind]], b""
                self._shown.lines(log, lines)
            self._shown.lines(log, [rest for rest in begun.values() if rest])
        finally:
            stream.close()


def _key(log: Log) -> tuple[str, str]:
    return log.pod.meta.uid, log.container


class _Shown:
    """Standard output: raw where it is no terminal, tame where it is; a coloured prefix per log when several are merged."""

    def __init__(self, merged: bool, with_containers: bool = False) -> None:
        self._tty = sys.stdout.isatty()
        self._merged = merged
        self._with_containers = with_containers
        self._prefixes: dict[str, bytes] = {}

    def title(self, log: Log) -> str:
        return f"{log.pod.meta.name}/{log.container}" if self._with_containers else log.pod.meta.name

    def lines(self, log: Log, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        prefix = self._prefix(self.title(log)) if self._merged else b""
        reset = b"\x1b[0m" if self._tty else b""
        text = b"".join(
            prefix + (tame(line) + reset * (b"\x1b" in line) if self._tty else line) + b"\n" for line in lines
        )
        with writing_here("the logs"):
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()

    def _prefix(self, title: str) -> bytes:
        if title not in self._prefixes:
            colour = _COLOURS[len(self._prefixes) % len(_COLOURS)]
            text = f"\x1b[{colour}m[{title}]\x1b[0m " if self._tty else f"[{title}] "
            self._prefixes[title] = text.encode()
        return self._prefixes[title]
