"""Whether hosts can be nodes: one login and one script each, judged here. Used by `node check`, `node prepare` and `init`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.model.errors import HostError, HostNotReady
from controller.model.fitness import Finding, Severity, serves
from controller.model.fitness.facts import HostFacts, dotted
from controller.model.inventory import Host

if TYPE_CHECKING:
    from controller.act.transport import Session
    from controller.cli.wiring import Wiring

PARALLEL_MAX = 16
_MARKS = {Severity.FAILS: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one host. `unreachable`: why there was no login; there are no findings then."""

    host: str
    address: str
    facts: HostFacts | None = None
    findings: tuple[Finding, ...] = ()
    unreachable: HostError | None = None

    @property
    def result(self) -> str:
        if self.unreachable is not None:
            return "unreachable"
        return "fit" if serves(self.findings) else "not fit"


async def check_hosts(
    wiring: Wiring, hosts: Sequence[Host], told: Callable[[int], None] = lambda done: None
) -> list[Checked]:
    """Logs in on all hosts, several at a time. `told` hears how many are done."""
    slots, done = asyncio.Semaphore(PARALLEL_MAX), 0
    cluster = wiring.store.cluster_id if wiring.context.store.exists() else ""
    async with wiring.transport() as transport:

        async def one(host: Host) -> Checked:
            nonlocal done
            try:
                async with slots:
                    session = await transport.connect(host)
                    try:
                        return await check(session, host, cluster)
                    finally:
                        await session.close()
            except HostError as error:
                return Checked(host.name, host.connection.address, unreachable=error)
            finally:
                done += 1
                told(done)

        return list(await asyncio.gather(*map(one, hosts)))


async def check(session: Session, host: Host, cluster: str) -> Checked:
    """One host over a connection that is there. Raises HostUnreachable when that breaks.

    Where sudo refuses, what an ordinary user sees is judged all the same, so that every reason is told at once.
    """
    from controller.act.examine import examine

    address = host.connection.address
    try:
        found = await examine(session, host, asked_by=cluster)
        return Checked(host.name, address, found.facts, found.findings)
    except HostNotReady as error:
        refused = Finding("login", Severity.FAILS, error.problem, error.hint)
    try:
        found = await examine(session, host, become=False, asked_by=cluster)
    except HostNotReady:  # not even a shell
        return Checked(host.name, address, None, (refused,))
    others = [finding for finding in found.findings if finding.check != "login"]
    return Checked(host.name, address, found.facts, (refused, *others))


def exit_code(checked: Sequence[Checked]) -> int:
    """0: all can serve; 1: some cannot; 4: some were not reached."""
    if any(one.unreachable is not None for one in checked):
        return HostError.exit_code
    return 0 if all(serves(one.findings) for one in checked) else 1


def checks_text(checked: Sequence[Checked], output: str) -> str:
    """A table, with what to do about each host below it; or a document."""
    from controller.cli.output import document, is_document, table

    if is_document(output):
        return document([_data(one) for one in checked], output)
    wide = output == "wide"
    header = ["HOST", "ADDRESS", "RESULT", "PYTHON", "PODMAN", "DISK FREE", "CLOCK"]
    header += ["MODE", "ARCH", "KERNEL", "CGROUPS", "SYSTEM"] if wide else []
    lines = [table(header, [_row(one, wide) for one in checked])]
    for one in checked:
        lines += findings_text(one, notes=wide)
    notes = sum(finding.severity is Severity.NOTE for one in checked for finding in one.findings)
    if notes and not wide:
        lines.append(f"{notes} note{'s' if notes > 1 else ''} not shown: -o wide")
    return "\n".join(lines)


def findings_text(one: Checked, *, notes: bool) -> list[str]:
    """A line for each finding of a host, and what to do on the next."""
    if one.unreachable is not None:
        hint = one.unreachable.hint
        return [f"✗ {one.host}: {one.unreachable.problem}", *([f"  → {hint}"] if hint else [])]
    lines = []
    for finding in one.findings:
        if notes or finding.severity is not Severity.NOTE:
            lines.append(f"{_MARKS[finding.severity]} {one.host}: {finding.problem}")
            lines += [f"  → {finding.hint}"] if finding.hint else []
    return lines


def _row(one: Checked, wide: bool) -> list[str]:
    facts = one.facts
    row = [one.host, one.address, one.result]
    if facts is None:
        return row + [""] * (9 if wide else 4)
    free = f"{facts.state_disk.free_bytes / 2**30:.1f} GiB" if facts.state_disk else ""
    row += [dotted(facts.python), dotted(facts.version("podman")), free, f"{facts.clock_skew_s:+.1f} s"]
    mode = "root" if facts.user is None else "rootless"
    return row + ([mode, facts.arch, facts.kernel, f"v{facts.cgroups}", facts.system] if wide else [])


def _data(one: Checked) -> dict[str, Any]:
    facts = one.facts
    shown: dict[str, Any] = {"host": one.host, "address": one.address, "result": one.result}
    if one.unreachable is not None:
        return {**shown, "problem": one.unreachable.problem, "hint": one.unreachable.hint}
    shown["findings"] = [
        {
            "check": finding.check,
            "severity": str(finding.severity),
            "problem": finding.problem,
            "hint": finding.hint,
            "mendable": finding.need is not None,
        }
        for finding in one.findings
    ]
    if facts is None:
        return shown
    shown["facts"] = {
        "system": facts.system,
        "mode": "root" if facts.user is None else "rootless",
        "arch": facts.arch,
        "kernel": facts.kernel,
        "systemd": facts.systemd,
        "python": dotted(facts.python),
        "programs": {name: dotted(program.version) for name, program in facts.programs.items()},
        "cgroups": facts.cgroups,
        "controllers": sorted(facts.controllers),
        "selinux": facts.selinux or "off",
        "apparmor": facts.apparmor,
        "diskFreeBytes": facts.state_disk.free_bytes if facts.state_disk else None,
        "clockSkewSeconds": round(facts.clock_skew_s, 3),
        "sshd": dict(facts.sshd),
        "owner": facts.owner,
    }
    return shown
