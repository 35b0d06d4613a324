"""Runs one script on many hosts at once. In: hosts of the inventory. Out: their lines as they come, and the worst exit code.

What hosts write is hostile: on a terminal only colours pass, and no line grows without bound.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from controller.act.framed_session import FramedSession
from controller.cli.logs import tame
from controller.cli.output import Unwritten, writing_here
from controller.model.errors import HostError, SshoalError
from controller.model.inventory import Host
from controller.model.text import printable

if TYPE_CHECKING:
    from controller.act.transport import Transport
    from controller.cli.wiring import Wiring

LINE_BYTES_MAX = 64 * 1024  # of a line without an end, before it is printed in pieces


@dataclass(frozen=True, slots=True)
class Order:
    """What shall be run. `timeout_s` is for one host, with its login."""

    script: str
    become: bool
    timeout_s: float
    parallel_max: int


def script_of(words: Sequence[str]) -> str:
    """One word is a line for the shell, as `ssh HOST 'a | b'` takes it; several are the arguments of one program."""
    return words[0] if len(words) == 1 else shlex.join(words)


async def run_on_hosts(wiring: Wiring, hosts: Sequence[Host], order: Order) -> int:
    """Returns the highest exit code; HostError.exit_code stands for a host that failed, which stops no other.

    Raises InventoryError before anything is run anywhere, BrokenPipeError or Unwritten when the output can't be written here.
    """
    from controller.act.transports import load_transports

    load_transports(hosts)  # reads their connection variables
    slots = asyncio.Semaphore(order.parallel_max)
    async with wiring.transport() as transport:

        async def one(host: Host) -> int:
            async with slots:
                return await _run_on(transport, host, order)

        codes = await asyncio.gather(*map(one, hosts))
    return max(codes)


async def _run_on(transport: Transport, host: Host, order: Order) -> int:
    lines = {False: Lines(host.name, sys.stdout.buffer), True: Lines(host.name, sys.stderr.buffer)}
    task = asyncio.current_task()
    assert task is not None
    unwritten: list[BrokenPipeError | Unwritten] = []

    def tell(data: bytes, is_error: bool) -> None:
        """An error here must not reach the SSH library, which would take it for one of the connection."""
        try:
            lines[is_error].add(data)
        except (BrokenPipeError, Unwritten) as error:
            unwritten.append(error)
            task.cancel()

    try:
        async with asyncio.timeout(order.timeout_s):
            session = await transport.connect(host)
            assert isinstance(session, FramedSession)
            try:
                code = await session.stream(
                    order.script,
                    tell,
                    become=order.become or bool(host.connection.become),
                    timeout_s=order.timeout_s,
                )
            finally:
                await session.close()
    except TimeoutError:
        return _failed(host, f"not done within {order.timeout_s:g} s; what runs there may run on", "")
    except SshoalError as error:  # of the host, or of the inventory: a password in a vault that does not open
        return _failed(host, error.problem if isinstance(error, HostError) else error.message, error.hint)
    except asyncio.CancelledError:
        if unwritten:
            raise unwritten[0] from None
        raise
    finally:
        for one in lines.values():
            if not unwritten:
                one.end()
    if code:
        print(f"note: {host.name}: exit code {code}", file=sys.stderr)
    return code


def _failed(host: Host, problem: str, hint: str) -> int:
    print(f"error: {host.name}: {printable(problem)}", file=sys.stderr)
    if hint:
        print(f"  → {hint}", file=sys.stderr)
    return HostError.exit_code


class Lines:
    """Whole lines of one stream of one host, each with its name in front."""

    def __init__(self, host: str, out: BinaryIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._prefix = f"{host} | ".encode()
        self._begun = b""

    def add(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > LINE_BYTES_MAX:
            lines, self._begun = [*lines, self._begun], b""
        self._print(lines)

    def end(self) -> None:
        if self._begun:
            self._print([self._begun])
            self._begun = b""

    def _print(self, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        with writing_here("what the hosts say"):
            self._out.write(b"".join(self._prefix + self._fit(line) + b"\n" for line in lines))
            self._out.flush()

    def _fit(self, line: bytes) -> bytes:
        if not self._is_terminal:
            return line
        return tame(line).replace(b"\r", b"") + (b"\x1b[0m" if b"\x1b" in line else b"")
