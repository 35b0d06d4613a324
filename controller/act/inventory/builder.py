"""The inventory while it is being read: groups and hosts as they are mentioned, then one frozen Inventory.

In: mentions in the order of files, each with its place. Out: Inventory. No I/O. The rules (which group a host is in, what `ungrouped`
is, whose variables win) are ansible-core's. Raises InventoryError for cycles, bad names and too many hosts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from controller.model.errors import InventoryError
from controller.model.inventory import Group, Host, Inventory, VaultText

HOSTS_MAX = 10_000
GROUPS_MAX = 5_000
GROUP_DEPTH_MAX = 64

# Host and group names reach argument lists, file names and terminals: an allow-list, and never a leading '-' or '.'.
_HOST_NAME = re.compile(r"(?:[A-Za-z0-9_]|::)[A-Za-z0-9_.:%-]*")
_GROUP_NAME = re.compile(r"\w[\w.@+-]*")
_NAME_CHARS_MAX = 253


@dataclass(frozen=True, slots=True)
class Place:
    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def error(self, problem: str, *, field: str = "", hint: str = "") -> InventoryError:
        return InventoryError(problem, file=self.file, line=self.line, field=field, hint=hint)


class VariableFiles(Protocol):
    """group_vars and host_vars beside the sources (act.inventory.variables)."""

    def of_groups(self, names: tuple[str, ...]) -> dict[str, Any]: ...
    def of_host(self, name: str) -> dict[str, Any]: ...


@dataclass(slots=True)
class _Group:
    name: str
    hosts: dict[str, None] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    parents: dict[str, None] = field(default_factory=dict)
    vars: dict[str, Any] = field(default_factory=dict)
    priority: int = 1


@dataclass(slots=True)
class _Host:
    name: str
    place: Place
    directory: str
    vars: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, None] = field(default_factory=dict)


class Builder:
    """Mutable. One reader after the other adds to it; `finish` is called once."""

    def __init__(self) -> None:
        self.groups: dict[str, _Group] = {"all": _Group("all"), "ungrouped": _Group("ungrouped")}
        self.hosts: dict[str, _Host] = {}
        self.warnings: list[str] = []
        self.directory = ""  # of the source being read, absolute
        self._link("all", "ungrouped")

    def add_group(self, name: object, place: Place) -> str:
        """Adds the group unless it is there. Returns its name."""
        if not isinstance(name, str):
            raise place.error(f"the group name {name!r} is not a string", hint="quote it")
        if name not in self.groups:
            if not _GROUP_NAME.fullmatch(name) or len(name) > _NAME_CHARS_MAX:
                raise place.error(f"{name!r} is not a valid group name", hint="letters, digits, '_', '-', '.'")
            if len(self.groups) == GROUPS_MAX:
                raise place.error(f"more than {GROUPS_MAX} groups")
            self.groups[name] = _Group(name)
        return name

    def add_host(self, name: str, group: str, port: int | None, place: Place) -> None:
        """Adds the host unless it is there, and puts it into the group. A port counts at the first mention only, as in Ansible."""
        host = self.hosts.get(name)
        if host is None:
            check_host_name(name, place)
            if len(self.hosts) == HOSTS_MAX:
                raise place.error(f"more than {HOSTS_MAX} hosts", hint="split the inventory")
            host = self.hosts[name] = _Host(name, place, self.directory)
            if port is not None:
                host.vars["ansible_port"] = port
        self.groups[group].hosts[name] = None
        host.groups[group] = None

    def set_group_variable(self, group: str, name: object, value: Any, place: Place) -> None:
        if name == "ansible_group_priority":
            try:
                self.groups[group].priority = int(value)
            except (TypeError, ValueError):
                raise place.error(f"{value!r} is not a whole number", field="ansible_group_priority") from None
        else:
            self.groups[group].vars[check_variable_name(name, place)] = value

    def set_host_variable(self, host: str, name: object, value: Any, place: Place) -> None:
        # Ansible looks a name up among the groups first; a host that is called like a group loses its variables to it.
        if host in self.groups:
            self.set_group_variable(host, name, value, place)
        else:
            self.hosts[host].vars[check_variable_name(name, place)] = value

    def add_child(self, parent: str, child: str, place: Place) -> None:
        """Makes one group a child of another. Raises InventoryError with the whole circle if that closes one."""
        circle = self._path(child, parent)
        if circle:
            raise place.error(f"group {parent!r} contains itself: {' → '.join([parent, *circle])}")
        self._link(parent, child)

    def finish(self, beside_sources: VariableFiles, beside_playbook: VariableFiles) -> Inventory:
        """The frozen inventory, with the variables of group_vars and host_vars merged in."""
        self._attach_to_all()
        self._settle_ungrouped()
        depths = self._depths()
        merged: dict[frozenset[str], tuple[tuple[str, ...], dict[str, Any]]] = {}
        all_vars = self.groups["all"].vars
        hosts: dict[str, Host] = {}
        for host in self.hosts.values():
            direct = frozenset(host.groups)
            if direct not in merged:
                names = self._with_ancestors(direct) - {"all"}
                ordered = tuple(sorted(names, key=lambda name: (depths[name], self.groups[name].priority, name)))
                values = dict(all_vars)
                for name in ordered:
                    values.update(self.groups[name].vars)
                values.update(beside_sources.of_groups(("all",)))
                values.update(beside_playbook.of_groups(("all",)))
                values.update(beside_sources.of_groups(ordered))
                values.update(beside_playbook.of_groups(ordered))
                merged[direct] = (tuple(sorted(names - {"ungrouped"})), values)
            groups, group_values = merged[direct]
            variables = {
                **group_values,
                **host.vars,
                **beside_sources.of_host(host.name),
                **beside_playbook.of_host(host.name),
            }
            hosts[host.name] = Host(host.name, groups, variables, str(host.place), host.directory)
        self._warn(hosts)
        groups_ = {
            name: Group(
                name, tuple(group.hosts), tuple(group.children), tuple(group.parents), group.vars, group.priority
            )
            for name, group in self.groups.items()
        }
        return Inventory(hosts, groups_, tuple(self.warnings))

    def _link(self, parent: str, child: str) -> None:
        self.groups[parent].children[child] = None
        self.groups[child].parents[parent] = None

    def _path(self, start: str, goal: str) -> list[str] | None:
        """Groups from `start` down to `goal`, both included; None where there is no way."""
        came_from: dict[str, str] = {start: ""}
        waiting = [start]
        while waiting:
            name = waiting.pop()
            if name == goal:
                path = [name]
                while came_from[path[-1]]:
                    path.append(came_from[path[-1]])
                return path[::-1]
            for child in self.groups[name].children:
                if child not in came_from:
                    came_from[child] = name
                    waiting.append(child)
        return None

    def _attach_to_all(self) -> None:
        for name, group in self.groups.items():
            if name != "all" and not group.parents:
                self.add_child("all", name, Place("the inventory"))

    def _settle_ungrouped(self) -> None:
        """`ungrouped` holds exactly the hosts that are in no other group but `all`."""
        for host in self.hosts.values():
            others = self._with_ancestors(host.groups) - {"all", "ungrouped"}
            if "ungrouped" in host.groups and others:
                del host.groups["ungrouped"]
                del self.groups["ungrouped"].hosts[host.name]
            elif not others:
                host.groups["ungrouped"] = None
                self.groups["ungrouped"].hosts[host.name] = None

    def _depths(self) -> dict[str, int]:
        """The longest way from the top to each group: Ansible merges variables from shallow to deep."""
        depths: dict[str, int] = {}
        missing_parents = {name: len(group.parents) for name, group in self.groups.items()}
        ready = [name for name, count in missing_parents.items() if count == 0]
        depths.update(dict.fromkeys(ready, 0))
        while ready:
            name = ready.pop()
            for child in self.groups[name].children:
                depths[child] = max(depths.get(child, 0), depths[name] + 1)
                missing_parents[child] -= 1
                if missing_parents[child] == 0:
                    ready.append(child)
        deepest = max(depths, key=lambda name: depths[name])
        if depths[deepest] > GROUP_DEPTH_MAX:
            raise InventoryError(f"group {deepest!r} is nested {depths[deepest]} deep, more than {GROUP_DEPTH_MAX}")
        return depths

    def _with_ancestors(self, names: Mapping[str, None] | frozenset[str]) -> set[str]:
        found = set(names)
        waiting = list(names)
        while waiting:
            for parent in self.groups[waiting.pop()].parents:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return found

    def _warn(self, hosts: Mapping[str, Host]) -> None:
        first_at: dict[tuple[str, str, str], Host] = {}
        for host in hosts.values():
            if host.name in self.groups:
                self.warnings.append(f"{host.source}: {host.name} is the name of a host and of a group")
            address = host.vars.get("ansible_ssh_host", host.vars.get("ansible_host", host.name))
            if isinstance(address, VaultText) or "{{" in str(address):
                continue
            port = host.vars.get("ansible_ssh_port", host.vars.get("ansible_port", 22))
            way = host.vars.get("ansible_ssh_common_args", "")  # behind different bastions, one address is two hosts
            first = first_at.setdefault((str(address), str(port), str(way)), host)
            if first is not host:
                self.warnings.append(
                    f"{host.source}: {host.name} and {first.name} ({first.source}) have the same address {address}, port {port}"
                )


def check_host_name(name: str, place: Place) -> None:
    """Raises InventoryError unless the name may reach command lines, files and terminals."""
    if not _HOST_NAME.fullmatch(name) or ".." in name or len(name) > _NAME_CHARS_MAX:
        hint = "letters, digits, '.', '_', '-', ':' and '%'; it starts with a letter, a digit or '_'"
        if re.fullmatch(r"[\w.-]+@[\w.-]+", name):
            hint = "write the user as a variable: ansible_user=" + name.partition("@")[0]
        raise place.error(f"{name!r} is not a valid host name", hint=hint)


def check_variable_name(name: object, place: Place) -> str:
    if not isinstance(name, str):
        raise place.error(f"the variable name {name!r} is not a string", hint="quote it")
    return name
