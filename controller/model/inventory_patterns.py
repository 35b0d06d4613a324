"""Which hosts an Ansible pattern names. Pure.

The semantics are ansible-core's (inventory manager): plain parts first, then every `&`, then every `!`, whatever their order;
groups are tried before hosts; a subscript counts within what its part matched. Unlike there, a part that names nothing is an error, and
so are brackets that do not match: Ansible leaves them out, so that `web[` is all of web.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from controller.model.errors import InventoryError, NotFound
from controller.model.inventory import Host, Inventory

_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?[0-9]+)|([0-9]+):([0-9]*))\]", re.DOTALL)
_COLON_PARTS = re.compile(r"(?:[^\s:\[\]]|\[[^\]]*\])+")
_RANGE = re.compile(r"\[(?:[a-z]:[a-z]|[0-9]+:[0-9]+)(?::[0-9]+)?\]", re.IGNORECASE)
_HOST_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])*):[0-9]+")
_HOST_NAME = re.compile(r"\w[\w-]*(?<![_-])(\.\w[\w-]*(?<![_-]))*")
_SUBSCRIPT_DIGITS_MAX = 9


def select(inventory: Inventory, pattern: str) -> tuple[Host, ...]:
    """Hosts in the order in which the pattern names them, each once. Raises NotFound, InventoryError."""
    parts = split(pattern)
    if not parts:
        raise InventoryError("the host pattern is empty", hint="'all' names every host")
    plain = [part for part in parts if part[0] not in "&!"]
    chosen: dict[str, Host] = {}
    for part in plain or ["all"]:
        chosen.update((host.name, host) for host in _matches(inventory, part) if host.name not in chosen)
    for part in (part for part in parts if part[0] == "&"):
        kept = {host.name for host in _matches(inventory, part[1:])}
        chosen = {name: host for name, host in chosen.items() if name in kept}
    for part in (part for part in parts if part[0] == "!"):
        dropped = {host.name for host in _matches(inventory, part[1:])}
        chosen = {name: host for name, host in chosen.items() if name not in dropped}
    return tuple(chosen.values())


def split(pattern: str) -> list[str]:
    """The parts of a pattern: at commas if it has any, else at colons unless it reads as one address or range.

    Raises InventoryError for brackets that do not match.
    """
    if "," in pattern:
        parts = pattern.split(",")
    elif _is_address(pattern):
        parts = [pattern]
    else:
        parts = _COLON_PARTS.findall(pattern)
        if set(_COLON_PARTS.sub("", pattern)) & {"[", "]"}:
            raise InventoryError(
                f"the brackets of the host pattern {pattern!r} do not match",
                hint="a regular expression with colons or brackets in brackets wants a comma at its end",
            )
    return [part.strip() for part in parts if part.strip()]


def _is_address(pattern: str) -> bool:
    """Whether this is a host name, IPv4 or IPv6 address, perhaps with ranges and a port: its colons separate nothing."""
    with_port = _HOST_PORT.fullmatch(pattern)
    name = _RANGE.sub("0", with_port[1] if with_port else pattern)
    if _HOST_NAME.fullmatch(name):
        return True
    if ":" not in name:
        return False
    import ipaddress  # costs start-up time; only patterns with colons that are no list of names come here

    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        return False
    return True


def _matches(inventory: Inventory, part: str) -> list[Host]:
    if part in inventory.hosts:
        return [inventory.hosts[part]]
    subscript = None if part.startswith("~") else _SUBSCRIPT.fullmatch(part)
    if subscript is None:
        return _named(inventory, part, part)
    found = _named(inventory, subscript[1], part)
    single, first, last = subscript[2], subscript[3], subscript[4]
    if max(len(digits or "") for digits in (single, first, last)) > _SUBSCRIPT_DIGITS_MAX:
        raise InventoryError(f"the subscript of {part!r} is too large")
    if not found:
        return found
    if single is not None:
        index = int(single)
        if not -len(found) <= index < len(found):
            raise NotFound(f"{part!r}: {subscript[1]} has {len(found)} hosts", hint="subscripts count from 0")
        return [found[index]]
    return found[int(first) : int(last) + 1 if last else None]


def _named(inventory: Inventory, name: str, part: str) -> list[Host]:
    """Hosts of the groups that match; where none does, or for a wildcard or regular expression, also the hosts that match."""
    if not name:
        raise InventoryError(f"the host pattern part {part!r} is empty after its sign")
    groups = _filtered(inventory.groups, name)
    found = [host for group in groups for host in inventory.members(group)]
    if not groups or name[0] == "~" or any(sign in name for sign in ".?*["):
        found += [inventory.hosts[host] for host in _filtered(inventory.hosts, name)]
    if not found and not groups and name != "all":
        raise NotFound(f"no host or group matches {name!r}", hint="`sshoal inventory graph` shows what there is")
    return found


def _filtered(names: Iterable[str], name: str) -> list[str]:
    try:
        shape = re.compile(name[1:] if name[0] == "~" else fnmatch.translate(name))
    except (re.error, OverflowError, RecursionError) as error:
        raise InventoryError(f"the host pattern {name!r} is not a valid expression: {error}") from None
    return [candidate for candidate in names if shape.match(candidate)]
