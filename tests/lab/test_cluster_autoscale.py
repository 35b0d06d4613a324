"""`top` and autoscalers on real hosts: a container that burns a processor is seen, scaled up, and later scaled down again."""

from __future__ import annotations

import json
import re
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
    # In one step or two: the samples of three pods do not end at one moment.
    assert re.search(r"new size 1, was [23]: cpu below target", cluster.run("describe", "hpa/web", "-n", ns))


# Holds about 12 MiB in its second container, and nothing to speak of in the first.
HOLDING = "dd if=/dev/zero of=/dev/shm/held bs=1048576 count=12 2>/dev/null; sleep 1000"


def holder(name: str) -> Object:
    thing = deployment(name, 1, container=shell("sleep 1000", name="light"), pod={"terminationGracePeriodSeconds": 0})
    containers = thing["spec"]["template"]["spec"]["containers"]
    containers.append({**containers[0], **shell(HOLDING), "name": "heavy"})
    del containers[1]["readinessProbe"]
    return thing


def by_memory(name: str, container: str = "", *, average: str = "4Mi", **scale_up: Any) -> Object:
    """Up to 3 replicas with 4 MiB each: 12 MiB ask for three times as many."""
    target = {"type": "AverageValue", "averageValue": average}
    metric: Object = {"type": "Resource", "resource": {"name": "memory", "target": target}}
    if container:
        source = {"name": "memory", "container": container, "target": target}
        metric = {"type": "ContainerResource", "containerResource": source}
    thing = autoscaler(name)
    thing["spec"] |= {"maxReplicas": 3, "metrics": [metric], "behavior": {"scaleUp": scale_up}}
    return thing


def policy(kind: str, value: int, period_s: int = 1800) -> Object:
    return {"type": kind, "value": value, "periodSeconds": period_s}


def test_by_memory_it_goes_up_as_far_and_as_fast_as_metrics_and_policies_let_it(cluster: Cluster, ns: str) -> None:
    one, two = policy("Pods", 1), policy("Pods", 2)
    cases: dict[str, tuple[int, Object]] = {
        "pod": (3, by_memory("pod")),
        "light": (1, by_memory("light", "light")),
        "least": (2, by_memory("least", "heavy", policies=[one, two], selectPolicy="Min")),
        "most": (3, by_memory("most", "heavy", policies=[one, two], selectPolicy="Max")),
        "never": (1, by_memory("never", "heavy", policies=[two], selectPolicy="Disabled")),
        "double": (2, by_memory("double", "heavy", policies=[policy("Percent", 100)])),
        "soon": (3, by_memory("soon", "heavy", policies=[policy("Pods", 1, 1)])),
        "lax": (1, by_memory("lax", "heavy", average="8Mi", tolerance="3")),
    }
    cluster.apply(ns, *map(holder, cases))
    with cluster.watching("2s"):
        cluster.apply(ns, *(scaler for _, scaler in cases.values()))

        def sizes() -> dict[str, int]:
            found = json.loads(cluster.run("get", "deployments", "-n", ns, "-o", "json"))["items"]
            return {item["metadata"]["name"]: item["spec"]["replicas"] for item in found}

        expected = {name: size for name, (size, _) in cases.items()}
        wait_for(lambda: sizes() == expected, f"{expected}, it is {sizes()}", 2 * SAMPLES_S)
        told = cluster.run("describe", "hpa/least", "-n", ns)
        assert "ScaleUpLimit" in told
    assert sizes() == expected


def test_an_autoscaler_knows_its_target_by_kind_and_name_and_brings_it_within_its_limits(
    cluster: Cluster, ns: str
) -> None:
    plain: dict[str, Any] = {"container": shell("sleep 1000"), "pod": {"terminationGracePeriodSeconds": 0}}
    same = deployment("web", 1, **plain)
    stateful: Object = {**same, "kind": "StatefulSet", "spec": {**same["spec"]}}
    del stateful["spec"]["strategy"]
    stateful["spec"]["template"] = {**same["spec"]["template"], "metadata": {"labels": {"app": "state"}}}
    stateful["spec"]["selector"] = {"matchLabels": {"app": "state"}}
    scaler = autoscaler("any-name")
    scaler["spec"] |= {
        "minReplicas": 2,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"},
    }
    cluster.apply(ns, same, stateful, deployment("any-name", 1, **plain), scaler)
    cluster.run("reconcile", "--settle")
    found = sorted(one.pod for one in cluster.wait_running(ns, 4))
    assert [name for name in found if name.count("-") == 1] == ["web-0", "web-1"]
