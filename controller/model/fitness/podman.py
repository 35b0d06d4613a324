"""Checks of Podman: its version, the programs it needs beside it, and versions with known security holes. Pure.

Parts by podman's own documentation: an OCI runtime (crun, runc), conmon, netavark or (before Podman 5) CNI plugins, and for pods a pause
program (catatonit), which Debian only recommends. aardvark-dns is not needed: the network of sshoal has no DNS of Podman's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from controller.model.fitness.facts import HostFacts, dotted
from controller.model.fitness.finding import Check, Finding, Need, Severity

PODMAN_MIN = (4, 0)
NETAVARK_NFTABLES = (1, 10)  # from here on netavark can do with nft alone
_BY_PREPARE = "sshoal node prepare installs it; by hand: "


@dataclass(frozen=True, slots=True)
class Hole:
    """A security hole and where it was closed. `fixed`: the first good version of each series, ascending."""

    program: str
    fixed: tuple[tuple[int, ...], ...]
    name: str
    what: str
    severity: Severity

    def has(self, version: tuple[int, ...]) -> bool:
        """1.1.11 of fixed (1.1.12,) → True; 1.3.2 of (1.2.8, 1.3.3) → True; 1.2.9 → False; 1.4.0 → False: newer than all series."""
        same_series = [good for good in self.fixed if good[:2] == version[:2]]
        return version < (same_series[0] if same_series else self.fixed[-1])


HOLES = (
    Hole("runc", ((1, 1, 12),), "CVE-2024-21626", "a container can reach the host's files", Severity.WARNING),
    Hole(
        "runc",
        ((1, 2, 8), (1, 3, 3)),
        "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881",
        "a container can write to the host's /proc",
        Severity.WARNING,
    ),
    Hole("crun", ((1, 4, 4),), "CVE-2022-27650", "containers get inheritable capabilities", Severity.WARNING),
    Hole("podman", ((4, 0, 3),), "CVE-2022-27649", "containers get inheritable capabilities", Severity.WARNING),
    Hole(
        "podman", ((4, 4, 2),), "CVE-2023-0778", "`podman volume export` follows links out of a volume", Severity.NOTE
    ),
)


def version(facts: HostFacts) -> Iterator[Finding]:
    least = dotted(PODMAN_MIN)
    if "podman" not in facts.programs:
        yield Finding(
            "podman",
            Severity.FAILS,
            "Podman is not installed",
            f"{_BY_PREPARE}apt-get install podman (dnf install podman)",
            Need.PODMAN,
        )
    elif facts.version("podman") < PODMAN_MIN:
        has = dotted(facts.version("podman")) or "of unknown version"
        yield Finding(
            "podman",
            Severity.FAILS,
            f"its Podman is {has}; {least} is needed",
            "upgrade Podman, or the host's distribution",
        )


def parts(facts: HostFacts) -> Iterator[Finding]:
    """Where containers.conf says where the parts are, one that was not found may be there all the same: that is a warning, then."""
    for finding in _parts(facts):
        if facts.own_parts:
            hint = f"unless containers.conf there says where it is: {finding.hint}"
            yield replace(finding, severity=Severity.WARNING, hint=hint, need=None)
        else:
            yield finding


def _parts(facts: HostFacts) -> Iterator[Finding]:
    has = facts.programs
    if "crun" not in has and "runc" not in has:
        yield _missing("no OCI runtime: neither crun nor runc", "crun", Need.RUNTIME)
    if "conmon" not in has:
        yield _missing("conmon is missing, without which Podman starts nothing", "conmon", Need.CONMON)
    if "catatonit" not in has:
        yield _missing("catatonit is missing, without which Podman has no pods", "catatonit", Need.INIT)
    cni = "bridge" in has and facts.version("podman") < (5,)
    if "netavark" not in has and not cni:
        yield _missing("netavark is missing: pods would have no network", "netavark", Need.NETWORK)
    netavark = facts.version("netavark")
    with_nft = "nft" in has and netavark >= NETAVARK_NFTABLES
    if "iptables" not in has and not with_nft:
        by = f"netavark {dotted(netavark)}" if netavark else "Podman's network"
        yield _missing(f"iptables is missing, which {by} calls", "iptables", Need.FIREWALL_TOOL)


def holes(facts: HostFacts) -> Iterator[Finding]:
    for hole in HOLES:
        used = hole.program != "runc" or "crun" not in facts.programs  # Podman prefers crun where it has both
        if used and facts.version(hole.program) and hole.has(facts.version(hole.program)):
            good = " or ".join(dotted(fixed) for fixed in hole.fixed)
            yield Finding(
                "holes",
                hole.severity,
                f"{hole.program} {dotted(facts.version(hole.program))} has {hole.name}: {hole.what}",
                f"closed in {good}; distributions close holes without a new number: see their security tracker",
            )


def _missing(problem: str, package: str, need: Need) -> Finding:
    return Finding("parts", Severity.FAILS, problem, f"{_BY_PREPARE}install the package {package}", need)


CHECKS = (
    Check("podman", f"{dotted(PODMAN_MIN)} or newer", Severity.FAILS, version),
    Check(
        "parts",
        "crun or runc, conmon, catatonit, netavark (before Podman 5 CNI plugins do), iptables or nft",
        Severity.FAILS,
        parts,
    ),
    Check("holes", "versions of podman, crun, runc with known security holes", Severity.WARNING, holes),
)
