"""The agent of an ordinary user: where it keeps things, and how it gets to where that user's containers are.

Podman runs an ordinary user's containers in a user namespace, in which he is root over his range of subordinate ids, and in a mount
namespace beside it. `enter` moves this process there, once, at its start: from then on volumes of other ids, tmpfs mounts, and the pods'
own networks are open to it exactly as they are to a root agent, and nothing outside is that was not open to the user before. The network
namespace stays the host's. Effects: one short process of podman's, then this process is replaced.
"""

import ctypes
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from nodeagent import process
from nodeagent.runtime import Process
from nodeagent.unstick import listener_of

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PODMAN_TIMEOUT_S = 60.0  # the first start after a boot renews all of Podman's records
DIRECTORY = ".local/share/sshoal"  # in the home, as XDG's base directories have it
_KINDS = ("user", "mnt")  # in this order: a mount namespace may be entered by root of its user namespace


class NoNamespace(Exception):
    """Podman's namespaces cannot be had or entered; the message says why."""


def state_directory() -> Path:
    """Of the user that runs this process."""
    return Path(pwd.getpwuid(os.geteuid()).pw_dir) / DIRECTORY


def run_directory() -> Path:
    """On tmpfs, made by logind at login, and at boot for users that linger."""
    return Path(f"/run/user/{os.geteuid()}/sshoal")


def enter(arguments: Sequence[str]) -> None:
    """Replaces this process by the same program with `arguments`, in Podman's namespaces. The process id stays.

    A process that starts anew there belongs to the namespace in every respect; one that only moves keeps a memory image that the kernel
    counts as the host's. To be called while there is one thread. Raises NoNamespace.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for descriptor in _podman_namespaces():
        if libc.setns(descriptor, 0) != 0:
            raise NoNamespace(f"Podman's namespace can't be entered: {os.strerror(ctypes.get_errno())}")
        os.close(descriptor)
    os.execv(sys.executable, [sys.executable, "-I", sys.argv[0], *arguments])  # noqa: S606


def _podman_namespaces() -> list[int]:
    """Descriptors of the user and the mount namespace of this user's Podman, which makes them if need be."""
    podman = shutil.which("podman", path=SEARCH_PATH)
    if podman is None:
        raise NoNamespace("Podman is not installed")
    # A shell inside tells its process id and stays until it has been looked at.
    command = [podman, "unshare", "sh", "-c", "echo $$; read end"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        opened: list[int] = []
        try:
            heard, _, _ = select.select([shell.stdout], [], [], PODMAN_TIMEOUT_S)
            said = shell.stdout.readline().strip() if heard else ""
            if said.isdigit():
                opened = [os.open(f"/proc/{said}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in _KINDS]
            _, complaint = shell.communicate("\n", timeout=PODMAN_TIMEOUT_S if heard else 0)
        except (OSError, subprocess.TimeoutExpired) as error:
            shell.kill()
            raise NoNamespace(f"podman unshare: {error}") from None
    if not opened:
        raise NoNamespace(f"podman unshare: {complaint.strip()[-600:] or 'says nothing'}")
    return opened


def oom_score() -> int:
    """What this process has: an ordinary user's containers can't have less."""
    return int(Path("/proc/self/oom_score_adj").read_text())


def ports_from() -> int:
    """The lowest port of the host that an ordinary user may bind."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except OSError:  # a kernel before 4.11
        return 1024


def end_leftovers(podman_socket: Path) -> None:
    """Ends what is left of an earlier Podman service on this socket, before the next one starts.

    An ordinary user's Podman is two processes: one that waits, which systemd knows, and one in the namespaces, which serves and outlives
    the first when that is killed.
    """
    address = f"unix://{podman_socket}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if address in words and b"service" in words:
                os.kill(int(entry.name), signal.SIGTERM)
        except OSError:  # it has ended, or is not ours
            continue


class NamespaceWatch:
    """Sees when Podman's service works in other namespaces than this process: somebody ended Podman's own (`podman system migrate`).

    The service itself may not be looked at (a process that has moved is closed even to its user); Podman's pause process, which holds
    the namespaces, may by those who share them (ptrace(2), "Ptrace access mode checking").
    """

    def __init__(self, podman_socket: Path) -> None:
        self._socket = podman_socket
        self._pause = podman_socket.parent.parent / "libpod/tmp/pause.pid"
        # The service that was there; asked for rarely, as Podman logs each connection
        self._known: Optional[Process] = None

    def has_moved(self) -> bool:
        """False also where the service does not answer: then there is nothing to tell."""
        if self._known is not None and process.is_alive(self._known):
            return False
        before, self._known = self._known, listener_of(str(self._socket))
        if self._known is None:
            return False
        try:
            theirs = Path(f"/proc/{int(self._pause.read_text())}/ns/mnt").stat().st_ino
        except PermissionError:  # it is of another user namespace, into which this process may not look
            return True
        except (OSError, ValueError):
            return before is not None  # another service, of which nothing can be told
        return theirs != Path("/proc/self/ns/mnt").stat().st_ino
