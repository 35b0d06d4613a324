"""Carries a user's change out: commits it, then runs passes, or waits for the controller that is active elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from controller.act.bell import ring
from controller.cli.output import Progress, bar
from controller.cli.wiring import Wiring
from controller.decide.standing import Progress as Standing
from controller.decide.standing import progress_of
from controller.decide.verbs import find
from controller.model.cluster import Deployment, HostEntry, Record, World
from controller.model.errors import AnotherController, NotFound, NotSettled, UsageError
from controller.model.inventory import Host
from controller.model.plan import Change

if TYPE_CHECKING:
    from controller.loop import Controller, Pass

Identity = tuple[str, str, str]
Judge = Callable[[World, Record], Standing]

_STORE_LOOK_S = 0.02
_LOOK_AGAIN_S = 1.0
_INSTALLS = 2  # the canary's, then that of the others
_TROUBLE_S = 8.0  # how long everything must be stuck in trouble before waiting on is pointless


def commit(wiring: Wiring, changes: Sequence[Change], secrets: Mapping[str, tuple[str, bytes]] | None = None) -> None:
    """Commits the changes as one transaction. Raises StoreError; then nothing is changed."""
    put = [change.record for change in changes if change.verb != "remove"]
    removed = [change.record for change in changes if change.verb == "remove"]
    if changes or secrets:
        wiring.store.edit(put, removed, secrets=secrets, because=[change.because for change in changes])
        ring(wiring.context.bell)


@contextlib.asynccontextmanager
async def carrying(wiring: Wiring) -> AsyncIterator[Carry]:
    """For a command that commits something and waits. Connects to the hosts at once: reading and checking run beside that."""
    async with contextlib.AsyncExitStack() as stack:
        controller = None
        with contextlib.suppress(AnotherController):
            controller = await stack.enter_async_context(wiring.controller())
        yield Carry(wiring, controller)


async def carry_out(
    wiring: Wiring, changes: Sequence[Change], told: Sequence[str], wait: Callable[[Carry], Awaitable[None]]
) -> None:
    """Commits the changes, prints `told`, and waits."""
    async with carrying(wiring) as carry:
        commit(wiring, changes)
        for line in told:
            print(line)
        await wait(carry)


async def preview(wiring: Wiring, changes: Sequence[Change]) -> str:
    """What a pass would do if `changes` were committed: a line for each, with its reason. Nothing is written."""
    async with wiring.observer() as controller:
        done = await controller.preview(changes)
    shown = [change for change in (*changes, *done.plan.changes) if not change.quiet]
    lines = [f"{_SIGNS.get(change.verb, '~')} {change.verb:7} {change.subject:50} {change.because}" for change in shown]
    lines += [f"! {note}" for note in notes_of(done)]
    counts = ", ".join(
        f"{sum(change.verb == verb for change in shown)} to {verb}"
        for verb in sorted({change.verb for change in shown})
    )
    return "\n".join([*lines, counts or "nothing to do"])


_SIGNS = {"create": "+", "remove": "-", "stop": "-", "evict": "-"}


@dataclass
class Carry:
    """Waiting for what was committed, by passes of our own `controller`; None: another one is active and carries it out."""

    wiring: Wiring
    controller: Controller | None
    _started_s: float = field(default_factory=time.monotonic, init=False)

    async def wait_for(
        self, targets: Sequence[Identity], budget_s: float, judge: Judge = progress_of, *, required: bool = False
    ) -> None:
        """Until all targets are as declared, or as `judge` says. Raises NotSettled with what is missing and why.

        Without a budget nothing has to be there after one look, unless it is `required`.
        """
        waiting = _Waiting(targets, judge)
        await self.until(waiting.reached, budget_s, waiting.show)
        waiting.end(required=required or budget_s > 0)

    async def tell(self, targets: Sequence[Identity]) -> None:
        """How far all targets are after one look, whether that is far enough or not."""
        waiting = _Waiting(targets, progress_of)
        await self.until(waiting.reached, 0.0, waiting.show)
        waiting.tell()

    async def wait_gone(self, uids: Sequence[str], budget_s: float, *, required: bool = False) -> None:
        """Until objects and their pods are gone. Raises NotSettled, as wait_for does."""
        gone = _Gone(frozenset(uids))
        await self.until(gone.reached, budget_s, gone.show)
        gone.end(required=required or budget_s > 0)

    async def until(
        self, reached: Callable[[World], bool], budget_s: float, show: Callable[[World, Progress], None]
    ) -> None:
        """Until `reached` holds, or so many seconds have passed; `show` is given each world on the way."""
        line = Progress()
        line.show("asking the hosts …")
        end_s = time.monotonic() + budget_s
        try:
            if self.controller is not None:
                await self._run_passes(self.controller, reached, end_s, show, line)
                return
            while not await self._watch_store(reached, end_s, lambda world: show(world, line)):
                with contextlib.suppress(AnotherController):
                    async with self.wiring.controller() as controller:  # the one that was active has ended
                        await self._run_passes(controller, reached, end_s, show, line)
                        return
        finally:
            line.clear()

    async def _run_passes(
        self,
        controller: Controller,
        reached: Callable[[World], bool],
        end_s: float,
        show: Callable[[World, Progress], None],
        line: Progress,
    ) -> None:
        told: set[str] = set()

        def watcher(done: Pass) -> None:
            show(done.after, line)
            for note in notes_of(done):
                if note not in told:
                    told.add(note)
                    line.note(f"note: {note}")

        budget_s = max(0.0, end_s - time.monotonic())
        await controller.settle(budget_s, watcher, lambda done: reached(done.after) or bool(done.behind))

    async def _watch_store(self, reached: Callable[[World], bool], end_s: float, show: Callable[[World], None]) -> bool:
        """The active controller does the work; its transitions appear in the store. False now and then: it may have ended."""
        store = self.wiring.store
        look_again_s = time.monotonic() + _LOOK_AGAIN_S  # time alone may decide: everything stuck for too long
        while True:
            version = store.data_version()
            world = self._with_newcomers(self.wiring.world(), time.monotonic() - self._started_s)
            show(world)
            if reached(world) or time.monotonic() >= end_s:
                return True
            while store.data_version() == version and time.monotonic() < min(end_s, look_again_s):  # noqa: ASYNC110 - another process writes
                await asyncio.sleep(_STORE_LOOK_S)
            if time.monotonic() >= look_again_s:
                return False

    def _with_newcomers(self, world: World, waited_s: float) -> World:
        """The stored world with the hosts that the active controller may still be installing: no record tells of these."""
        if not any(pod.unplaced and not pod.node for pod in world.pods.values()):
            return world
        from controller.act.fleet import Deadlines  # seldom needed

        hosts = {
            name: HostEntry(name, host.connection.address)
            for name, host in self._hosts.items()
            if name not in world.nodes and waited_s < _INSTALLS * Deadlines().of(host).deploy_s
        }
        return replace(world, hosts=hosts)

    @cached_property
    def _hosts(self) -> Mapping[str, Host]:
        """The inventory's nodes; none where it cannot be read, which the active controller tells."""
        try:
            return self.wiring.inventory().nodes
        except UsageError:
            return {}


class _Waiting:
    """Objects that shall come to be as declared."""

    def __init__(self, targets: Sequence[Identity], judge: Judge) -> None:
        self._targets = targets
        self._judge = judge
        self._standings: dict[Identity, Standing] = {}
        self._started_s = time.monotonic()
        self._stuck_since_s: float | None = None

    def reached(self, world: World) -> bool:
        self._standings = {target: _standing(world, target, self._judge) for target in self._targets}
        open_ = [standing for standing in self._standings.values() if not standing.done]
        if not open_:
            return True
        if not all(standing.trouble for standing in open_):
            self._stuck_since_s = None
            return False
        if self._stuck_since_s is None:
            self._stuck_since_s = time.monotonic()
        return time.monotonic() - self._stuck_since_s > _TROUBLE_S

    def show(self, world: World, line: Progress) -> None:
        for target in self._targets:
            record = _find(world, target)
            if isinstance(record, Deployment):
                status = record.status
                desired = int((record.source.get("spec") or {}).get("replicas", 1))
                seconds = time.monotonic() - self._started_s
                text = _standing(world, target, self._judge).text
                line.show(
                    f"{record.meta.name}  {bar(min(status.available, desired), desired)}  {text}  {seconds:.1f} s"
                )
            elif record is not None and record.meta.uid in world.workloads:
                line.show(_standing(world, target, self._judge).text)

    def end(self, *, required: bool) -> None:
        for standing in self._standings.values():
            if standing.done:
                print(standing.text)
        missing = [standing for standing in self._standings.values() if not standing.done]
        if missing and required:
            lines = [line for standing in missing for line in _lines(standing)]
            raise NotSettled(
                "not as declared yet:\n  " + "\n  ".join(lines), hint="passes go on trying; look with `sshoal describe`"
            )

    def tell(self) -> None:
        for standing in self._standings.values():
            print("\n".join(_lines(standing)))


class _Gone:
    """Objects that shall vanish, with their pods."""

    def __init__(self, uids: frozenset[str]) -> None:
        self._uids = uids
        self._left: list[Record] = []

    def reached(self, world: World) -> bool:
        tables = (
            world.deployments,
            world.workloads,
            world.replica_sets,
            world.pods,
            world.declared,
            world.claims,
        )
        self._left = [record for table in tables for record in table.values() if self._concerns(record)]
        return not self._left

    def show(self, world: World, line: Progress) -> None:
        pods = sum(record.meta.kind == "Pod" for record in self._left)
        claims = sum(record.meta.kind == "PersistentVolumeClaim" for record in self._left)
        line.show(f"{pods} pods still to stop" + (f", {claims} volume claims to remove" if claims else ""))

    def end(self, *, required: bool) -> None:
        if self._left and required:
            names = ", ".join(f"{record.meta.kind.lower()} {record.meta.name}" for record in self._left[:5])
            hint = "a host that cannot be reached keeps its pods until it returns"
            if any(record.meta.kind == "PersistentVolumeClaim" for record in self._left):
                hint = (
                    "a claim stays until its pods have ended and its node has removed the volume: sshoal describe pvc"
                )
            raise NotSettled(f"still there: {names}", hint=hint)

    def _concerns(self, record: Record) -> bool:
        if record.meta.uid in self._uids:
            return True
        owner = record.meta.owner
        if owner is not None and owner.uid in self._uids:
            self._uids |= {record.meta.uid}
            return True
        return False


def _lines(standing: Standing) -> list[str]:
    return [standing.text, *(f"  {trouble}" for trouble in standing.trouble)]


def _standing(world: World, target: Identity, judge: Judge) -> Standing:
    record = _find(world, target)
    if record is None:
        return Standing(True, f"{target[0].lower()} {target[2]} is gone")
    return judge(world, record)


def _find(world: World, target: Identity) -> Record | None:
    try:
        return find(world, *target)
    except NotFound:
        return None


def notes_of(done: Pass) -> list[str]:
    """What the user should know of a pass, besides progress."""
    notes = list(done.plan.notes)
    notes += [f"{name} gives no report: {sighting.why}" for name, sighting in done.unseen.items()]
    notes += [f"{name} did not take its wanted set: {why}" for name, why in done.pushed.items() if why]
    if done.behind:
        notes.append(
            f"this store is behind its hosts ({', '.join(done.behind)}): it was restored from a backup; nothing is done"
        )
    return notes
