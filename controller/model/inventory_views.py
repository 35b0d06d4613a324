"""What `sshoal inventory list|graph|host` print: byte for byte what ansible-inventory prints. Pure.

Vaulted values appear as their ciphertext, as there; a vault *file* was opened when it was read, so its values appear in the clear.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

from controller.model.errors import InventoryError, NotFound
from controller.model.inventory import Host, Inventory, Unsafe, VaultText

GRAPH_LINES_MAX = 100_000

# Names that ansible-inventory keeps for itself, and therefore never prints.
_INTERNAL = frozenset(
    (
        "ansible_async_path",
        "ansible_collection_name",
        "ansible_config_file",
        "ansible_dependent_role_names",
        "ansible_diff_mode",
        "ansible_facts",
        "ansible_forks",
        "ansible_inventory_sources",
        "ansible_limit",
        "ansible_play_batch",
        "ansible_play_hosts",
        "ansible_play_hosts_all",
        "ansible_play_role_names",
        "ansible_playbook_python",
        "ansible_role_name",
        "ansible_role_names",
        "ansible_run_tags",
        "ansible_skip_tags",
        "ansible_verbosity",
        "ansible_version",
        "inventory_dir",
        "inventory_file",
        "inventory_hostname",
        "inventory_hostname_short",
        "groups",
        "group_names",
        "hostvars",
        "playbook_dir",
        "play_hosts",
        "role_name",
        "role_names",
        "role_path",
        "role_uuid",
    )
)


def list_json(inventory: Inventory) -> str:
    """As `ansible-inventory --list`."""
    return _json(list_data(inventory))


def host_json(inventory: Inventory, name: str) -> str:
    """As `ansible-inventory --host NAME`. Raises NotFound."""
    return _json(host_data(inventory, name))


def graph_text(inventory: Inventory, group: str = "all") -> str:
    """As `ansible-inventory --graph GROUP`. Raises NotFound, InventoryError when it would be endless."""
    if group not in inventory.groups:
        raise NotFound(f"there is no group {group!r}")
    lines: list[str] = []
    _draw(inventory, group, 0, lines)
    return "\n".join(lines)


def list_data(inventory: Inventory) -> dict[str, Any]:
    """The content of list_json, as plain data."""
    shown: dict[str, Any] = {}
    _add_group(inventory, "all", shown, {"all"})
    hostvars = {host.name: _plain(_visible(host), _marked) for host in inventory.members("all") if _visible(host)}
    return {**shown, "_meta": {"hostvars": hostvars, "profile": "inventory_legacy"}}


def host_data(inventory: Inventory, name: str) -> dict[str, Any]:
    """The content of host_json, as plain data. Raises NotFound."""
    if name not in inventory.hosts:
        raise NotFound(f"there is no host {name!r} in the inventory")
    plain: dict[str, Any] = _plain(_visible(inventory.hosts[name]), str)
    return plain


def _add_group(inventory: Inventory, name: str, shown: dict[str, Any], seen: set[str]) -> None:
    group = inventory.groups[name]
    entry: dict[str, list[str]] = {}
    if group.children:
        entry["children"] = list(group.children)
    if group.hosts and name != "all":
        entry["hosts"] = list(group.hosts)
    if entry:
        shown[name] = entry
    for child in group.children:
        if child not in seen:
            seen.add(child)
            _add_group(inventory, child, shown, seen)


def _draw(inventory: Inventory, name: str, depth: int, lines: list[str]) -> None:
    """A group with several parents is drawn below each: a small inventory can have a graph of billions of lines."""
    group = inventory.groups[name]
    lines.append(_branch(f"@{name}:", depth))
    for child in group.children:
        _draw(inventory, child, depth + 1, lines)
    if name != "all":
        lines += [_branch(host, depth + 1) for host in group.hosts]
    if len(lines) > GRAPH_LINES_MAX:
        raise InventoryError(
            f"the graph has more than {GRAPH_LINES_MAX} lines", hint="draw one group: inventory graph GROUP"
        )


def _branch(text: str, depth: int) -> str:
    return "  |" * depth + "--" + text if depth else text


def _visible(host: Host) -> dict[str, Any]:
    return {name: value for name, value in host.vars.items() if name not in _INTERNAL}


def _plain(value: Any, unsafe: Callable[[Unsafe], Any]) -> Any:
    """Variables as JSON can hold them."""
    match value:
        case VaultText():
            return {"__ansible_vault": value.ciphertext}
        case Unsafe():
            return unsafe(value)
        case dict():
            return {name: _plain(item, unsafe) for name, item in value.items()}
        case list() | tuple():
            return [_plain(item, unsafe) for item in value]
        case set() | frozenset():
            return sorted((_plain(item, unsafe) for item in value), key=str)
        case datetime.date():
            return value.isoformat()
    return value


def _marked(value: Unsafe) -> dict[str, str]:
    """`--list` says which strings are no templates, since its output can be read back as an inventory; `--host` does not."""
    return {"__ansible_unsafe": str(value)}


def _json(data: dict[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, indent=4, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair, written as "\ud800", cannot be printed
