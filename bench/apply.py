"""A declaration becomes Ready pods: `apply` of 6, `scale` to 30; beside it, in the same run, the same pods by raw libpod calls."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.cluster import Cluster
from bench.figures import Figure, median

ROUNDS = 3
SWARM_6_S = 0.97  # recorded: 0.93, 0.99, 1.02 s to running (no probe)
SWARM_30_S = 3.4  # recorded


def measure(cluster: Cluster) -> list[Figure]:
    ours: dict[int, list[float]] = {6: [], 24: []}
    limits: dict[int, list[float]] = {6: [], 24: []}
    with cluster.watching("2s"):
        for _ in range(ROUNDS):
            limits[6].append(limit(cluster, 2))
            ours[6].append(cluster.apply("web", 6))
            ours[24].append(cluster.sshoal("scale", "deployment/web", "--replicas", "30", "--timeout", "240s"))
            cluster.delete("web")
            limits[24].append(limit(cluster, 8))
    alone = []
    for _ in range(ROUNDS):
        alone.append(cluster.apply("web", 6))
        cluster.delete("web")
    return [
        _beside_raw_calls("apply of 6 on 3 nodes → all Ready, `watch` active", ours[6], limits[6], SWARM_6_S),
        _beside_raw_calls("apply of 6 on 3 nodes → all Ready, command alone", alone, limits[6], SWARM_6_S),
        _beside_raw_calls("scale 6 → 30 → all Ready, `watch` active", ours[24], limits[24], SWARM_30_S),
        _beside_swarm("apply of 6, against Docker Swarm", ours[6], SWARM_6_S),
        _beside_swarm("scale 6 → 30, against Docker Swarm", ours[24], SWARM_30_S),
    ]


def _beside_raw_calls(name: str, ours: Sequence[float], raw: Sequence[float], aim_s: float) -> Figure:
    return Figure(name, median(ours), "s", median(raw), "raw libpod calls, same run", aim_s, 1.3)


def _beside_swarm(name: str, ours: Sequence[float], swarm_s: float) -> Figure:
    return Figure(name, median(ours), "s", swarm_s, "Swarm, recorded, to running")


def limit(cluster: Cluster, pods_each: int) -> float:
    """Seconds from the first host's beginning to the last one's end."""
    script = Path(__file__).with_name("onhost_limit.py")
    for host in cluster.lab.hosts:
        host.copy_in(script, "/tmp/limit.py")
    with ThreadPoolExecutor(len(cluster.lab.hosts)) as pool:
        told = list(
            pool.map(lambda host: host.run(f"python3 /tmp/limit.py {pods_each}", timeout_s=240), cluster.lab.hosts)
        )
    times = [tuple(map(float, text.split()[:2])) for text in told]
    return max(end for _, end in times) - min(begin for begin, _ in times)
