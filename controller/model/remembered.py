"""What a node's record keeps of its host, and the host rebuilt from that once the inventory has it no more. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from controller.model.cluster import HostEntry, Node, Storage, Taint
from controller.model.inventory import ROOTLESS, Host

_SOURCE = "(no longer in the inventory)"
_DIRECTORY = "inventory_dir"
_SECRET_WORDS = re.compile("pass")


def entry_of(host: Host) -> HostEntry:
    """A host of the inventory as decisions need it, and as its node's record keeps it: without passwords. Raises InventoryError."""
    connection = host.connection
    taints = tuple(Taint(taint.key, taint.value, taint.effect) for taint in host.taints)
    kept = {
        name: value
        for name, value in host.vars.items()
        if (name.startswith("ansible_") or name == ROOTLESS)
        and isinstance(value, str | int | bool)
        and not _SECRET_WORDS.search(name)
    }
    return HostEntry(
        host.name,
        connection.address,
        host.labels,
        taints,
        ",".join(connection.proxy_jump),
        {**kept, _DIRECTORY: host.directory},
        _storage(host),
    )


def _storage(host: Host) -> Mapping[str, Storage]:
    if "sshoal_volumes" not in host.vars:
        return {}
    from controller.model.inventory_storage import storage_of  # few hosts declare any

    return storage_of(host)


def remembered_host(node: Node) -> Host:
    """The host of a node, reached as it last was."""
    variables = {"ansible_host": node.address, **node.connection}
    return Host(node.meta.name, (), variables, _SOURCE, str(node.connection.get(_DIRECTORY, "")))


def is_remembered(host: Host) -> bool:
    return host.source == _SOURCE
