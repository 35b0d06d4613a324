"""Each node's wanted set, the reports that come back, and the invariants of plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.decide.check import check_plan
from controller.decide.reconcile import reconcile
from controller.model.cluster import Declared, Pod, Stop, World
from controller.model.errors import PlanBug
from controller.model.plan import Change, NodeView, Plan, Wanted, changed
from nodeagent.protocol import STOPPED, NodeConfig
from tests.agents import Agents
from tests.builders import (
    after,
    bare_pod,
    cluster,
    config_map,
    deployment,
    moment,
    put,
    report,
    secret,
    seen,
    template,
    unseen,
    with_sightings,
)

BECAUSE = "because of the test"


def test_a_node_without_pods_gets_an_empty_set_and_a_silent_one_gets_none() -> None:
    plan = reconcile(with_sightings(cluster(2), n2=unseen()), moment())
    assert {name: item.pods for name, item in plan.wanted.items()} == {"n1": ()}


def test_the_set_names_the_node_s_own_network_and_the_allow_list() -> None:
    [item] = reconcile(cluster(1), moment()).wanted.values()
    assert item.node == NodeConfig("n1", "10.86.1.0/24", "10.86.0.0/16", (), "n1.example")


def test_a_pod_keeps_its_identity_on_the_wire() -> None:
    start = _bound(bare_pod())
    [pod] = start.pods.values()
    [wire] = reconcile(start, moment()).wanted["n1"].pods
    assert (wire.uid, wire.namespace, wire.name, wire.hash) == (pod.meta.uid, "default", "lonely", pod.template_hash)
    assert (wire.hostname, wire.at_boot, wire.stop) == ("lonely", "start", False)


def test_a_pod_that_stops_is_named_with_its_grace_until_its_end_is_reported() -> None:
    start = _bound(bare_pod())
    [pod] = start.pods.values()
    stopping = put(start, replace(pod, stop=Stop("deleted", moment(), 3)))
    running = with_sightings(stopping, n1=seen("n1", [report(pod)]))
    [wire] = reconcile(running, moment()).wanted["n1"].pods
    assert (wire.stop, wire.stop_grace_s) == (True, 3)
    ended = with_sightings(stopping, n1=seen("n1", [report(pod, STOPPED)]))
    assert reconcile(ended, moment()).wanted["n1"].pods == ()
    assert not after(ended, reconcile(ended, moment())).pods


def test_a_pod_that_its_node_has_not_spoken_of_is_told_to_stop_without_what_it_is_made_of() -> None:
    """It may be why the node refuses the set."""
    start = _bound(bare_pod(terminationGracePeriodSeconds=7))
    [pod] = start.pods.values()
    before = reconcile(start, moment()).wanted["n1"]
    refused = replace(start.nodes["n1"], serial=2)  # its agent has accepted 1
    stopping = reconcile(put(start, refused, replace(pod, stop=Stop("deleted", moment(), 3))), moment()).wanted["n1"]
    [wire] = stopping.pods
    assert (wire.uid, wire.containers, wire.stop, wire.grace_s, wire.stop_grace_s) == (pod.meta.uid, (), True, 7, 3)
    assert stopping.digest != before.digest


def test_a_stop_is_not_believed_of_a_silent_node() -> None:
    start = _bound(bare_pod())
    [pod] = start.pods.values()
    silent = with_sightings(put(start, replace(pod, stop=Stop("deleted", moment()))), n1=unseen())
    assert after(silent, reconcile(silent, moment())).pods


def test_a_pod_without_a_node_is_removed_as_soon_as_it_shall_stop() -> None:
    start = cluster(1, replace(bare_pod(), stop=Stop("deleted", moment())))
    assert not after(start, reconcile(start, moment())).pods


def test_a_set_holds_the_config_maps_and_the_hashes_of_the_secrets_that_its_pods_read() -> None:
    reads = [
        {"configMapRef": {"name": "settings"}},
        {"secretRef": {"name": "keys"}},
        {"configMapRef": {"name": "absent"}},
    ]
    start = cluster(
        1,
        bare_pod(env_from=reads),
        config_map("settings", {"colour": "red"}),
        config_map("other", {}),
        secret("keys", "hash-of-keys"),
        secret("unread", "hash"),
    )
    item = reconcile(start, moment()).wanted["n1"]
    assert {name: config.data for name, config in item.configs.items()} == {"default/settings": {"colour": "red"}}
    assert item.secrets == {"default/keys": "hash-of-keys"}


@pytest.mark.parametrize(
    "change",
    [config_map("settings", {"colour": "blue"}), secret("keys", "another-hash")],
    ids=["config map", "secret"],
)
def test_new_content_makes_a_new_digest_and_restarts_nothing(change: Declared) -> None:
    reads = [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}]
    web = deployment(replicas=1, pods=template(env_from=reads))
    start = _bound(web, config_map("settings", {"colour": "red"}), secret("keys", "hash"))
    plan = reconcile(put(start, change), moment())
    assert [(item.verb, item.record.meta.kind) for item in plan.changes] == [("update", "Node")]
    [before] = start.nodes.values()
    assert plan.wanted["n1"].digest != before.digest


def test_the_digest_does_not_hang_on_the_order_of_keys() -> None:
    one, other = config_map("settings", {"a": "1", "b": "2"}), config_map("settings", {"b": "2", "a": "1"})
    reads = [{"configMapRef": {"name": "settings"}}]
    digests = {
        reconcile(cluster(1, bare_pod(env_from=reads), item), moment()).wanted["n1"].digest for item in (one, other)
    }
    assert len(digests) == 1


def test_the_hash_of_a_template_is_the_same_in_every_version() -> None:
    """Golden: it is taken over the template as written, so that an upgrade which adds a default restarts nothing."""
    assert deployment().template_hash == "w8rx8sshml"


# ---- reports -----------------------------------------------------------------------------------------------------------


def test_a_report_is_written_when_it_differs_and_quietly() -> None:
    start = _bound(bare_pod())
    [pod] = start.pods.values()
    told = with_sightings(start, n1=seen("n1", [report(pod)]))
    plan = reconcile(told, moment())
    assert [(change.verb, change.quiet) for change in plan.changes] == [("report", True)]
    assert reconcile(after(told, plan), moment()).is_empty


def test_a_pod_that_its_agent_no_longer_knows_is_wanted_still() -> None:
    start = _bound(bare_pod())
    [pod] = start.pods.values()
    start = put(start, replace(pod, report=report(pod)))
    plan = reconcile(start, moment())
    assert [pod.uid for pod in plan.wanted["n1"].pods] == [pod.meta.uid]
    assert after(start, plan).pods[pod.meta.uid].report is None


def test_pods_that_are_no_longer_ours_are_not_in_the_set() -> None:
    stranger = report(bare_pod("stranger"))
    plan = reconcile(with_sightings(cluster(1), n1=seen("n1", [stranger])), moment())
    assert plan.wanted["n1"].pods == ()
    assert [change for change in plan.changes if isinstance(change.record, Pod)] == []


def test_settled_means_that_nothing_is_under_way() -> None:
    agents = Agents(cluster(2, deployment(replicas=2), bare_pod()))
    first = agents.step()
    assert not first.settled
    assert first.waiting[-1] == "pod default/lonely: not ready on n1"
    assert agents.settle(20).settled


# ---- invariants: each is proved by a plan that breaks it -------------------------------------------------------------------


def test_a_bound_pod_never_moves() -> None:
    start = _bound(bare_pod(), nodes=2)
    [pod] = start.pods.values()
    _refused(start, [Change("bind", replace(pod, node="n2"), BECAUSE)], "moves from n1 to n2")


def test_a_record_is_not_removed_before_the_pod_is_stopped() -> None:
    start = _bound(bare_pod())
    [pod] = start.pods.values()
    running = with_sightings(start, n1=seen("n1", [report(pod)]))
    _refused(running, [Change("remove", pod, BECAUSE)], "has not said that it is stopped")
    _refused(with_sightings(start, n1=unseen()), [Change("remove", pod, BECAUSE)], "has not said that it is stopped")


def test_nothing_is_evicted_under_the_brake_nor_from_a_node_that_answers() -> None:
    start = _bound(bare_pod())
    [pod] = start.pods.values()
    evicted = [Change("evict", replace(pod, lost=moment()), BECAUSE)]
    _refused(start, evicted, "which is Ready")
    _refused(start, evicted, "though the brake is on", brake="on")


def test_no_node_is_filled_beyond_its_capacity() -> None:
    start = cluster(1, bare_pod("a", requests={"cpu": "3"}), bare_pod("b", requests={"cpu": "3"}))
    both = [Change("bind", replace(pod, node="n1"), BECAUSE) for pod in start.pods.values()]
    _refused(start, both, "6000m of cpu on n1, which has 4000m")


def test_no_pod_goes_to_a_node_that_takes_none() -> None:
    start = cluster(1, bare_pod())
    [pod] = start.pods.values()
    bound = [Change("bind", replace(pod, node="n1"), BECAUSE)]
    _refused(start, bound, "new pods on n1, which is Quarantined", views={"n1": NodeView("n1", "Quarantined")})


def test_wanted_sets_are_complete_and_only_for_nodes_that_may_be_told() -> None:
    start = _bound(bare_pod())
    _refused(start, [], "is missing in the wanted set of n1", without_pods=True)
    silent = {"n1": NodeView("n1", "Unknown")}
    _refused(start, [], "a wanted set for n1, which is Unknown", views=silent)


def test_a_rollout_does_not_stop_what_it_promised_to_keep() -> None:
    agents = Agents(cluster(2, deployment(replicas=4)))
    agents.settle(20)
    pods = list(agents.world.pods.values())
    stops = [
        Change("stop", replace(pod, stop=Stop(BECAUSE, moment())), BECAUSE, "SuccessfulDelete") for pod in pods[:2]
    ]
    _refused(
        agents.observed(), stops, "would keep 2 available pods, 3 are promised", ages=[pod.meta.uid for pod in pods]
    )


def test_names_are_unique() -> None:
    start = cluster(1, bare_pod())
    [pod] = start.pods.values()
    twin = replace(pod, meta=replace(pod.meta, uid="another"))
    _refused(start, [Change("create", twin, BECAUSE)], "2 Pods named default/lonely")


# ---- helpers -------------------------------------------------------------------------------------------------------------


def _bound(*things: object, nodes: int = 1) -> World:
    """The world after one pass: pods have nodes, and digests are recorded."""
    start = cluster(nodes, *things)
    return after(start, reconcile(start, moment()))


def _refused(
    start: World,
    changes: list[Change],
    why: str,
    *,
    brake: str = "",
    views: dict[str, NodeView] | None = None,
    without_pods: bool = False,
    ages: list[str] | None = None,
) -> None:
    """An otherwise sound plan with these changes is refused for this reason."""
    sound = reconcile(start, moment())
    end = changed(start, changes)
    wanted = {
        name: Wanted(item.node, item.digest, () if without_pods else item.pods) for name, item in sound.wanted.items()
    }
    plan = Plan(tuple(changes), wanted, {**sound.nodes, **(views or {})})
    with pytest.raises(PlanBug, match=why):
        check_plan(start, end, plan, brake, dict.fromkeys(ages or (), 1000.0))
