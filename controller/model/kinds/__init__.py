"""The kinds that sshoal knows: frozen pydantic models with Kubernetes' field names and defaults. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from controller.model.kinds.config import ConfigMap, Namespace, Secret
from controller.model.kinds.meta import LabelSelector, Object, ObjectMeta
from controller.model.kinds.pod import Container, Pod, PodSpec, PodTemplateSpec, Probe, Toleration
from controller.model.kinds.scheduling import PriorityClass
from controller.model.kinds.workloads import Deployment, ReplicaSet

# Kind → (its module here, its apiVersion). A module that is not imported above is loaded when such an object is there.
_PLACES: dict[str, tuple[str, str]] = {
    "Namespace": ("config", "v1"),
    "Pod": ("pod", "v1"),
    "ReplicaSet": ("workloads", "apps/v1"),
    "Deployment": ("workloads", "apps/v1"),
    "StatefulSet": ("sets", "apps/v1"),
    "DaemonSet": ("sets", "apps/v1"),
    "Job": ("batch", "batch/v1"),
    "CronJob": ("batch", "batch/v1"),
    "ConfigMap": ("config", "v1"),
    "Secret": ("config", "v1"),
    "ResourceQuota": ("policy", "v1"),
    "LimitRange": ("policy", "v1"),
    "PriorityClass": ("scheduling", "scheduling.k8s.io/v1"),
    "PodDisruptionBudget": ("disruption", "policy/v1"),
    "PersistentVolumeClaim": ("storage", "v1"),
    "HorizontalPodAutoscaler": ("autoscaling", "autoscaling/v2"),
}


class _Kinds(Mapping[str, type[Object]]):
    def __getitem__(self, kind: str) -> type[Object]:
        module, _ = _PLACES[kind]
        model: type[Object] = getattr(import_module(f"controller.model.kinds.{module}"), kind)
        return model

    def __contains__(self, kind: object) -> bool:
        return kind in _PLACES

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


KINDS: Mapping[str, type[Object]] = _Kinds()
API_VERSIONS: dict[str, str] = {kind: version for kind, (_, version) in _PLACES.items()}

__all__ = [
    "API_VERSIONS",
    "KINDS",
    "ConfigMap",
    "Container",
    "Deployment",
    "LabelSelector",
    "Namespace",
    "Object",
    "ObjectMeta",
    "Pod",
    "PodSpec",
    "PodTemplateSpec",
    "PriorityClass",
    "Probe",
    "ReplicaSet",
    "Secret",
    "Toleration",
]
