"""A container is killed: when does its successor run, and when is it Ready? 100 containers, once each, back-off on."""

from __future__ import annotations

from pathlib import Path

from bench.cluster import Cluster
from bench.figures import Figure, median, percentile

CONTAINERS = 100
SWARM_S = 0.47  # recorded: 0.45–0.49 s with restart delay 0; its default delay is 5 s


def measure(cluster: Cluster) -> list[Figure]:
    cluster.apply("many", CONTAINERS, period_s=1)
    running: list[float] = []
    ready: list[float] = []
    script = Path(__file__).with_name("onhost_kill.py")
    for host in cluster.lab.hosts:  # one after the other: a kill elsewhere at the same moment would be measured, too
        host.copy_in(script, "/tmp/kill.py")
        for line in host.run("python3 /tmp/kill.py", timeout_s=600).splitlines():
            ran, answered = map(float, line.split())
            running.append(ran)
            ready.append(answered)
    cluster.delete("many")
    if len(running) != CONTAINERS:
        raise RuntimeError(f"{len(running)} of {CONTAINERS} killed containers came back")
    swarm = "Swarm, delay 0, recorded"
    return [
        Figure("container killed → Running, p50 of 100", median(running), "s", SWARM_S, swarm, 0.3),
        Figure("container killed → Running, p99 of 100", percentile(running, 99), "s", SWARM_S, swarm, 1.0),
        Figure("container killed → Ready, p50 of 100", median(ready), "s"),
        Figure("container killed → Ready, p99 of 100", percentile(ready, 99), "s"),
    ]
