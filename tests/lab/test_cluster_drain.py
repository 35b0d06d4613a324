"""`node drain` on real hosts: what runs is counted on the hosts themselves while a node is emptied under a budget."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lab.lab import Lab
from tests.lab.cluster import Cluster, Object, deployment, ids, pod_spec, shell, single, spread, wait_for


def budget(name: str, **spec: Any) -> Object:
    selector = {"matchLabels": {"app": name}}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"selector": selector, **spec},
    }


@contextmanager
def counting_ready(cluster: Cluster, ns: str, drained: str) -> Iterator[list[int]]:
    """How many pods of a namespace serve their page /ready, asked of the containers again and again until the end.

    The drained host is asked first: what has left it by then has to serve elsewhere already.
    """
    counts: list[int] = []
    ending = threading.Event()
    hosts = sorted(cluster.lab.hosts, key=lambda host: host.name != drained)

    def count() -> None:
        while not ending.is_set():
            serving = 0
            for host in hosts:
                ask = (
                    f"for c in $(podman ps -q --filter label=sshoal.dev/namespace={ns}"
                    " --filter label=sshoal.dev/container); do"
                    " podman exec $c /bin/busybox wget -q -O /dev/null http://127.0.0.1:8080/ready && echo ready; done; true"
                )
                serving += host.run(ask, timeout_s=60, check=False).count("ready")
            counts.append(serving)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield counts
    finally:
        ending.set()
        thread.join()


def test_a_drain_under_a_budget_keeps_as_many_serving_as_it_says_and_starts_replacements_first(
    cluster: Cluster, ns: str
) -> None:
    cluster.apply(ns, deployment("web", 3), budget("web", minAvailable=3))
    assert spread(cluster.running(ns)) == {"node1": 1, "node2": 1, "node3": 1}
    assert cluster.run("get", "pdb", "-n", ns).split()[-3:-1] == ["N/A", "0"]
    try:
        with counting_ready(cluster, ns, "node2") as counts:
            wait_for(lambda: counts, "a first count")
            said = cluster.run("node", "drain", "node2", "--timeout", "90s")
            drained = len(counts)
            wait_for(lambda: len(counts) > drained, "a count afterwards")
        assert "node/node2 cordoned" in said
        assert "node/node2 drained" in said
        after = cluster.running(ns)
        assert len(after) == 3
        assert {one.host for one in after} <= {"node1", "node3"}
        assert min(counts) >= 3
        assert cluster.run("get", "node", "node2").count("SchedulingDisabled") == 1
    finally:
        cluster.run("node", "uncordon", "node2")


def test_a_stateful_set_that_may_lose_none_holds_a_drain_up_until_the_budget_lets_go(cluster: Cluster, ns: str) -> None:
    stateful: Object = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "replicas": 3,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod_spec("v1", None, None)},
        },
    }
    cluster.apply(ns, stateful, budget("db", maxUnavailable=0))
    before = cluster.running(ns)
    try:
        said = cluster.run("node", "drain", "node2", "--timeout", "3s", expect=3)
        assert "waits for its disruption budget" in said
        assert ids(cluster.running(ns)) == ids(before)
        cluster.apply(ns, budget("db", maxUnavailable=1))
        cluster.run("node", "drain", "node2", "--timeout", "90s")
        after = cluster.wait_running(ns, 3)
        assert [one.pod for one in after] == ["db-0", "db-1", "db-2"]
        assert "node2" not in spread(after)
    finally:
        cluster.run("node", "uncordon", "node2")


def test_what_a_drain_would_end_for_good_is_refused_and_nothing_is_changed(
    cluster: Cluster, ns: str, lab3: Lab
) -> None:
    cluster.apply(ns, single("alone", container=shell("sleep 1000"), node="node1"))
    said = cluster.run("node", "drain", "node1", expect=2)
    assert "alone have no owner that would replace them" in said
    assert "--force" in said
    assert "SchedulingDisabled" not in cluster.run("get", "node", "node1")
    assert "pod/alone evicted (dry run)" in cluster.run("node", "drain", "node1", "--force", "--dry-run")
    assert len(cluster.running(ns)) == 1
    try:
        cluster.run("node", "drain", "node1", "--force", "--grace-period", "0", "--timeout", "60s")
        assert cluster.running(ns) == []
    finally:
        cluster.run("node", "uncordon", "node1")
