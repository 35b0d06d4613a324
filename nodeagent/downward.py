"""The downward API: a pod's fields and its containers' resources as text, for variables (spec) and files (projection). Pure.

In: protocol.Pod and a field's or resource's name as Kubernetes writes it. Out: the text kubelet gives.
"""

import json
from collections.abc import Mapping
from typing import Optional

from nodeagent.protocol import Capacity, Pod

_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
_UNITS = {"": 1, **_DECIMAL, **_BINARY}


def field(pod: Pod, path: str) -> Optional[str]:
    """What both variables and files offer: names, and single labels and annotations (empty when unset). None for any other field."""
    plain = {"metadata.name": pod.name, "metadata.namespace": pod.namespace, "metadata.uid": pod.uid}
    entries, bracket, rest = path.partition("['")
    if bracket and rest.endswith("']") and entries in _maps(pod):
        return _maps(pod)[entries].get(rest[:-2], "")
    return plain.get(path)


def listing(pod: Pod, path: str) -> Optional[str]:
    """All labels or annotations, one quoted line each, in order: in files only. None for any other field."""
    entries = _maps(pod).get(path)
    if entries is None:
        return None
    return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(entries.items()))


def _maps(pod: Pod) -> Mapping[str, Mapping[str, str]]:
    return {"metadata.labels": pod.labels, "metadata.annotations": pod.annotations}


def resource(pod: Pod, container: str, name: str, divisor: str, capacity: Capacity) -> str:
    """A resource of a container of the pod, divided and rounded up. An unset limit counts as what the node has.

    Worked example: limits.memory of 65 MiB + 1 byte by "1Mi" gives "66". Raises LookupError: no such container or resource.
    """
    subject = next((item for item in (*pod.containers, *pod.init_containers) if item.name == container), None)
    if subject is None:
        raise LookupError(f"the pod has no container {container!r}")
    cpu_m = {"limits.cpu": subject.cpu_limit_m or capacity.cpu_m, "requests.cpu": subject.cpu_request_m}
    memory_bytes = {
        "limits.memory": subject.memory_limit_bytes or capacity.memory_bytes,
        "requests.memory": subject.memory_request_bytes,
    }
    disk_bytes = {
        "limits.ephemeral-storage": subject.disk_limit_bytes or capacity.disk_free_bytes,
        "requests.ephemeral-storage": subject.disk_request_bytes,
    }
    if name in cpu_m:
        return str(-(-cpu_m[name] // (1 if divisor == "1m" else 1000 * _divisor(divisor))))
    if name in {**memory_bytes, **disk_bytes}:
        return str(-(-{**memory_bytes, **disk_bytes}[name] // _divisor(divisor)))
    raise LookupError(f"resource {name!r} can't be had")


def _divisor(text: str) -> int:
    """Of "1", "1k", "1Mi" …; empty or "0" means 1, as in Kubernetes."""
    digits = text.rstrip("kKMGTPEi")
    count = int(digits) if digits.isascii() and digits.isdigit() else 1
    return max(1, count * _UNITS.get(text[len(digits) :], 1))
