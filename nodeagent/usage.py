"""What containers and the node use: read every 15 s, kept for five minutes, told when somebody asks.

In: the processes of running containers. Out: samples, each over the time since the one before. The controller may be a cron job that comes
once a minute: what it missed is here. Reading is a few small files per container (HostMeter), no Podman and no other process.
Working set, as the kubelet has it: what is charged to the cgroup less its inactive file cache.
"""

import asyncio
import os
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol

from nodeagent.protocol import ContainerUsage, Sample, Usage, UsageRequest
from nodeagent.runtime import Clock, Process

SAMPLE_S = 15.0
KEPT = 21  # five minutes and one

Key = tuple[str, str]  # uid of the pod, name of the container; of the node two empty texts
NODE: Key = ("", "")


@dataclass(frozen=True)
class Reading:
    """One look: processor time so far, and memory now."""

    cpu_ns: int
    memory_bytes: int


class Meter(Protocol):
    """Reads what is used. None: it is gone, or this host does not tell."""

    def container(self, process: Process) -> Optional[Reading]: ...
    def node(self) -> Optional[Reading]: ...


class Gauge:
    """A ring of samples per container."""

    def __init__(self, meter: Meter, clock: Clock) -> None:
        self._meter = meter
        self._clock = clock
        self._before: dict[Key, tuple[Optional[Process], float, int]] = {}  # the last look: of what, when, how much
        self._rings: dict[Key, deque[Sample]] = {}

    async def sample(self, processes: Mapping[Key, Process]) -> None:
        """Looks at each container and at the node once. What runs no more is forgotten."""
        for gone in (self._before.keys() | self._rings.keys()) - processes.keys() - {NODE}:
            self._before.pop(gone, None)
            self._rings.pop(gone, None)
        now_s = self._clock.boottime_s()  # one for all: who asks for what is newer gets whole rounds
        self._take(NODE, None, self._meter.node(), now_s)
        for key, process in processes.items():
            self._take(key, process, self._meter.container(process), now_s)
            await asyncio.sleep(0)  # requests are not held up by a long list

    def usage(self, request: UsageRequest) -> Usage:
        """Samples that are newer than was asked for."""
        told = {key: tuple(one for one in ring if one.at_s > request.since_s) for key, ring in self._rings.items()}
        containers = (ContainerUsage(*key, samples) for key, samples in sorted(told.items()) if key != NODE and samples)
        return Usage(self._clock.boot_id(), self._clock.boottime_s(), told.get(NODE, ()), tuple(containers))

    def _take(self, key: Key, process: Optional[Process], reading: Optional[Reading], now_s: float) -> None:
        before = self._before.pop(key, None)
        if reading is None:
            return
        self._before[key] = (process, now_s, reading.cpu_ns)
        if before is None or before[0] != process:
            return  # a restarted container counts from nothing: the next look tells
        window_s = now_s - before[1]
        used_ns = reading.cpu_ns - before[2]
        if window_s > 0 and used_ns >= 0:
            cpu_u = round(used_ns / window_s / 1000)
            ring = self._rings.setdefault(key, deque(maxlen=KEPT))
            ring.append(Sample(now_s, window_s, cpu_u, reading.memory_bytes))


class HostMeter:
    """Cgroup files, of version 1, 2, or both side by side.

    The node is asked of /proc/stat and /proc/meminfo (all but what is available).
    """

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._mounts = _mounts(_read(f"{proc}/self/mountinfo") or b"")
        self._files: dict[Process, Optional[_Files]] = {}
        self._tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")

    def container(self, process: Process) -> Optional[Reading]:
        if process not in self._files:
            if len(self._files) > _KNOWN_MAX:
                self._files.clear()
            self._files[process] = self._find(process)
        files = self._files[process]
        reading = files.read() if files is not None else None
        if reading is None:
            self._files.pop(process, None)
        return reading

    def node(self) -> Optional[Reading]:
        stat, memory = _read(f"{self._proc}/stat"), _read(f"{self._proc}/meminfo")
        if not stat or not memory:
            return None
        # user nice system idle iowait irq softirq steal; guest time is within user
        ticks = [int(number) for number in stat.split(b"\n", 1)[0].split()[1:9]]
        busy = sum(ticks) - ticks[3] - ticks[4] - (ticks[7] if len(ticks) > 7 else 0)
        used_kib = (_field(memory, b"MemTotal:") or 0) - (_field(memory, b"MemAvailable:") or 0)
        return Reading(busy * self._tick_ns, used_kib * 1024)

    def _find(self, process: Process) -> Optional["_Files"]:
        lines = _read(f"{self._proc}/{process.pid}/cgroup")
        if not lines:
            return None
        paths: dict[str, str] = {}
        for line in lines.decode("utf-8", "replace").splitlines():
            _, controllers, path = line.split(":", 2)
            if _OWN in path:  # rootless on version 1 a container has none: what is there is the whole session's
                paths.update(dict.fromkeys(controllers.split(","), path))  # "" is version 2
        cpu, memory = self._directory(paths, "cpuacct"), self._directory(paths, "memory")
        if cpu and memory:
            return _FilesV1(cpu, memory)
        unified = self._directory(paths, "")
        return _FilesV2(unified) if unified and Path(unified, "cpu.stat").exists() else None

    def _directory(self, paths: Mapping[str, str], controller: str) -> str:
        path = paths.get(controller)
        if path is None:
            return ""
        for root, point in self._mounts.get(controller, ()):
            inside = path[len(root) :] if root != "/" and path.startswith(root) else path
            if inside in ("", "/"):  # the root group counts everything; rootless containers are in it with version 1
                return ""
            found = f"{point}{inside}"
            if Path(found).is_dir():
                return found
        return ""


_KNOWN_MAX = 4096
_OWN = "libpod-"  # so Podman names the cgroup of a container


class _Files(Protocol):
    def read(self) -> Optional[Reading]: ...


class _FilesV1:
    def __init__(self, cpu: str, memory: str) -> None:
        self._cpu, self._usage, self._stat = (
            f"{cpu}/cpuacct.usage",
            f"{memory}/memory.usage_in_bytes",
            f"{memory}/memory.stat",
        )

    def read(self) -> Optional[Reading]:
        cpu, usage, stat = _read(self._cpu), _read(self._usage), _read(self._stat)
        if not cpu or not usage or stat is None:
            return None
        return Reading(int(cpu), max(0, int(usage) - (_field(stat, b"total_inactive_file") or 0)))


class _FilesV2:
    def __init__(self, path: str) -> None:
        self._cpu, self._usage, self._stat = f"{path}/cpu.stat", f"{path}/memory.current", f"{path}/memory.stat"

    def read(self) -> Optional[Reading]:
        cpu, usage, stat = _read(self._cpu), _read(self._usage), _read(self._stat)
        used_us = _field(cpu, b"usage_usec") if cpu else None
        if used_us is None or not usage or stat is None:
            return None
        return Reading(used_us * 1000, max(0, int(usage) - (_field(stat, b"inactive_file") or 0)))


def _mounts(mountinfo: bytes) -> dict[str, list[tuple[str, str]]]:
    """By controller ("" for version 2): (root within the hierarchy, where it is mounted)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in mountinfo.decode("utf-8", "replace").splitlines():
        front, _, back = line.partition(" - ")
        fields, rest = front.split(), back.split()
        if len(fields) < 5 or len(rest) < 3 or not rest[0].startswith("cgroup"):
            continue
        controllers: Iterable[str] = ("",) if rest[0] == "cgroup2" else rest[2].split(",")
        for name in controllers:
            found.setdefault(name, []).append((fields[3], fields[4]))
    return found


def _field(text: bytes, name: bytes) -> Optional[int]:
    """The number after a name at the beginning of a line."""
    for line in text.split(b"\n"):
        words = line.split()
        if len(words) >= 2 and words[0] == name:
            return int(words[1])
    return None


def _read(path: str) -> Optional[bytes]:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None
