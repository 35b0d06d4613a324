"""What `apply` makes of Jobs and the like: a new record, or the one that is there with what may change. Pure.

Raises ManifestError for a field that cannot be changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from controller.decide.sameness import keeping_template, refuse_changes
from controller.decide.schedule.volumes import DEFAULT_CLASS
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
        refuse_changes(present.source, source, ("selector",))
        return _rolled(present, meta, source)
    if meta.kind == "StatefulSet":
        return _stateful_set(meta, present, source)
    if isinstance(present, Job):
        _refuse_owned(present)
        source = _still_of_one(present.source, source)
        refuse_changes(_with_completions(present.source), _with_completions(source), _JOB_FIXED)
        return replace(present, meta=meta, source=keeping_template(present.source, source))
    return Job(meta, source, digest)


def _with_completions(source: Mapping[str, Any]) -> dict[str, Any]:
    """A Job that names neither completions nor parallelism is complete with one."""
    spec = source["spec"]
    named = "completions" in spec or "parallelism" in spec
    return dict(source) if named else {**source, "spec": {**spec, "completions": 1}}


def _still_of_one(live: Mapping[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """Such a Job does not become a work queue when it is told how many pods it may have at a time: Kubernetes has stored its default."""
    spec = source["spec"]
    if "parallelism" in spec and "completions" not in spec and _with_completions(live)["spec"].get("completions") == 1:
        return {**source, "spec": {**spec, "completions": 1}}
    return source


def _claim(meta: Meta, present: Record | None, source: dict[str, Any]) -> VolumeClaim:
    """All of its spec is fixed but the size, which may grow, as in Kubernetes."""
    if not isinstance(present, VolumeClaim):
        return VolumeClaim(meta, source)
    live, spec = present.source["spec"], source["spec"]
    names = sorted({*live, *spec, "storageClassName"} - {"resources"})
    refuse_changes(_with_class(present.source), _with_class(source), names, hint="make another claim")
    if _size_bytes(spec) < _size_bytes(live):
        raise ManifestError("may grow, not shrink", field="spec.resources.requests.storage", hint="make another claim")
    return replace(present, meta=meta, source={**source, "spec": {**live, "resources": spec["resources"]}})


def _with_class(source: Mapping[str, Any]) -> dict[str, Any]:
    """A claim with the class that it gets if it names none: the one that is shown of it."""
    return {**source, "spec": {"storageClassName": DEFAULT_CLASS, **source["spec"]}}


def _size_bytes(spec: Mapping[str, Any]) -> int:
    return memory_bytes(str(spec["resources"]["requests"]["storage"]))


def _stateful_set(meta: Meta, present: Record | None, source: dict[str, Any]) -> StatefulSet:
    if not isinstance(present, StatefulSet):
        return StatefulSet(meta, source, template_hash(source["spec"]["template"]))
    spec, live = source["spec"], present.source["spec"]
    refuse_changes(present.source, source, _STATEFUL_FIXED)
    if "replicas" not in spec and "replicas" in live:  # so that `scale` is not undone
        source = {**source, "spec": {**spec, "replicas": live["replicas"]}}
    return _rolled(present, meta, source)


def _rolled(present: _Set, meta: Meta, source: dict[str, Any]) -> _Set:
    source = keeping_template(present.source, keeping_restarts(present.source, source))
    return replace(present, meta=meta, source=source, template_hash=template_hash(source["spec"]["template"]))


def _refuse_owned(present: Any) -> None:
    owner = present.meta.owner
    if owner is not None:
        raise ManifestError(f"it belongs to {owner.kind.lower()} {owner.name}", hint=f"change the {owner.kind} instead")
