"""Affinity, anti-affinity and spread, by small clusters whose outcome can be worked out by hand; and the words for what is out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from controller.decide.reconcile import reconcile
from controller.model.cluster import Missing, Node, Pod, World
from nodeagent.protocol import ImageReport
from tests.builders import (
    after,
    bare_pod,
    deployment,
    moment,
    namespace,
    node,
    put,
    seen,
    taint,
    template,
    unseen,
    with_sightings,
    world,
)

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
ZONE, HOSTNAME = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
WEB = {"matchLabels": {"app": "web"}}
DB = {"matchLabels": {"app": "db"}}


def zoned(**zones: str) -> list[Node]:
    """n1="a": node n1 in zone a; "" has no zone."""
    found = []
    for number, (name, zone) in enumerate(zones.items(), start=1):
        made = node(name, number)
        found.append(replace(made, labels={**made.labels, **({ZONE: zone} if zone else {})}))
    return found


def placed(*things: Any, **fields: Any) -> World:
    start = world(*things, **fields)
    return after(start, reconcile(start, moment()))


def counts(of: World) -> dict[str, int]:
    return dict(sorted(Counter(pod.node for pod in of.pods.values()).items()))


def labelled(pod: Pod, **labels: str) -> Pod:
    assert pod.source is not None
    metadata = {**pod.source["metadata"], "labels": labels}
    return replace(pod, meta=replace(pod.meta, labels=labels), source={**pod.source, "metadata": metadata})


def near(selector: dict[str, Any], key: str = ZONE, **term: Any) -> dict[str, Any]:
    return {"podAffinity": {REQUIRED: [{"topologyKey": key, "labelSelector": selector, **term}]}}


def apart(selector: dict[str, Any], key: str = HOSTNAME, **term: Any) -> dict[str, Any]:
    return {"podAntiAffinity": {REQUIRED: [{"topologyKey": key, "labelSelector": selector, **term}]}}


def hard(max_skew: int, key: str = ZONE, **fields: Any) -> list[dict[str, Any]]:
    constraint = {"maxSkew": max_skew, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": WEB}
    return [{**constraint, **fields}]


def test_replicas_that_keep_apart_get_a_host_each_and_the_rest_waits() -> None:
    web = deployment(replicas=3, pods=template(affinity=apart(WEB)))
    start = world(*zoned(n1="a", n2="a"), web)
    plan = reconcile(start, moment())
    assert counts(after(start, plan)) == {"": 1, "n1": 1, "n2": 1}
    [unplaced] = plan.unplaced
    assert unplaced.summary == (f"0/2 nodes fit: 2 has a pod in its {HOSTNAME} that podAntiAffinity keeps apart")


def test_a_running_pod_keeps_others_away_as_well() -> None:
    guard = replace(labelled(bare_pod("guard", affinity=apart(WEB)), app="db"), node="n1", bound=moment())
    assert counts(placed(*zoned(n1="a", n2="a"), guard, bare_pod("web"))) == {"n1": 1, "n2": 1}


def test_a_pod_goes_where_the_pods_are_that_it_needs() -> None:
    db = replace(labelled(bare_pod("db"), app="db"), node="n3", bound=moment())
    result = placed(*zoned(n1="a", n2="b", n3="b"), db, deployment(replicas=3, pods=template(affinity=near(DB))))
    assert {pod.node for pod in result.pods.values()} <= {"n2", "n3"}


def test_without_the_pods_that_it_needs_a_pod_waits_and_says_for_what() -> None:
    start = world(*zoned(n1="a", n2=""), bare_pod(affinity=near(DB)))
    [unplaced] = reconcile(start, moment()).unplaced
    assert unplaced.rejected == {
        "n1": f"has no pod of app=db in its {ZONE}, which podAffinity requires",
        "n2": f"lacks the label {ZONE}, which podAffinity needs",
    }


def test_the_first_of_pods_that_want_to_be_together_may_go_anywhere_and_the_others_follow() -> None:
    together = deployment(replicas=4, pods=template(affinity=near(WEB)))
    result = placed(*zoned(n1="a", n2="b", n3="b"), together)
    zones = {result.nodes[pod.node].labels[ZONE] for pod in result.pods.values()}
    assert len(zones) == 1


def test_what_is_needed_may_be_placed_later_in_the_same_pass() -> None:
    """Both wait; the one that is named later is what the other needs."""
    result = placed(*zoned(n1="a", n2="b"), bare_pod("a-web", affinity=near(DB)), labelled(bare_pod("z-db"), app="db"))
    assert "" not in counts(result)


@pytest.mark.parametrize(
    ("term", "node_of_web"),
    [
        ({}, "n2"),
        ({"namespaces": ["shop"]}, "n1"),
        ({"namespaceSelector": {"matchLabels": {"team": "blue"}}}, "n1"),
        ({"namespaceSelector": {"matchLabels": {"team": "red"}}, "namespaces": ["default"]}, "n2"),
    ],
)
def test_pods_of_which_namespace_are_meant(term: dict[str, Any], node_of_web: str) -> None:
    """A db runs in default on n2, another one in shop on n1."""
    here = replace(labelled(bare_pod("db"), app="db"), node="n2", bound=moment())
    there = replace(labelled(bare_pod("other"), app="db"), node="n1", bound=moment())
    there = replace(there, meta=replace(there.meta, namespace="shop"))
    shop = namespace("shop", labels={"team": "blue"})
    result = placed(*zoned(n1="a", n2="b"), here, there, shop, bare_pod("web", affinity=near(DB, **term)))
    assert next(pod.node for pod in result.pods.values() if pod.meta.name == "web") == node_of_web


def test_no_selector_matches_nothing_and_an_empty_one_everything() -> None:
    term = {"topologyKey": HOSTNAME}
    nothing = bare_pod("web", affinity={"podAntiAffinity": {REQUIRED: [term]}})
    everything = bare_pod("web", affinity={"podAntiAffinity": {REQUIRED: [{**term, "labelSelector": {}}]}})
    busy = replace(labelled(bare_pod("db"), app="db"), node="n1", bound=moment())
    assert counts(placed(*zoned(n1="a"), busy, nothing)) == {"n1": 2}
    assert counts(placed(*zoned(n1="a"), busy, everything)) == {"": 1, "n1": 1}


def test_match_label_keys_narrow_the_selector_to_the_pods_own_value() -> None:
    """Pods of another revision in the same zone do not count."""
    old = replace(labelled(bare_pod("old"), app="web", revision="1"), node="n1", bound=moment())
    keys = {"matchLabelKeys": ["revision"]}
    new = labelled(bare_pod("new", affinity=apart(WEB, **keys)), app="web", revision="2")
    twin = labelled(bare_pod("twin", affinity=apart(WEB, **keys)), app="web", revision="1")
    assert counts(placed(*zoned(n1="a"), old, new)) == {"n1": 2}
    assert counts(placed(*zoned(n1="a"), old, twin)) == {"": 1, "n1": 1}


def test_mismatch_label_keys_mean_pods_of_any_other_value_and_those_without_the_label() -> None:
    keys = {"mismatchLabelKeys": ["tenant"]}
    alone = labelled(bare_pod("alone", affinity=apart(WEB, **keys)), app="web", tenant="a")
    for labels, kept_apart in (({"tenant": "a"}, False), ({"tenant": "b"}, True), ({}, True)):
        there = replace(labelled(bare_pod("there"), app="web", **labels), node="n1", bound=moment())
        assert ("" in counts(placed(*zoned(n1="a"), there, alone))) == kept_apart


def test_pods_that_went_with_a_dead_host_keep_nobody_away() -> None:
    """Anti-affinity over the zone: the replacement may take the place of the pod that is lost there."""
    first, second = zoned(n1="a", n2="a")
    dead = replace(first, confirmed_dead="powered-off")
    lost = replace(bare_pod("old", affinity=apart(WEB, ZONE)), node="n1", bound=moment(), lost=moment())
    result = placed(dead, second, lost, bare_pod("new", affinity=apart(WEB, ZONE)), sightings={"n1": unseen()})
    assert next(pod.node for pod in result.pods.values() if pod.meta.name == "new") == "n2"


def test_a_hard_spread_keeps_the_zones_even() -> None:
    web = deployment(replicas=7, pods=template(topologySpreadConstraints=hard(1)))
    result = placed(*zoned(n1="a", n2="b", n3="b", n4="c"), web)
    zones = Counter(result.nodes[pod.node].labels[ZONE] for pod in result.pods.values())
    assert sorted(zones.values()) == [2, 2, 3]


def test_a_full_zone_holds_the_others_back() -> None:
    """Zone b takes one pod of 1 cpu: a may get one more than that, and the fourth waits."""
    web = deployment(replicas=4, pods=template(requests={"cpu": "1"}, topologySpreadConstraints=hard(1)))
    start = world(*zoned(n1="a", n2="b"), web, sightings={"n1": seen("n1", cpu_m=8000), "n2": seen("n2", cpu_m=1000)})
    plan = reconcile(start, moment())
    assert counts(after(start, plan)) == {"": 1, "n1": 2, "n2": 1}
    assert plan.unplaced[0].rejected["n1"] == f"would have 3 pods in its {ZONE}, more than 1 above the least (1)"


@pytest.mark.parametrize(
    ("fields", "fits"), [({}, 2), ({"minDomains": 3}, 2), ({"minDomains": 4, "maxSkew": 1}, 2), ({"maxSkew": 2}, 4)]
)
def test_fewer_domains_than_min_domains_count_as_empty_ones(fields: dict[str, Any], fits: int) -> None:
    """Two zones of two hosts; minDomains 3 pretends that there is a third, empty one: each zone then gets maxSkew pods."""
    spread = hard(fields.pop("maxSkew", 1), **{"minDomains": 3, **fields})
    result = placed(*zoned(n1="a", n2="b"), deployment(replicas=5, pods=template(topologySpreadConstraints=spread)))
    assert sum(bool(pod.node) for pod in result.pods.values()) == fits


@pytest.mark.parametrize(("policy", "placed_pods"), [("Ignore", 1), ("Honor", 3)])
def test_tainted_nodes_count_as_domains_unless_the_constraint_says_otherwise(policy: str, placed_pods: int) -> None:
    """Zone b is tainted and stays empty: counted, it allows zone a one pod only."""
    first, second = zoned(n1="a", n2="b")
    second = replace(second, taints=(taint("gpu"),))
    spread = hard(1, nodeTaintsPolicy=policy)
    result = placed(first, second, deployment(replicas=3, pods=template(topologySpreadConstraints=spread)))
    assert sum(bool(pod.node) for pod in result.pods.values()) == placed_pods


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize(("policy", "placed_pods"), [("Ignore", 1), ("Honor", 3)])
def test_cordoned_and_silent_nodes_are_tainted_ones(silent: bool, policy: str, placed_pods: int) -> None:
    spread = hard(1, nodeTaintsPolicy=policy)
    web = deployment(replicas=3, pods=template(topologySpreadConstraints=spread))
    first, second = zoned(n1="a", n2="b")
    start = world(first, replace(second, cordoned=not silent), web)
    if silent:
        start = with_sightings(
            put(start, replace(second, missing=Missing(moment(), moment(), 2, "unreachable", "no route"))), n2=unseen()
        )
    plan = reconcile(start, moment(10))
    assert sum(bool(pod.node) for pod in after(start, plan).pods.values()) == placed_pods


@pytest.mark.parametrize(("policy", "placed_pods"), [("Honor", 3), ("Ignore", 1)])
def test_nodes_that_the_selector_excludes_do_not_count_unless_the_constraint_says_so(
    policy: str, placed_pods: int
) -> None:
    spec = {"nodeSelector": {ZONE: "a"}, "topologySpreadConstraints": hard(1, nodeAffinityPolicy=policy)}
    result = placed(*zoned(n1="a", n2="b"), deployment(replicas=3, pods=template(**spec)))
    assert sum(bool(pod.node) for pod in result.pods.values()) == placed_pods


def test_by_default_replicas_are_spread_over_zones_and_hosts() -> None:
    result = placed(*zoned(n1="a", n2="a", n3="a", n4="b"), deployment(replicas=4))
    assert counts(result) == {"n1": 1, "n2": 1, "n3": 1, "n4": 1}
    zones = placed(*zoned(n1="a", n2="a", n3="a", n4="b"), deployment(replicas=2))
    assert {zones.nodes[pod.node].labels[ZONE] for pod in zones.pods.values()} == {"a", "b"}


def test_a_preferred_node_affinity_draws_and_a_preferred_anti_affinity_repels() -> None:
    ssd = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    first, second = zoned(n1="a", n2="a")
    second = replace(second, labels={**second.labels, "disk": "ssd"})
    liking = {"nodeAffinity": {PREFERRED: [{"weight": 1, "preference": ssd}]}}
    assert counts(placed(first, second, bare_pod(affinity=liking))) == {"n2": 1}
    term = {"weight": 1, "podAffinityTerm": {"topologyKey": HOSTNAME, "labelSelector": DB}}
    db = replace(labelled(bare_pod("db"), app="db"), node="n1", bound=moment())
    shy = bare_pod("shy", affinity={"podAntiAffinity": {PREFERRED: [term]}})
    assert counts(placed(first, second, db, shy)) == {"n1": 1, "n2": 1}


@pytest.mark.parametrize(
    ("requirement", "found"),
    [
        ({"key": "cores", "operator": "Gt", "values": ["8"]}, "n2"),
        ({"key": "cores", "operator": "Lt", "values": ["8"]}, "n1"),
        ({"key": "cores", "operator": "NotIn", "values": ["4"]}, "n2"),
    ],
)
def test_a_required_node_affinity_chooses_nodes(requirement: dict[str, Any], found: str) -> None:
    first, second = zoned(n1="a", n2="a")
    nodes = [
        replace(first, labels={**first.labels, "cores": "4"}),
        replace(second, labels={**second.labels, "cores": "16"}),
    ]
    required = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}}}
    assert counts(placed(*nodes, bare_pod(affinity=required))) == {found: 1}


def test_match_fields_name_a_node() -> None:
    field = {"key": "metadata.name", "operator": "In", "values": ["n2"]}
    required = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [field]}]}}}
    assert counts(placed(*zoned(n1="a", n2="a", n3="a"), bare_pod(affinity=required))) == {"n2": 1}


def test_a_pod_that_names_its_node_says_so_of_the_others() -> None:
    field = {"key": "metadata.name", "operator": "In", "values": ["n2"]}
    required = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [field]}]}}}
    start = world(*zoned(n1="a", n2="a"), bare_pod(affinity=required, requests={"cpu": "9"}))
    [unplaced] = reconcile(start, moment()).unplaced
    assert unplaced.rejected == {"n1": "does not match the required node affinity", "n2": "cpu: needs 9, free 4"}


def test_a_node_that_has_the_image_is_preferred() -> None:
    image = ImageReport("sha256:1", ("docker.io/library/web:1",), (), 2000 * 2**20)
    told = {"n2": seen("n2", images=(image,))}
    assert counts(placed(*zoned(n1="a", n2="a", n3="a"), bare_pod(), sightings=told)) == {"n2": 1}


def test_a_cordon_can_be_tolerated_like_the_taint_it_is_in_kubernetes() -> None:
    cordoned = node("n1", cordoned=True)
    tolerant = bare_pod(tolerations=[{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}])
    assert counts(placed(cordoned, tolerant)) == {"n1": 1}
    assert counts(placed(cordoned, bare_pod())) == {"": 1}


def test_the_decision_is_kept_with_the_binding() -> None:
    result = placed(*zoned(n1="a", n2="a"), node("n3", 3, taints=(taint("gpu"),)), bare_pod(requests={"cpu": "1"}))
    [pod] = result.pods.values()
    assert pod.decision == (
        "472 points: TaintToleration 3×100, NodeResourcesFit 85, NodeResourcesBalancedAllocation 87; "
        "next best n2 with 472; out: 1 taint"
    )
