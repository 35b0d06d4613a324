"""DaemonSets and StatefulSets on real hosts: one on each, in order, rolled, undone, and no identity twice."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab.lab import Lab
from tests.lab.cluster import Cluster, Object, ids, spread, tolerating, wait_for

IMAGE = "localhost/sshoal-test"


def test_a_daemon_set_runs_once_on_each_host_cordoned_ones_too_and_rolls_host_by_host(
    cluster: Cluster, ns: str
) -> None:
    cluster.run("reconcile", "--settle")
    cluster.run("node", "cordon", "node2")
    try:
        cluster.apply(ns, workload("DaemonSet", "agent"))
        before = cluster.running(ns)
        assert spread(before) == {"node1": 1, "node2": 1, "node3": 1}
        cluster.apply(ns, workload("DaemonSet", "agent", image="v2"))
        after = cluster.running(ns)
        assert {one.image for one in after} == {f"{IMAGE}:v2"}
        assert spread(after) == spread(before)
        assert not ids(after) & ids(before)
    finally:
        cluster.run("node", "uncordon", "node2")
    cluster.run("rollout", "undo", "daemonset/agent", "-n", ns)
    assert {one.image for one in cluster.running(ns)} == {f"{IMAGE}:v1"}


def test_a_daemon_set_s_bad_version_stops_at_the_first_host(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, workload("DaemonSet", "agent"))
    said = cluster.apply(ns, workload("DaemonSet", "agent", image="v404"), expect=3)
    assert "sshoal-test:v404" in said
    assert len(cluster.running(ns)) == 2
    cluster.run("rollout", "undo", "daemonset/agent", "-n", ns)
    assert len(cluster.running(ns)) == 3


def test_a_stateful_set_comes_goes_and_rolls_in_order(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, workload("StatefulSet", "db", replicas=3, serviceName="db"))
    before = {one.pod: one for one in cluster.running(ns)}
    assert list(before) == ["db-0", "db-1", "db-2"]
    began = [cluster.pod(ns, name)["status"]["startTime"] for name in before]
    assert began == sorted(began)
    assert cluster.inside(before["db-1"], "hostname") == "db-1"
    partition = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    cluster.apply(ns, workload("StatefulSet", "db", image="v2", replicas=3, serviceName="db", updateStrategy=partition))
    assert [one.image for one in cluster.running(ns)] == [f"{IMAGE}:v1", f"{IMAGE}:v1", f"{IMAGE}:v2"]
    cluster.apply(ns, workload("StatefulSet", "db", image="v2", replicas=3, serviceName="db"))
    assert {one.image for one in cluster.running(ns)} == {f"{IMAGE}:v2"}
    kept = cluster.running(ns)[0]
    cluster.run("scale", "statefulset/db", "--replicas", "1", "-n", ns)
    assert ids(cluster.wait_running(ns, 1)) == {kept.id}


def test_an_identity_on_a_cut_off_host_is_not_started_elsewhere_until_a_person_vouches(
    cluster: Cluster, whole_lab3: Lab, ns: str
) -> None:
    tolerated_s = 2
    cluster.apply(ns, workload("StatefulSet", "db", pod=tolerating(tolerated_s), replicas=3))
    [lost] = [one for one in cluster.running(ns) if one.pod == "db-1"]
    others = [host.name for host in whole_lab3.hosts if host.name != lost.host]
    whole_lab3.kill(lost.host)
    said = cluster.run("node", "forget", lost.host, "--force", "--yes", expect=4)
    assert "which would then run twice" in said
    cluster.run("node", "uncordon", lost.host)
    with cluster.watching() as log:
        wait_for(
            lambda: "which gives no report" in cluster.call("describe", "sts/db", "-n", ns, "--cached").out,
            "the silence to be told",
        )
        silent_at_s = time.monotonic()
        # What must not happen has no condition to wait for: it gets several times as long as it would need.
        wait_for(lambda: time.monotonic() > silent_at_s + 4 * tolerated_s, "time to pass")
        assert "db-1" not in {one.pod for one in cluster.running(ns, others)}
        cluster.run("node", "confirm-dead", lost.host, "--powered-off", "--yes")
        wait_for(lambda: "db-1" in {one.pod for one in cluster.running(ns, others)}, "db-1 to run elsewhere")
        whole_lab3.start(lost.host)
        # Booted, it starts what it ran, until it is told: before it is back one of each runs for a moment, too.
        wait_for(lambda: f"{lost.host} answers again" in log.read_text(), "the host to be back")
        wait_for(lambda: [one.pod for one in cluster.running(ns)] == ["db-0", "db-1", "db-2"], "one of each to be left")
        wait_for(lambda: lost.host not in {one.host for one in cluster.running(ns)}, "the one elsewhere to be left")


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_a_selector_that_misses_the_pods_of_its_template_is_refused(cluster: Cluster, ns: str, kind: str) -> None:
    cluster.run("reconcile", "--settle")
    before = cluster.stored()
    bad = workload(kind, "web", selector={"matchLabels": {"app": "other"}})
    assert "spec.template.metadata.labels: do not match spec.selector" in cluster.apply(ns, bad, expect=2)
    assert cluster.stored() == before


def workload(kind: str, name: str, *, image: str = "v1", pod: Any = None, **spec: Any) -> Object:
    container = {"name": "main", "image": f"{IMAGE}:{image}"}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **(pod or {})},
    }
    selector = {"matchLabels": {"app": name}}
    fields = {"selector": selector, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": fields}
