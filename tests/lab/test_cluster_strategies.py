"""How far an update goes, when a pod counts, and what is kept of the past: workloads of all kinds on real hosts."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.lab.cluster import Cluster, Object, pod_spec, wait_for

ON_ONE = {"nodeSelector": {"kubernetes.io/hostname": "node1"}, "terminationGracePeriodSeconds": 0}


def workload(kind: str, name: str, image: str = "v1", *, pod: Object | None = None, **spec: Any) -> Object:
    """Ready when its page /ready is, which image "bad" never has."""
    ends = {"terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod_spec(image, None, {**ends, **(pod or {})})}
    fields = {"selector": {"matchLabels": {"app": name}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": fields}


def test_an_update_that_does_not_get_ready_goes_as_far_as_its_strategy_says(cluster: Cluster, ns: str) -> None:
    by_hand: dict[str, Any] = {"updateStrategy": {"type": "OnDelete"}}
    together: dict[str, Any] = {"replicas": 3, "podManagementPolicy": "Parallel"}
    strategies: dict[str, tuple[str, dict[str, Any], dict[str, int]]] = {
        "remade": ("Deployment", {"replicas": 2, "strategy": {"type": "Recreate"}}, {"bad": 2}),
        "byhand": ("StatefulSet", {"replicas": 1, **by_hand}, {"v1": 1}),
        "single": ("StatefulSet", together, {"v1": 2, "bad": 1}),
        "double": ("StatefulSet", {**together, "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}, {"v1": 1, "bad": 2}),
        "asked": ("DaemonSet", by_hand, {"v1": 3}),
        "pairs": ("DaemonSet", {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}}, {"v1": 1, "bad": 2}),
        "surge": ("DaemonSet", {"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}, {"v1": 3, "bad": 1}),
    }  # fmt: skip

    def versions() -> dict[str, dict[str, int]]:
        found: dict[str, Counter[str]] = {name: Counter() for name in strategies}
        for one in cluster.running(ns):
            found[one.pod.partition("-")[0]][one.image.rpartition(":")[2]] += 1
        return {name: dict(counted) for name, counted in found.items()}

    cluster.apply(ns, *(workload(kind, name, **spec) for name, (kind, spec, _) in strategies.items()))
    expected = {name: counted for name, (_, _, counted) in strategies.items()}
    with cluster.watching():
        later = (workload(kind, name, "bad", **spec) for name, (kind, spec, _) in strategies.items())
        cluster.apply(ns, *later, flags=["--no-wait"])
        wait_for(lambda: versions() == expected, f"{expected}, it is {versions()}", 120)
    cluster.call("reconcile")
    assert versions() == expected, "and no further"
    with cluster.watching():
        asked = next(one.pod for one in cluster.running(ns) if one.pod.startswith("asked-"))
        cluster.run("delete", "pod/byhand-0", f"pod/{asked}", "-n", ns)
        by_now = {**expected, "byhand": {"bad": 1}, "asked": {"v1": 2, "bad": 1}}
        wait_for(lambda: versions() == by_now, "what was deleted to be of the new version")


def shown(cluster: Cluster, ns: str, kind: str, name: str) -> Object:
    found: Object = json.loads(cluster.run("get", kind, name, "-n", ns, "-o", "json"))["status"]
    return found


def test_who_is_not_ready_for_long_enough_does_not_count_and_who_is_too_late_is_told(cluster: Cluster, ns: str) -> None:
    hour: dict[str, Any] = {"minReadySeconds": 3600}
    long: dict[str, Any] = {**hour, "progressDeadlineSeconds": 7200}
    with cluster.watching():
        cluster.apply(
            ns,
            workload("Deployment", "dep", replicas=1, **long),
            workload("ReplicaSet", "rep", replicas=1, **hour),
            workload("StatefulSet", "sts", replicas=2, **hour),
            workload("DaemonSet", "dae", pod=ON_ONE, **hour),
            workload("Deployment", "late", "bad", replicas=1, progressDeadlineSeconds=3),
            workload("Deployment", "slow", "bad", replicas=1, progressDeadlineSeconds=3000),
            flags=["--no-wait"],
        )
        kinds = {"dep": "deployment", "rep": "replicaset", "sts": "statefulset"}
        wait_for(
            lambda: (
                all(shown(cluster, ns, kind, name).get("readyReplicas") == 1 for name, kind in kinds.items())
                and shown(cluster, ns, "daemonset", "dae").get("numberReady") == 1
            ),
            "one pod of each to be ready",
        )

        def progress(name: str) -> str:
            conditions = shown(cluster, ns, "deployment", name).get("conditions", ())
            return " ".join(one["reason"] for one in conditions if one["type"] == "Progressing")

        wait_for(lambda: progress("late") == "ProgressDeadlineExceeded", "the one with a short deadline to miss it")
        assert progress("slow") != "ProgressDeadlineExceeded"
        for name, kind in kinds.items():
            assert shown(cluster, ns, kind, name).get("availableReplicas", 0) == 0, name
        assert shown(cluster, ns, "daemonset", "dae").get("numberAvailable", 0) == 0
        assert [pod["metadata"]["name"] for pod in cluster.pods(ns) if pod["metadata"]["name"].startswith("sts-")] == ["sts-0"]  # fmt: skip


def test_so_many_former_revisions_are_kept_as_the_limit_says(cluster: Cluster, ns: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "Deployment": {"replicas": 1},
        "StatefulSet": {"replicas": 1},
        "DaemonSet": {"pod": ON_ONE},
    }
    for image, hostname in (("v1", "first"), ("v2", "second"), ("v1", "third")):
        for limit in (1, 9):
            things = []
            for kind, spec in kinds.items():
                one = workload(kind, f"{kind.lower()}-{limit}", image, revisionHistoryLimit=limit, **spec)
                one["spec"]["template"]["metadata"]["annotations"] = {"example.com/turn": hostname}
                things.append(one)
            cluster.apply(ns, *things, flags=["--no-wait"] if hostname != "third" else [])
    cluster.run("reconcile", "--settle")
    for kind in kinds:
        for limit, revisions in ((1, ["2", "3"]), (9, ["1", "2", "3"])):
            told = cluster.run("rollout", "history", f"{kind.lower()}/{kind.lower()}-{limit}", "-n", ns)
            assert [line.split()[0] for line in told.splitlines()] == ["REVISION", *revisions], told
