"""Restarts by a changed config map or secret, for workloads that ask for it. Pure; Kubernetes has nothing like it.

In: the world. Out: changes of Deployments, DaemonSets and StatefulSets with the annotation `sshoal.dev/restart-on-config-change: "true"`
whose template names something with new content: the template gets an annotation that tells the content, which is a new revision, rolled
out by the workload's own strategy. Without the annotation nothing restarts: mounted files change in place.

What counts is that content *changed*: asking for restarts does not restart, nor does a config map that comes later than who names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from controller.decide.shapes import shape_of
from controller.decide.verbs import CONFIG_HASH, annotated, with_spec
from controller.model.cluster import Deployment, World
from controller.model.identity import content_hash
from controller.model.plan import Change
from controller.model.wire import referred_configs

if TYPE_CHECKING:
    from controller.model.workloads import DaemonSet, StatefulSet

ANNOTATION = "sshoal.dev/restart-on-config-change"
_KINDS = ("DaemonSet", "StatefulSet")


def restart_changed(world: World) -> tuple[Change, ...]:
    """New revisions for changed content, and what was seen of it now."""
    records: list[Deployment | DaemonSet | StatefulSet] = list(world.deployments.values())
    records += [item for item in world.workloads.values() if item.meta.kind in _KINDS]  # type: ignore[misc]
    asking = [
        item for item in records if item.meta.annotations.get(ANNOTATION) == "true" and item.meta.deleting is None
    ]
    quitting = [item for item in records if item.configs and item not in asking]
    if not asking and not quitting:
        return ()
    contents = {
        f"{item.meta.kind.lower()} {item.meta.key}": item.hash
        for item in world.declared.values()
        if item.meta.kind in ("ConfigMap", "Secret")
    }
    changes = [
        Change("update", replace(item, configs={}), "it asks for no restarts any more", quiet=True) for item in quitting
    ]
    changes += [change for item in asking if (change := _restart(item, contents)) is not None]
    return tuple(sorted(changes, key=lambda change: (change.record.meta.kind, change.record.meta.key)))


def _restart(record: Deployment | DaemonSet | StatefulSet, contents: Mapping[str, str]) -> Change | None:
    template = record.source["spec"]["template"]
    before = record.configs
    # What is not there (any more) keeps its former content: made again with the same one, it is no change.
    now = {
        name: content
        for name in _named(template, record.meta.namespace)
        if (content := contents.get(name) or before.get(name))
    }
    if now == before:
        return None
    fresh = replace(record, configs=now)
    changed = [name for name in now if name in before and now[name] != before[name]]
    if not changed:
        return Change("update", fresh, f"{record.meta.name} is restarted when {', '.join(now)} changes", quiet=True)
    digest = content_hash(now)[:16]
    fresh = with_spec(fresh, {"template": annotated(template, {CONFIG_HASH: digest})})
    because = f"{' and '.join(changed)} changed: the pods of {record.meta.name} are replaced"
    return Change("update", fresh, because, "ConfigChanged")


def _named(template: Mapping[str, object], namespace: str) -> list[str]:
    """Pull secrets are no content of pods."""
    wire = replace(shape_of(template, namespace).wire, pull_secrets=())
    configs, secrets = referred_configs(wire)
    return sorted((*(f"configmap {name}" for name in configs), *(f"secret {name}" for name in secrets)))
