"""What `apply` makes of Jobs and the like: a new record, or the one that is there with what may change. Pure.

Raises ManifestError for a field that cannot be changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from controller.decide.verbs import keeping_restarts
from controller.model.cluster import Meta, Record, VolumeClaim
from controller.model.errors import ManifestError
from controller.model.identity import template_hash
from controller.model.quantity import memory_bytes
from controller.model.workloads import CronJob, DaemonSet, Job, StatefulSet

if TYPE_CHECKING:
    from controller.model.manifest import Manifest

_Set = TypeVar("_Set", DaemonSet, StatefulSet)

_JOB_FIXED = (
    "completions",
    "completionMode",
    "template",
    "podFailurePolicy",
    "successPolicy",
    "backoffLimitPerIndex",
    "podReplacementPolicy",
)


_STATEFUL_FIXED = ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates")


def applied(meta: Meta, present: Record | None, manifest: Manifest) -> Record:
    """The record of an object of these kinds."""
    source = dict(manifest.source)
    if meta.kind == "PersistentVolumeClaim":
        return _claim(meta, present, source)
    if meta.kind == "CronJob":
        return replace(present, meta=meta, source=source) if isinstance(present, CronJob) else CronJob(meta, source)
    spec: Mapping[str, Any] = source["spec"]
    digest = template_hash(spec["template"])
    if meta.kind == "DaemonSet":
        if not isinstance(present, DaemonSet):
            return DaemonSet(meta, source, digest)
        _refuse_changes(present.source["spec"], spec, ("selector",), "daemon set")
        return _rolled(present, meta, source)
    if meta.kind == "StatefulSet":
        return _stateful_set(meta, present, source)
    if isinstance(present, Job):
        _refuse_owned(present)
        _refuse_changes(present.source["spec"], spec, _JOB_FIXED, "job")
        return replace(present, meta=meta, source=source, template_hash=digest)
    return Job(meta, source, digest)


def _claim(meta: Meta, present: Record | None, source: dict[str, Any]) -> VolumeClaim:
    """All of its spec is fixed but the size, which may grow, as in Kubernetes."""
    if not isinstance(present, VolumeClaim):
        return VolumeClaim(meta, source)
    live, spec = present.source["spec"], source["spec"]
    names = sorted({*live, *spec} - {"resources"})
    _refuse_changes(live, spec, names, "claim")
    if _size_bytes(spec) < _size_bytes(live):
        raise ManifestError("may grow, not shrink", field="spec.resources.requests.storage", hint="make another claim")
    return replace(present, meta=meta, source=source)


def _size_bytes(spec: Mapping[str, Any]) -> int:
    return memory_bytes(str(spec["resources"]["requests"]["storage"]))


def _stateful_set(meta: Meta, present: Record | None, source: dict[str, Any]) -> StatefulSet:
    if not isinstance(present, StatefulSet):
        return StatefulSet(meta, source, template_hash(source["spec"]["template"]))
    spec, live = source["spec"], present.source["spec"]
    _refuse_changes(live, spec, _STATEFUL_FIXED, "stateful set")
    if "replicas" not in spec and "replicas" in live:  # so that `scale` is not undone
        source = {**source, "spec": {**spec, "replicas": live["replicas"]}}
    return _rolled(present, meta, source)


def _rolled(present: _Set, meta: Meta, source: dict[str, Any]) -> _Set:
    source = keeping_restarts(present.source, source)
    return replace(present, meta=meta, source=source, template_hash=template_hash(source["spec"]["template"]))


def _refuse_changes(before: Mapping[str, Any], after: Mapping[str, Any], fixed: Sequence[str], kind: str) -> None:
    for name in fixed:
        if before.get(name) != after.get(name):
            raise ManifestError(
                f"cannot be changed once the {kind} is there", field=f"spec.{name}", hint="delete it first"
            )


def _refuse_owned(present: Any) -> None:
    owner = present.meta.owner
    if owner is not None:
        raise ManifestError(f"it belongs to {owner.kind.lower()} {owner.name}", hint=f"change the {owner.kind} instead")
