"""Priority classes on real hosts: who takes whose room, and who may not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.cluster import Cluster, Object, shell, single, wait_for

NODE = "node2"


def priority_class(name: str, value: int, **fields: Any) -> Object:
    head = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
    return {**head, "value": value, **fields}


@pytest.fixture
def classes(cluster: Cluster) -> Iterator[None]:
    """Who says nothing is `modest`. `polite` and `bold` are above that, and only the second takes others' room."""
    made = (
        priority_class("humble", -5),
        priority_class("modest", 5, globalDefault=True),
        priority_class("polite", 1000, preemptionPolicy="Never", description="waits for its turn"),
        priority_class("bold", 1000),
        priority_class("bolder", 2000),
    )
    cluster.run("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, made)))
    yield
    cluster.run("delete", *(f"priorityclass/{one['metadata']['name']}" for one in made))


def test_pods_take_the_room_of_lesser_ones_where_class_and_pod_let_them(
    cluster: Cluster, classes: None, ns: str
) -> None:
    allocatable = json.loads(cluster.run("get", "node", NODE, "-o", "json"))["status"]["allocatable"]["cpu"]
    whole_m = int(allocatable[:-1]) if allocatable.endswith("m") else int(allocatable) * 1000

    def large(name: str, named: str = "", **more: Any) -> Object:
        """More than half of the node: there is no room for two of them."""
        container = shell("sleep 1000", resources={"requests": {"cpu": f"{whole_m * 6 // 10}m"}})
        fields = {"terminationGracePeriodSeconds": 0, **({"priorityClassName": named} if named else {}), **more}
        return single(name, node=NODE, container=container, pod=fields)

    def runs(name: str) -> bool:
        return [one.pod for one in cluster.running(ns)] == [name]

    def told(name: str) -> str:
        conditions = cluster.pod(ns, name)["status"].get("conditions", ())
        return " ".join(one.get("message", "") for one in conditions if one["type"] == "PodScheduled")

    cluster.apply(ns, large("low", "humble"))
    with cluster.watching():
        cluster.apply(ns, large("by-default"), flags=["--no-wait"])
        wait_for(lambda: runs("by-default"), "the default class to take the room of one below it")
        waiting = (
            large("same", "modest"),
            large("class-waits", "polite"),
            large("pod-waits", "bold", preemptionPolicy="Never"),
        )
        names = [pod["metadata"]["name"] for pod in waiting]
        cluster.apply(ns, *waiting, flags=["--no-wait"])
        wait_for(lambda: all(told(name) for name in names), "them to be told that they wait")
        assert runs("by-default")
        cluster.run("delete", *(f"pod/{name}" for name in names), "-n", ns, "--grace-period", "0")
        cluster.apply(ns, large("high", "bold"), flags=["--no-wait"])
        wait_for(lambda: runs("high"), "the higher to take the room")
        cluster.apply(ns, large("highest", "bolder"), flags=["--no-wait"])
        wait_for(lambda: runs("highest"), "the highest to take the room")
    assert "waits for its turn" in cluster.run("describe", "priorityclass/polite")
