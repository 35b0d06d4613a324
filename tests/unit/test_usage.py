"""What containers use: cgroup files of both versions, and the ring that a controller reads once a minute."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controller.act.fleet import joined
from nodeagent.protocol import Sample, UsageRequest
from nodeagent.runtime import Process
from nodeagent.usage import KEPT, HostMeter, Key, Reading
from nodeagent.usage import Gauge as GaugeOf
from tests.unit.agentworld import WorldClock

PROCESS = Process(42, 1)


def host(tmp: Path, version: str) -> HostMeter:
    """A /proc and cgroup files of one container: 2.5 s of cpu, 100 MiB of which 30 MiB are inactive cache."""
    proc, cgroups = tmp / "proc", tmp / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "42").mkdir()
    mib = 2**20
    lines, mounts = [], []
    if version in ("v1", "hybrid"):
        for name, controllers in (("cpu,cpuacct", "cpu,cpuacct"), ("memory", "memory")):
            (cgroups / name / "pod/libpod-web").mkdir(parents=True)
            lines.append(f"3:{controllers}:/outer/pod/libpod-web")
            mounts.append(f"30 23 0:26 /outer {cgroups / name} rw,nosuid - cgroup cgroup rw,{controllers}")
        (cgroups / "cpu,cpuacct/pod/libpod-web/cpuacct.usage").write_text("2500000000\n")
        (cgroups / "memory/pod/libpod-web/memory.usage_in_bytes").write_text(f"{100 * mib}\n")
        stat = f"cache 1\ninactive_file 7\ntotal_inactive_file {30 * mib}\n"
        (cgroups / "memory/pod/libpod-web/memory.stat").write_text(stat)
    if version in ("v2", "hybrid"):
        (cgroups / "unified/pod/libpod-web").mkdir(parents=True)
        lines.append("0::/pod/libpod-web")
        mounts.append(f"31 23 0:27 / {cgroups / 'unified'} rw - cgroup2 cgroup2 rw")
    if version == "v2":
        (cgroups / "unified/pod/libpod-web/cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
        (cgroups / "unified/pod/libpod-web/memory.current").write_text(f"{100 * mib}\n")
        (cgroups / "unified/pod/libpod-web/memory.stat").write_text(f"anon 5\ninactive_file {30 * mib}\n")
    (proc / "42/cgroup").write_text("\n".join(lines) + "\n")
    (proc / "self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda rw\n" + "\n".join(mounts) + "\n")
    (proc / "stat").write_text("cpu  100 0 50 900 50 0 0 10 0 0\ncpu0 1 1 1 1\n")
    (proc / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  400 kB\n")
    return HostMeter(str(proc))


@pytest.mark.parametrize("version", ["v1", "v2", "hybrid"])
def test_processor_time_and_working_set_are_read_from_the_container_s_cgroup(tmp_path: Path, version: str) -> None:
    assert host(tmp_path, version).container(PROCESS) == Reading(2_500_000_000, 70 * 2**20)


@pytest.mark.parametrize("path", ["/", "/outer"])
def test_a_container_in_the_root_group_is_not_said_to_use_what_the_whole_host_uses(tmp_path: Path, path: str) -> None:
    meter = host(tmp_path, "v1")
    (tmp_path / "cgroup/cpu,cpuacct/cpuacct.usage").write_text("99000000000\n")
    (tmp_path / "cgroup/memory/memory.usage_in_bytes").write_text("99000000000\n")
    (tmp_path / "cgroup/memory/memory.stat").write_text("total_inactive_file 0\n")
    (tmp_path / "proc/42/cgroup").write_text(f"3:cpu,cpuacct:{path}\n4:memory:{path}\n")
    assert meter.container(PROCESS) is None


def test_a_container_that_is_gone_gives_nothing(tmp_path: Path) -> None:
    meter = host(tmp_path, "v2")
    assert meter.container(Process(43, 1)) is None
    assert meter.container(PROCESS) is not None
    (tmp_path / "cgroup/unified/pod/libpod-web/memory.current").unlink()
    assert meter.container(PROCESS) is None


def test_what_has_no_cgroup_of_its_own_is_not_told_for_a_container(tmp_path: Path) -> None:
    """Rootless Podman on version 1: the process is in the cgroup of the whole session."""
    meter = host(tmp_path, "v1")
    (tmp_path / "proc/42/cgroup").write_text("3:cpu,cpuacct:/outer/pod\n4:memory:/outer/pod\n")
    assert meter.container(PROCESS) is None


def test_the_node_uses_all_but_idle_time_and_what_is_not_available(tmp_path: Path) -> None:
    reading = host(tmp_path, "v2").node()
    assert reading is not None
    assert reading.memory_bytes == 600 * 1024
    assert reading.cpu_ns % 150 == 0  # ticks 100 + 50, of whatever length; idle, iowait and steal are not use
    assert reading.cpu_ns > 0


class Readings:
    """A meter whose numbers a test sets."""

    def __init__(self) -> None:
        self.now: dict[int, Reading] = {}

    def container(self, process: Process) -> Reading | None:
        return self.now.get(process.pid)

    def node(self) -> Reading | None:
        return self.now.get(0)


class Gauge:
    """The ring over them, 15 s from look to look."""

    def __init__(self) -> None:
        self.clock, self.meter = WorldClock(), Readings()
        self.gauge = GaugeOf(self.meter, self.clock)
        self.seconds = 0.0
        self.clock.boottime_s = lambda: self.seconds  # type: ignore[method-assign]

    def look(self, processes: dict[Key, Process], **used: tuple[int, int]) -> None:
        self.meter.now = {int(pid.removeprefix("p")): Reading(*numbers) for pid, numbers in used.items()}
        asyncio.run(self.gauge.sample(processes))
        self.seconds += 15.0

    def samples(self, since_s: float = 0.0) -> dict[str, tuple[Sample, ...]]:
        usage = self.gauge.usage(UsageRequest(since_s))
        return {one.uid: one.samples for one in usage.containers}


def test_use_is_what_was_added_between_two_looks() -> None:
    gauge = Gauge()
    web = {("web", "main"): PROCESS}
    gauge.look(web, p42=(1_000_000_000, 10))
    assert gauge.samples() == {}
    gauge.look(web, p42=(2_500_000_000, 20))  # 1.5 s in 15 s: a tenth of a cpu
    assert gauge.samples() == {"web": (Sample(15.0, 15.0, 100_000, 20),)}
    assert gauge.samples(since_s=15.0) == {}


def test_whole_rounds_are_told_once() -> None:
    gauge = Gauge()
    known = None
    for number in range(5):
        gauge.look({("web", "main"): PROCESS}, p0=(number * 10**9, 5), p42=(number * 10**9, 10))
        fresh = gauge.gauge.usage(UsageRequest(max((one.at_s for one in known.node), default=0.0) if known else 0.0))
        known = joined(known, fresh)
    assert known is not None
    assert (
        [one.at_s for one in known.node]
        == [one.at_s for one in known.containers[0].samples]
        == [15.0, 30.0, 45.0, 60.0]
    )
    assert joined(known, gauge.gauge.usage(UsageRequest(60.0))).containers == known.containers


def test_a_restarted_container_counts_from_nothing_and_one_that_ended_is_forgotten() -> None:
    gauge = Gauge()
    gauge.look({("web", "main"): PROCESS}, p42=(9_000_000_000, 10))
    gauge.look({("web", "main"): Process(43, 5)}, p43=(1_000, 10))
    assert gauge.samples() == {}
    gauge.look({("web", "main"): Process(43, 5)}, p43=(15_001_000, 10))
    assert [one.cpu_u for one in gauge.samples()["web"]] == [1000]
    gauge.look({})
    assert gauge.samples() == {}


def test_one_that_ended_between_the_listing_and_the_look_is_forgotten_too() -> None:
    gauge = Gauge()
    for used in ({"p42": (1_000, 10)}, {"p42": (2_000, 10)}, {}):
        gauge.look({("web", "main"): PROCESS}, **used)
    gauge.look({})
    assert gauge.samples() == {}


def test_the_ring_is_bounded_to_five_minutes() -> None:
    gauge = Gauge()
    for number in range(100):
        gauge.look({("web", "main"): PROCESS}, p42=(number * 10**9, 1))
    samples = gauge.samples()["web"]
    assert len(samples) == KEPT
    assert samples[-1].at_s - samples[0].at_s == 300.0
