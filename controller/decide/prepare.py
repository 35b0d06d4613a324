"""What `node prepare` would do on a host: findings → ordered steps, each with its reasons, and what no package mends. Pure.

Next: act/prepare.py carries the steps out. Repeating is harmless: steps follow from what is missing, and nothing is missing afterwards.

Nothing of others is touched: no rules of firewalls, no settings of sshd, no service is restarted, and a Podman that is there is not
upgraded, because containers of others may run on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controller.model.fitness import Finding, HostFacts, Need, Severity
from controller.model.fitness.packages import (
    FAMILIES,
    INSTALL_TIMEOUT_S,
    OFF_AGAIN,
    PODMAN_UNITS,
    Family,
    Step,
)


@dataclass(frozen=True, slots=True)
class Preparation:
    """`told`: what is wrong there and is not for a package manager. `why_not`: why nothing is installed although it is missing."""

    steps: tuple[Step, ...]
    told: tuple[Finding, ...] = ()
    why_not: str = ""


def prepare(facts: HostFacts, findings: Sequence[Finding]) -> Preparation:
    """Worked example: a Debian without Podman gives apt-get update, one apt-get install of podman and its parts, and switching off
    again of what the package podman switches on."""
    wrong = [finding for finding in findings if finding.severity is not Severity.NOTE]
    family, why_not = _family(facts, wrong)
    if family is None:
        return Preparation((), tuple(wrong), why_not if any(finding.need for finding in wrong) else "")
    mended = [finding for finding in wrong if finding.need in family.packages]
    told = tuple(finding for finding in wrong if finding not in mended)
    return Preparation(tuple(_steps(facts, family, mended)) if mended else (), told)


def _family(facts: HostFacts, wrong: Sequence[Finding]) -> tuple[Family | None, str]:
    """Which manager installs, or why none may: where a host can't serve anyway, nothing is changed."""
    for finding in wrong:
        if finding.severity is Severity.FAILS and finding.check in ("login", "systemd", "owner"):
            return None, f"nothing is installed on a host that can't serve anyway: {finding.problem}"
    if facts.user is not None and not facts.user.may_become:
        return (
            None,
            "packages are installed by root: set ansible_become for this host, which a rootless one uses for this alone",
        )
    if facts.image_based:
        return None, "its system is an image (rpm-ostree): rpm-ostree install, and a reboot, are yours to order"
    there = [family for family in FAMILIES if family.name in facts.managers]
    fitting = [family for family in there if set(family.ids) & set(facts.system_ids)]
    found = next(iter([*fitting, *there]), None)
    known = ", ".join(family.name for family in FAMILIES)
    return found, "" if found else f"it has no package manager that sshoal knows ({known})"


def _steps(facts: HostFacts, family: Family, mended: Sequence[Finding]) -> list[Step]:
    because = tuple(finding.problem for finding in mended)
    needs = [finding.need for finding in mended if finding.need is not None]
    names = list(dict.fromkeys(name for need in needs for name in family.packages[need]))
    steps = []
    if facts.packages_unfinished and family.repair:
        steps.append(Step("complete an interrupted installation", family.repair, ("dpkg says that there is one",)))
    if family.refresh:
        why = "packages are to be installed"
        steps.append(Step("refresh the lists of packages", family.refresh, (why,), family.exit_codes, ends=False))
    install = (*family.install, *names)
    steps.append(Step(f"install {', '.join(names)}", install, because, family.exit_codes, timeout_s=INSTALL_TIMEOUT_S))
    if Need.PODMAN in needs:
        off = ("/bin/sh", "-c", OFF_AGAIN, "sh", *PODMAN_UNITS)
        why = "sshoal has a socket and a service of Podman of its own"
        steps.append(Step("switch off what came with podman and is not needed", off, (why,), ends=False))
    if Need.CLOCK in needs:
        start = ("systemctl", "enable", "--now", family.clock_unit)
        apart = tuple(finding.problem for finding in mended if finding.need is Need.CLOCK)
        steps.append(Step(f"start {family.clock_unit}", start, apart, ends=False))
    return steps
