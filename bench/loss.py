"""A host is powered off: when are its replicas Ready elsewhere? `watch` at polls of 2 s, toleration of 5 s."""

from __future__ import annotations

import time

from bench.cluster import Cluster, until
from bench.figures import Figure, median

ROUNDS = 3
SWARM_S = 13.8  # recorded, one sample: heartbeat 5 s
AIM_S = 10.0


def measure(cluster: Cluster) -> list[Figure]:
    taken: list[float] = []
    with cluster.watching("2s"):
        cluster.apply("lost", 6, toleration_s=5)
        for _ in range(ROUNDS):
            cluster.lab.kill("node3")
            began = time.monotonic()
            until(lambda: _ready_elsewhere(cluster) == 6)
            taken.append(time.monotonic() - began)
            cluster.lab.start("node3")
            until(lambda: all(_is_ready(pod) for pod in cluster.pods()) and len(cluster.pods()) == 6)
            cluster.delete("lost")
            cluster.apply("lost", 6, toleration_s=5)
        cluster.delete("lost")
    name = f"host powered off → its replicas Ready elsewhere, median of {ROUNDS}"
    return [Figure(name, median(taken), "s", SWARM_S, "Swarm, recorded, to running", AIM_S)]


def _ready_elsewhere(cluster: Cluster) -> int:
    return sum(pod["spec"].get("nodeName") != "node3" and _is_ready(pod) for pod in cluster.pods())


def _is_ready(pod: dict[str, object]) -> bool:
    status = pod["status"]
    assert isinstance(status, dict)
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", ()))
