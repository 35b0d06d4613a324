"""Whether a manifest that is written differently says the same: defaults filled in, and quantities as numbers. Pure.

Kubernetes compares objects after defaulting: a default that is written out, or 1024Mi for 1Gi, changes nothing. Here what is stored is what
the user wrote, so that what is read from both is compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from controller.model import quantity
from controller.model.errors import ManifestError
from controller.model.kinds.pod import EmptyDirVolumeSource, PodSpec, ResourceFieldSelector, Volume
from controller.model.manifest import parse_object, parse_template

_QUANTITIES = ("requests", "limits", "size_limit", "divisor")


def refuse_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], fixed: Sequence[str], *, hint: str = "delete it first"
) -> None:
    """Raises ManifestError for the first of these fields of the spec that does not say the same in two sources of an object."""
    written = [name for name in fixed if before["spec"].get(name) != after["spec"].get(name)]
    changed = changed_fields(before, after) if written else ()
    for name in written:
        if name in changed:
            problem = f"cannot be changed once the {_words(after['kind'])} is there"
            raise ManifestError(problem, field=f"spec.{name}", hint=hint)


def keeping_template(live: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the pod template as it was written before where that says the same: its hash stays, and nothing is rolled out."""
    if not is_same_template(live["spec"]["template"], source["spec"]["template"]):
        return dict(source)
    return {**source, "spec": {**source["spec"], "template": live["spec"]["template"]}}


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> frozenset[str]:
    """Kubernetes' names of the fields of the spec that do not say the same in two sources of an object.

    Of what was stored by a version that knew more, those that are written differently.
    """
    new: Any = parse_object(after["kind"], dict(after))
    try:
        old: Any = parse_object(after["kind"], dict(before))
    except ManifestError:
        names = before["spec"].keys() | after["spec"].keys()
        return frozenset(name for name in names if before["spec"].get(name) != after["spec"].get(name))
    return frozenset(
        field.alias or name
        for name, field in type(new.spec).model_fields.items()
        if _meaning(name, getattr(old.spec, name)) != _meaning(name, getattr(new.spec, name))
    )


def is_same_template(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Of pod templates as written. What was stored by a version that knew more is none that this one can write."""
    if before == after:
        return True
    try:
        return bool(_meaning("", parse_template(before)) == _meaning("", parse_template(after)))
    except ManifestError:
        return False


def _meaning(name: str, value: Any) -> Any:
    """Of a field: what can be compared."""
    if isinstance(value, BaseModel):
        return _completed(value, {name: _meaning(name, getattr(value, name)) for name in type(value).model_fields})
    if isinstance(value, tuple | list):
        return [_meaning("", item) for item in value]
    if name in _QUANTITIES and isinstance(value, Mapping):
        return {key: quantity.exact(item) for key, item in value.items()}
    if name in _QUANTITIES and isinstance(value, str):
        return quantity.exact(value)
    return value


def _completed(model: BaseModel, said: dict[str, Any]) -> dict[str, Any]:
    """What Kubernetes fills in from other fields of the same object."""
    if isinstance(model, Volume) and not any(item is not None for name, item in said.items() if name != "name"):
        said["empty_dir"] = _meaning("", EmptyDirVolumeSource())
    if isinstance(model, ResourceFieldSelector):
        said["divisor"] = model.canonical_divisor
    if isinstance(model, PodSpec) and model.host_network:
        for port in (port for item in (*said["init_containers"], *said["containers"]) for port in item["ports"]):
            port["host_port"] = port["host_port"] or port["container_port"]
    return said


def with_requests(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a Pod of its own, whose containers ask for what they are limited to unless they ask for something else."""
    filled = dict(spec)
    for group in ("initContainers", "containers"):
        filled[group] = [_asking(item) for item in spec.get(group) or ()]
    return filled


def _asking(container: Mapping[str, Any]) -> dict[str, Any]:
    resources = container.get("resources") or {}
    requests = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {**container, "resources": {**resources, "requests": requests}}


def _words(kind: str) -> str:
    """StatefulSet → stateful set."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", kind).lower()
