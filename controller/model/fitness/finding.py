"""What a check says of a host: nothing, or findings, each with what to do about it. Pure data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from controller.model.fitness.facts import HostFacts


class Severity(StrEnum):
    """In the order in which people read them."""

    FAILS = "fails"  # the host cannot serve
    WARNING = "warning"  # it can, and something will go wrong some day or is not safe
    NOTE = "note"  # it can, and something is different there


class Need(StrEnum):
    """What packages can bring; model/fitness/packages.py says which ones."""

    PYTHON = "python"
    PODMAN = "podman"
    RUNTIME = "runtime"
    CONMON = "conmon"
    NETWORK = "network"
    INIT = "init"
    FIREWALL_TOOL = "firewall-tool"
    SELINUX_POLICY = "selinux-policy"
    CLOCK = "clock"
    ID_MAPS = "id-maps"
    SLIRP = "slirp"
    PASTA = "pasta"
    SESSION_BUS = "session-bus"


@dataclass(frozen=True, slots=True)
class Finding:
    """`need`: what `node prepare` would install against it; None: packages don't help, and the hint is for a person."""

    check: str
    severity: Severity
    problem: str
    hint: str
    need: Need | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One question to the facts. `asks` and `worst` are what docs/hosts.md says of it."""

    name: str
    asks: str
    worst: Severity
    judge: Callable[[HostFacts], Iterable[Finding]]
