"""The agent's decision for one pod: what is wanted × what is remembered and seen → steps, report, and when to look
again. Pure.

The counterpart of kubelet's computePodActions. It is level-triggered: called after every change with the whole
picture, it names every step that may begin now. A step under way is in `View.busy` and is not named again; what
has to come in order is held back by preconditions (sandbox before containers, init containers one by one, sidecars
last when stopping), never by the order of a list.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Optional

from nodeagent import status
from nodeagent.protocol import FAILED, STOPPED, SUCCEEDED, Container, Pod, PodReport
from nodeagent.records import ContainerRecord, Ended, PodRecord, all_containers
from nodeagent.restarts import due_s

# what the wanted set says about a pod
RUN, LEAVE, KEEP = (
    "run",
    "leave",
    "keep",
)  # LEAVE: not in the set (any more); KEEP: there is no set, so nothing may be touched

# kinds of steps
PULL, SANDBOX, ADDRESS, REMOVE_SANDBOX, START, HOOK, STOP, LEARN, CLEAN, REFRESH, ERASE = (
    "pull",
    "sandbox",
    "address",
    "remove-sandbox",
    "start",
    "hook",
    "stop",
    "learn",
    "clean",
    "refresh",
    "erase",
)

GRACE_MIN_S = 2.0  # what a process has left at least, however long its preStop hook or those before it took (kubelet's)

POD_SLOT = ""  # sandbox and erasure; a container's own slot is its name


@dataclass(frozen=True)
class Step:
    """One thing to do. At most one step per slot is under way at any time."""

    kind: str
    container: str = ""
    reason: str = ""
    grace_s: float = 0.0  # stop
    attempt: int = 0  # learn

    @property
    def slot(self) -> str:
        if self.kind in (LEARN, CLEAN, REFRESH):
            return f"{self.container}:{self.kind}"
        return self.container


@dataclass(frozen=True)
class Trouble:
    """Why the last try of a kind of step failed in its slot, and when the next one may begin; `at_once`: one more before that."""

    kind: str
    reason: str
    message: str
    failures: int
    retry_s: float
    at_once: bool = False

    def holds(self, now_s: float) -> bool:
        return now_s < self.retry_s and not self.at_once


@dataclass(frozen=True)
class View:
    """What the pod's worker sees beside the record. Seconds are on the boot clock."""

    now_s: float
    busy: Mapping[str, str] = field(default_factory=dict)  # slot -> kind of the step under way
    trouble: Mapping[str, Trouble] = field(default_factory=dict)  # by slot
    images: frozenset[str] = frozenset()  # containers whose image is known to be on the host
    hold: Optional[tuple[str, str]] = None  # (reason, message): no sandbox may be made yet
    stale_files: bool = False  # config maps or secrets changed
    strays: bool = False  # old containers wait for removal


@dataclass(frozen=True)
class Decision:
    """`durable`: the record must be on disk before any of the steps is done."""

    record: PodRecord
    report: PodReport
    steps: tuple[Step, ...] = ()
    wake_s: Optional[float] = None
    durable: bool = False


def decide(pod: Optional[Pod], order: str, record: PodRecord, view: View) -> Decision:
    """What to do next for one pod.

    Args:
        pod: as last wanted; None when nobody told (records lost, or gone from the set before this agent started).
        order: RUN, LEAVE or KEEP.
    """
    if order == KEEP:
        return _reported(pod, order, record, view, _Steps(view))
    ending = _ending(pod, order, record, view)
    steps = _Steps(view)
    if ending is not None:
        record = _end(pod, order, record, view, steps, ending)
    elif pod is not None:
        record = replace(record, ending_s=0.0)
        _run(pod, record, view, steps)
        if pod.deadline_s:
            steps.wake_at(record.started_s + pod.deadline_s)
    if view.strays:
        steps.add(Step(CLEAN))
    return _reported(pod, order, record, view, steps)


@dataclass(frozen=True)
class Ending:
    """Why a pod ends: `verdict` is what it will be said to be (empty: it just goes)."""

    verdict: str
    reason: str
    message: str
    grace_s: float


class _Steps:
    """Collects steps, dropping those whose slot is busy or has to wait after a failure, and the earliest time to look again."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.found: list[Step] = []
        self.wake_s: Optional[float] = None

    def add(self, step: Step) -> None:
        busy = self._view.busy.get(step.slot)
        if busy is not None:
            if step.kind == STOP and busy in (STOP, HOOK, PULL):  # hastens the first, cancels the others
                self.found.append(step)
            return
        trouble = self._view.trouble.get(step.slot)
        if trouble is not None and trouble.kind == step.kind and trouble.holds(self._view.now_s):
            self.wake_at(trouble.retry_s)
            return
        if step.kind == STOP:  # a container that is about to be killed needs nothing else
            self.found = [other for other in self.found if other.slot != step.slot]
        if all(other.slot != step.slot for other in self.found):
            self.found.append(step)

    def wake_at(self, time_s: float) -> None:
        if time_s > self._view.now_s and (self.wake_s is None or time_s < self.wake_s):
            self.wake_s = time_s


# ---- the end of a pod -------------------------------------------------------------------------------------------------


def _ending(pod: Optional[Pod], order: str, record: PodRecord, view: View) -> Optional[Ending]:
    if order == LEAVE:
        return Ending("", "Removed", "no longer wanted on this node", _grace_s(pod, record))
    if pod is None:
        return None
    if pod.stop:
        grace_s = pod.grace_s if pod.stop_grace_s is None else pod.stop_grace_s
        return Ending(STOPPED, "Stopped", "stopped by order", grace_s)
    if record.verdict == STOPPED:  # the order was taken back: a stopped pod is not revived, its owner makes a new one
        return Ending(STOPPED, record.reason, record.message, 0)
    if record.verdict:
        return Ending(record.verdict, record.reason, record.message, pod.grace_s)
    if pod.deadline_s and view.now_s >= record.started_s + pod.deadline_s:
        message = f"the pod was active for longer than its deadline of {pod.deadline_s} s"
        return Ending(FAILED, "DeadlineExceeded", message, pod.grace_s)
    return _finished(pod, record, view)


def _finished(pod: Pod, record: PodRecord, view: View) -> Optional[Ending]:
    """The pod's end by itself: all its containers are through and none may restart, or an init container failed for good."""
    for container in pod.init_containers:
        init = record.container(container.name)
        if not container.sidecar and pod.restart == "Never" and _failed(init.ended) and not view.busy.get(init.name):
            return Ending(FAILED, "", f"init container {init.name} failed", pod.grace_s)
    ends = [record.container(container.name).ended for container in pod.containers]
    if any(view.busy.get(container.name) == START for container in pod.containers):
        return None
    if any(ended is None or not ended.known or status.restarts(pod.restart, ended) for ended in ends):
        return None
    verdict = FAILED if any(_failed(ended) for ended in ends) else SUCCEEDED
    return Ending(verdict, "", "", pod.grace_s)


def _end(pod: Optional[Pod], order: str, record: PodRecord, view: View, steps: _Steps, ending: Ending) -> PodRecord:
    """Main containers stop together, then sidecars one by one in reverse order, then the sandbox goes.

    All share one grace, as in Kubernetes.
    """
    sidecars = [c.name for c in pod.init_containers if c.sidecar] if pod is not None else []
    if sidecars and not record.ending_s:
        record = replace(record, ending_s=view.now_s)
    mains = [c for c in record.containers if c.name not in sidecars]
    for container in mains:
        if container.alive:
            steps.add(Step(STOP, container.name, ending.reason or "Finished", ending.grace_s))
    if any(c.alive or view.busy.get(c.name) in (START, STOP) for c in mains):
        return record
    for name in reversed(sidecars):
        if record.container(name).alive:
            left_s = record.ending_s + ending.grace_s - view.now_s
            grace_s = min(ending.grace_s, max(left_s, GRACE_MIN_S))
            steps.add(Step(STOP, name, ending.reason or "Finished", grace_s))
        if record.container(name).alive or view.busy.get(name) in (START, STOP):
            return record
    if any(kind in (START, STOP, SANDBOX) for kind in view.busy.values()):
        return record
    if ending.verdict and not record.verdict:
        if _learn_all(record, steps):
            return record
        record = replace(record, verdict=ending.verdict, reason=ending.reason, message=ending.message)
    elif ending.verdict == STOPPED != record.verdict:
        record = replace(record, verdict=STOPPED)  # it had finished before; its containers still tell how
    if record.sandbox_id:
        steps.add(Step(REMOVE_SANDBOX, reason=ending.reason or "Finished"))
    elif order == LEAVE:
        steps.add(Step(ERASE, reason=ending.reason))
    return record


def _learn_all(record: PodRecord, steps: _Steps) -> bool:
    """Asks for the exit codes that are missing; true while there are any."""
    missing = [c for c in record.containers if c.ended is not None and not c.ended.known]
    for container in missing:
        _learn(container.name, container.ended, steps)
    return bool(missing)


# ---- the run of a pod -------------------------------------------------------------------------------------------------


def _run(pod: Pod, record: PodRecord, view: View, steps: _Steps) -> None:
    may_pull = view.hold is None or not pod.pull_secrets  # what holds it may be that these have not arrived
    for container in all_containers(pod):
        if may_pull and container.name not in view.images and not _through(pod, container, record):
            steps.add(Step(PULL, container.name))
    if record.sandbox_process is None:
        _renew_sandbox(pod, record, view, steps)
        return
    if not record.ip:  # one on the host's network has the node's; its probes go there
        steps.add(Step(ADDRESS))
        return
    if view.stale_files:
        steps.add(Step(REFRESH))
    initialised = any(_began(container, record) for container in pod.containers)
    for container in pod.init_containers:
        if container.sidecar or not initialised:
            _ensure(pod, container, record, view, steps)
        if not initialised and not _lets_next_go_on(container, record):
            return
    for container in pod.containers:
        _ensure(pod, container, record, view, steps)


def _began(container: Container, record: PodRecord) -> bool:
    """It was started in the present sandbox: the init containers are behind it."""
    mine = record.container(container.name)
    return mine.attempt >= 0 and mine.sandbox == record.sandbox_count


def _renew_sandbox(pod: Pod, record: PodRecord, view: View, steps: _Steps) -> None:
    """A sandbox that died takes its containers with it: they share its network namespace. All start again in a new one."""
    alive = [c for c in record.containers if c.alive]
    for container in alive:
        steps.add(Step(STOP, container.name, "SandboxChanged", pod.grace_s))
    if alive or any(kind in (START, STOP) for kind in view.busy.values()):
        return
    if record.sandbox_id:
        if not _learn_all(record, steps):
            steps.add(Step(REMOVE_SANDBOX, reason="SandboxChanged"))
    elif view.hold is None:
        steps.add(Step(SANDBOX))


def _ensure(pod: Pod, container: Container, record: PodRecord, view: View, steps: _Steps) -> None:
    """One container that should run, or should have run to its end."""
    mine = record.container(container.name)
    _learn(mine.name, mine.ended, steps)
    _learn(mine.name, mine.last, steps)
    if mine.alive:
        if mine.kill:
            grace_s = pod.grace_s if mine.kill_grace_s is None else mine.kill_grace_s
            steps.add(Step(STOP, mine.name, mine.kill, grace_s))
        elif container.post_start is not None and not mine.hooked:
            steps.add(Step(HOOK, mine.name))
        return
    if _through(pod, container, record) or mine.name not in view.images:
        return
    if mine.ended is None:
        steps.add(Step(START, mine.name))
        return
    policy = _policy(pod, container)
    if policy != "Always" and not mine.ended.known:
        return
    if not _restarts(pod, container, mine, record):
        return
    due = due_s(mine.backoff, mine.ended.ended_s)
    if view.now_s < due:
        steps.wake_at(due)
    else:
        steps.add(Step(START, mine.name, f"{mine.ended.reason or 'ended'}, attempt {mine.attempt + 1}"))


def _restarts(pod: Pod, container: Container, mine: ContainerRecord, record: PodRecord) -> bool:
    if mine.ended is None:
        return True
    if _is_init(pod, container) and mine.sandbox != record.sandbox_count:
        return True  # a new sandbox runs its init containers again
    return status.restarts(_policy(pod, container), mine.ended)


def _through(pod: Pod, container: Container, record: PodRecord) -> bool:
    """The container has ended and will not start again."""
    mine = record.container(container.name)
    return mine.ended is not None and mine.ended.known and not _restarts(pod, container, mine, record)


def _lets_next_go_on(container: Container, record: PodRecord) -> bool:
    mine = record.container(container.name)
    if container.sidecar:
        return status.is_started(container, mine)
    ended = mine.ended
    return ended is not None and ended.known and ended.code == 0 and mine.sandbox == record.sandbox_count


def _learn(name: str, ended: Optional[Ended], steps: _Steps) -> None:
    if ended is not None and not ended.known:
        steps.add(Step(LEARN, name, attempt=ended.attempt))


def _policy(pod: Pod, container: Container) -> str:
    return status.policy(pod, container, _is_init(pod, container))


def _is_init(pod: Pod, container: Container) -> bool:
    return any(container.name == init.name for init in pod.init_containers)


def _failed(ended: Optional[Ended]) -> bool:
    """An exit code that nobody knows counts as a failure: a Job must not succeed by it."""
    return ended is not None and ended.known and ended.code != 0


def _grace_s(pod: Optional[Pod], record: PodRecord) -> float:
    if pod is None:
        return record.grace_s
    return pod.grace_s if pod.stop_grace_s is None else pod.stop_grace_s


def _reported(pod: Optional[Pod], order: str, record: PodRecord, view: View, steps: _Steps) -> Decision:
    record, report = status.report(pod, order == LEAVE, record, view)
    return Decision(
        record,
        report,
        tuple(steps.found),
        steps.wake_s,
        durable=bool(record.verdict) and any(step.kind == REMOVE_SANDBOX for step in steps.found),
    )
