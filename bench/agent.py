"""What the agent costs a host: memory with 0 and 50 pods, CPU with 50 pods probed every 10 s by http, tcp and exec."""

from __future__ import annotations

import time
from typing import Any

from bench.cluster import Cluster
from bench.figures import Figure

PODS = 50
WINDOW_S = 60.0
SWARM_MIB = 161.0  # recorded: dockerd and containerd of one node
PROBES: dict[str, dict[str, Any]] = {
    "http": {"httpGet": {"path": "/", "port": 8080}},
    "tcp": {"tcpSocket": {"port": 8080}},
    "exec": {"exec": {"command": ["/bin/true"]}},
}

# name, main pid's RSS and USS in KiB, CPU ticks of the unit's processes; for the agent, Podman's service and this SSH session
_LOOK = r"""
import os, subprocess
def smaps(pid):
    rss = uss = 0
    for line in open(f"/proc/{pid}/smaps_rollup"):
        if line.startswith("Rss:"): rss = int(line.split()[1])
        if line.startswith(("Private_Clean:", "Private_Dirty:")): uss += int(line.split()[1])
    return rss, uss
def ticks(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))
def main_pid(unit):
    return int(subprocess.run(["systemctl", "show", "-P", "MainPID", unit], capture_output=True, text=True, check=True).stdout)
for name, pid in (("agent", main_pid("sshoal-agent")), ("podman", main_pid("sshoal-podman")), ("session", os.getppid())):
    print(name, *smaps(pid), ticks(pid))
"""


def measure(cluster: Cluster) -> list[Figure]:
    """On one host, the others are cordoned, so that all pods are there."""
    for other in cluster.lab.hosts[1:]:
        cluster.sshoal("node", "cordon", other.name)
    empty = _look(cluster)
    figures = [
        Figure("agent's RSS, 0 pods", empty["agent"][0] / 1024, "MiB", aim=40.0),
        Figure("agent's USS, 0 pods", empty["agent"][1] / 1024, "MiB"),
    ]
    for name, probe in PROBES.items():
        cluster.apply("fifty", PODS, probe=probe)
        time.sleep(10)  # what starting has stirred up is over
        before = _look(cluster)
        time.sleep(WINDOW_S)
        after = _look(cluster)
        for process in ("agent", "podman"):
            used = (after[process][2] - before[process][2]) / 100 / WINDOW_S * 100
            aim = 0.5 if process == "agent" and name != "exec" else None
            figures.append(
                Figure(f"{process}'s CPU, {PODS} pods, {name} probes every 10 s", used, "% of a core", aim=aim)
            )
        if name == "http":
            total = sum(after[process][0] for process in ("agent", "podman", "session")) / 1024
            figures += [
                Figure(f"agent's RSS, {PODS} pods", after["agent"][0] / 1024, "MiB", aim=40.0),
                Figure(f"agent's USS, {PODS} pods", after["agent"][1] / 1024, "MiB"),
                Figure(f"Podman's service, RSS, {PODS} pods", after["podman"][0] / 1024, "MiB"),
                Figure("all of ours on a node, RSS", total, "MiB", SWARM_MIB, "Swarm's daemons, recorded"),
            ]
        cluster.delete("fifty")
    for other in cluster.lab.hosts[1:]:
        cluster.sshoal("node", "uncordon", other.name)
    return figures


def _look(cluster: Cluster) -> dict[str, tuple[int, int, int]]:
    told = cluster.lab.hosts[0].run(f"python3 - <<'END'\n{_LOOK}\nEND", timeout_s=60)
    looked = {}
    for line in told.splitlines():
        name, rss_kib, uss_kib, ticks = line.split()
        looked[name] = (int(rss_kib), int(uss_kib), int(ticks))
    return looked
