"""Objects of an older API version that Kubernetes still takes → the same objects of the version that it keeps. Pure.

In: data as written. Out: the data changed in place, and problems with what the newer version would not show. So far autoscaling/v1,
whose only metric is the processor (conversion as in Kubernetes, pkg/apis/autoscaling/v1).
"""

from __future__ import annotations

from typing import Any

from controller.model.shape import Problem, describe, is_whole
from controller.model.yamlscan import Document, Path

VERSIONS = {"HorizontalPodAutoscaler": "autoscaling/v1"}
_CPU = "targetCPUUtilizationPercentage"
_NEWER = tuple(f"autoscaling.alpha.kubernetes.io/{name}" for name in ("metrics", "behavior"))


def renewed(data: dict[str, Any], document: Document, at: Path) -> list[Problem]:
    """Changes `data`, which lies at the path `at` of `document`, when it is of such a version."""
    if VERSIONS.get(data["kind"]) != data["apiVersion"]:
        return []
    data["apiVersion"] = "autoscaling/v2"
    problems = _newer_in_annotations(data, document, at)
    spec = data.get("spec")
    if not isinstance(spec, dict):
        return problems  # the model says so
    for name in ("metrics", "behavior"):
        if name in spec:
            path = ("spec", name)
            message = f"is of autoscaling/v2; autoscaling/v1 has {_CPU}"
            problems.append(Problem(path, message, document.line_of((*at, *path))))
    if _CPU in spec:
        percentage, line = spec[_CPU], document.line_of((*at, "spec", _CPU))
        document.remove(spec, _CPU)
        percentage = int(percentage) if is_whole(percentage) else percentage
        if percentage is not None and (type(percentage) is not int or percentage < 1):
            told = str(percentage) if type(percentage) is int else describe(percentage)
            problems.append(Problem(("spec", _CPU), f"must be a whole number, 1 at least, not {told}", line))
        elif percentage is not None and "metrics" not in spec:
            target = {"type": "Utilization", "averageUtilization": percentage}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    return problems


def _newer_in_annotations(data: dict[str, Any], document: Document, at: Path) -> list[Problem]:
    """`kubectl get hpa.v1.autoscaling` shows there what autoscaling/v1 has no fields for."""
    metadata = data.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    problems = []
    for key in [key for key in _NEWER if key in annotations] if isinstance(annotations, dict) else ():
        path: Path = ("metadata", "annotations", key)
        message = "is not read: write it as autoscaling/v2, which has fields for it"
        problems.append(Problem(path, message, document.line_of((*at, *path))))
    return problems
