"""What a pod template asks for, read once: Pod records refer to their ReplicaSet's template, and thousands share one. Pure.

In: templates as written. Out: a Shape: the parsed spec, its requests, its ports, and the pod as the wire wants it. Shapes are cached by the
template's text, which is its value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from controller.decide import owners
from controller.model import kinds, quantity
from controller.model.cluster import Deployment, Pod, Taint, World
from controller.model.errors import PlanBug
from controller.model.identity import claim_name, content_hash
from controller.model.kinds.pod import Container, PodSpec, PodTemplateSpec, Toleration
from controller.model.kinds.workloads import DeploymentSpec
from controller.model.manifest import parse_object
from controller.model.wire import referred_configs, wire_pod
from nodeagent import protocol

UNREACHABLE = "node.kubernetes.io/unreachable"
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104  (compared with, never bound to)
_UNREACHABLE_DEFAULT_S = 300.0  # Kubernetes' DefaultTolerationSeconds
_SCORED_CPU_M, _SCORED_MEMORY_BYTES = 100, 200 * 2**20  # Kubernetes' DefaultMilliCPURequest and DefaultMemoryRequest


@dataclass(frozen=True, slots=True)
class HostPort:
    port: int
    protocol: str
    ip: str  # "": all addresses

    def conflicts(self, other: HostPort) -> bool:
        same = self.port == other.port and self.protocol == other.protocol
        return same and (not self.ip or not other.ip or self.ip == other.ip)


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One template. Compared by identity: the cache gives equal templates the same object."""

    spec: PodSpec
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    cpu_m: int
    memory_bytes: int
    scored_cpu_m: int  # as scores count it: a container that asks for nothing counts for a little
    scored_memory_bytes: int
    ports: tuple[HostPort, ...]
    unreachable_s: float | None  # how long its pods stay on an Unknown node; None: for ever
    wire: protocol.Pod  # of a pod without a name
    wire_hash: str
    configs: frozenset[str]  # "namespace/name" of the config maps that it reads
    secrets: frozenset[str]
    claims: tuple[str, ...]  # names of volume claims, with OWN_NAME in the place of the pod's name


class Shapes:
    """The shapes of one world's pods, looked up once per owner."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[str, Shape] = {}

    def of(self, pod: Pod) -> Shape | None:
        """None when neither the pod nor an owner says what it is: its owner is gone."""
        if pod.source is not None:
            return self._made(pod)
        key = owners.template_key(pod)
        if not pod.defaults:
            return self.of_owner(key, pod.meta.namespace)
        key = f"{key} {json.dumps(pod.defaults, sort_keys=True)}"
        shape = self._known.get(key) or self._made(pod)
        if shape is not None:
            self._known[key] = shape
        return shape

    def _made(self, pod: Pod) -> Shape | None:
        template = owners.template_of(self._world, pod)
        return shape_of(template, pod.meta.namespace) if template is not None else None

    def of_owner(self, key: str, namespace: str) -> Shape | None:
        """The shape of all pods whose template is held by one record, given by its uid, and taken as it is."""
        shape = self._known.get(key)
        if shape is None:
            template = owners.template_at(self._world, key)
            if template is not None:
                shape = self._known[key] = shape_of(template, namespace)
        return shape


def claims_of(pod: Pod, shape: Shape) -> tuple[str, ...]:
    """Names of the volume claims of one pod of a shape."""
    return tuple(claim_name(name, pod.meta.name) for name in shape.claims)


def shape_of(template: Mapping[str, Any], namespace: str) -> Shape:
    """Raises PlanBug for a template that this version cannot read: what is stored was checked when it came in."""
    return _shape(json.dumps(template, sort_keys=True), namespace)


def spec_of(deployment: Deployment) -> DeploymentSpec:
    """The spec with Kubernetes' defaults."""
    return _deployment(json.dumps(deployment.source, sort_keys=True)).spec


def matching_seconds(tolerations: tuple[Toleration, ...], key: str, value: str, effect: str) -> float | None:
    """How long a taint is tolerated: 0.0 not at all, None for ever.

    Kubernetes' rule: of all tolerations that match, the shortest time counts; those without a time do not shorten it.
    """
    matching = [item for item in tolerations if tolerates(item, key, value, effect)]
    if not matching:
        return 0.0
    times = [item.toleration_seconds for item in matching if item.toleration_seconds is not None]
    return max(0.0, float(min(times))) if times else None


def tolerates(toleration: Toleration, key: str, value: str, effect: str) -> bool:
    if toleration.effect and toleration.effect != effect:
        return False
    if toleration.key and toleration.key != key:
        return False
    return toleration.operator == "Exists" or (bool(toleration.key) and toleration.value == value)


def forbidden_path(shape: Shape, allowed: tuple[str, ...]) -> str:
    """The first hostPath of a template that no prefix of the allow-list covers; "" when there is none."""
    for volume in shape.wire.volumes:
        inside = any(f"{volume.path}/".startswith(f"{prefix.rstrip('/')}/") for prefix in allowed)
        if volume.kind == "host" and (not inside or ".." in volume.path.split("/")):
            return volume.path
    return ""


def tolerated(tolerations: tuple[Toleration, ...], taint: Taint) -> bool:
    return any(tolerates(item, taint.key, taint.value, taint.effect) for item in tolerations)


@lru_cache(maxsize=4096)
def _deployment(text: str) -> kinds.Deployment:
    parsed = parse_object("Deployment", json.loads(text))
    if not isinstance(parsed, kinds.Deployment):
        raise PlanBug("a stored Deployment is none")
    return parsed


@lru_cache(maxsize=8192)
def _shape(text: str, namespace: str) -> Shape:
    try:
        template = PodTemplateSpec.model_validate(_without_names(json.loads(text)), by_alias=True, by_name=False)
    except ValueError as error:
        raise PlanBug("a stored pod template cannot be read by this version", hint=str(error)) from None
    spec = template.spec
    labels, annotations = template.metadata.labels, template.metadata.annotations
    wire = wire_pod(spec, uid="", namespace=namespace, name="", hash="", labels=labels, annotations=annotations)
    configs, secrets = referred_configs(wire)
    cpu_m, memory_bytes = _requests(spec, 0, 0)
    scored_cpu_m, scored_memory_bytes = _requests(spec, _SCORED_CPU_M, _SCORED_MEMORY_BYTES)
    return Shape(
        spec=spec,
        labels=labels,
        annotations=annotations,
        cpu_m=cpu_m,
        memory_bytes=memory_bytes,
        scored_cpu_m=scored_cpu_m,
        scored_memory_bytes=scored_memory_bytes,
        ports=_host_ports(spec),
        unreachable_s=_unreachable_s(spec),
        wire=wire,
        wire_hash=content_hash(protocol.encode(wire)),
        configs=configs,
        secrets=secrets,
        claims=tuple(dict.fromkeys(volume.claim for volume in wire.volumes if volume.kind == "claim")),
    )


def _without_names(template: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: item for key, item in (template.get("metadata") or {}).items() if key in ("labels", "annotations")}
    return {"metadata": metadata, "spec": template["spec"]}


def _requests(spec: PodSpec, unset_cpu_m: int, unset_memory_bytes: int) -> tuple[int, int]:
    """Kubernetes' effective request: all containers and sidecars together, or the largest moment of the init phase.

    Args:
        unset_cpu_m, unset_memory_bytes: what a container counts for that asks for nothing.
    """

    def summed(containers: tuple[Container, ...]) -> tuple[int, int]:
        cpu_m = memory_bytes = 0
        for item in containers:
            cpu, memory = item.resources.request("cpu"), item.resources.request("memory")
            cpu_m += unset_cpu_m if cpu is None else quantity.cpu_millicores(cpu)
            memory_bytes += unset_memory_bytes if memory is None else quantity.memory_bytes(memory)
        return cpu_m, memory_bytes

    cpu_m, memory_bytes = summed(spec.containers)
    peak_cpu_m = peak_memory = sidecar_cpu_m = sidecar_memory = 0
    for init in spec.init_containers:
        own_cpu_m, own_memory = summed((init,))
        if init.restart_policy == "Always":
            sidecar_cpu_m += own_cpu_m
            sidecar_memory += own_memory
            own_cpu_m = own_memory = 0
        peak_cpu_m = max(peak_cpu_m, sidecar_cpu_m + own_cpu_m)
        peak_memory = max(peak_memory, sidecar_memory + own_memory)
    return max(cpu_m + sidecar_cpu_m, peak_cpu_m), max(memory_bytes + sidecar_memory, peak_memory)


def _host_ports(spec: PodSpec) -> tuple[HostPort, ...]:
    """With hostNetwork every container port is one of the host's, as in Kubernetes."""
    ports = []
    for container in (*spec.init_containers, *spec.containers):
        for port in container.ports:
            number = port.host_port or (port.container_port if spec.host_network else None)
            if number:
                ports.append(HostPort(number, port.protocol, "" if port.host_ip == _ALL_ADDRESSES else port.host_ip))
    return tuple(ports)


def _unreachable_s(spec: PodSpec) -> float | None:
    if not any(tolerates(item, UNREACHABLE, "", "NoExecute") for item in spec.tolerations):
        return _UNREACHABLE_DEFAULT_S
    return matching_seconds(spec.tolerations, UNREACHABLE, "", "NoExecute")
