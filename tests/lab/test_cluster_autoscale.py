"""`top` and autoscalers on real hosts: a container that burns a processor is seen, scaled up, and later scaled down again."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.cluster import Cluster, Object, deployment, shell, wait_for

SAMPLES_S = 90.0  # two looks of the agent, and a busy machine
LOAD = "while true; do while cat /load/on >/dev/null 2>&1; do :; done; sleep 1; done"


def burner(name: str) -> Object:
    """Burns a whole cpu while the key `on` of the config map `load` is there; asks for 100m, and may have 300m."""
    resources = {"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"cpu": "300m"}}
    mounts = [{"name": "load", "mountPath": "/load"}]
    container = shell(LOAD, resources=resources, volumeMounts=mounts)
    pod = {"volumes": [{"name": "load", "configMap": {"name": "load"}}]}
    thing = deployment(name, container=container, pod=pod)
    del thing["spec"]["replicas"]
    return thing


def load(on: bool) -> Object:
    data = {"on": "yes"} if on else {"off": "yes"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "load"}, "data": data}


def autoscaler(name: str) -> Object:
    """Up to 3 replicas at 50 %; it goes down 30 s after the load has ended."""
    target: dict[str, Any] = {"type": "Utilization", "averageUtilization": 50}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {
                "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}]},
                "scaleDown": {"stabilizationWindowSeconds": 30},
            },
        },
    }


def used(cluster: Cluster, ns: str) -> dict[str, tuple[float, int]]:
    """By pod: thousandths of a cpu, and MiB of memory, as `top` tells them."""
    done = cluster.call("top", "pods", "-n", ns, "-o", "json")
    assert done.exit_code == 0, done.err
    found = {}
    for item in json.loads(done.out)["items"]:
        [container] = item["containers"]
        cpu, memory = container["usage"]["cpu"], container["usage"]["memory"]
        found[item["metadata"]["name"]] = (int(cpu.removesuffix("u")) / 1000, int(memory.removesuffix("Ki")) // 1024)
    return found


def test_load_is_seen_by_top_and_answered_with_replicas_and_its_end_with_fewer(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, load(on=True), burner("web"), autoscaler("web"))
    with cluster.watching("5s"):
        wait_for(lambda: len(cluster.running(ns)) == 3, "the load to be answered with replicas", SAMPLES_S)
        wait_for(lambda: len(used(cluster, ns)) == 3, "all pods to have figures", SAMPLES_S)
        for cpu_m, memory_mib in used(cluster, ns).values():
            assert 30 < cpu_m < 400  # limited to 300m, and the machine may be busy
            assert memory_mib < 64
        assert "Deployment/web" in cluster.run("get", "hpa", "-n", ns)
        said = cluster.run("describe", "hpa/web", "-n", ns)
        assert "TooManyReplicas" in said
        assert "SuccessfulRescale" in said
        before = json.loads(cluster.call("get", "deployment", "web", "-n", ns, "-o", "json").out)
        assert before["spec"]["replicas"] == 3
        cluster.apply(ns, burner("web"))
        assert len(cluster.running(ns)) == 3, "apply without replicas keeps what the autoscaler has set"
        cluster.apply(ns, load(on=False))
        wait_for(lambda: len(cluster.running(ns)) == 1, "the replicas to go again", 2 * SAMPLES_S)
    assert "new size 1, was 3: cpu below target" in cluster.run("describe", "hpa/web", "-n", ns)
