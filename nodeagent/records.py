"""What the agent remembers of one pod: frozen records that are persisted as they are. Pure.

Times ending in `_s` are on the boot clock and hold for `PodRecord.boot_id` only; `_wall_s` is for display.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, Optional

from nodeagent.protocol import Container, Pod
from nodeagent.restarts import Backoff
from nodeagent.runtime import Process

COMPLETED, ERROR, OOM_KILLED, UNKNOWN_STATUS, START_ERROR = (
    "Completed",
    "Error",
    "OOMKilled",
    "ContainerStatusUnknown",
    "StartError",
)
MESSAGE_CHARS_MAX = 1024
UID = re.compile(r"[a-z0-9][a-z0-9-]{0,58}\Z")  # these become parts of paths and of documents' names
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}\Z")
NO_BACKOFF = Backoff()


@dataclass(frozen=True)
class Ended:
    """How one attempt ended. `known` turns true once the engine was asked; `code` stays None when nobody can know."""

    attempt: int
    id: str
    ended_s: float
    started_wall_s: float = 0.0
    ended_wall_s: float = 0.0
    known: bool = False
    code: Optional[int] = None
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class ContainerRecord:
    """One container of a pod over all its attempts. Exactly one of `process` and `ended` is set after an attempt was started."""

    name: str
    attempt: int = -1  # the newest that was made; -1: none yet
    id: str = ""  # of that attempt
    process: Optional[Process] = None  # while it runs
    sandbox: int = 0  # in which of the pod's sandboxes that attempt runs or ran
    image_id: str = ""
    started_s: float = 0.0
    started_wall_s: float = 0.0
    started: bool = False  # the startup probe has passed (of no meaning without one)
    ready: bool = False  # what the readiness probe said last (likewise)
    hooked: bool = False  # postStart is done
    kill: str = ""  # why it shall be killed and then restarted by policy
    kill_grace_s: Optional[float] = None  # overrides the pod's grace for that
    kill_at_s: float = 0.0  # its stop is under way; SIGKILL then
    ended: Optional[Ended] = None  # how the newest attempt ended
    last: Optional[Ended] = None  # how the one before ended; its dead container is kept for `logs --previous`
    backoff: Backoff = NO_BACKOFF

    @property
    def alive(self) -> bool:
        return self.process is not None


@dataclass(frozen=True)
class PodRecord:
    """One pod on this host. `verdict` is final: Succeeded, Failed, or Stopped by order."""

    uid: str
    namespace: str
    name: str
    hash: str
    cluster: str
    boot_id: str
    started_s: float  # when this agent first heard of it
    started_wall_s: float
    grace_s: int = 30
    sandbox_id: str = ""
    sandbox_process: Optional[Process] = None
    sandbox_count: int = 0
    ip: str = ""
    ready_since_s: float = 0.0  # 0: not ready
    ending_s: float = 0.0  # since when it ends; kept where sidecars share the grace with those before them
    verdict: str = ""
    reason: str = ""
    message: str = ""
    containers: tuple[ContainerRecord, ...] = ()

    def container(self, name: str) -> ContainerRecord:
        """The record of that container; a blank one if there was no attempt yet."""
        for record in self.containers:
            if record.name == name:
                return record
        return ContainerRecord(name)

    def with_container(self, changed: ContainerRecord) -> "PodRecord":
        others = [record for record in self.containers if record.name != changed.name]
        return replace(self, containers=tuple(sorted((*others, changed), key=lambda record: record.name)))

    def change(self, name: str, **changes: Any) -> "PodRecord":
        return self.with_container(replace(self.container(name), **changes))


def fresh(pod: Pod, *, cluster: str, boot_id: str, now_s: float, wall_s: float) -> PodRecord:
    """The record of a pod nobody has started yet."""
    return PodRecord(
        pod.uid, pod.namespace, pod.name, pod.hash, cluster, boot_id, now_s, wall_s, pod.grace_s, containers=()
    )


def ended_now(record: ContainerRecord, *, now_s: float, wall_s: float, known: bool = False) -> ContainerRecord:
    """The record after its process was seen to be gone. `known`: nobody can tell how it ended."""
    ended = Ended(
        record.attempt,
        record.id,
        now_s,
        record.started_wall_s,
        wall_s,
        known=known,
        reason=UNKNOWN_STATUS if known else "",
    )
    return replace(record, process=None, ended=ended, ready=False, started=False, kill_at_s=0.0)


def learned(
    record: ContainerRecord, attempt: int, code: Optional[int], oom_killed: bool, message: str = ""
) -> ContainerRecord:
    """The record once the engine said how `attempt` ended; `message` are its own last words."""
    reason = UNKNOWN_STATUS if code is None else OOM_KILLED if oom_killed else COMPLETED if code == 0 else ERROR
    if record.ended is not None and record.ended.attempt == attempt:
        return replace(record, ended=replace(record.ended, known=True, code=code, reason=reason, message=message))
    if record.last is not None and record.last.attempt == attempt:
        return replace(record, last=replace(record.last, known=True, code=code, reason=reason, message=message))
    return record


def after_reboot(record: PodRecord, *, boot_id: str, now_s: float, wall_s: float) -> PodRecord:
    """The record in a new boot: no process lives, nobody knows how they ended, and that counts as no crash."""
    containers = []
    for container in record.containers:
        if container.id and container.ended is None:
            container = ended_now(container, now_s=now_s, wall_s=wall_s, known=True)
        elif container.ended is not None:
            container = replace(container, ended=replace(container.ended, ended_s=now_s))
        containers.append(replace(container, backoff=Backoff(), kill="", ready=False, started=False, kill_at_s=0.0))
    # The boot clock began anew: only the wall clock relates the two
    elapsed_s = max(0.0, wall_s - record.started_wall_s)
    return replace(
        record,
        boot_id=boot_id,
        started_s=now_s - elapsed_s,
        sandbox_process=None,
        ip="",
        ready_since_s=0.0,
        ending_s=0.0,
        containers=tuple(containers),
    )


def cut(message: str) -> str:
    return message[:MESSAGE_CHARS_MAX]


def all_containers(pod: Pod) -> tuple[Container, ...]:
    """Init containers first, in their order."""
    return pod.init_containers + pod.containers
