"""Whether a host can serve, and why not: facts → findings. Pure.

facts.py says what is known, each check is a function over it, CHECKS is the list of them: who adds one adds it there and to docs/hosts.md.
act/examine.py asks the host, in one round trip; cli/check.py shows, decide/prepare.py plans what packages can mend.
"""

from __future__ import annotations

from controller.model.fitness import podman, protection, rootless, system
from controller.model.fitness.facts import HostFacts
from controller.model.fitness.finding import Check, Finding, Need, Severity

__all__ = ["CHECKS", "Check", "Finding", "HostFacts", "Need", "Severity", "judge", "serves"]

CHECKS: tuple[Check, ...] = (*system.CHECKS, *podman.CHECKS, *protection.CHECKS, *rootless.CHECKS)


def judge(facts: HostFacts, checks: tuple[Check, ...] = CHECKS) -> tuple[Finding, ...]:
    """Every finding, the gravest first, else in the order of the checks."""
    order = list(Severity)
    found = [finding for check in checks for finding in check.judge(facts)]
    return tuple(sorted(found, key=lambda finding: order.index(finding.severity)))


def serves(findings: tuple[Finding, ...]) -> bool:
    """Whether nothing keeps the host from serving."""
    return all(finding.severity is not Severity.FAILS for finding in findings)
