"""Carries out the steps of `node prepare` on one host, one after the other, each within its deadline.

In: a Session and Steps. Out: what each came to. A step that fails ends the work there, unless it says that it need not.
"""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from controller.act.transport import Session
from controller.model.fitness.packages import Step
from controller.model.inventory import Host
from controller.model.text import printable


@dataclass(frozen=True, slots=True)
class Done:
    """`failed`: the end of what the command said, and its exit code; "" when it succeeded."""

    step: Step
    failed: str


async def carry_out(
    session: Session, host: Host, steps: Sequence[Step], told: Callable[[Step], None]
) -> AsyncIterator[Done]:
    """Each step as it is done; `told` hears of it before it begins.

    Raises HostUnreachable: a step that was under way then may go on there.
    """
    for step in steps:
        told(step)
        # Its output goes to one file descriptor, so that the end is the end whichever it wrote to.
        script = f"exec 2>&1 </dev/null\nLC_ALL=C; export LC_ALL\n{shlex.join(step.argv)}\n"
        ended = await session.run(script, become=True, timeout_s=step.timeout_s * host.connection.patience)
        succeeded = ended.exit_code in step.exit_codes
        said = printable(ended.stdout[-1500:], 500) or "it said nothing"
        yield Done(step, "" if succeeded else f"exit code {ended.exit_code}: {said}")
        if not succeeded and step.ends:
            return
