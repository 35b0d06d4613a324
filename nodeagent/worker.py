"""One pod's worker: shows the pod to nodeagent.decide after every change and begins the steps it names. In: orders,
exits, probe results, the engine's listing. Out: steps (nodeagent.operations), the pod's report, its record on
disk.

One decision at a time, never two steps in one slot (sandbox, or container) at a time; the worker itself never
waits for a step. Killed at any point, the record and the engine's listing are enough to go on from.
"""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Optional

from nodeagent import adopt
from nodeagent.deadline import within
from nodeagent.decide import (
    HOOK,
    PULL,
    RUN,
    STOP,
    Step,
    Trouble,
    View,
    decide,
)
from nodeagent.operations import Failure, Operations
from nodeagent.probing import LIVENESS, READINESS, STARTUP, Probing
from nodeagent.protocol import Container, Pod, Probe, encode
from nodeagent.records import ContainerRecord, PodRecord, all_containers, ended_now
from nodeagent.restarts import pull_delay_s, retry_delay_s
from nodeagent.runtime import ContainerInfo, ImageInfo, PodInfo, ProbeOutcome, Process

SAVE_AFTER_S = 0.1  # changes that may be lost in a crash are written together
SAVE_RETRY_S = 10.0
WAIT_MIN_S = 0.001  # so that rounding of times can't make a timer fire for ever
PROBE_MARGIN_S = 7.0  # beyond what a prober takes that keeps its own deadlines (probes.EXEC_SLACK_S)
DEFECT_WAIT_S = 10.0


@dataclass
class Operation:
    """A step under way."""

    kind: str
    task: "asyncio.Task[None]"
    kill_at_s: float = 0.0  # stop: may be moved forward while it waits
    nudge: asyncio.Event = field(default_factory=asyncio.Event)


class PodWorker:
    """Create it within a running event loop; `host` is the supervisor."""

    def __init__(self, host: Any, record: PodRecord, pod: Optional[Pod], order: str) -> None:
        self.host = host
        self.record = record
        self.pod = pod
        self.order = order
        self.images: dict[str, ImageInfo] = {}
        self.paths: Optional[Mapping[str, str]] = None
        self.files_key: Optional[str] = None  # content its files were last made from
        self._contents = 0  # how often content came
        self.strays: dict[str, tuple[str, int]] = {}  # id -> (container, attempt) of dead containers to be removed
        self.troubles: dict[str, Trouble] = {}
        self.operations: dict[str, Operation] = {}
        self.done_count: dict[str, int] = {}  # by slot; tells whether a listing is older than a step
        self.erased = False
        self.dirty = True
        self._operations = Operations(self)
        self._wake = asyncio.Event()
        self._task: Optional[asyncio.Task[None]] = None
        self._save_timer: Optional[asyncio.TimerHandle] = None
        self._watchers: dict[str, tuple[Process, asyncio.Task[None]]] = {}
        self._probes: dict[str, tuple[Process, asyncio.Task[None]]] = {}
        self._adopted: set[Process] = {c.process for c in record.containers if c.process is not None}

    # ---- from the supervisor ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def end(self) -> None:
        """Stops working; the pod runs on. What was not saved yet is saved."""
        tasks = [self._task, *(op.task for op in self.operations.values())]
        tasks += [task for _, task in (*self._watchers.values(), *self._probes.values())]
        running = [task for task in tasks if task is not None and not task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._save_timer is not None:
            self._save_timer.cancel()
        if self.dirty and not self.erased:
            self.save()

    def wake(self) -> None:
        self._wake.set()

    def set_order(self, pod: Optional[Pod], order: str) -> None:
        if pod is not None:
            self.pod = pod
            self.change(replace(self.record, grace_s=pod.grace_s))
        self.order = order
        self.wake()

    def content_changed(self) -> None:
        """Config maps, secrets, volumes or images came: what waited for them may try again at once."""
        self._contents += 1
        for slot, trouble in list(self.troubles.items()):
            self.troubles[slot] = replace(trouble, at_once=True)
        self.wake()

    def marks(self) -> dict[str, int]:
        """To be taken before a listing, and given to `merge` with it."""
        return dict(self.done_count)

    def merge(self, pod: Optional[PodInfo], found: list[ContainerInfo], marks: Mapping[str, int]) -> None:
        """Takes over what the engine lists of this pod, save where a step was under way meanwhile."""
        changed = {slot for slot, count in self.done_count.items() if marks.get(slot, 0) != count}
        seen = adopt.merge(
            self.record,
            pod,
            found,
            skip=frozenset(self.operations) | changed,
            is_alive=self.host.runtime.is_alive,
            now_s=self.host.clock.boottime_s(),
            wall_s=self.host.clock.wall_s(),
        )
        self._adopted.update(
            c.process for c in seen.record.containers if c.process is not None and c != self.record.container(c.name)
        )
        self.change(seen.record)
        for stray in seen.strays:
            self.strays[stray.id] = (stray.name, stray.attempt)
        if seen.strays:
            self.wake()

    # ---- for the operations -----------------------------------------------------------------------------------------------

    def change(self, record: PodRecord) -> None:
        """A new record; it is saved a moment later and shown to decide."""
        if record == self.record:
            return
        self.record = record
        self.dirty = True
        if self._save_timer is None:
            self._save_timer = asyncio.get_running_loop().call_later(SAVE_AFTER_S, self.save)
        self.wake()

    def save(self) -> bool:
        """Writes the record now; false when the disk refuses, then it is tried again."""
        if self._save_timer is not None:
            self._save_timer.cancel()
            self._save_timer = None
        if self.erased:
            return True
        try:
            self.host.storage.save(f"pod-{self.record.uid}", encode(self.record))
        except OSError as error:
            self.host.storage_failed(error)
            self._save_timer = asyncio.get_running_loop().call_later(SAVE_RETRY_S, self._save_again)
            return False
        self.dirty = False
        self.host.storage_worked()
        return True

    def _save_again(self) -> None:
        if self.save():
            self.wake()  # what was decided waits for this

    def event(self, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        self.host.ledger.tell_event(
            self.host.clock.wall_s(),
            reason,
            message,
            warning=warning,
            pod_uid=self.record.uid,
            pod=f"{self.record.namespace}/{self.record.name}",
            container=container,
        )

    def sandbox(self) -> Optional[Process]:
        """The process that holds the pod's own network; None while there is none, and on the host's."""
        on_host = self.pod is not None and self.pod.host_network
        return None if on_host else self.record.sandbox_process

    def watcher(self, name: str) -> Optional["asyncio.Task[None]"]:
        """The task that ends when the container's process has."""
        watched = self._watchers.get(name)
        return watched[1] if watched is not None else None

    def watch(self) -> None:
        """Has every running process watched, the sandbox's included."""
        living = {c.name: c.process for c in self.record.containers if c.process is not None}
        if self.record.sandbox_process is not None:
            living[""] = self.record.sandbox_process
        for name, process in living.items():
            watched = self._watchers.get(name)
            if watched is not None and watched[0] == process:
                continue
            if watched is not None:
                watched[1].cancel()
            task = asyncio.get_running_loop().create_task(self._watch(name, process))
            self._watchers[name] = (process, task)

    # ---- the worker -------------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self.erased:
            self._wake.clear()
            try:
                wake_s = self._turn()
            except Exception as error:  # a defect of ours: say so and go on, slowly
                self._report_defect(error)
                wake_s = self.host.clock.boottime_s() + DEFECT_WAIT_S
            await self._sleep(wake_s)

    def _turn(self) -> Optional[float]:
        """Decides once and begins what was decided → when to look again at the latest."""
        self.watch()
        decision = decide(self.pod, self.order, self.record, self._view())
        self.change(decision.record)
        self.host.ledger.tell_pod(decision.report)
        self._sync_probes()
        if not decision.durable or not self.dirty or self.save():
            for step in decision.steps:
                self._launch(step)
        return decision.wake_s

    async def _sleep(self, wake_s: Optional[float]) -> None:
        timer = None
        if wake_s is not None:
            wait_s = max(WAIT_MIN_S, wake_s - self.host.clock.boottime_s())
            timer = asyncio.get_running_loop().call_later(wait_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _view(self) -> View:
        pod = self.pod
        needs_sandbox = pod is not None and self.order == RUN and not self.record.sandbox_id
        return View(
            now_s=self.host.clock.boottime_s(),
            busy={slot: operation.kind for slot, operation in self.operations.items()},
            trouble=self.troubles,
            images=frozenset(self.images),
            hold=self.host.hold(self) if needs_sandbox else None,
            stale_files=pod is not None and self.order == RUN and self.host.content_key(pod) != self.files_key,
            strays=bool(self.strays),
        )

    def _launch(self, step: Step) -> None:
        under_way = self.operations.get(step.slot)
        if under_way is not None:
            self._hasten(under_way, step)
            return
        task = asyncio.get_running_loop().create_task(self._operate(step))
        # A task cancelled before it ran never gets to a `finally`
        task.add_done_callback(lambda _: self._done(step.slot))
        self.operations[step.slot] = Operation(step.kind, task)

    def _hasten(self, under_way: Operation, step: Step) -> None:
        """A stop meets a hook or pull, which it cancels, or another stop, which it may shorten."""
        if under_way.kind in (HOOK, PULL):
            under_way.task.cancel()
        elif under_way.kind == STOP:
            kill_at_s = self.host.clock.boottime_s() + step.grace_s
            if under_way.kill_at_s and kill_at_s < under_way.kill_at_s:
                under_way.kill_at_s = kill_at_s
                under_way.nudge.set()

    async def _operate(self, step: Step) -> None:
        contents = self._contents
        try:
            await self._operations.perform(step)
            self._clear_trouble(step.slot, step.kind)
        except Failure as failure:
            self._note(step, failure, at_once=contents != self._contents)  # what it lacked may have come meanwhile
        except Exception as error:  # a defect of ours: it must not end the care for the pod, nor spin
            self._report_defect(error)
            self._note(step, Failure("AgentError", f"{step.kind}: {type(error).__name__}"))

    def _done(self, slot: str) -> None:
        self.operations.pop(slot, None)
        self.done_count[slot] = self.done_count.get(slot, 0) + 1
        self.wake()

    def _note(self, step: Step, failure: Failure, *, at_once: bool = False) -> None:
        before, now_s = self.troubles.get(step.slot), self.host.clock.boottime_s()
        row = before if before is not None and before.kind == step.kind else None
        if row is not None and row.at_once and now_s < row.retry_s:
            failures, retry_s = row.failures, row.retry_s  # a try before its time, by an order about whatever
        else:
            failures = row.failures + 1 if row is not None else 1
            retry_s = now_s + (pull_delay_s(failures) if step.kind == PULL else retry_delay_s(failures))
        reason = failure.reason
        if reason == "ErrImagePull" and failures > 1:
            reason = "ImagePullBackOff"
        message = str(failure)
        self.troubles[step.slot] = Trouble(step.kind, reason, message, failures, retry_s, at_once)
        if before is None or (before.reason, before.message) != (reason, message):
            self.event(failure.reason, message, container=step.container, warning=True)

    def _clear_trouble(self, slot: str, kind: str) -> None:
        trouble = self.troubles.get(slot)
        if trouble is not None and trouble.kind == kind:
            del self.troubles[slot]

    def _report_defect(self, error: Exception) -> None:
        context = {"message": f"defect in the worker of pod {self.record.uid}", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)

    # ---- exits and probes -----------------------------------------------------------------------------------------------

    async def _watch(self, name: str, process: Process) -> None:
        await self.host.runtime.wait_exit(process)
        if not name:
            if self.record.sandbox_process == process:
                self.change(replace(self.record, sandbox_process=None))
            return
        mine = self.record.container(name)
        if mine.process == process:
            now_s, wall_s = self.host.clock.boottime_s(), self.host.clock.wall_s()
            self.change(self.record.with_container(ended_now(mine, now_s=now_s, wall_s=wall_s)))
            self._clear_trouble(name, STOP)

    def _sync_probes(self) -> None:
        """Every running container has its probes, no other has."""
        wanted: dict[str, tuple[Container, ContainerRecord]] = {}
        if self.pod is not None and self.order == RUN and not self.pod.stop and not self.record.verdict:
            for container in all_containers(self.pod):
                mine = self.record.container(container.name)
                hooked = mine.hooked or container.post_start is None
                if mine.process is not None and hooked and not mine.kill and _has_probes(container):
                    wanted[container.name] = (container, mine)
        for name, (process, task) in list(self._probes.items()):
            if name not in wanted or wanted[name][1].process != process:
                task.cancel()
                del self._probes[name]
        for name, (container, mine) in wanted.items():
            if name not in self._probes and mine.process is not None:
                task = asyncio.get_running_loop().create_task(self._probe(container, mine))
                self._probes[name] = (mine.process, task)

    async def _probe(self, container: Container, mine: ContainerRecord) -> None:
        process = mine.process
        assert process is not None
        run = partial(self._probe_once, mine.id)
        probing = Probing(container, run, partial(self._told, container.name, process), partial(self._noted, mine.name))
        await probing.run(
            age_s=self.host.clock.boottime_s() - mine.started_s,
            started=mine.started,
            adopted=process in self._adopted,
            spread=zlib.crc32(f"{self.record.uid}/{mine.name}".encode()) / 2**32,
        )

    async def _probe_once(self, container_id: str, probe: Probe) -> ProbeOutcome:
        """A prober that hangs in spite of its deadline is given up: at most one probe is outstanding."""
        timeout_s = float(max(1, probe.timeout_s))
        probed = self.host.prober.probe(
            probe.handler,
            ip=self.record.ip,
            sandbox=self.sandbox(),
            container_id=container_id,
            timeout_s=timeout_s,
        )
        try:
            outcome = await within(timeout_s + PROBE_MARGIN_S, probed)
        except asyncio.TimeoutError:
            return ProbeOutcome(False, f"no result within {timeout_s:g} s", known=False)
        except Exception as error:  # a defect of ours, in one probe: those that follow are made
            self._report_defect(error)
            return ProbeOutcome(False, str(error), known=False)
        assert isinstance(outcome, ProbeOutcome)
        return outcome

    def _told(self, name: str, process: Process, kind: str, passed: bool, message: str) -> None:
        mine = self.record.container(name)
        if mine.process != process:
            return
        if kind == READINESS:
            self.change(self.record.change(name, ready=passed))
        elif kind == STARTUP and passed:
            self.change(self.record.change(name, started=True))
        elif kind in (STARTUP, LIVENESS) and not passed:
            container = self._container(name)
            probe = None if container is None else container.startup if kind == STARTUP else container.liveness
            grace_s = None if probe is None or probe.grace_s is None else float(probe.grace_s)
            self.change(self.record.change(name, kill=f"{kind} probe failed: {message}", kill_grace_s=grace_s))

    def _noted(self, name: str, kind: str, message: str) -> None:
        self.event("Unhealthy", f"{kind} probe failed: {message}", container=name, warning=True)

    def _container(self, name: str) -> Optional[Container]:
        if self.pod is None:
            return None
        return next((c for c in all_containers(self.pod) if c.name == name), None)


def _has_probes(container: Container) -> bool:
    return any(probe is not None for probe in (container.startup, container.readiness, container.liveness))
