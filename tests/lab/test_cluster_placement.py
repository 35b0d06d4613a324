"""What manifests say of nodes and of other pods decides on which host a container really runs.

Where a rule is to hold, the pod also prefers a node that the rule forbids (`pulled`): without the rule it would go there.
"""

# ruff: noqa: E501  (a pod is a line)
from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.lab import Lab
from tests.lab.cluster import Cluster, Object, deployment, shell, single, wait_for

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
# node3 takes only who tolerates it: all pods here do, unless they say otherwise.
EXTRA: dict[str, Object] = {
    "node1": {"node_labels": {ZONE: "a", "rank": "1"}},
    "node2": {"node_labels": {ZONE: "b", "rank": "2"}},
    "node3": {"node_labels": {ZONE: "b", "rank": "3", "disk": "ssd"}, "node_taints": ["dedicated=db:NoSchedule"]},
}
TOLERANT = {"tolerations": [{"key": "dedicated", "operator": "Exists"}]}
SLEEPING = shell("sleep 1000")


@pytest.fixture(scope="module")
def zoned(cluster: Cluster, lab3: Lab) -> Cluster:
    """The cluster with nodes that have zones, ranks, and one of them a taint."""
    lines = []
    for line in lab3.inventory.read_text().splitlines():
        extra = EXTRA.get(line.partition(" ")[0], {})
        lines.append(line + "".join(f" {key}='{json.dumps(value)}'" for key, value in extra.items()))
    cluster.inventory = cluster.directory / "zoned.ini"
    cluster.inventory.write_text("\n".join(lines) + "\n")
    return cluster


@pytest.fixture
def other(cluster: Cluster, ns: str) -> Iterator[str]:
    """The name of a second namespace, to be made by the test."""
    name = f"{ns[:50]}-other"
    yield name
    cluster.run("delete", f"namespace/{name}", "--ignore-not-found", "--grace-period", "0", "--timeout", "90s")


def pulled(node: str, weight: int = 1) -> Object:
    """A preference of nodes, in its place below nodeAffinity."""
    terms = [{"matchExpressions": [{"key": HOST, "operator": "In", "values": [node]}]}]
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "preference": terms[0]}]}


def needs(*terms: Object, **more: Any) -> Object:
    return {"requiredDuringSchedulingIgnoredDuringExecution": list(terms), **more}


def near(topology: str = HOST, **more: Any) -> Object:
    return {"topologyKey": topology, **more}


def labelled(**labels: str) -> Object:
    return {"labelSelector": {"matchLabels": labels}}


def expression(key: str, operator: str, *values: str) -> Object:
    return {"labelSelector": {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}}  # fmt: skip


def pod(name: str, labels: Object | None = None, *, pull: str = "", node: str = "", **affinity: Any) -> Object:
    affinities = {**({"nodeAffinity": pulled(pull, 100)} if pull else {}), **affinity}
    found = single(name, container=SLEEPING, pod={**TOLERANT, "affinity": affinities}, node=node)
    found["metadata"]["labels"] = labels or {"of": name}
    return found


def hosts(cluster: Cluster, namespace: str) -> dict[str, str]:
    """By pod: the host on which its container runs."""
    return {one.pod: one.host for one in cluster.running(namespace)}


def differences(cluster: Cluster, namespace: str, expected: dict[str, str]) -> dict[str, str]:
    """Where pods are that are not where they should be; "": nowhere yet."""
    found = hosts(cluster, namespace)
    return {name: found.get(name, "") for name, host in expected.items() if found.get(name, "") != host}


def settles_as(cluster: Cluster, namespace: str, expected: dict[str, str]) -> None:
    """Waits for it. A pod is bound once: one that runs elsewhere stays there, and fails this."""
    try:
        wait_for(lambda: not differences(cluster, namespace, expected), "containers to run", 120)
    except pytest.fail.Exception:
        pytest.fail(f"not as expected: {differences(cluster, namespace, expected)}")


def test_pods_go_to_and_keep_from_other_pods_as_their_affinities_say(zoned: Cluster, ns: str, other: str) -> None:
    zoned.apply(
        ns,
        pod("one", {"app": "base", "gen": "1", "tier": "x"}, node="node1"),
        pod("two", {"app": "base", "gen": "2", "tier": "y"}, node="node2"),
        flags=["--no-wait"],
    )
    zoned.apply(other, pod("far", {"app": "far"}, node="node3"), pod("alien", {"app": "base", "tier": "x"}, node="node3"), flags=["--no-wait"])  # fmt: skip
    theirs = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other, "labels": {"team": "others"}}}
    zoned.run("apply", "-f", "-", stdin=json.dumps(theirs))
    zoned.wait_running(ns, 2)
    zoned.wait_running(other, 2)
    base = labelled(app="base")

    def torn(first: int, second: int) -> Object:
        """Preferences of `one` and of `two`, by weight."""
        terms = [
            {"weight": weight, "podAffinityTerm": near(**labelled(app="base", gen=gen))}
            for gen, weight in (("1", first), ("2", second))
        ]
        return {"preferredDuringSchedulingIgnoredDuringExecution": terms}

    pods = {
        # Required: beside a pod of that label, by host or by zone, and never in the same.
        "beside": ("node2", pod("beside", pull="node1", podAffinity=needs(near(**labelled(app="base", gen="2"))))),
        "same-zone": ("node3", pod("same-zone", pull="node3", podAffinity=needs(near(ZONE, **labelled(app="base", gen="2"))))),
        "other-zone": ("node1", pod("other-zone", pull="node3", podAntiAffinity=needs(near(ZONE, **labelled(app="base", gen="2"))))),
        "apart": ("node3", pod("apart", pull="node2", podAntiAffinity=needs(near(**base)))),
        # Preferred: what weighs more.
        "rather-one": ("node1", pod("rather-one", podAffinity=torn(100, 1))),
        "rather-two": ("node2", pod("rather-two", podAffinity=torn(1, 100))),
        "not-near-one": ("node2", pod("not-near-one", {"of": "avoid"}, podAntiAffinity=torn(100, 1), nodeAffinity={"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "rank", "operator": "Lt", "values": ["3"]}]}]}})),
        "not-near-two": ("node1", pod("not-near-two", {"of": "avoid"}, podAntiAffinity=torn(1, 100), nodeAffinity={"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "rank", "operator": "NotIn", "values": ["3"]}]}]}})),
        # Whose pods count: the own namespace's, those of named ones, those of labelled ones.
        "own-only": ("node1", pod("own-only", pull="node3", podAffinity=needs(near(**expression("tier", "In", "x"))))),
        "by-name": ("node3", pod("by-name", pull="node1", podAffinity=needs(near(**base, namespaces=[other])))),
        "by-label": ("node3", pod("by-label", pull="node2", podAffinity=needs(near(**base, namespaceSelector={"matchLabels": {"team": "others"}})))),
        # Pods that share a label's value with it, or do not.
        "like-two": ("node2", pod("like-two", {"gen": "2"}, pull="node1", podAffinity=needs(near(**base, matchLabelKeys=["gen"])))),
        "unlike-two": ("node1", pod("unlike-two", {"gen": "2", "of": "unlike"}, pull="node2", podAffinity=needs(near(**base, mismatchLabelKeys=["gen"])))),
        # Every operator of a selector.
        "not-in": ("node2", pod("not-in", pull="node1", podAffinity=needs(near(labelSelector={"matchExpressions": [{"key": "tier", "operator": "Exists"}, {"key": "tier", "operator": "NotIn", "values": ["x"]}]})))),
        "exists": ("node3", pod("exists", pull="node1", podAntiAffinity=needs(near(**expression("tier", "Exists"))))),
    }  # fmt: skip
    zoned.apply(ns, *(one for _, one in pods.values()), flags=["--no-wait"])
    settles_as(zoned, ns, {name: host for name, (host, _) in pods.items()})


def test_nodes_are_chosen_by_terms_and_by_the_weights_of_preferences(zoned: Cluster, ns: str) -> None:
    def preferring(name: str, **weights: int) -> Object:
        terms = [
            {"weight": weight, "preference": {"matchExpressions": [{"key": HOST, "operator": "In", "values": [node]}]}}
            for node, weight in weights.items()
        ]
        return pod(name, nodeAffinity={"preferredDuringSchedulingIgnoredDuringExecution": terms})

    def required(name: str, pull: str, *expressions: tuple[str, str, list[str]]) -> Object:
        words = [{"key": key, "operator": operator, "values": values} for key, operator, values in expressions]
        terms = {"nodeSelectorTerms": [{"matchExpressions": words}]}
        return pod(
            name,
            nodeAffinity={"requiredDuringSchedulingIgnoredDuringExecution": terms, **pulled(pull, 100)},
        )

    expected = {"likes-1": "node1", "likes-2": "node2", "likes-3": "node3"}
    expected |= {"in": "node2", "above": "node3", "below": "node1", "with": "node3", "without": "node2"}
    zoned.apply(
        ns,
        preferring("likes-1", node1=100, node2=1, node3=1),
        preferring("likes-2", node1=1, node2=100, node3=1),
        preferring("likes-3", node1=1, node2=1, node3=100),
        required("in", "node1", ("rank", "In", ["2"])),
        required("above", "node1", ("rank", "Gt", ["2"])),
        required("below", "node3", ("rank", "Lt", ["2"])),
        required("with", "node1", ("disk", "Exists", [])),
        required("without", "node3", ("disk", "DoesNotExist", []), ("rank", "NotIn", ["1"])),
        flags=["--no-wait"],
    )
    settles_as(zoned, ns, expected)


def spreading(name: str, replicas: int, *, pull: str, pod: Object | None = None, labels: Object | None = None, **constraint: Any) -> Object:  # fmt: skip
    """A Deployment whose pods all like one node, but for a constraint (by default: no host has more than one above another)."""
    rule = {"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule", **labelled(app=name), **constraint}
    spec = {**TOLERANT, "affinity": {"nodeAffinity": pulled(pull, 100)}, "topologySpreadConstraints": [rule], **(pod or {})}  # fmt: skip
    found = deployment(name, replicas, container=SLEEPING, pod=spec)
    found["spec"]["template"]["metadata"]["labels"] |= labels or {}
    return found


def test_pods_are_spread_as_each_field_of_the_constraint_says(zoned: Cluster, ns: str) -> None:
    only_1 = {"nodeSelector": {HOST: "node1"}}
    expected: dict[str, tuple[list[str], Object]] = {
        "even": (["node1", "node2", "node3"], spreading("even", 3, pull="node1")),
        "two-more": (["node1", "node1"], spreading("two-more", 2, pull="node1", maxSkew=2)),
        # By zone: two in each, and in zone b all where they like to be.
        "zones": (["node1", "node1", "node2", "node2"], spreading("zones", 4, pull="node2", topologyKey=ZONE)),
        "nobody": (["node1", "node1"], spreading("nobody", 2, pull="node1", **labelled(app="not-there"))),
        # Three hosts are fewer than four: until there is a fourth, each may have one.
        "four-hosts": (["node1", "node2", "node3"], spreading("four-hosts", 4, pull="node1", minDomains=4)),
        # Nodes that the pod may not go to: left out of the count, unless the policy says otherwise.
        "selected": (["node1", "node1"], spreading("selected", 2, pull="node1", pod=only_1)),
        "all-count": (["node1"], spreading("all-count", 2, pull="node1", pod=only_1, nodeAffinityPolicy="Ignore")),
        "anyway": (["node1", "node1"], spreading("anyway", 2, pull="node1", pod=only_1, nodeAffinityPolicy="Ignore", whenUnsatisfiable="ScheduleAnyway")),
        "tainted-too": (["node1", "node2"], spreading("tainted-too", 4, pull="node1", pod={"tolerations": []})),
        "no-tainted": (["node1", "node1", "node2", "node2"], spreading("no-tainted", 4, pull="node1", pod={"tolerations": []}, nodeTaintsPolicy="Honor")),
    }  # fmt: skip
    keyed = {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": HOST, "whenUnsatisfiable": "DoNotSchedule", **labelled(app="keyed"), "matchLabelKeys": ["gen"]}]}  # fmt: skip
    singles = []
    for gen in ("1", "2"):
        one = pod(f"keyed-{gen}", {"app": "keyed", "gen": gen}, pull="node1")
        one["spec"] |= keyed
        singles.append(one)
    zoned.apply(ns, *(one for _, one in expected.values()), *singles, flags=["--no-wait"])
    count = sum(len(names) for names, _ in expected.values()) + len(singles)

    def found() -> dict[str, list[str]]:
        by_name: dict[str, list[str]] = {}
        for name, host in hosts(zoned, ns).items():
            by_name.setdefault("keyed" if name.startswith("keyed-") else name.rsplit("-", 2)[0], []).append(host)
        return {name: sorted(where) for name, where in by_name.items()}

    wanted = {name: names for name, (names, _) in expected.items()} | {"keyed": ["node1", "node1"]}
    try:
        wait_for(lambda: sum(map(len, found().values())) >= count, "containers to run", 120)
    except pytest.fail.Exception:
        pytest.fail(f"found {found()}")
    zoned.call("reconcile")  # one more look changes nothing
    assert found() == wanted
