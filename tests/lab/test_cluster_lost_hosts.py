"""Hosts that are off, cut off or frozen, under `watch` and without it: what is replaced, what stays, what stops on their return."""

from __future__ import annotations

import time

from lab.lab import Lab
from tests.lab.cluster import Cluster, deployment, ids, single, tolerating, wait_for

SOON = tolerating(5)
SAMPLES_S = 90.0  # two looks of the agent, and a busy machine


def test_a_host_without_power_is_replaced_and_on_its_return_only_the_surplus_stops(
    cluster: Cluster, whole_lab3: Lab, ns: str
) -> None:
    cluster.apply(ns, deployment("web", 3, pod=SOON))
    before = cluster.running(ns)
    others = [one for one in before if one.host != "node3"]
    with cluster.watching() as log:
        whole_lab3.kill("node3")
        wait_for(lambda: len(cluster.running(ns, ["node1", "node2"])) == 3, "the lost replica to run elsewhere")
        assert "node3 has been silent" in log.read_text()
        replaced = cluster.running(ns, ["node1", "node2"])
        assert ids(others) < ids(replaced)
        whole_lab3.start("node3")
        wait_for(lambda: settled_to(cluster, ns, 3), "the surplus to stop")
    after = cluster.running(ns)
    assert ids([one for one in after if one.host != "node3"]) <= ids(replaced), "nothing healthy was restarted"
    assert "everything is as declared" in cluster.run("reconcile", "--settle")


def test_both_sides_of_a_partition_run_on_and_the_surplus_stops_when_it_is_healed(
    cluster: Cluster, whole_lab3: Lab, ns: str
) -> None:
    cluster.apply(ns, deployment("web", 3, pod=SOON))
    before = cluster.running(ns)
    with cluster.watching():
        whole_lab3.partition("node3")
        wait_for(lambda: len(cluster.running(ns, ["node1", "node2"])) == 3, "the lost replica to run elsewhere")
        replaced = cluster.running(ns, ["node1", "node2"])
        whole_lab3.heal("node3")
        wait_for(lambda: settled_to(cluster, ns, 3), "the surplus to stop")
    after = cluster.running(ns)
    assert ids(after) < ids(before) | ids(replaced), "each of the three ran all the time"


def test_when_two_of_three_hosts_are_lost_nothing_is_replaced_and_that_is_said(
    cluster: Cluster, whole_lab3: Lab, ns: str
) -> None:
    tolerated_s = 2
    cluster.apply(ns, deployment("web", 3, pod=tolerating(tolerated_s)))
    before = cluster.running(ns)
    with cluster.watching() as log:
        whole_lab3.partition("node2")
        whole_lab3.partition("node3")
        wait_for(lambda: "2 of 3 nodes do not answer: nothing is given up" in log.read_text(), "the brake to be told")
        braked_at_s = time.monotonic()
        # What must not happen has no condition to wait for: it gets three times as long as it would need.
        wait_for(lambda: time.monotonic() > braked_at_s + 3 * tolerated_s, "time to pass")
        assert cluster.running(ns, ["node1"]) == [one for one in before if one.host == "node1"]
        whole_lab3.heal("node2")
        whole_lab3.heal("node3")
        wait_for(
            lambda: "nothing to do" in cluster.call("plan").out,
            "all to be seen",
        )
    assert cluster.running(ns) == before


def test_a_frozen_host_holds_nobody_else_up(cluster: Cluster, whole_lab3: Lab, ns: str) -> None:
    cluster.apply(ns, single("first", node="node1"))
    whole_lab3.freeze("node2")
    said = cluster.apply(ns, *(single(f"on-{node}", node=node) for node in ("node1", "node3")))
    assert "pod on-node1: Running" in said
    assert "pod on-node3: Running" in said
    assert "node2 gives no report" in said
    assert len(cluster.running(ns, ["node1", "node3"])) == 3


def test_a_pod_of_its_own_stays_with_its_lost_host(cluster: Cluster, whole_lab3: Lab, ns: str) -> None:
    cluster.apply(ns, single("alone", node="node3", pod=tolerating(1)), deployment("web", 3, pod=tolerating(1)))
    (alone,) = [one for one in cluster.running(ns) if one.pod == "alone"]
    with cluster.watching():
        whole_lab3.partition("node3")
        wait_for(lambda: len(cluster.running(ns, ["node1", "node2"])) == 3, "the Deployment's replica to be replaced")
        assert not [one for one in cluster.running(ns, ["node1", "node2"]) if one.pod == "alone"]
        whole_lab3.heal("node3")
        wait_for(lambda: settled_to(cluster, ns, 4), "the surplus to stop")
    assert alone in cluster.running(ns)


def test_top_tells_of_the_hosts_that_answer_and_which_one_does_not(cluster: Cluster, whole_lab3: Lab, ns: str) -> None:
    cluster.apply(ns, deployment("web"))
    on = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in cluster.pods(ns)}
    assert set(on.values()) == {"node1", "node2", "node3"}
    wait_for(lambda: set(table(cluster.call("top", "pods", "-n", ns).out)) == set(on), "all to have figures", SAMPLES_S)
    assert {name: figures[0] == "<unknown>" for name, figures in table(cluster.call("top", "nodes").out).items()} == {
        "node1": False,
        "node2": False,
        "node3": False,
    }
    whole_lab3.partition("node3")
    nodes = cluster.call("top", "nodes")
    assert (nodes.exit_code, "node3" in nodes.err) == (4, True), nodes.err
    figures = table(nodes.out)
    assert figures["node3"] == ["<unknown>"] * 4
    for name in ("node1", "node2"):
        cpu, _, memory, share = figures[name]
        assert cpu.endswith("m")
        assert memory.endswith("Mi")
        assert 0 < int(share.removesuffix("%")) <= 100
    pods = cluster.call("top", "pods", "-n", ns)
    assert (pods.exit_code, "node3" in pods.err) == (4, True), pods.err
    assert set(table(pods.out)) == {name for name, node in on.items() if node != "node3"}
    whole_lab3.heal("node3")
    wait_for(lambda: cluster.call("reconcile").exit_code == 0, "all hosts to answer again")
    assert set(table(cluster.call("top", "pods", "-n", ns).out)) == set(on)


def settled_to(cluster: Cluster, namespace: str, count: int) -> bool:
    return len(cluster.running(namespace)) == count == len(cluster.pods(namespace))


def table(text: str) -> dict[str, list[str]]:
    """Name → what stands beside it."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}
