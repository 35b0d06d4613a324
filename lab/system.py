"""Talks to the machine: runs its tools, reads its processes and its control groups.

In: argument lists, /proc, /sys/fs/cgroup. Out: text and plain records. Effects: whatever the tool does. Every call has a
deadline.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.model.errors import SshoalError, UsageError

CGROUPS = Path("/sys/fs/cgroup")
# One limit for all of root's processes, of all hosts together; 128 by default. A host takes 5 to 10, with users more.
INOTIFY_INSTANCES = Path("/proc/sys/fs/inotify/max_user_instances")

# program -> the Debian package that has it
NEEDED_PROGRAMS = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "unshare": "util-linux",
    "setsid": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    "find": "findutils",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}


class LabError(SshoalError):
    """The lab could not do what was asked: a tool failed or a host did not come up."""


def run(argv: Sequence[str], *, timeout_s: float = 30.0, check: bool = True, stdin: Path | None = None) -> str:
    """Runs `argv`, returns its standard output. LabError when it fails (unless `check` is off) or exceeds `timeout_s`.

    Its standard input is the file `stdin`, or empty.
    """
    try:
        with (stdin or Path(os.devnull)).open("rb") as source:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, stdin=source, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{argv[0]}: no answer within {timeout_s:g} s ({' '.join(argv)})") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise LabError(f"`{' '.join(argv)}` exited with {done.returncode}: {' / '.join(said)}")
    return done.stdout


def require_root_and_programs(programs: Mapping[str, str] = NEEDED_PROGRAMS) -> None:
    """UsageError, with what to install, unless this machine can run a lab. `programs`: name → Debian package."""
    if os.uname().sysname != "Linux":
        raise UsageError("the lab needs Linux", hint="use the Vagrantfile instead: `vagrant up`")
    if os.geteuid() != 0:
        raise UsageError("the lab needs root (namespaces, mounts, network)", hint="run it with sudo")
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if missing:
        raise UsageError(
            f"the lab needs programs of: {', '.join(missing)}", hint=f"apt-get install {' '.join(missing)}"
        )


def start_detached(argv: Sequence[str]) -> None:
    """Starts `argv` in a session of its own: it outlives this process, and is nobody's zombie."""
    null = subprocess.DEVNULL
    subprocess.run(["setsid", "--fork", *argv], stdin=null, stdout=null, stderr=null, cwd="/", timeout=10, check=True)


def kill_groups(victims: Iterable[Process]) -> None:
    """SIGKILL to the process groups of `victims`."""
    for group in {process.group for process in victims}:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


def gone(victims: Iterable[Process]) -> bool:
    return {process.pid for process in victims}.isdisjoint(processes())


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Returns as soon as `condition()` holds. LabError, naming `what`, when it does not within `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.02)


def raise_inotify_limit(hosts: int, original: Path) -> None:
    """Makes room for `hosts` hosts, and notes this machine's own limit in the file `original`."""
    now = int(INOTIFY_INSTANCES.read_text())
    wanted = 128 + 32 * hosts
    if now < wanted:
        if not original.exists():
            original.write_text(f"{now}\n")
        INOTIFY_INSTANCES.write_text(str(wanted))


def restore_inotify_limit(original: Path) -> None:
    if original.exists():
        INOTIFY_INSTANCES.write_text(original.read_text())
        original.unlink()


def cgroup_version() -> int:
    """2 where /sys/fs/cgroup is the unified hierarchy, else 1 (hybrid counts as 1: its controllers are version 1)."""
    return 2 if (CGROUPS / "cgroup.controllers").exists() else 1


def cgroup_hierarchies() -> tuple[Path, ...]:
    """The mount points of all control group hierarchies of this machine."""
    if cgroup_version() == 2:
        return (CGROUPS,)
    return tuple(sorted({path.parent.resolve() for path in CGROUPS.glob("*/cgroup.procs")}))


def runs_systemd() -> bool:
    """Whether this machine was booted with systemd."""
    return Path("/run/systemd/system").is_dir()


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `namespaced_pids`: its id here, then in each nested PID namespace."""

    pid: int
    parent: int
    group: int
    argv: tuple[str, ...]
    namespaced_pids: tuple[int, ...]


def processes() -> dict[int, Process]:
    """All processes of this machine, by id."""
    return {process.pid: process for process in _read_processes()}


def _read_processes() -> Iterator[Process]:
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            argv = tuple((directory / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1])
            stat = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()
            status = (directory / "status").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        if stat[0] in "ZX":
            continue
        pids = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [directory.name])
        yield Process(int(directory.name), int(stat[1]), int(stat[2]), argv, tuple(map(int, pids)))
