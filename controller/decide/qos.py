"""The quality of service of a pod: how much of what it may use is promised to it. Pure.

Semantics: k8s.io/kubernetes pkg/apis/core/v1/helper/qos, ComputePodQOS: an amount of 0 is nothing said.
"""

from __future__ import annotations

from typing import Literal

from controller.model.kinds.pod import Container, PodSpec, ResourceName
from controller.model.quantity import exact

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]
_COUNTED: tuple[ResourceName, ...] = ("cpu", "memory")


def qos_class(spec: PodSpec) -> QosClass:
    """Guaranteed: every container's requests are its limits; BestEffort: none asks for nor is limited in anything."""
    containers = (*spec.init_containers, *spec.containers)
    if not any(_amounts(item) for item in containers):
        return "BestEffort"
    return "Guaranteed" if all(_is_guaranteed(item) for item in containers) else "Burstable"


def _amounts(container: Container) -> list[str]:
    resources = container.resources
    said = (*resources.requests.items(), *resources.limits.items())
    return [name for name, amount in said if name in _COUNTED and exact(amount)]


def _is_guaranteed(container: Container) -> bool:
    resources = container.resources
    for name in _COUNTED:
        limit = exact(resources.limits.get(name, "0"))
        if not limit or exact(resources.request(name) or "0") != limit:
            return False
    return True
