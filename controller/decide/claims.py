"""What becomes of volume claims: what agents say of their volumes, what a wiped host took with it, and their deletion. Pure.

In: the world and the views. Out: changes of claims, and what people wait for. Binding is the scheduler's (schedule/volumes.py).
A volume is removed by an explicit delete only: the claim is marked, then waits until no pod on any node uses it, then its removal is
ordered (that order is stored before it is sent), and the record goes when the agent has said that the volume is gone. Silence frees
nothing.

Worked example: `delete pvc/data` while db-0 runs: the claim is marked. db-0 is stopped, and its end is heard: the order is recorded, and
the next wanted set names the volume as to be removed. The agent reports it removed: the record goes. Were the node silent, the claim
would wait.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from controller.decide.cleanup import ending_namespaces
from controller.decide.nodes import trusted
from controller.decide.schedule.volumes import Volumes
from controller.decide.shapes import Shapes
from controller.model.cluster import Moment, Stray, VolumeClaim, World
from controller.model.plan import Change, NodeView
from nodeagent.protocol import VOLUME_HELD, VOLUME_MISSING, VOLUME_REMOVED, VOLUME_UNUSABLE, ClaimVolume

WIPED = "wiped"
_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Ending:
    changes: tuple[Change, ...]
    waiting: tuple[str, ...]


def follow(world: World, views: Mapping[str, NodeView], now: Moment) -> tuple[Change, ...]:
    """Takes in what was heard. Before pods are made and placed."""
    spaces = {item.meta.name for item in ending_namespaces(world)}
    strays = _strays(world, views)
    changes = []
    for claim in _ordered(world):
        fresh = claim
        if claim.meta.namespace in spaces and claim.meta.deleting is None:
            fresh = replace(claim, meta=replace(claim.meta, deleting=now))
            because = f"namespace {claim.meta.namespace} is being deleted"
            changes.append(Change("update", fresh, because, "Deleting", quiet=True))
        for step in (_freed, _heard):
            change = step(fresh, world, views)
            if change is not None:
                assert isinstance(change.record, VolumeClaim)
                fresh = change.record
                changes.append(change)
        change = _stale(fresh, strays.get(claim.meta.uid, {}), world, views)
        changes += [change] if change is not None else []
    return tuple(changes)


def collect(world: World, views: Mapping[str, NodeView], now: Moment) -> Ending:
    """Orders the removal of what was deleted and is not used any more; records go when it is done."""
    if all(claim.meta.deleting is None for claim in world.claims.values()):
        return Ending((), ())
    volumes = Volumes(world, views, Shapes(world))
    changes, waiting = [], []
    for claim in _ordered(world):
        if claim.meta.deleting is None:
            continue
        name, view = f"persistentvolumeclaim {claim.meta.key}", views.get(claim.node)
        users = volumes.users(claim.meta.uid)
        if users:
            continue  # its pods decide how long it stays: nobody waits for that
        change = _ended(claim, world, now)
        changes += [change] if change is not None else []
        answers = view is not None and view.may_push
        if answers and (change is None or change.verb != "remove"):
            waiting.append(f"{name}: its volume is being removed from {claim.node}")
    return Ending(tuple(changes), tuple(waiting))


def volumes_by_node(world: World) -> dict[str, list[ClaimVolume]]:
    """What each node is told: the volumes that it shall have, and those that it shall remove. The latter include what an old host
    brought back of a claim that is deleted."""
    found: dict[str, list[ClaimVolume]] = defaultdict(list)
    for claim in _ordered(world):
        is_removed = claim.removing is not None
        if claim.node:
            may_make = not claim.is_made and not is_removed
            volume = ClaimVolume(claim.volume, claim.meta.key, claim.directory, make=may_make, remove=is_removed)
            found[claim.node].append(volume)
        for name, stray in claim.stale.items() if is_removed else ():
            found[stray.node].append(ClaimVolume(name, claim.meta.key, stray.directory, remove=True))
    return found


# ---- what was heard -----------------------------------------------------------------------------------------------------


def _freed(claim: VolumeClaim, world: World, views: Mapping[str, NodeView]) -> Change | None:
    """A person said that the host's disks are gone: the claim may be bound anew, and its data is lost."""
    view, node = views.get(claim.node), world.nodes.get(claim.node)
    if view is None or node is None or view.state != "Dead" or node.confirmed_dead != WIPED:
        return None
    lost = f"node {claim.node} was confirmed wiped, and its volume {claim.volume} with it: its data is lost"
    free = replace(
        claim, node="", bound=None, volume="", directory="", is_made=False, report=None, removing=None, lost=lost
    )
    return Change("update", free, lost, "DataLost", warning=True)


def _heard(claim: VolumeClaim, world: World, views: Mapping[str, NodeView]) -> Change | None:
    seen = trusted(world, views, claim.node) if claim.node else None
    report = (seen.volumes or {}).get(claim.volume) if seen is not None else None
    if report is None or report == claim.report:
        return None
    if report.state == VOLUME_REMOVED and claim.removing is None:
        return None  # nobody ordered that: not believed
    fresh = replace(claim, report=report, is_made=claim.is_made or report.state == VOLUME_HELD)
    if claim.report is not None and report.state == claim.report.state:
        return Change("report", fresh, f"{claim.node} says more of {claim.volume}", quiet=True)
    if report.state == VOLUME_HELD:
        return Change("update", fresh, f"its volume is on {claim.node}", "ProvisioningSucceeded")
    if report.state == VOLUME_MISSING:
        because = f"its volume {claim.volume} is missing on {claim.node}; no pod gets an empty one instead"
        return Change("update", fresh, because, "VolumeMissing", warning=True)
    if report.state == VOLUME_UNUSABLE:
        return Change("update", fresh, f"{claim.node}: {report.message}", "ProvisioningFailed", warning=True)
    if report.state == VOLUME_REMOVED:
        return Change("report", fresh, f"{claim.node} has removed {claim.volume}", quiet=True)
    return None  # a word that agents do not have


def _strays(world: World, views: Mapping[str, NodeView]) -> dict[str, dict[str, tuple[str, str]]]:
    """By uid of the claim: (node, directory) by name of each volume of an earlier binding that a host was heard to have."""
    beginning = f"sshoal-{world.cluster.id}-"
    found: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for name in sorted(world.nodes):
        seen = trusted(world, views, name)
        for volume in (seen.volumes or {}).values() if seen is not None else ():
            uid, _, number = volume.name.removeprefix(beginning).rpartition("-")
            claim = world.claims.get(uid) if _NUMBER.fullmatch(number) else None  # a host may say anything
            if claim is not None and (name, volume.name) != (claim.node, claim.volume) and volume.state == VOLUME_HELD:
                found[uid][volume.name] = (name, volume.directory)
    return found


def _stale(
    claim: VolumeClaim, strays: Mapping[str, tuple[str, str]], world: World, views: Mapping[str, NodeView]
) -> Change | None:
    kept = {}
    for name, stray in claim.stale.items():
        seen = trusted(world, views, stray.node)
        if stray.node in world.nodes and (seen is None or seen.volumes is None):
            kept[name] = stray
    fresh = {**kept, **{name: Stray(node, directory) for name, (node, directory) in strays.items()}}
    if fresh == claim.stale:
        return None
    came = [f"{name} on {stray.node}" for name, stray in fresh.items() if name not in claim.stale]
    changed = replace(claim, stale=dict(sorted(fresh.items())))
    if not came:
        return Change("update", changed, "an earlier volume of it is gone", "StaleVolumeGone", quiet=True)
    because = f"an earlier volume of it is there again, with old data, and is not used: {', '.join(came)}"
    return Change("update", changed, because, "StaleVolume", warning=True)


# ---- its end ------------------------------------------------------------------------------------------------------------


def _ended(claim: VolumeClaim, world: World, now: Moment) -> Change | None:
    """One step nearer to the end. Nobody waits for stale volumes: a host that lies about one would hold up others' claims."""
    is_there = claim.node in world.nodes
    if claim.removing is None and (is_there or claim.stale):
        because = f"its volume {claim.volume} is to be removed from {claim.node}, with all data"
        if not is_there:
            because = f"its stale volumes are to be removed: {', '.join(claim.stale)}"
        return Change("update", replace(claim, removing=now), because, "VolumeDelete")
    if not claim.node:
        return Change("remove", claim, "it has no volume", "Deleted")
    if not is_there:
        because = f"node {claim.node} was forgotten; what it still has of {claim.volume} stays there"
        return Change("remove", claim, because, "Deleted", warning=True)
    if claim.report is not None and claim.report.state == VOLUME_REMOVED:
        return Change("remove", claim, f"its volume is removed from {claim.node}", "Deleted")
    return None


def _ordered(world: World) -> Iterable[VolumeClaim]:
    return sorted(world.claims.values(), key=lambda claim: (claim.meta.key, claim.meta.uid))
