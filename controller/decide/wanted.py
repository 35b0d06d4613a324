"""Each node's wanted set, complete, from the records. Pure.

In: the world as this pass leaves it. Out: a Wanted for every node that may be pushed to; and the digests that changed.
A pod that is stopping, and one that was lost and is not known to be stopped, are in the set: only what it names can be told anything.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from controller.decide import owners
from controller.decide.shapes import Shape, Shapes
from controller.model.cluster import Declared, Node, Pod, VolumeClaim, World
from controller.model.identity import claim_name, content_hash
from controller.model.plan import Change, NodeView, Wanted
from nodeagent import protocol

_Pairs = tuple[tuple[str, str], ...]


def wanted_sets(world: World, views: Mapping[str, NodeView], shapes: Shapes) -> dict[str, Wanted]:
    """By name of the node."""
    by_node: dict[str, list[Pod]] = defaultdict(list)
    for pod in world.pods.values():
        if pod.node:
            by_node[pod.node].append(pod)
    configs = {item.meta.key: item for item in world.declared.values() if item.meta.kind == "ConfigMap"}
    secrets = {item.meta.key: item.hash for item in world.declared.values() if item.meta.kind == "Secret"}
    claims, volumes = _claims(world)
    return {
        name: _wanted(world, node, by_node[name], configs, secrets, shapes, claims, volumes.get(name, ()))
        for name, node in sorted(world.nodes.items())
        if views[name].may_push
    }


def _claims(world: World) -> tuple[dict[tuple[str, str], VolumeClaim], Mapping[str, Sequence[protocol.ClaimVolume]]]:
    """Claims by namespace and name, and what each node is told of volumes."""
    if not world.claims:
        return {}, {}
    from controller.decide.claims import volumes_by_node  # loaded when there is a claim

    by_name = {(claim.meta.namespace, claim.meta.name): claim for claim in world.claims.values()}
    return by_name, volumes_by_node(world)


def new_digests(world: World, wanted: Mapping[str, Wanted]) -> tuple[Change, ...]:
    """Records the digest of each set that changed; the store gives it a serial with that."""
    return tuple(
        Change("update", replace(world.nodes[name], digest=item.digest), f"{name} gets a new wanted set", quiet=True)
        for name, item in wanted.items()
        if item.digest != world.nodes[name].digest
    )


def _wanted(
    world: World,
    node: Node,
    pods: Iterable[Pod],
    configs: Mapping[str, Declared],
    secrets: Mapping[str, str],
    shapes: Shapes,
    claims: Mapping[tuple[str, str], VolumeClaim],
    volumes: Sequence[protocol.ClaimVolume],
) -> Wanted:
    settings = world.cluster.settings
    config = protocol.NodeConfig(
        node.meta.name,
        node.subnet,
        settings.cluster_range,
        settings.host_paths,
        address=node.address,
        storage=tuple(sorted({place.path for place in node.storage.values() if place.path})),
    )
    digest = hashlib.sha256(content_hash(protocol.encode(config)).encode())
    wire_pods = []
    config_names: set[str] = set()
    secret_names: set[str] = set()
    for pod in sorted(pods, key=lambda pod: pod.meta.uid):
        shape = shapes.of(pod)
        wire, text = _pod(pod, shape, owners.pins_at(world, owners.template_key(pod)) or {}, claims)
        wire_pods.append(wire)
        digest.update(text.encode())
        if shape is not None:
            config_names |= shape.configs
            secret_names |= shape.secrets
    held = {name: _config(configs[name]) for name in sorted(config_names) if name in configs}
    hashes = {name: secrets[name] for name in sorted(secret_names) if name in secrets}
    digest.update(repr([(name, item.hash) for name, item in held.items()]).encode())
    digest.update(repr(sorted(hashes.items())).encode())
    if volumes:
        digest.update(repr(volumes).encode())
    return Wanted(config, digest.hexdigest()[:32], tuple(wire_pods), held, hashes, tuple(volumes))


def _pod(
    pod: Pod, shape: Shape | None, pins: Mapping[str, str], claims: Mapping[tuple[str, str], VolumeClaim]
) -> tuple[protocol.Pod, str]:
    """The pod as its node shall run it, and a text that changes with it."""
    meta, stop = pod.meta, pod.stop
    if shape is None:  # without a template there is nothing to run, only something to stop
        return protocol.Pod(meta.uid, meta.namespace, meta.name, pod.template_hash, (), stop=True), meta.uid
    labels, annotations = tuple(sorted(meta.labels.items())), tuple(sorted(meta.annotations.items()))
    grace_s = stop.grace_s if stop is not None else None
    host = pod.hostname or meta.name[:63].rstrip("-.")
    wire, text = _named(
        shape,
        meta.uid,
        meta.name,
        host,
        pod.template_hash,
        labels,
        annotations,
        stop is not None,
        grace_s,
        tuple(pins.items()),
    )
    if stop is not None and pod.report is None:
        # Its node has not spoken of it: it may have refused the set that brought it, and must not refuse its end for what it is made of.
        bare = protocol.Pod(meta.uid, meta.namespace, meta.name, pod.template_hash, (), stop=True)
        return replace(bare, grace_s=wire.grace_s, stop_grace_s=grace_s), f"{meta.uid} {wire.grace_s} {grace_s}"
    if not shape.claims and not pod.address:
        return wire, text
    mounted = tuple(_mounted(volume, pod, claims) for volume in wire.volumes)
    return replace(wire, volumes=mounted, address=pod.address), f"{text}{mounted!r}{pod.address}"


def _mounted(volume: protocol.Volume, pod: Pod, claims: Mapping[tuple[str, str], VolumeClaim]) -> protocol.Volume:
    """A claim's volume by its name on the node. Of a claim that is gone there is none: then the agent holds the pod back."""
    if volume.kind != "claim":
        return volume
    claim = claims.get((pod.meta.namespace, claim_name(volume.claim, pod.meta.name)))
    return replace(volume, claim=claim.volume if claim is not None and claim.node == pod.node else "")


@lru_cache(maxsize=32768)
def _named(
    shape: Shape,
    uid: str,
    name: str,
    host: str,
    hash: str,
    labels: _Pairs,
    annotations: _Pairs,
    stop: bool,
    grace_s: int | None,
    pins: _Pairs,
) -> tuple[protocol.Pod, str]:
    """The template's wire form under a pod's own name. All that distinguishes the two, with the template's hash, is as telling as the
    whole, and a tenth of the work. Cached by value, since a watching controller makes the same sets again and again."""
    wire = replace(
        shape.wire,
        uid=uid,
        name=name,
        hash=hash,
        labels=dict(labels),
        annotations=dict(annotations),
        hostname=shape.wire.hostname or host,
        stop=stop,
        stop_grace_s=grace_s,
        containers=_pinned(shape.wire.containers, pins),
        init_containers=_pinned(shape.wire.init_containers, pins),
    )
    return wire, repr((shape.wire_hash, uid, name, host, hash, labels, annotations, stop, grace_s, pins))


def _pinned(containers: tuple[protocol.Container, ...], pins: _Pairs) -> tuple[protocol.Container, ...]:
    if not pins:
        return containers
    by_image = dict(pins)
    return tuple(replace(container, pin=by_image.get(container.image, "")) for container in containers)


def _config(item: Declared) -> protocol.Config:
    source: Mapping[str, Any] = item.source
    return protocol.Config(item.hash, dict(source.get("data") or {}), dict(source.get("binaryData") or {}))
