"""The host's time, as the agent's Clock. Reads clocks and /proc, nothing else."""

import time
from pathlib import Path


class HostClock:
    """Implements runtime.Clock. Boot identity is read once: it can't change while this process lives."""

    def __init__(self, proc: str = "/proc") -> None:
        self._boot_id = boot_identity(Path(proc))

    def wall_s(self) -> float:
        return time.time()

    def boottime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return self._boot_id


def boot_identity(proc: Path) -> str:
    """Kernel boot id plus start time of process 1.

    A host that is a container of a machine (systemd-nspawn, LXC) sees the machine's boot id; only its process 1 tells that it was rebooted.
    Re-executing systemd keeps the start time. Where process 1 is hidden (hidepid, rootless) the boot id must do.
    """
    boot_id = (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    try:
        stat = (proc / "1/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return boot_id
    return f"{boot_id}-{stat.rpartition(')')[2].split()[19]}"  # field 22; the command name before it may hold anything
