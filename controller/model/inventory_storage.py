"""The host variable `sshoal_volumes`: where a host keeps the volumes of which storage class. Pure; loaded when a host has it.

sshoal_volumes:
  fast: /srv/fast                      a directory of the host; each claim gets one of its own in it
  slow: {path: /srv/slow, size: 200Gi} claims may ask for so much there in all
  standard: podman                     another name of Podman's own volumes
  podman: {size: 50Gi}                 the same under their own name, which every host has: only a size can be said
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.model import quantity
from controller.model.cluster import Storage
from controller.model.inventory import Host
from controller.model.kinds.meta import check_dns_subdomain

VARIABLE = "sshoal_volumes"
PODMAN = "podman"  # the class that every host has, and that a claim gets which names none
_HINT = "sshoal_volumes: {fast: /srv/fast, slow: {path: /srv/slow, size: 200Gi}}"
_FORBIDDEN = ("/", "/proc", "/sys", "/dev", "/run", "/boot", "/etc", "/usr", "/bin", "/sbin", "/lib", "/root")


def storage_of(host: Host) -> dict[str, Storage]:
    """By name of the class. Raises InventoryError with host, class and what is wrong."""
    written = host.vars.get(VARIABLE) or {}
    if not isinstance(written, Mapping):
        raise host.error(VARIABLE, "must be a mapping of storage class to place", hint=_HINT)
    return {str(name): _place(host, name, place) for name, place in sorted(written.items(), key=str)}


def _place(host: Host, name: Any, place: Any) -> Storage:
    try:
        check_dns_subdomain(str(name))
    except ValueError as error:
        raise host.error(VARIABLE, str(error), hint=_HINT) from None
    where = f"{VARIABLE}.{name}"
    fields = {"path": place} if isinstance(place, str) else place
    if not isinstance(fields, Mapping) or not fields.keys() <= {"path", "size"}:
        raise host.error(where, "must be a path, or a mapping with path and size", hint=_HINT)
    path = fields.get("path", "")
    if name == PODMAN and path:
        raise host.error(where, "is Podman's own storage: only its size can be declared", hint=_HINT)
    if name == PODMAN or path == PODMAN:
        path = ""
    else:
        _check_path(host, where, path)
    return Storage(path.rstrip("/"), _size_bytes(host, where, fields.get("size")))


def _check_path(host: Host, where: str, path: Any) -> None:
    if not isinstance(path, str) or not path.startswith("/") or {"..", "."} & set(path.split("/")):
        raise host.error(where, "needs an absolute path without '.' and '..'", hint=_HINT)
    bare = path.rstrip("/") or "/"
    if bare in _FORBIDDEN or bare.startswith(("/proc/", "/sys/", "/dev/")):
        raise host.error(where, f"{bare} belongs to the system", hint="a directory of its own, such as /srv/volumes")


def _size_bytes(host: Host, where: str, size: Any) -> int:
    if size is None:
        return 0
    try:
        size_bytes = quantity.memory_bytes(str(size))
    except ValueError as error:
        raise host.error(where, f"size: {error}", hint=_HINT) from None
    if size_bytes <= 0:
        raise host.error(where, "size must be more than 0", hint="leave it out when it is not known")
    return size_bytes
