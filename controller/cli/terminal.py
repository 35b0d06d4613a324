"""`exec`: this terminal, or pipe, joined to a command in a container. The terminal is always restored."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

from controller.cli.containers import choose_container, exec_words, host_of_pod, tell_choice
from controller.cli.output import writing_here
from controller.model.cluster import Pod
from controller.model.errors import HostError, UsageError
from nodeagent import protocol
from nodeagent.protocol import ExecRequest

if TYPE_CHECKING:
    from controller.act.agents import AgentStream
    from controller.cli.wiring import Wiring

_BLOCK_BYTES = 32 * 1024
_STDIN, _STDOUT, _STDERR = 0, 1, 2


async def run_command(
    wiring: Wiring, pod: Pod, container: str, command: Sequence[str], *, stdin: bool, tty: bool
) -> int:
    """Runs it to its end → its exit code. Raises UsageError for -t without a terminal, HostError."""
    if tty and not (stdin and os.isatty(_STDIN)):
        raise UsageError("-t wants -i and a terminal as standard input", hint="leave -t out in scripts")
    world = wiring.world()
    name = choose_container(world, pod, container)
    tell_choice(world, pod, container)
    size = shutil.get_terminal_size()
    rows, columns = (size.lines, size.columns) if tty else (0, 0)
    request = ExecRequest(pod.meta.uid, name, exec_words(command), stdin, tty, rows, columns)
    async with wiring.fleet(deploy=False) as fleet:
        stream = await fleet.stream(host_of_pod(wiring, world, pod), protocol.EXEC, request)
        try:
            with _raw_terminal(tty):
                if tty:
                    _follow_size(stream)
                if stdin:
                    _start_reading(stream)
                async for kind, data in stream:
                    _write_all(_STDERR if kind == protocol.STDERR else _STDOUT, data)
        finally:
            stream.close()
    code = (stream.exit or {}).get("code")
    if not isinstance(code, int):
        raise HostError(pod.node, "the command ended, its exit code is not known")
    return code & 0xFF


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    before = termios.tcgetattr(_STDIN)
    try:
        tty.setraw(_STDIN)
        yield
    finally:
        termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)


def _follow_size(stream: AgentStream) -> None:
    """Each change of this terminal's size goes on to the container's."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def tell() -> None:
        size = shutil.get_terminal_size()
        with contextlib.suppress(HostError):
            await stream.resize(size.lines, size.columns)

    def changed() -> None:
        task = asyncio.ensure_future(tell())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGWINCH, changed)


def _start_reading(stream: AgentStream) -> None:
    """Standard input → stream, from a thread: files, pipes and terminals are read alike. It does not outlive the process."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        with contextlib.suppress(HostError, RuntimeError, OSError, CancelledError):  # the stream is over, or the loop
            while data := _read_some():
                asyncio.run_coroutine_threadsafe(stream.write(data), loop).result()
            asyncio.run_coroutine_threadsafe(stream.end_input(), loop).result()

    threading.Thread(target=read, daemon=True, name="stdin").start()


def _read_some() -> bytes:
    """b"" at the end, and where nothing can be read, as of a directory: without an end the command would wait for ever."""
    while True:
        try:
            return os.read(_STDIN, _BLOCK_BYTES)
        except BlockingIOError:  # whoever started us has made it so
            select.select([_STDIN], [], [])
        except OSError as error:
            print(f"note: standard input can't be read: {error.strerror}", file=sys.stderr)
            return b""


def _write_all(descriptor: int, data: bytes) -> None:
    sys.stdout.flush()
    view = memoryview(data)
    while view:
        with writing_here("what the command says"):
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                select.select([], [descriptor], [])
