"""What a pod was made from, whatever owns it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from controller.model.cluster import Pod, World
from controller.model.identity import child_uid, claim_name

_REVISED = ("DaemonSet", "StatefulSet")


def template_of(world: World, pod: Pod) -> Mapping[str, Any] | None:
    """The pod template; None when neither the pod nor an owner says what it is: its owner is gone."""
    template: Mapping[str, Any] | None
    if pod.source is not None:
        template = {"metadata": pod.source.get("metadata") or {}, "spec": pod.source.get("spec") or {}}
    else:
        key = template_key(pod)
        template = template_at(world, key) if key else None
    return with_defaults(template, pod.defaults) if template is not None and pod.defaults else template


def with_defaults(template: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pod template with these resources in place of what its containers say."""
    spec = dict(template["spec"])
    for group in ("initContainers", "containers"):
        if spec.get(group):
            spec[group] = [
                {**item, "resources": defaults[item["name"]]} if item["name"] in defaults else item
                for item in spec[group]
            ]
    return {**template, "spec": spec}


def with_own_names(template: Mapping[str, Any], pod: Pod) -> Mapping[str, Any]:
    """The template of one pod of a StatefulSet: `data-*` of db-0 is `data-db-0`, and its host name is its own."""
    spec = dict(template.get("spec") or {})
    if "volumes" in spec:
        spec["volumes"] = [_with_own_claim(volume, pod.meta.name) for volume in spec["volumes"]]
    return {**template, "spec": {"hostname": pod.hostname or pod.meta.name, **spec}}


def _with_own_claim(volume: Mapping[str, Any], pod_name: str) -> Mapping[str, Any]:
    claim = volume.get("persistentVolumeClaim")
    if claim is None:
        return volume
    return {**volume, "persistentVolumeClaim": {**claim, "claimName": claim_name(claim["claimName"], pod_name)}}


def template_key(pod: Pod) -> str:
    """The uid of the record that holds the template of an owned pod: pods with the same key have the same template."""
    owner = pod.meta.owner
    if owner is None:
        return ""
    return revision_uid(owner.uid, pod.template_hash) if owner.kind in _REVISED else owner.uid


@lru_cache(maxsize=4096)
def revision_uid(owner_uid: str, template_hash: str) -> str:
    """The uid of the record that holds one template of a DaemonSet or StatefulSet."""
    return child_uid(owner_uid, f"revision/{template_hash}")


def pins_at(world: World, key: str) -> Mapping[str, str] | None:
    """The pins that a record holds beside its template; None while they are not settled. No record: nothing to settle."""
    record = record_at(world, key)
    pins: Mapping[str, str] | None = getattr(record, "images", {})
    return pins


def record_at(world: World, key: str) -> Any:
    """The record that holds a template: a ReplicaSet, a Revision or a Job; or what is left of a Job."""
    return world.replica_sets.get(key) or world.workloads.get(key) or world.workloads.get(left_uid(key))


def left_uid(owner_uid: str) -> str:
    """The uid of the revision that outlives a Job, while pods of it are where nobody can ask them to stop."""
    return revision_uid(owner_uid, "left")


def template_at(world: World, key: str) -> Mapping[str, Any] | None:
    """The template that a record holds."""
    template: Mapping[str, Any] | None = getattr(record_at(world, key), "template", None)
    return template
