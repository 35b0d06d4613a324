"""`image push`: images to all hosts that lack them, several hosts at once, with a bar each on a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.act.imagefile import SourceImage, choose
from controller.act.imagesend import Sent, request_of, send_image
from controller.cli.imagelist import size_text
from controller.model.cluster import Seen
from controller.model.errors import AgentRefused, HostError
from controller.model.inventory import Host
from controller.model.text import printable
from nodeagent import protocol

if TYPE_CHECKING:
    from controller.act.fleet import Fleet
    from controller.cli.wiring import Wiring

PARALLEL_MAX = 8
DEPLOY_S = 120.0  # a host without an agent gets one first

Told = Callable[[Sent], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one host. `exit_code`: 0, 1 it did not take the image, 4 it could not be reached, or was lost."""

    host: str
    text: str
    exit_code: int = 0


class Shown:
    """How far the hosts are. The base of what shows it: a line for each at its end."""

    def start(self, host: str) -> Told:
        return lambda sent: None

    def end(self, outcome: Outcome) -> None:
        print(_line(outcome), flush=True)

    def close(self) -> None:
        pass


async def push(wiring: Wiring, hosts: Sequence[Host], images: Sequence[SourceImage]) -> list[Outcome]:
    """Asks all hosts what they have, then sends. A host's failure stops no other."""
    from controller.act.fleet import Deadlines

    shown: Shown = _Bars() if sys.stderr.isatty() else Shown()
    slots = asyncio.Semaphore(PARALLEL_MAX)
    try:
        async with wiring.fleet(Deadlines(poll_s=DEPLOY_S)) as fleet:
            sightings = await fleet.observe({host.name: host for host in hosts}, {})

            async def one(host: Host) -> Outcome:
                sighting = sightings[host.name]
                if not isinstance(sighting, Seen):
                    outcome = Outcome(host.name, printable(sighting.why), HostError.exit_code)
                else:
                    async with slots:
                        outcome = await _to_host(fleet, host, sighting, images, shown)
                shown.end(outcome)
                return outcome

            return list(await asyncio.gather(*map(one, hosts)))
    finally:
        shown.close()


def remember(wiring: Wiring, images: Sequence[SourceImage], outcomes: Sequence[Outcome]) -> None:
    """What the names stand for from now on, for rollouts; once some host has the image."""
    from controller.cli.carry import commit
    from controller.decide.pins import remember_pushed

    if any(not outcome.exit_code for outcome in outcomes):
        ids: dict[str, set[str]] = {}
        for image in images:
            for name in image.names:
                ids.setdefault(name, set()).add(image.id)
        pushed = {name: next(iter(found)) for name, found in ids.items() if len(found) == 1}  # of one architecture
        commit(wiring, remember_pushed(wiring.world(), pushed, wiring.now()))


async def _to_host(fleet: Fleet, host: Host, seen: Seen, images: Sequence[SourceImage], shown: Shown) -> Outcome:
    architecture = seen.capacity.arch
    fitting = choose(images, architecture)
    if not fitting:
        return Outcome(host.name, f"the archive holds no image for {printable(architecture, 40)}", 1)
    texts = []
    for image in fitting:
        started_s = time.monotonic()
        try:
            sent = await _send(fleet, host, image, shown.start(host.name))
        except HostError as error:
            hint = f" ({error.hint})" if error.hint else ""
            return Outcome(host.name, printable(error.problem + hint), 1 if isinstance(error, AgentRefused) else 4)
        except OSError as error:  # the archive was removed or written anew meanwhile
            return Outcome(host.name, f"the image can't be read here any more: {error.strerror or error}", 1)
        texts.append(_told(sent, time.monotonic() - started_s))
    return Outcome(host.name, "; ".join(texts))


async def _send(fleet: Fleet, host: Host, image: SourceImage, tell: Told) -> Sent:
    stream = await fleet.stream(host, protocol.IMAGE_LOAD, request_of(image))
    try:
        return await send_image(host.name, stream, image, tell)
    finally:
        stream.close()


def _told(sent: Sent, seconds: float) -> str:
    if sent.present:
        return "has it already"
    skipped = f", {size_text(sent.skipped_bytes)} were there" if sent.skipped_bytes else ""
    resumed = f", after {size_text(sent.resumed_bytes)} of a push that broke off" if sent.resumed_bytes else ""
    return f"{size_text(sent.sent_bytes)} sent{skipped}{resumed}, in {seconds:.1f} s"


def _line(outcome: Outcome) -> str:
    return f"{'✗' if outcome.exit_code else '✓'} {outcome.host}: {outcome.text}"


class _Bars(Shown):
    """A bar for each host under way, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[skipped]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str, Any] = {}

    def start(self, host: str) -> Told:
        self._progress.start()
        if host in self._tasks:
            self._progress.remove_task(self._tasks[host])
        self._tasks[host] = task = self._progress.add_task(host, total=None, skipped="")

        def tell(sent: Sent) -> None:
            skipped = f"{size_text(sent.skipped_bytes + sent.resumed_bytes)} skipped"
            self._progress.update(task, completed=sent.sent_bytes, total=sent.wanted_bytes, skipped=skipped)

        return tell

    def end(self, outcome: Outcome) -> None:
        if outcome.host in self._tasks:
            self._progress.remove_task(self._tasks.pop(outcome.host))
        self._progress.console.print(_line(outcome), markup=False, highlight=False)

    def close(self) -> None:
        self._progress.stop()
