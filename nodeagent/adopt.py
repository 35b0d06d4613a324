"""What the engine lists of one pod, taken into the agent's record of it. Pure but for asking whether a process lives.

Used at every listing: after a start of the agent it adopts what runs, later it notices what people did by hand.
What runs and is known stays as it is; what is listed and not known is adopted when it is newer, and else a stray
to be removed.
"""

from dataclasses import dataclass, replace
from typing import Callable, Optional

from nodeagent.records import ContainerRecord, Ended, PodRecord, ended_now, learned
from nodeagent.runtime import (
    LABEL_ATTEMPT,
    LABEL_CLUSTER,
    LABEL_CONTAINER,
    LABEL_HASH,
    LABEL_NAMESPACE,
    LABEL_POD,
    LABEL_UID,
    ContainerInfo,
    PodInfo,
    Process,
)

_NEVER_RAN = ("created", "initialized", "external")  # initialized: made by the runtime, not told to start


@dataclass(frozen=True)
class Stray:
    """A container of the pod that nobody needs."""

    id: str
    name: str
    attempt: int


@dataclass(frozen=True)
class Merged:
    record: PodRecord
    strays: tuple[Stray, ...]


def from_labels(labels: dict[str, str], *, boot_id: str, now_s: float, wall_s: float) -> PodRecord:
    """A record made from what the engine's labels tell, for a pod whose records are lost."""
    return PodRecord(
        uid=labels[LABEL_UID],
        namespace=labels.get(LABEL_NAMESPACE, ""),
        name=labels.get(LABEL_POD, ""),
        hash=labels.get(LABEL_HASH, ""),
        cluster=labels[LABEL_CLUSTER],
        boot_id=boot_id,
        started_s=now_s,
        started_wall_s=wall_s,
    )


def merge(
    record: PodRecord,
    pod: Optional[PodInfo],
    found: list[ContainerInfo],
    *,
    skip: frozenset[str],
    is_alive: Callable[[Process], bool],
    now_s: float,
    wall_s: float,
) -> Merged:
    """The record brought up to the listing.

    Args:
        pod: the pod's sandbox, None when the engine has none.
        found: containers of the pod, infra included.
        skip: slots that must stay as they are, since a step changed them while the listing was made.
    """
    blank = not record.containers
    if "" not in skip:
        record = _merge_sandbox(record, pod, found, is_alive)
    strays: list[Stray] = []
    by_name: dict[str, list[ContainerInfo]] = {}
    for info in found:
        name = info.labels.get(LABEL_CONTAINER, "")
        if name and not info.is_infra:
            by_name.setdefault(name, []).append(info)
    for name in sorted(set(by_name) | {mine.name for mine in record.containers}):
        if name in skip:
            continue
        mine, more = _merge_container(
            record.container(name), by_name.get(name, []), blank, record.sandbox_count, is_alive, now_s, wall_s
        )
        strays += more
        if mine != record.container(name):
            record = record.with_container(mine)
    return Merged(record, tuple(strays))


def _merge_sandbox(
    record: PodRecord, pod: Optional[PodInfo], found: list[ContainerInfo], is_alive: Callable[[Process], bool]
) -> PodRecord:
    """A sandbox whose process lives stands, whatever Podman calls it: a person may have paused the pod."""
    if pod is None:
        return replace(record, sandbox_id="", sandbox_process=None)
    infra = next((info for info in found if info.is_infra and info.pod_id == pod.id), None)
    process = infra.process if infra is not None else None
    if pod.id == record.sandbox_id:
        known = record.sandbox_process
        if process is None and known is not None and is_alive(known):
            return record
        return replace(record, sandbox_process=process)
    count = record.sandbox_count + 1
    return replace(record, sandbox_id=pod.id, sandbox_process=process, sandbox_count=count, ip="")


def _merge_container(
    mine: ContainerRecord,
    found: list[ContainerInfo],
    blank: bool,
    sandbox: int,
    is_alive: Callable[[Process], bool],
    now_s: float,
    wall_s: float,
) -> tuple[ContainerRecord, list[Stray]]:
    listed = sorted(found, key=lambda info: (_attempt(info), info.id), reverse=True)
    usable = [info for info in listed if info.process is not None or info.state not in _NEVER_RAN]
    newest = next((info for info in usable if _attempt(info) >= mine.attempt), None)
    if newest is not None and newest.id != mine.id:
        mine = _take_over(mine, newest, blank, sandbox, now_s, wall_s)
    elif mine.process is not None and not is_alive(mine.process):
        mine = ended_now(mine, now_s=now_s, wall_s=wall_s)
    elif mine.process is None and mine.ended is None and mine.id:
        mine = _settle_intent(mine, listed, now_s, wall_s)
    kept = {mine.id, mine.last.id if mine.last is not None else ""}
    dead = [info for info in usable if info.id not in kept and info.process is None and _attempt(info) < mine.attempt]
    if mine.last is None and dead:
        mine = replace(mine, last=_ended(dead[0], now_s))
        kept.add(dead[0].id)
    strays = [Stray(info.id, mine.name, _attempt(info)) for info in listed if info.id not in kept]
    strays += [
        Stray(info.id, mine.name, _attempt(info))
        for info in listed
        if info.id in kept and info.process is not None and info.process != mine.process and is_alive(info.process)
    ]  # one that has ended since the listing is no stray: the engine still has to tell how
    return mine, strays


def _take_over(
    mine: ContainerRecord, info: ContainerInfo, blank: bool, sandbox: int, now_s: float, wall_s: float
) -> ContainerRecord:
    """An attempt that the record does not know: it was made just before the agent died, or the records are lost.

    With the records lost, what runs is believed to be ready until a probe says otherwise: a restart of the agent must not make it flap.
    """
    last = mine.ended or mine.last
    if mine.ended is None and mine.id and mine.attempt < _attempt(info):
        last = Ended(mine.attempt, mine.id, now_s, mine.started_wall_s, wall_s)
    taken = ContainerRecord(
        name=mine.name,
        attempt=_attempt(info),
        id=info.id,
        process=info.process,
        sandbox=sandbox,
        image_id=info.image_id,
        started_s=max(0.0, now_s - max(0.0, wall_s - info.started_wall_s)) if info.started_wall_s else now_s,
        started_wall_s=info.started_wall_s,
        started=blank,
        ready=blank,
        hooked=blank,
        last=last,
        backoff=mine.backoff,
    )
    if info.process is None:
        taken = replace(taken, started=False, ready=False, ended=_ended(info, now_s))
    return taken


def _settle_intent(mine: ContainerRecord, listed: list[ContainerInfo], now_s: float, wall_s: float) -> ContainerRecord:
    """The record says that this attempt was about to start. The engine knows whether it did; if it has it no more, it did."""
    info = next((info for info in listed if info.id == mine.id), None)
    if info is None:
        return ended_now(mine, now_s=now_s, wall_s=wall_s, known=True)
    if info.process is not None:
        return replace(mine, process=info.process)
    if info.state in _NEVER_RAN:
        return replace(mine, id="", attempt=mine.attempt - 1, ended=mine.last, last=None)
    ended = ended_now(mine, now_s=now_s, wall_s=wall_s)
    return learned(ended, mine.attempt, info.exit_code, info.oom_killed) if info.exit_code is not None else ended


def _ended(info: ContainerInfo, now_s: float) -> Ended:
    ended = Ended(_attempt(info), info.id, now_s, info.started_wall_s, info.finished_wall_s)
    if info.exit_code is None:
        return ended
    mine = ContainerRecord("", attempt=ended.attempt, ended=ended)
    return learned(mine, ended.attempt, info.exit_code, info.oom_killed).ended or ended


def _attempt(info: ContainerInfo) -> int:
    """The attempt's number, from a label that a person may have written."""
    text = info.labels.get(LABEL_ATTEMPT, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
