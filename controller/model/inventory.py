"""The inventory as nouns: hosts, groups, merged variables. Pure.

In: what act/inventory read from files. Out: hosts for the loop, labels and taints for the scheduler, Connection for the transport.
Companions: inventory_connection (variables → Connection), inventory_patterns (which hosts), inventory_views (what is printed).

Variables are Ansible's, merged by Ansible's precedence, and stay as they were written: a `{{ … }}` in them is evaluated only where
sshoal itself reads one (connection variables, see inventory_connection) or by a play.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from controller.model.errors import InventoryError

LABEL_PREFIX_GROUP = "sshoal.dev/group-"
LABEL_ROOTLESS = "sshoal.dev/rootless"
ROOTLESS = "sshoal_rootless"  # the variable
NODE = "sshoal_node"  # the variable
DEFAULT_CONNECT_TIMEOUT_S = 10.0
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LABEL_PREFIX_CHARS_MAX = 253
_GROUP_NAME_CHARS_MAX = 63 - len("group-")


class Secret:
    """A password. Never printed: `repr` and `str` hide it, comparison and pickling are not offered."""

    __slots__ = ("_reveal",)

    def __init__(self, value: str | Callable[[], str]) -> None:
        self._reveal = value if callable(value) else lambda: value

    def reveal(self) -> str:
        """The password itself. Raises InventoryError when it is vaulted and no vault password opens it."""
        return self._reveal()

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not serialised")


class VaultText:
    """A variable written as `!vault`: its ciphertext, opened only when somebody asks."""

    __slots__ = ("_open", "ciphertext")

    def __init__(self, ciphertext: str, open_: Callable[[str], str]) -> None:
        self.ciphertext = ciphertext
        self._open = open_

    def reveal(self) -> str:
        """The plain text. Raises InventoryError (naming the place, never the text) when no password opens it."""
        return self._open(self.ciphertext)

    def __repr__(self) -> str:
        return "VaultText(…)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not serialised")


class Unsafe(str):
    """A string written as `!unsafe`: never a template, whatever it contains."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach one host; what Ansible's connection variables say, typed."""

    address: str
    port: int = 22
    user: str | None = None
    password: Secret | None = None
    private_key_file: str | None = None
    private_key_passphrase: Secret | None = None
    become: bool = False
    become_user: str = "root"
    become_method: Literal["sudo"] = "sudo"
    become_password: Secret | None = None
    python: str = "/usr/bin/python3"
    kind: Literal["ssh", "paramiko"] = "ssh"
    proxy_jump: tuple[str, ...] = ()
    host_key_alias: str | None = None
    known_hosts_files: tuple[str, ...] = ()  # read only, besides sshoal's own list
    connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S
    rootless: bool = False  # agent and pods belong to the login user

    @property
    def patience(self) -> float:
        """How many times the usual time this host may take for anything. Never less than once: a short timeout is about connecting."""
        return max(1.0, self.connect_timeout_s / DEFAULT_CONNECT_TIMEOUT_S)


@dataclass(frozen=True, slots=True)
class Taint:
    """One of a host's `node_taints`."""

    key: str
    value: str
    effect: str


@dataclass(frozen=True)  # no slots: the connection is kept
class Host:
    """One inventory entry.

    `groups` are all groups it is in, parents included, sorted, without `all` and `ungrouped`. `source` is file:line of its first
    mention; `directory` is the absolute directory of that file (Ansible's inventory_dir). `vars` is not in the repr: it may hold
    secrets.
    """

    name: str
    groups: tuple[str, ...]
    vars: Mapping[str, Any] = field(repr=False)
    source: str
    directory: str = ""

    @cached_property
    def connection(self) -> Connection:
        """Connection variables, typed. Raises InventoryError that names place and variable."""
        from controller.model import inventory_connection  # that module reads hosts; most commands read few connections

        return inventory_connection.read(self)

    @cached_property
    def is_node(self) -> bool:
        """Whether it is one of the cluster's nodes: unless `sshoal_node` says no, or Ansible reaches it by other means than SSH."""
        if NODE not in self.vars and "ansible_connection" not in self.vars:
            return True
        from controller.model import inventory_connection

        return inventory_connection.is_node(self)

    @property
    def labels(self) -> dict[str, str]:
        """`sshoal.dev/group-<name>: "true"` for each group, `sshoal.dev/rootless`, then the host's `node_labels`. Raises InventoryError."""
        labels = {LABEL_PREFIX_GROUP + label_safe(group): "true" for group in self.groups}
        if ROOTLESS in self.vars and self.connection.rootless:
            labels[LABEL_ROOTLESS] = "true"
        written = self.vars.get("node_labels") or {}
        if not isinstance(written, Mapping):
            raise self.error("node_labels", "must be a mapping of label to value", hint="node_labels: {disk: ssd}")
        for key, value in written.items():
            labels[self._label_key("node_labels", key)] = self._label_value("node_labels", key, value)
        return labels

    @property
    def taints(self) -> tuple[Taint, ...]:
        """The host's `node_taints`, each written key=value:Effect or key:Effect. Raises InventoryError."""
        written = self.vars.get("node_taints") or []
        if not isinstance(written, list | tuple):
            raise self.error("node_taints", "must be a list", hint="node_taints: [dedicated=db:NoSchedule]")
        return tuple(self._taint(text) for text in written)

    def error(self, variable: str, problem: str, *, hint: str = "") -> InventoryError:
        """An error at this host's place about one of its variables."""
        file, _, line = self.source.rpartition(":")
        if not (file and line.isdigit()):
            file, line = self.source, "0"
        return InventoryError(problem, file=file, line=int(line), field=f"{self.name}.{variable}", hint=hint)

    def _taint(self, text: object) -> Taint:
        if not isinstance(text, str):
            raise self.error("node_taints", f"{text!r} is not a string", hint="write key=value:Effect")
        pair, _, effect = text.rpartition(":")
        if effect not in TAINT_EFFECTS:
            raise self.error("node_taints", f"{text!r} names no effect", hint=f"effects are {', '.join(TAINT_EFFECTS)}")
        key, _, value = pair.partition("=")
        return Taint(self._label_key("node_taints", key), self._label_value("node_taints", key, value), effect)

    def _label_key(self, variable: str, key: object) -> str:
        if not isinstance(key, str):
            raise self.error(variable, f"{key!r} is not a string", hint="quote it")
        prefix, slash, name = key.rpartition("/")
        prefix_ok = not slash or (len(prefix) <= _LABEL_PREFIX_CHARS_MAX and _LABEL_PREFIX.fullmatch(prefix))
        if not (prefix_ok and _LABEL_NAME.fullmatch(name)):
            raise self.error(variable, f"{key!r} is not a valid key", hint="letters, digits, '-', '_', '.', at most 63")
        if key.startswith(LABEL_PREFIX_GROUP):
            raise self.error(variable, f"{key!r} is reserved: sshoal sets it from the host's groups")
        if key == LABEL_ROOTLESS:
            raise self.error(variable, f"{key!r} is reserved: sshoal sets it where {ROOTLESS} is set")
        return key

    def _label_value(self, variable: str, key: object, value: object) -> str:
        # YAML and INI turn `true` and `3` into bool and int; both have one spelling. A float does not: 1.10 would read 1.1.
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int):
            value = str(value)
        if not isinstance(value, str):
            raise self.error(variable, f"the value of {key!r} is not a string", hint="quote it")
        if value and not _LABEL_NAME.fullmatch(value):
            raise self.error(variable, f"{value!r}, the value of {key!r}, is not valid", hint="as keys; at most 63")
        return value


@dataclass(frozen=True, slots=True)
class Group:
    """One group. `hosts` and `children` are its direct members in the order of their first mention.

    `vars` are those of inventory files; group_vars directories go into the hosts' variables only.
    """

    name: str
    hosts: tuple[str, ...]
    children: tuple[str, ...]
    parents: tuple[str, ...]
    vars: Mapping[str, Any] = field(repr=False)
    priority: int = 1


@dataclass(frozen=True, slots=True)
class Inventory:
    """All hosts in inventory order and all groups, `all` and `ungrouped` included.

    `warnings` are what a user should know and what stops nothing: two names of one address, unknown keys …
    """

    hosts: Mapping[str, Host]
    groups: Mapping[str, Group]
    warnings: tuple[str, ...] = ()

    @property
    def nodes(self) -> dict[str, Host]:
        """Those of `hosts` that are nodes, in inventory order. Raises InventoryError for a host that says neither yes nor no."""
        return {name: host for name, host in self.hosts.items() if host.is_node}

    def select(self, pattern: str) -> tuple[Host, ...]:
        """Hosts that an Ansible pattern names: `web:&prod:!db[0:2]`, `a,b*`, `~regex`. Each once.

        Raises NotFound when a part names no host and no group (a misspelt exclusion must not select more), InventoryError when it
        is malformed. An `@file` part must be resolved before: act.inventory.read_pattern.
        """
        from controller.model import inventory_patterns

        return inventory_patterns.select(self, pattern)

    def members(self, group: str) -> Iterator[Host]:
        """Hosts of a group and of its descendants, each once: the group's own first, then level by level."""
        seen_groups = {group}
        level = [group]
        seen_hosts: set[str] = set()
        while level:
            below: list[str] = []
            for name in level:
                for host in self.groups[name].hosts:
                    if host not in seen_hosts:
                        seen_hosts.add(host)
                        yield self.hosts[host]
                for child in self.groups[name].children:
                    if child not in seen_groups:
                        seen_groups.add(child)
                        below.append(child)
            level = below


def label_safe(group: str) -> str:
    """A group's name as it may stand in a label key: other characters become '-', at most 57 are kept."""
    safe = re.sub(r"[^A-Za-z0-9_.-]", "-", group)[:_GROUP_NAME_CHARS_MAX]
    return safe.rstrip("-_.") or "x"
