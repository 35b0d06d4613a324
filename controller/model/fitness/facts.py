"""What one script on a host found out about it, as `act/examine.py` asks it. Pure.

In: the words that the host printed, which are hostile: bounded in number and length, every value is checked, unknown words are ignored.
Out: HostFacts. A word that is missing means "not found out" (an ordinary user sees less than root), never "not there", unless said below.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.model.text import printable

WORDS_MAX = 300
VALUE_LENGTH_MAX = 1000

PROGRAMS = ("podman", "crun", "runc", "conmon", "netavark", "catatonit", "bridge", "iptables", "nft", "apparmor_parser")
UNITS = ("firewalld", "docker", "chrony", "chronyd", "ntp", "ntpd", "ntpsec", "openntpd", "systemd-timesyncd")
MANAGERS = ("apt-get", "dnf", "zypper", "apk")
USER_TOOLS = ("newuidmap", "newgidmap", "slirp4netns", "pasta")
SSHD_OPTIONS = ("allowstreamlocalforwarding", "allowtcpforwarding", "disableforwarding", "maxsessions")
# What the agent and its libraries import; Debian's python3-minimal lacks some of it.
MODULES = (
    "asyncio",
    "compileall",
    "ctypes",
    "email",
    "fcntl",
    "http.client",
    "http.cookies",
    "json",
    "ssl",
    "tarfile",
    "unicodedata",
    "urllib.request",
    "zlib",
)

_VERSION = re.compile(r"\d{1,6}(?:\.\d{1,6}){0,2}")
_WORD = re.compile(r"[a-z][a-z0-9_.-]{0,40}\Z")


@dataclass(frozen=True, slots=True)
class Program:
    """Where a program is, and its version; () when it does not say."""

    path: str
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that a directory lies on, or will lie on. `options`: of its mount, e.g. ro, noexec."""

    mount: str
    free_bytes: int
    options: frozenset[str]


@dataclass(frozen=True, slots=True)
class UserFacts:
    """The ordinary user who shall run agent and pods on a rootless host."""

    name: str = "the user"
    runtime_directory: bool = False  # /run/user/ID: his systemd runs
    linger: bool = False
    subuids: int = 0
    subgids: int = 0
    tools: frozenset[str] = frozenset()
    tun: bool = False  # he may open it
    ports_from: int = 1024  # the lowest port that he may bind
    namespaces: bool = True  # the kernel lets him make user namespaces
    controllers: frozenset[str] = frozenset()  # of control groups, given to his systemd
    session_bus: bool = False
    overlay: bool = False  # something says that Podman is to use overlayfs
    may_become: bool = False  # the inventory gives sudo


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host at one moment. Empty text, (), 0 and None mean that it was not found out, or is not there."""

    user_id: int | None = None  # whom the script ran as
    sudo_user: str = ""  # who became root by sudo
    arch: str = ""
    kernel: str = ""
    system: str = ""  # "Debian GNU/Linux 12 (bookworm)"
    system_ids: tuple[str, ...] = ()  # os-release's ID, then ID_LIKE
    image_based: bool = False  # rpm-ostree: packages are layered, not installed
    managers: tuple[str, ...] = ()
    packages_unfinished: bool = False  # dpkg was interrupted
    systemd: bool = False  # it runs there
    python_path: str = ""
    python_found: bool = False
    python: tuple[int, ...] = ()
    modules_missing: tuple[str, ...] = ()
    programs: Mapping[str, Program] = field(default_factory=dict)
    own_parts: bool = False  # containers.conf says where Podman finds its parts, or which runtime it takes
    cgroups: int = 0
    controllers: frozenset[str] = frozenset()
    selinux: str = ""  # enforcing | permissive
    selinux_policy: bool = False  # it knows containers
    selinux_podman: bool = False  # it confines Podman itself, as Debian's does
    apparmor: bool = False
    active_units: frozenset[str] = frozenset()
    ufw: bool = False
    ufw_forwards: bool = False
    forward_policy: str = ""  # of the FORWARD chain: accept | drop
    state_disk: Disk | None = None  # of the agent
    image_disk: Disk | None = None  # of Podman
    clock_skew_s: float = 0.0  # the host's wall clock minus the controller's, to about a round trip
    sshd: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""  # cluster that the agent there obeys
    asked_by: str | None = None  # our cluster; "" before there is one; None: nobody asks whose it is
    sudo_password: bool = False  # the inventory has one
    rootful_agent: bool = False  # its unit is there
    rootless_agent: str = ""  # the socket of somebody's
    user: UserFacts | None = None  # None: the agent is to be root's

    @property
    def is_root(self) -> bool:
        return self.user_id == 0

    def version(self, program: str) -> tuple[int, ...]:
        found = self.programs.get(program)
        return found.version if found else ()


def words_of(output: bytes) -> dict[str, str]:
    """Lines "word value" → word: value. Of two equal words the first counts."""
    found: dict[str, str] = {}
    for line in output[: WORDS_MAX * VALUE_LENGTH_MAX].decode("utf-8", "replace").splitlines()[:WORDS_MAX]:
        word, _, value = line.partition(" ")
        if _WORD.match(word):
            found.setdefault(word, printable(value, VALUE_LENGTH_MAX))
    return found


def parse(
    found: Mapping[str, str],
    *,
    python_path: str,
    now_s: float,
    asked_by: str | None = None,
    sudo_password: bool = False,
    rootless: bool = False,
    may_become: bool = False,
) -> HostFacts:
    """The typed facts. `now_s`: the controller's wall clock in the middle of asking; `rootless`: an ordinary user's agent is meant;
    the others as in HostFacts."""
    host_time_ns = _number(found.get("time", ""))  # 0 from a `date` without nanoseconds
    uid = found.get("uid", "")
    return HostFacts(
        user_id=_number(uid) if uid.isascii() and uid.isdigit() else None,
        sudo_user=found.get("sudo_user", "")[:64],
        arch=found.get("arch", "")[:40],
        kernel=found.get("kernel", "")[:80],
        system=found.get("system", "")[:80],
        system_ids=tuple(found.get("system_ids", "").lower().split()[:8]),
        image_based="image_based" in found,
        managers=_known(found.get("managers", ""), MANAGERS),
        packages_unfinished="packages_unfinished" in found,
        systemd="systemd" in found,
        python_path=python_path,
        python_found="python_found" in found,
        python=version(found.get("python", "")),
        modules_missing=_known(found.get("modules_missing", ""), MODULES),
        programs={name: program for name in PROGRAMS if (program := _program(found, name)) is not None},
        own_parts="own_parts" in found,
        cgroups={"1": 1, "2": 2}.get(found.get("cgroups", ""), 0),
        controllers=frozenset(found.get("controllers", "").split()[:40]),
        selinux={"1": "enforcing", "0": "permissive"}.get(found.get("selinux", ""), ""),
        selinux_policy="selinux_policy" in found,
        selinux_podman="selinux_podman" in found,
        apparmor=found.get("apparmor") == "Y",
        active_units=frozenset(_known(found.get("active_units", ""), UNITS)),
        ufw="ufw" in found,
        ufw_forwards="ufw_forwards" in found,
        forward_policy={"accept": "accept", "drop": "drop"}.get(found.get("forward_policy", "").lower(), ""),
        state_disk=_disk(found.get("disk_state", "")),
        image_disk=_disk(found.get("disk_images", "")),
        clock_skew_s=host_time_ns / 1e9 - now_s if host_time_ns else 0.0,
        sshd={name: found[f"sshd_{name}"].lower()[:40] for name in SSHD_OPTIONS if f"sshd_{name}" in found},
        owner=found.get("owner", "")[:64],
        asked_by=asked_by,
        sudo_password=sudo_password,
        rootful_agent="rootful_agent" in found,
        rootless_agent=found.get("rootless_agent", "")[:80],
        user=_user(found, may_become) if rootless else None,
    )


def _user(found: Mapping[str, str], may_become: bool) -> UserFacts:
    refused = {found.get("user_namespaces_max"), found.get("user_namespaces_allowed")}
    return UserFacts(
        name=found.get("user", "")[:64] or "the user",
        runtime_directory="user_runtime_directory" in found,
        linger="linger" in found,
        subuids=_number(found.get("subuid", "")),
        subgids=_number(found.get("subgid", "")),
        tools=frozenset(_known(found.get("user_tools", ""), USER_TOOLS)),
        tun="tun" in found,
        ports_from=_number(found.get("ports_from", "")) or 1024,
        namespaces="0" not in refused,
        controllers=frozenset(found.get("user_controllers", "").split()[:40]),
        session_bus="session_bus" in found,
        overlay="overlay" in found,
        may_become=may_become,
    )


def version(text: str) -> tuple[int, ...]:
    """The first number with dots in a text, at most three parts: "crun version 1.8.1" → (1, 8, 1)."""
    found = _VERSION.search(text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


def _program(found: Mapping[str, str], name: str) -> Program | None:
    path = found.get(f"path_{name}", "")
    if not path.startswith("/"):
        return None
    return Program(path[:200], version(found.get(f"version_{name}", "")))


def _disk(text: str) -> Disk | None:
    """ "1048576 /var rw,noexec" → a disk with 1 GiB free; the number is in KiB."""
    words = text.split()
    if len(words) < 2 or not words[0].isdigit():
        return None
    return Disk(words[1][:200], _number(words[0]) * 1024, frozenset(words[2].split(",")[:40] if words[2:] else ()))


def _known(text: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `names` that the text has among its words, in the order of `names`."""
    words = set(text.split())
    return tuple(name for name in names if name in words)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
