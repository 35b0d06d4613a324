"""`node prepare`: what it asks, does and prints. What is to be done is decided in decide/prepare.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options

if TYPE_CHECKING:
    from controller.act.prepare import Done
    from controller.act.transport import Session
    from controller.cli.check import Checked
    from controller.cli.wiring import Wiring
    from controller.decide.prepare import Preparation
    from controller.model.errors import HostError
    from controller.model.inventory import Host

PARALLEL_MAX = 8


def node_prepare(
    pattern: options.Pattern = "all",
    only_check: Annotated[
        bool, typer.Option("--check", help="Say what would be done and why; change nothing.")
    ] = False,
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Install on hosts what they lack to serve, by their own package manager: apt, dnf, zypper or apk.

    What packages cannot mend is told, not touched: `sshoal node check` says the same. Repeating it is harmless.
    Exit code 1: some hosts cannot serve even so; 4: some cannot be reached.

    Examples:
        sshoal node prepare web --check
        sshoal node prepare web
    """
    from controller.cli.output import Progress
    from controller.cli.running import run
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    hosts = wiring.select(pattern)
    line = Progress()
    try:
        if only_check:
            prepared = run(_prepare_all(wiring, hosts, only_check, line.show))
        else:
            with wiring.noted(*(f"Host {host.name}" for host in hosts)) as noted:
                prepared = run(_prepare_all(wiring, hosts, only_check, line.show))
                noted.outcome = summary(prepared)
    finally:
        line.clear()
    print("\n".join(text for one in prepared for text in lines_of(one)))
    if len(prepared) > 1:
        print(summary(prepared))
    if code := max((one.exit_code for one in prepared), default=0):
        sys.exit(code)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of one host. `after` is None when nothing was changed; `lost`: the connection broke while it was worked on."""

    before: Checked
    plan: Preparation
    done: Sequence[Done] = ()
    after: Checked | None = None
    lost: HostError | None = None

    @property
    def exit_code(self) -> int:
        """As `node check`; of a plan that was not carried out, what it would come to."""
        if self.before.unreachable is not None or self.lost is not None:
            return 4
        if self.after is not None:
            return 0 if self.after.result == "fit" else 1
        left = any(finding.severity == "fails" for finding in self.plan.told)
        return 1 if left else 0


async def _prepare_all(
    wiring: Wiring, hosts: Sequence[Host], only_check: bool, show: Callable[[str], None]
) -> list[Prepared]:
    import asyncio  # not at the start of every command

    cluster = wiring.store.cluster_id if wiring.context.store.exists() else ""
    slots, ready = asyncio.Semaphore(PARALLEL_MAX), 0
    async with wiring.transport() as transport:

        async def one(host: Host) -> Prepared:
            from controller.cli.check import Checked
            from controller.decide.prepare import Preparation
            from controller.model.errors import HostError

            nonlocal ready
            async with slots:
                try:
                    session = await transport.connect(host)
                    try:
                        return await _prepare(session, host, cluster, only_check, tell)
                    finally:
                        await session.close()
                except HostError as error:
                    failed = Checked(host.name, host.connection.address, unreachable=error)
                    return Prepared(failed, Preparation(()))
                finally:
                    ready += 1
                    tell(f"{host.name} done")

        def tell(what: str) -> None:
            show(f"{ready} of {len(hosts)} hosts · {what}")

        return list(await asyncio.gather(*map(one, hosts)))


async def _prepare(
    session: Session, host: Host, cluster: str, only_check: bool, tell: Callable[[str], None]
) -> Prepared:
    from controller.act.prepare import carry_out
    from controller.cli.check import check
    from controller.decide.prepare import Preparation, prepare
    from controller.model.errors import HostError

    tell(f"{host.name}: looking")
    before = await check(session, host, cluster)
    plan = prepare(before.facts, before.findings) if before.facts else Preparation((), before.findings)
    if only_check or not plan.steps:
        return Prepared(before, plan)
    done: list[Done] = []
    try:
        async for one in carry_out(session, host, plan.steps, lambda step: tell(f"{host.name}: {step.title}")):
            done.append(one)
        return Prepared(before, plan, done, await check(session, host, cluster))
    except HostError as error:
        return Prepared(before, plan, done, lost=error)


def lines_of(one: Prepared) -> list[str]:
    """What a person reads of one host."""
    from controller.cli.check import findings_text
    from controller.model.errors import HostUnreachable

    name = one.before.host
    if one.before.unreachable is not None:
        return findings_text(one.before, notes=False)
    lines = []
    if one.done or one.lost:
        for done in one.done:
            lines.append(f"{'✗' if done.failed else '✓'} {name}: {done.step.title}: {'; '.join(done.step.because)}")
            lines += [f"  {done.failed}"] if done.failed else []
        if one.lost is not None:
            going_on = isinstance(one.lost, HostUnreachable)
            lines.append(f"✗ {name}: {one.lost.problem}{'; what had begun there may go on' if going_on else ''}")
            lines.append(f"  → {'run the same command again' if going_on else one.lost.hint}")
    elif one.plan.steps:
        lines += [f"+ {name}: would {step.title}: {'; '.join(step.because)}" for step in one.plan.steps]
    if one.plan.why_not:
        lines.append(f"✗ {name}: {one.plan.why_not}")
    if one.after is not None:
        lines += findings_text(one.after, notes=False)
        lines.append(f"{name}: {'can serve' if one.after.result == 'fit' else 'cannot serve yet'}")
    elif one.lost is None:
        lines += _told(one)
        lines += [] if lines else [f"{name}: nothing to do"]
    return lines


def _told(one: Prepared) -> list[str]:
    """What is wrong and is not for a package manager."""
    from dataclasses import replace

    from controller.cli.check import findings_text

    return findings_text(replace(one.before, findings=one.plan.told), notes=False)


def summary(prepared: Sequence[Prepared]) -> str:
    counts = {
        "can serve": sum(one.exit_code == 0 for one in prepared),
        "cannot": sum(one.exit_code == 1 for one in prepared),
        "not reached": sum(one.exit_code == 4 for one in prepared),
    }
    return f"of {len(prepared)} hosts: " + ", ".join(f"{count} {what}" for what, count in counts.items() if count)
