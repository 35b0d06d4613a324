"""Deployments on real hosts: spread, scaled, rolled, held back by what is broken, undone, paused, restarted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

from lab.host import LabHost
from tests.lab.cluster import Cluster, deployment, ids, spread, wait_for

IMAGE = "localhost/sshoal-test"


def test_a_deployment_is_spread_over_the_hosts_and_every_replica_answers(cluster: Cluster, ns: str) -> None:
    said = cluster.apply(ns, deployment("web", 6))
    assert "deployment.apps/web created" in said
    assert "6 of 6 replicas are available" in said
    containers = cluster.running(ns)
    assert spread(containers) == {"node1": 2, "node2": 2, "node3": 2}
    for pod in cluster.pods(ns):
        page = f"curl --silent --max-time 5 http://{pod['status']['podIP']}:8080/"
        answer = cluster.host(pod["spec"]["nodeName"]).run(page)
        assert answer.split() == ["version=v1", f"hostname={pod['metadata']['name']}"]


def test_scaling_keeps_the_pods_that_are_there(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 2))
    two = cluster.running(ns)
    assert "scaled" in cluster.run("scale", "deployment/web", "--replicas", "5", "-n", ns)
    five = cluster.running(ns)
    assert len(five) == 5
    assert ids(two) < ids(five)
    cluster.run("scale", "deployment/web", "--replicas", "1", "-n", ns)
    one = cluster.wait_running(ns, 1)
    assert ids(one) < ids(five)
    cluster.run("scale", "deployment/web", "--replicas", "0", "-n", ns)
    cluster.wait_running(ns, 0)


def test_a_rolling_update_always_has_as_many_ready_as_it_promised(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 4, "v1", surge=1, unavailable=1))
    with sampled(cluster, ns) as rounds:
        cluster.apply(ns, deployment("web", 4, "v2", surge=1, unavailable=1))
        wait_for(lambda: {one.image for one in cluster.running(ns)} == {f"{IMAGE}:v2"}, "only v2 to run")
    assert len(rounds) > 5
    # A pod counts that was ready in one of two rounds: hosts are not looked at in the same instant.
    fewest = min(len(now | after) for now, after in pairwise(rounds))
    most = max(map(len, rounds))
    assert fewest >= 3, [len(one) for one in rounds]
    assert most <= 5


def test_another_image_is_set_without_a_manifest_by_the_rules_of_a_rollout(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 2, "v1", surge=1, unavailable=0))
    with sampled(cluster, ns) as rounds:
        said = cluster.run("set", "image", "deployment/web", f"main={IMAGE}:v2", "-n", ns)
    assert "deployment.apps/web image updated" in said
    assert {one.image for one in cluster.wait_running(ns, 2)} == {f"{IMAGE}:v2"}
    assert min(len(now | after) for now, after in pairwise(rounds)) >= 2
    assert "2" in cluster.run("rollout", "history", "deployment/web", "-n", ns)


def test_an_image_that_is_nowhere_leaves_the_old_version_serving_and_undo_ends_the_matter(
    cluster: Cluster, ns: str
) -> None:
    cluster.apply(ns, deployment("web"))
    before = cluster.running(ns)
    said = cluster.apply(ns, deployment("web", image="v404"), expect=3)
    assert "ErrImagePull" in said or "ImagePullBackOff" in said
    assert "sshoal-test:v404" in said
    assert ids(cluster.running(ns)) == ids(before)
    word = [pod["status"]["containerStatuses"][0]["state"] for pod in cluster.pods(ns)]
    assert sum("waiting" in state for state in word) == 1, "maxSurge 1: one pod tries the new image"
    assert "rolled back" in cluster.run("rollout", "undo", "deployment/web", "-n", ns)
    assert ids(cluster.running(ns)) == ids(before)
    cluster.run("reconcile", "--settle")
    assert len(cluster.pods(ns)) == 3, "the pod of the bad version is gone"
    assert "3 of 3" in cluster.run("rollout", "status", "deployment/web", "-n", ns)
    revisions = [line.split()[0] for line in cluster.run("rollout", "history", "deployment/web", "-n", ns).splitlines()]
    assert revisions == ["REVISION", "2", "3"]


def test_a_version_that_never_gets_ready_does_not_replace_the_one_that_serves(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web"))
    before = cluster.running(ns)
    said = cluster.apply(ns, deployment("web", image="bad"), flags=["--timeout", "6s"], expect=3)
    assert "not as declared yet" in said
    after = cluster.running(ns)
    assert ids(before) < ids(after)
    assert [one.image for one in after if one.id not in ids(before)] == [f"{IMAGE}:bad"]
    assert "MinimumReplicasAvailable" in cluster.run("describe", "deployment/web", "-n", ns)


def test_a_crash_loop_is_slowed_down_named_and_leaves_the_old_version_serving(cluster: Cluster, ns: str) -> None:
    crash = {"env": [{"name": "EXIT_CODE", "value": "5"}]}
    cluster.apply(ns, deployment("web", 2))
    before = cluster.running(ns)
    said = cluster.apply(ns, deployment("web", 2, container=crash), expect=3)
    assert "CrashLoopBackOff" in said
    assert ids(before) <= ids(cluster.running(ns))
    wait_for(lambda: "CrashLoopBackOff" in cluster.run("get", "pods", "-n", ns), "it to be between two attempts")
    crashing = next(pod for pod in cluster.pods(ns) if not pod["status"]["containerStatuses"][0]["ready"])
    status = crashing["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 5
    assert 1 <= status["restartCount"] <= 3, "restarts at once, then after 10 s, then after 20 s"


def test_a_paused_rollout_waits_and_goes_on_when_resumed(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 2))
    before = cluster.running(ns)
    assert "paused" in cluster.run("rollout", "pause", "deployment/web", "-n", ns)
    cluster.apply(ns, {**deployment("web", 2, "v2"), "spec": {**deployment("web", 2, "v2")["spec"], "paused": True}})
    cluster.run("reconcile", "--settle")
    assert ids(cluster.running(ns)) == ids(before)
    assert "resumed" in cluster.run("rollout", "resume", "deployment/web", "-n", ns)
    assert {one.image for one in cluster.wait_running(ns, 2)} == {f"{IMAGE}:v2"}


def test_a_restart_replaces_every_pod_by_a_new_one(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 2))
    before = cluster.running(ns)
    assert "restarted" in cluster.run("rollout", "restart", "deployment/web", "-n", ns)
    after = cluster.wait_running(ns, 2)
    assert not {one.uid for one in before} & {one.uid for one in after}


@contextmanager
def sampled(cluster: Cluster, namespace: str) -> Iterator[list[set[str]]]:
    """The pods that are ready, looked up on all hosts again and again: a set of container ids per round."""
    rounds: list[set[str]] = []
    ended = threading.Event()

    def look() -> None:
        with ThreadPoolExecutor(len(cluster.lab.hosts)) as pool:
            while not ended.is_set():
                rounds.append(set().union(*pool.map(lambda host: ready_on(host, namespace), cluster.lab.hosts)))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield rounds
    finally:
        ended.set()
        looking.join()


def ready_on(host: LabHost, namespace: str) -> set[str]:
    """Container ids. Ready is what has the file /ready in its web root, seen from outside through the process's root."""
    filters = f"--filter label=sshoal.dev/namespace={namespace} --filter label=sshoal.dev/container"
    listing = f"podman ps {filters} --format '{{{{.Pid}}}} {{{{.ID}}}}'"
    script = f"{listing} | while read pid id; do test -e /proc/$pid/root/www/ready && echo $id; done; true"
    return set(host.run(script).split())
