"""What the fields of PersistentVolumeClaims must agree on. Pure. Semantics: Kubernetes' own validation of core/v1."""

from __future__ import annotations

from collections.abc import Iterator

from controller.model import quantity
from controller.model.kinds.meta import check_dns_subdomain
from controller.model.kinds.storage import PersistentVolumeClaimSpec

Path = tuple[str | int, ...]
Problem = tuple[Path, str]


def claim_problems(spec: PersistentVolumeClaimSpec, at: Path) -> Iterator[Problem]:
    """Every problem of the spec of a claim, or of a claim template."""
    if not spec.access_modes:
        yield (*at, "accessModes"), "must name one at least: ReadWriteOnce is what a volume on one node can do"
    if "ReadWriteOncePod" in spec.access_modes and len(set(spec.access_modes)) > 1:
        yield (*at, "accessModes"), "ReadWriteOncePod may not be combined with others"
    asked, limit = spec.resources.requests.get("storage"), spec.resources.limits.get("storage")
    if asked is None:
        yield (*at, "resources", "requests", "storage"), "is required, for example 1Gi"
    elif quantity.memory_bytes(asked) <= 0:
        yield (*at, "resources", "requests", "storage"), "must be more than 0"
    elif limit is not None and quantity.memory_bytes(asked) > quantity.memory_bytes(limit):
        yield (*at, "resources", "requests", "storage"), f"{asked} is more than the limit, {limit}"
    names = {"storageClassName": spec.storage_class_name, "volumeName": spec.volume_name}
    for field, name in names.items():
        if name:
            try:
                check_dns_subdomain(name)
            except ValueError as error:
                yield (*at, field), str(error)
