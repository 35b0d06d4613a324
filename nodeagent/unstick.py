"""Ends the process of ours that a hanging Podman waits for.

Podman's calls all wait when one process keeps a container's lock: known cases are a `podman container cleanup` whose network helper hangs
(containers/podman#29646; killing the holder heals), and the service itself. In: which service, which containers are ours. Out: what was
killed, in words. Nobody else's process is touched, and no container's: conmon and payloads are not looked at. Next: podman_runtime.
"""

import os
import signal
import socket
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from nodeagent import process
from nodeagent.runtime import Process

STUCK_S = 10.0  # what a healthy helper never takes where it gets the processor time it asks for
WORKING_MAX_S = 60.0  # one that still seems at work then goes round in circles
BETWEEN_LOOKS_S = 1.0
SERVICE_HANGS_S = 20.0  # the service itself is given up when nothing else explains its silence
CONNECT_S = 2.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# what the service starts and waits for; never those that live as long as a pod (conmon, slirp4netns, pasta, rootlessport …)
_HELPERS = ("netavark", "crun", "runc")


@dataclass(frozen=True)
class Found:
    """A process that may be what Podman waits for."""

    process: Process
    words: str


def unstick(socket_path: str, ids: Collection[str], hanging_s: float) -> tuple[str, ...]:
    """Kills helpers of ours that are stuck; when there are none and Podman has hung for long, its service, which systemd starts anew.

    A helper that is at work is waited for: killed half-way, it would leave of a pod's network what nobody takes away any more.

    Args:
        socket_path: our service's socket.
        ids: of our containers, infra containers and Podman pods.
        hanging_s: since when the service does not answer.
    """
    service = listener_of(socket_path)
    slow = list(_slow_helpers(service, frozenset(ids)))
    victims = _stuck(slow)
    if not slow and service is not None and hanging_s >= SERVICE_HANGS_S:
        victims = [Found(service, "Podman's service")]
    return tuple(
        f"{victim.words} (process {victim.process.pid})" for victim in victims if _end(victim.process, service)
    )


def _end(victim: Process, service: Optional[Process]) -> bool:
    """Whether it was ended."""
    try:
        if victim == service:
            process.send_signal(victim, signal.SIGKILL)  # itself alone: conmon may be its child
            return True
        if process.is_seen(victim):  # else it has ended by itself, meanwhile
            process.kill_tree(victim.pid)
            return True
    except PermissionError:
        pass
    return False


def listener_of(socket_path: str) -> Optional[Process]:
    """Who listens at a unix socket, also when it is frozen; None when nobody does."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(CONNECT_S)
        try:
            connection.connect(socket_path)
            pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return None
    return process.find(pid)


def _slow_helpers(service: Optional[Process], ids: frozenset[str]) -> Iterator[Found]:
    for entry in Path("/proc").glob("[0-9]*"):
        found = process.find(int(entry.name))
        if found is None or found == service or _age_s(found) < STUCK_S:
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
            name = words[0].rpartition("/")[2]
            if name == "podman" and _cleans_up_ours(entry, words, ids):
                yield Found(found, "podman container cleanup")
            elif name in _HELPERS and service is not None and int(process.stat_of(found.pid)[1]) == service.pid:
                yield Found(found, name)
        except OSError:  # it has ended
            continue


def _stuck(slow: list[Found]) -> list[Found]:
    """Those that did nothing between two looks; on a machine that is short of processor time a helper may just be slow."""
    if not slow:
        return []
    before = [_activity(one.process.pid) for one in slow]
    time.sleep(BETWEEN_LOOKS_S)
    after = [_activity(one.process.pid) for one in slow]
    return [
        one
        for one, first, second in zip(slow, before, after)
        if _age_s(one.process) >= WORKING_MAX_S or (first == second and not any(runnable for _, runnable, _ in second))
    ]


def _activity(pid: int) -> tuple[tuple[int, bool, int], ...]:
    """(process id, whether it runs or waits for a processor, ticks used) of a process and all that descends from it."""
    found = []
    for member in (*process.descendants(pid), pid):
        try:
            stat = process.stat_of(member)
        except OSError:  # it has ended
            continue
        found.append((member, stat[0] == b"R", sum(int(ticks) for ticks in stat[11:15])))
    return tuple(found)


def _cleans_up_ours(entry: Path, words: list[str], ids: frozenset[str]) -> bool:
    """The container is the last argument; its pod stands in the path of its control group."""
    if "container" not in words or words[words.index("container") + 1 :][:1] != ["cleanup"]:
        return False
    return words[-1] in ids or any(pod in (entry / "cgroup").read_text() for pod in ids)


def _age_s(found: Process) -> float:
    started_s = found.start_ticks / _TICKS_PER_S
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
