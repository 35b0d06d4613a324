"""Processes of this host, told apart for certain: identity, end, signals, and a connection from inside their network.

In: process ids that the engine names. Out: runtime.Process (pid and start time, which together never repeat within one boot), waiting and
signalling by pidfd where the kernel has it. Effects: signals, sockets. Knows nothing of the engine. Next: podman_runtime.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from nodeagent.runtime import Process, RuntimeFault

POLL_S = 0.2  # where the kernel has no pidfd (before 5.3), or Python was built without
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_CLONE_NEWNET = 0x40000000


def find(pid: int) -> Optional[Process]:
    """The process of that id now; None when there is none (a zombie is none: it will never run again)."""
    try:
        return _look(pid)
    except OSError:
        return None


def is_alive(process: Process) -> bool:
    """Whether it runs. While this process has no means to look, what ran is believed to run: a second one beside it would be worse."""
    try:
        return _look(process.pid) == process
    except OSError as error:
        return error.errno in _EXHAUSTED


def is_seen(process: Process) -> bool:
    """Whether it was seen to run: what is going to be signalled or ended must be, belief is not enough."""
    return find(process.pid) == process


def _look(pid: int) -> Optional[Process]:
    if pid <= 0:
        return None
    stat = stat_of(pid)
    if stat[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(stat[19]))


def stat_of(pid: int) -> list[bytes]:
    """What /proc/PID/stat says after the name: the state, the parent's id, and so on (man 5 proc). Raises OSError when it is gone."""
    # Asked of every container, all the time: a Path costs more than the read.
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123
        stat = file.read()
    return stat[stat.rfind(b")") + 2 :].split()


def is_in_group(process: Process, name: str) -> bool:
    """Whether one of its control groups has `name` in its path, as those of a container have the container's id."""
    try:
        groups = Path(f"/proc/{process.pid}/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return name in groups and is_seen(process)


async def wait_exit(process: Process) -> None:
    """Returns when `process` is gone."""
    try:
        descriptor = _pidfd(process.pid)
    except ProcessLookupError:
        return
    except OSError:  # an old kernel, or no descriptor left
        while is_alive(process):  # noqa: ASYNC110  # nothing tells us
            await asyncio.sleep(POLL_S)
        return
    try:
        if is_alive(process):  # asked again: the descriptor could be that of a later process with the same id
            await _readable(descriptor)
    finally:
        os.close(descriptor)


def _pidfd(pid: int) -> int:
    """Raises ProcessLookupError, and OSError where there are none: a Python that was built with older headers lacks the functions."""
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return os.pidfd_open(pid)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


def may_lower_oom_scores() -> bool:
    """Whether this process may keep others from the OOM killer. Found out by trying it on itself: root of a host that is itself a container
    seems to have every right, and may not have this one (CAP_SYS_RESOURCE of the machine)."""
    score = Path("/proc/self/oom_score_adj")
    before = score.read_text()
    try:
        score.write_text("-1000")
    except PermissionError:
        return False
    score.write_text(before)
    return True


def send_signal(process: Process, number: int) -> None:
    """No error when it is gone. Raises PermissionError when it belongs to somebody else."""
    try:
        descriptor = _pidfd(process.pid)
    except ProcessLookupError:
        return
    except OSError:
        if is_seen(process):
            _kill(process.pid, number)
        return
    try:
        if is_seen(process):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
    finally:
        os.close(descriptor)


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and all that descends from it; what we may not kill is left."""
    for victim in (*descendants(pid), pid):
        _kill(victim, signal.SIGKILL)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants(pid: int) -> Iterator[int]:
    """Children before their parents. Each thread has children of its own: programs in Go start them from any."""
    for child in _children(pid):
        yield from descendants(child)
        yield child


def _children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):  # the process has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


async def connect_inside(process: Process, port: int, timeout_s: float) -> Any:
    """(reader, writer) of a connection to 127.0.0.1:`port` made inside the network namespace of `process`.

    Raises RuntimeFault: not-found when the process is gone, failed when nothing listens or the namespace is closed to us, timeout.
    """
    try:
        connection = await asyncio.wait_for(connected_inside(process, "127.0.0.1", port), timeout_s)
    except asyncio.TimeoutError:
        raise RuntimeFault("timeout", f"port {port}: no connection within {timeout_s:g} s") from None
    except OSError as error:
        raise RuntimeFault("failed", f"port {port}: {os.strerror(error.errno) if error.errno else error}") from None
    return await asyncio.open_connection(sock=connection)


async def connected_inside(process: Process, address: str, port: int) -> socket.socket:
    """A connection made inside the network namespace of `process`; `address` is numeric.

    Raises OSError, RuntimeFault (not-found when the process is gone).
    """
    connection = await _socket_inside(process, socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection


async def _socket_inside(process: Process, family: int) -> socket.socket:
    """A socket belongs to the namespace that it was made in: a thread of its own enters that, which concerns this thread only, makes the
    socket, and ends."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[socket.socket] = loop.create_future()

    def settle(connection: Optional[socket.socket], error: Optional[Exception]) -> None:
        if made.done():
            if connection is not None:
                connection.close()
        elif error is not None:
            made.set_exception(error)
        else:
            assert connection is not None
            made.set_result(connection)

    def work() -> None:
        connection, failure = None, None
        try:
            connection = _make_socket(process, family)
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, connection, failure)

    try:
        threading.Thread(target=work, name="socket", daemon=True).start()
    except RuntimeError as error:  # the host has no more: that says nothing of the pod
        raise RuntimeFault("unavailable", str(error)) from None
    return await made


def _make_socket(process: Process, family: int) -> socket.socket:
    try:
        namespace = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY)
    except FileNotFoundError:
        raise RuntimeFault("not-found", "the pod is not running") from None
    try:
        if not is_alive(process):
            raise RuntimeFault("not-found", "the pod is not running")
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the pod's network: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(namespace)
    connection = socket.socket(family)
    connection.setblocking(False)
    return connection
