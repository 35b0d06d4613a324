"""The revisions of a DaemonSet or StatefulSet: its templates, numbered. Pure.

In: the object and the revisions there are. Out: the one that is wanted now, and changes. In Kubernetes: ControllerRevisions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from controller.decide.context import Context
from controller.decide.owners import revision_uid
from controller.model.cluster import Meta, Record, Ref, World
from controller.model.plan import Change
from controller.model.workloads import DaemonSet, Revision, StatefulSet

CHANGE_CAUSE = "kubernetes.io/change-cause"
HASH_LABEL = "controller-revision-hash"


@dataclass(frozen=True, slots=True)
class Revised:
    current: Revision
    changes: tuple[Change, ...]


def revise(
    item: DaemonSet | StatefulSet, revisions: Sequence[Revision], used: Iterable[str], limit: int, context: Context
) -> Revised:
    """The revision of the present template, the newest by number; those that no pod uses go beyond `limit`.

    Args:
        used: template hashes that may not go.
    """
    newest = max((one.number for one in revisions), default=0)
    before = next((one for one in revisions if one.template_hash == item.template_hash), None)
    cause = item.meta.annotations.get(CHANGE_CAUSE, "")
    current = _made(item, newest + 1, cause, context) if before is None else before
    if before is not None and before.number < newest:
        current = replace(before, number=newest + 1, change_cause=cause)
    changes = []
    if current != before:
        because = f"{item.meta.name} has revision {current.number}"
        changes.append(Change("update" if before else "create", current, because, quiet=True))
    kept = {*used, current.template_hash}
    unused = sorted((one for one in revisions if one.template_hash not in kept), key=lambda one: one.number)
    because = f"{item.meta.name} keeps {limit} old revisions"
    gone = unused[: max(0, len(unused) - limit)]
    changes += [Change("remove", one, because, "RevisionForgotten", quiet=True) for one in gone]
    return Revised(current, tuple(changes))


def revisions_of_set(world: World, item: Record) -> list[Revision]:
    """All of them, by number."""
    found = [
        one
        for one in world.workloads.values()
        if isinstance(one, Revision) and one.meta.owner is not None and one.meta.owner.uid == item.meta.uid
    ]
    return sorted(found, key=lambda one: one.number)


def _made(item: DaemonSet | StatefulSet, number: int, cause: str, context: Context) -> Revision:
    owner = Ref(item.meta.kind, item.meta.name, item.meta.uid)
    meta = Meta(
        "ControllerRevision",
        item.meta.namespace,
        _free_name(item, context),
        revision_uid(item.meta.uid, item.template_hash),
        context.now,
        labels={HASH_LABEL: item.template_hash},
        owner=owner,
    )
    spec = item.source["spec"]
    service = str(spec.get("serviceName") or "")
    claims = item.claims if isinstance(item, StatefulSet) else ()
    return Revision(meta, spec["template"], item.template_hash, number, cause, service, claims=claims)


def _free_name(item: DaemonSet | StatefulSet, context: Context) -> str:
    """Longer when a revision of that name is left over from a deleted object, for a pod on a silent node."""
    name = f"{item.meta.name}-{item.template_hash}"
    taken = any(
        isinstance(one, Revision) and (one.meta.namespace, one.meta.name) == (item.meta.namespace, name)
        for one in context.world.workloads.values()
    )
    return f"{name}-{item.meta.uid[:5]}" if taken else name
