"""Ansible's connection variables of one host → Connection. Pure.

Which variables exist, and which of two spellings wins, follows the ssh and sudo plugins' documentation: the later spelling in each
tuple below wins. A `{{ name }}` of another variable of the same host is filled in; filters, lookups and expressions are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from controller.model.inventory import (
    DEFAULT_CONNECT_TIMEOUT_S,
    NODE,
    ROOTLESS,
    Connection,
    Host,
    Secret,
    Unsafe,
    VaultText,
)

DEFAULT_PYTHON = "/usr/bin/python3"
CONNECT_TIMEOUT_MAX_S = 600.0
TEMPLATE_DEPTH_MAX = 8
TEMPLATES_MAX = 200  # filled in for one host; without a bound, a few lines that refer to each other make gigabytes

_KINDS: Mapping[str, Literal["ssh", "paramiko"]] = {
    "ssh": "ssh",
    "smart": "ssh",
    "ansible.builtin.ssh": "ssh",
    "paramiko": "paramiko",
    "paramiko_ssh": "paramiko",
    "ansible.builtin.paramiko_ssh": "paramiko",
}
# Ansible's other connections: to this machine, into containers, to Windows, to network devices. Not every unknown word, since a slip
# of the finger must not take a node out of the cluster.
_OTHER_MEANS = {
    "local", "chroot", "jail", "zone", "iocage", "lxc", "lxd", "incus", "libvirt_lxc", "proxmox_pct_remote", "qubes",
    "docker", "docker_api", "podman", "buildah", "kubectl", "oc", "winrm", "psrp", "aws_ssm", "vmware_tools",
    "network_cli", "netconf", "httpapi", "napalm", "saltstack", "funcd",
}  # fmt: skip
_TRUE = {"true", "yes", "on", "1", "y", "t", "1.0"}
_FALSE = {"false", "no", "off", "0", "n", "f", "0.0", ""}

_TEMPLATE = r"\{\{-?\s*([A-Za-z_]\w*)\s*-?\}\}"
_ADDRESS = r"[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9_])?(%[A-Za-z0-9._-]+)?|::[0-9A-Fa-f:.]*"
_USER = r"[A-Za-z0-9_]([A-Za-z0-9_.@\\-]*[A-Za-z0-9_.$-])?"
_JUMP = r"([A-Za-z0-9_][A-Za-z0-9_.\\-]*@)?(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9][A-Za-z0-9._-]*)(:[0-9]{1,5})?"
_UNPRINTABLE = r"[\x00-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"

# Options of ssh that change nothing for us: connections are kept anyway, and host keys are always checked.
_SSH_OPTIONS_WITHOUT_EFFECT = {"controlmaster", "controlpersist", "controlpath"}


def is_node(host: Host) -> bool:
    """Whether sshoal runs pods there. Raises InventoryError when `sshoal_node` is neither yes nor no; an empty one says nothing."""
    is_said = host.vars.get(NODE) not in (None, "")
    return _Variables(host).boolean(NODE) if is_said else not has_other_means(host)


def has_other_means(host: Host) -> bool:
    """Whether Ansible reaches the host without SSH."""
    return (_Variables(host).text("ansible_connection") or "").rpartition(".")[2] in _OTHER_MEANS


def read(host: Host) -> Connection:
    """The typed connection of a host. Raises InventoryError with the host's place and the variable's name."""
    variables = _Variables(host)
    arguments = _ssh_arguments(variables)
    method = variables.text("ansible_become_method") or "sudo"
    if method not in ("sudo", "ansible.builtin.sudo"):
        raise host.error(
            "ansible_become_method", f"{method!r} is not supported", hint="sshoal becomes root by sudo only"
        )
    user = variables.matching(_USER, "a user name", "ansible_user", "ansible_ssh_user")
    rootless = variables.boolean(ROOTLESS)
    if rootless and user == "root":
        raise host.error(
            ROOTLESS, "is set, and the login is root", hint="give ansible_user an ordinary user, or take it out"
        )
    return Connection(
        address=variables.matching(_ADDRESS, "an address", "ansible_host", "ansible_ssh_host") or host.name,
        port=variables.integer(1, 65535, "ansible_port", "ansible_ssh_port") or 22,
        user=user,
        password=variables.secret("ansible_password", "ansible_ssh_pass", "ansible_ssh_password"),
        private_key_file=variables.text("ansible_private_key_file", "ansible_ssh_private_key_file")
        or arguments.key_file,
        private_key_passphrase=variables.secret("ansible_private_key_passphrase", "ansible_ssh_private_key_passphrase"),
        become=variables.boolean("ansible_become"),
        become_user=variables.matching(_USER, "a user name", "ansible_become_user", "ansible_sudo_user") or "root",
        become_password=variables.secret("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass"),
        python=_python(variables),
        kind=_kind(host, variables.text("ansible_connection") or "ssh"),
        proxy_jump=arguments.proxy_jump,
        host_key_alias=arguments.host_key_alias,
        known_hosts_files=arguments.known_hosts_files,
        connect_timeout_s=variables.seconds("ansible_timeout", "ansible_ssh_timeout") or arguments.connect_timeout_s,
        rootless=rootless,
    )


def _kind(host: Host, name: str) -> Literal["ssh", "paramiko"]:
    if name not in _KINDS:
        raise host.error(
            "ansible_connection",
            f"{name!r} is not supported: sshoal reaches hosts by ssh or paramiko",
            hint="reach it by ssh, or say that it is no node (sshoal_node: false)",
        )
    return _KINDS[name]


def _python(variables: _Variables) -> str:
    """Ansible's discovery words (auto, auto_silent, …) mean: sshoal's default."""
    path = variables.text("ansible_python_interpreter")
    if path is None or path.startswith("auto"):
        return DEFAULT_PYTHON
    if not path.startswith("/") or any(character.isspace() for character in path):
        raise variables.host.error(
            "ansible_python_interpreter", f"{path!r} is not an absolute path", hint="for example /usr/bin/python3.11"
        )
    return path


@dataclass(slots=True)
class _Arguments:
    """What ssh's own arguments say."""

    proxy_jump: tuple[str, ...] = ()
    host_key_alias: str | None = None
    known_hosts_files: tuple[str, ...] = ()
    connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S
    key_file: str | None = None


def _ssh_arguments(variables: _Variables) -> _Arguments:
    """ssh's arguments out of all variables that hold some. What is not supported is refused by name."""
    host = variables.host
    found = _Arguments()
    for variable in ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"):
        for option, value in _options(variables, variable):
            match option:
                case "proxyjump":
                    found.proxy_jump = _jumps(host, variable, value)
                case "hostkeyalias":
                    found.host_key_alias = _alias(host, variable, value)
                case "userknownhostsfile" if value and not {"/dev/null", "none"} & set(value.split()):
                    found.known_hosts_files = tuple(value.split())
                case "connecttimeout" if (
                    value.isdecimal() and len(value) <= 3 and 0 < int(value) <= CONNECT_TIMEOUT_MAX_S
                ):
                    found.connect_timeout_s = float(value)
                case "identityfile" if value:
                    found.key_file = value
                case "stricthostkeychecking" if value.lower() in ("yes", "true"):
                    pass
                case "stricthostkeychecking" | "userknownhostsfile":
                    raise host.error(
                        variable,
                        f"{option} {value[:40]!r} is not supported: host keys are always checked",
                        hint=f"take it out and run: sshoal node trust {host.name}",
                    )
                case _ if option not in _SSH_OPTIONS_WITHOUT_EFFECT:
                    raise host.error(
                        variable,
                        f"{option} {value[:40]!r} is not supported" if value else f"{option} is not supported",
                        hint="supported: -J, -i, -o ProxyJump=, HostKeyAlias=, UserKnownHostsFile=, ConnectTimeout=; "
                        "others may go to ~/.ssh/config",
                    )
    return found


def _options(variables: _Variables, variable: str) -> list[tuple[str, str]]:
    """(lower-case option name, value) for each ssh argument; unknown ones are named as they were written."""
    text = variables.text(variable)
    if not text:
        return []
    import shlex  # costs start-up time that most inventories never need

    try:
        words = shlex.split(text)
    except ValueError as error:
        raise variables.host.error(variable, f"cannot be split into words: {error}") from None
    found: list[tuple[str, str]] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        letter, value = word[:2], word[2:]
        if letter not in ("-o", "-J", "-i"):
            found.append((word, ""))
            continue
        if not value:
            if position == len(words):
                raise variables.host.error(variable, f"{word} lacks its value")
            value = words[position]
            position += 1
        if letter == "-o":
            name, _, value = value.replace(" ", "=", 1).partition("=") if "=" not in value else value.partition("=")
            found.append((name.strip().lower(), value.strip()))
        else:
            found.append(("proxyjump" if letter == "-J" else "identityfile", value))
    return found


def _alias(host: Host, variable: str, value: str) -> str:
    if not re.fullmatch(_ADDRESS, value):
        raise host.error(variable, f"{value!r} is not a host key alias")
    return value


def _jumps(host: Host, variable: str, value: str) -> tuple[str, ...]:
    if value.lower() == "none":
        return ()
    jumps = tuple(part.strip() for part in value.split(","))
    for jump in jumps:
        if not re.fullmatch(_JUMP, jump):
            raise host.error(variable, f"{jump!r} is not a jump host", hint="write [user@]host[:port]")
    return jumps


class _Variables:
    """A host's variables, read by the last of several spellings, templates filled in."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._templates_left = TEMPLATES_MAX

    def text(self, *names: str) -> str | None:
        """A string without control or direction characters, None when unset or empty."""
        name, value = self._open_value(names)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.host.error(name, "must be a string or a whole number")
        text = str(value)
        if re.search(_UNPRINTABLE, text):
            raise self.host.error(name, "holds control or text direction characters")
        return text

    def matching(self, shape: str, what: str, *names: str) -> str | None:
        text = self.text(*names)
        if text is not None and not re.fullmatch(shape, text):
            raise self.host.error(self._name(names), f"{self._shown(names, text)} is not {what}")
        return text

    def integer(self, low: int, high: int, *names: str) -> int | None:
        text = self.text(*names)
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= 9 and low <= int(text) <= high):
            raise self.host.error(
                self._name(names), f"{self._shown(names, text)} is not a whole number from {low} to {high}"
            )
        return int(text)

    def seconds(self, *names: str) -> float | None:
        value = self.integer(1, int(CONNECT_TIMEOUT_MAX_S), *names)
        return None if value is None else float(value)

    def boolean(self, *names: str) -> bool:
        name, value = self._open_value(names)
        if isinstance(value, bool):
            return value
        word = "" if value is None else str(value).lower()
        if word not in _TRUE | _FALSE:
            raise self.host.error(name, f"{self._shown(names, word)} is neither yes nor no")
        return word in _TRUE

    def secret(self, *names: str) -> Secret | None:
        """A password; a vaulted one stays closed until it is used. Its value is in no error."""
        name, value = self._value(names)
        if isinstance(value, VaultText):
            return Secret(value.reveal)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.host.error(name, "must be a string or a whole number")
        return Secret(str(value))

    def _value(self, names: tuple[str, ...]) -> tuple[str, Any]:
        name = self._name(names)
        return name, self._filled(name, self.host.vars.get(name), 0)

    def _open_value(self, names: tuple[str, ...]) -> tuple[str, Any]:
        name, value = self._value(names)
        return name, value.reveal() if isinstance(value, VaultText) else value

    def _name(self, names: tuple[str, ...]) -> str:
        """The spelling that counts: the last one that is set."""
        return next((name for name in reversed(names) if name in self.host.vars), names[0])

    def _filled(self, name: str, value: Any, depth: int) -> Any:
        """`value` with `{{ other }}` replaced. A template that is the whole value keeps the other's type."""
        if not isinstance(value, str) or isinstance(value, Unsafe) or not ("{{" in value or "{%" in value):
            return value
        if depth == TEMPLATE_DEPTH_MAX:
            raise self.host.error(name, f"templates refer to each other more than {TEMPLATE_DEPTH_MAX} deep")
        whole = re.fullmatch(_TEMPLATE, value.strip())
        if whole:
            return self._filled(name, self._other(name, whole[1]), depth + 1)

        def part(match: re.Match[str]) -> str:
            other = self._filled(name, self._other(name, match[1]), depth + 1)
            if isinstance(other, VaultText):
                other = other.reveal()
            if isinstance(other, bool) or not isinstance(other, str | int):
                raise self.host.error(name, f"{match[1]} is not a string")
            return str(other)

        if re.search(r"\{\{|\{%", re.sub(_TEMPLATE, "", value)):
            raise self.host.error(
                name,
                "this template is not supported in a connection variable",
                hint="only {{ another_variable }} is filled in; no filters, lookups or expressions",
            )
        return re.sub(_TEMPLATE, part, value)

    def _shown(self, names: tuple[str, ...], text: str) -> str:
        """The value for an error, unless it was not written there: what a template or a vault gave may be a secret."""
        written = self.host.vars.get(self._name(names))
        return repr(text) if str(written).lower() == text.lower() else "what it stands for"

    def _other(self, name: str, other: str) -> Any:
        self._templates_left -= 1
        if self._templates_left < 0:
            raise self.host.error(name, f"more than {TEMPLATES_MAX} templates to fill in")
        if other in self.host.vars:
            return self.host.vars[other]
        match other:
            case "inventory_hostname":
                return self.host.name
            case "inventory_hostname_short":
                return self.host.name.partition(".")[0]
            case "inventory_dir" if self.host.directory:
                return self.host.directory
        raise self.host.error(name, f"refers to {other}, which this host does not have")
