"""Automatic rollback on real hosts: a version that crashes is taken back, and what it said is kept."""

from __future__ import annotations

from tests.lab.cluster import Cluster, Object, deployment

IMAGE = "localhost/sshoal-test"


def test_a_version_that_crashes_goes_back_by_itself_and_its_last_words_are_kept(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, asking(deployment("web")))
    said = cluster.apply(ns, asking(crashing(deployment("web"))), expect=3)
    assert "revision 2 was given up for 1" in said
    cluster.run("reconcile", "--settle")
    running = cluster.running(ns)
    assert {one.image for one in running} == {f"{IMAGE}:v1"}
    assert len(running) == 3
    told = cluster.run("describe", "deployment/web", "-n", ns)
    assert "CrashLoopBackOff" in told
    assert "last exit code 5" in told
    events = cluster.run("events", "--for", "deployment/web", "-n", ns)
    assert "AutoRollback" in events
    assert "the configuration is broken" in events


def asking(web: Object) -> Object:
    annotations = {"sshoal.dev/auto-rollback": "true"}
    return {**web, "metadata": {**web["metadata"], "annotations": annotations}}


def crashing(web: Object) -> Object:
    [container] = web["spec"]["template"]["spec"]["containers"]
    command = ["sh", "-c", "echo the configuration is broken; sleep 0.3; exit 5"]
    container.update(command=command)
    container.pop("readinessProbe", None)
    return web
