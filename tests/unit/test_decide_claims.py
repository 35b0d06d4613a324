"""Volume claims: bound with their first pod, never moved, removed by an explicit delete only; and why nodes are out because of them."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.decide import explain, verbs
from controller.decide.reconcile import reconcile
from controller.model.cluster import Seen, Storage, VolumeClaim
from controller.model.errors import PlanBug
from controller.model.plan import changed
from nodeagent.protocol import VOLUME_HELD, VolumeReport
from tests.agents import Agents
from tests.builders import (
    bare_pod,
    claim,
    claiming,
    cluster,
    deployment,
    moment,
    namespace,
    node,
    put,
    stateful_set,
    template,
    world,
)

TEMPLATES = [
    {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
]


# ---- binding and placing ----------------------------------------------------------------------------------------------------


def test_a_claim_is_bound_to_the_node_of_its_first_pod_and_not_before() -> None:
    agents = Agents(cluster(3, claim()))
    agents.settle(5)
    assert not _claim(agents).node, "it waits for a consumer"

    agents.world = put(agents.world, bare_pod(**claiming()))
    agents.settle(10)

    bound = _claim(agents)
    [pod] = agents.world.pods.values()
    assert bound.node == pod.node
    assert bound.volume == f"sshoal-{agents.world.cluster.id}-{bound.meta.uid}-1"
    assert bound.is_made
    [order] = agents.wanted[pod.node].volumes
    assert (order.name, order.claim, order.make, order.remove) == (bound.volume, "default/data", False, False)
    [mounted] = agents.wanted[pod.node].pods[0].volumes
    assert (mounted.kind, mounted.claim) == ("claim", bound.volume)


def test_intent_comes_first_the_binding_is_recorded_with_the_order_to_make_the_volume() -> None:
    plan = reconcile(cluster(1, claim(), bare_pod(**claiming())), moment())
    assert [change.reason for change in plan.changes if isinstance(change.record, VolumeClaim)] == [
        "WaitForFirstConsumer"
    ]
    [order] = plan.wanted["n1"].volumes
    assert order.make


def test_all_pods_of_a_claim_go_where_it_is() -> None:
    agents = Agents(cluster(3, claim(), deployment(replicas=4, pods=template(**claiming()))))
    agents.settle(20)
    assert {pod.node for pod in agents.world.pods.values()} == {_claim(agents).node}
    assert len(agents.world.pods) == 4


def test_of_two_owners_that_share_a_claim_the_second_follows_the_first() -> None:
    first, second = (deployment(name, 1, template(**claiming())) for name in ("a", "b"))
    agents = Agents(cluster(3, claim(), first, second))
    agents.settle(20)
    assert len({pod.node for pod in agents.world.pods.values()}) == 1


def test_each_rejected_node_has_its_reason() -> None:
    there = _bound(claim(), "n2")
    full = deployment(replicas=1, pods=template(requests={"cpu": "100"}, **claiming()))
    plan = reconcile(cluster(3, there, full), moment())
    [unplaced] = plan.unplaced
    assert unplaced.rejected["n1"] == "volume claim data lives on n2"
    assert unplaced.rejected["n2"].startswith("cpu: needs 100")
    assert "2 volume claim data lives on n2" in unplaced.summary


def test_explain_names_the_filter_as_kubernetes_does() -> None:
    agents = Agents(cluster(2, claim(), bare_pod(**claiming())))
    agents.settle(10)
    [pod] = agents.world.pods.values()
    plan = reconcile(agents.observed(), agents.now)
    told = explain.explain(agents.observed(), plan.nodes, pod)
    objections = {item.node: dict(item.objections) for item in told.verdicts}
    [other] = {"n1", "n2"} - {pod.node}
    assert objections == {pod.node: {}, other: {"VolumeBinding": f"volume claim data lives on {pod.node}"}}


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ([], "volume claim data not found"),
        ([claim(storageClassName="")], 'volume claim data has storageClassName ""'),
        ([claim(volumeName="pv-1")], "volume claim data asks for the volume pv-1"),
        ([claim(storageClassName="fast")], "has no storage class fast"),
    ],
)
def test_impossible_claims_keep_their_pods_pending_with_the_reason(claims: list[Any], why: str) -> None:
    plan = reconcile(cluster(2, *claims, bare_pod(**claiming())), moment())
    [unplaced] = plan.unplaced
    assert why in unplaced.summary
    assert all(not record.node for record in changed(cluster(2, *claims), plan.changes).claims.values())


def test_a_storage_class_is_where_hosts_declare_it() -> None:
    fast = node("n2", 2, storage={"fast": Storage("/srv/fast")})
    agents = Agents(world(node("n1"), fast, claim(storageClassName="fast"), bare_pod(**claiming())))
    agents.settle(10)
    assert (_claim(agents).node, _claim(agents).directory) == ("n2", "/srv/fast")
    [order] = agents.wanted["n2"].volumes
    assert order.directory == "/srv/fast"
    assert agents.wanted["n2"].node.storage == ("/srv/fast",)


def test_a_class_may_be_another_name_of_podmans_volumes() -> None:
    agents = Agents(
        world(node("n1", storage={"standard": Storage()}), claim(storageClassName="standard"), bare_pod(**claiming()))
    )
    agents.settle(10)
    assert (_claim(agents).node, _claim(agents).directory) == ("n1", "")


def test_requests_are_counted_where_the_size_is_declared() -> None:
    small = node("n1", storage={"fast": Storage("/srv/fast", 3 * 2**30)})
    claims = [claim(f"data-{number}", "2Gi", storageClassName="fast") for number in (1, 2)]
    pods = [bare_pod(f"p{number}", **claiming(f"data-{number}")) for number in (1, 2)]
    plan = reconcile(world(small, *claims, *pods), moment())
    [unplaced] = plan.unplaced
    assert unplaced.rejected == {"n1": "storage class fast: needs 2Gi, free 1Gi"}


def test_read_write_once_pod_lets_one_pod_have_it() -> None:
    single = claim(modes=["ReadWriteOncePod"])
    agents = Agents(cluster(2, single, deployment(replicas=2, pods=template(**claiming()))))
    for _ in range(6):
        plan = agents.step()
    assert len([pod for pod in agents.world.pods.values() if pod.node]) == 1
    [unplaced] = plan.unplaced
    assert "is ReadWriteOncePod, and pod" in unplaced.summary


# ---- what hosts say ---------------------------------------------------------------------------------------------------------


def test_a_volume_that_is_missing_is_never_made_anew() -> None:
    agents = Agents(cluster(1, claim(), bare_pod(**claiming())))
    agents.settle(10)
    agents.volumes["n1"].clear()
    reasons = [change.reason for _ in range(4) for change in agents.step().changes]
    assert "VolumeMissing" in reasons
    assert not any(order.make for order in agents.wanted["n1"].volumes)
    agents.world = put(agents.world, bare_pod("second", **claiming()))
    [unplaced] = agents.step().unplaced
    assert "volume claim data is lost: its volume is missing on n1" in unplaced.summary


@pytest.mark.parametrize(("how", "freed"), [("powered-off", False), ("wiped", True)])
def test_only_a_wiped_host_frees_its_claims_and_the_loss_is_said(how: str, freed: bool) -> None:
    agents = Agents(cluster(2, claim(), deployment(replicas=1, pods=template(**claiming()))))
    agents.settle(20)
    lost = _claim(agents).node
    agents.down.add(lost)
    for _ in range(3):
        agents.step()
    agents.world = put(agents.world, replace(agents.world.nodes[lost], confirmed_dead=how))
    changes = [change for _ in range(8) for change in agents.step().changes]
    assert ("DataLost" in {change.reason for change in changes if change.warning}) == freed
    assert (_claim(agents).node != lost) == freed
    assert (_claim(agents).volumes_made == 2) == freed
    if not freed:
        [waiting] = [pod for pod in agents.world.pods.values() if not pod.node]
        assert f"volume claim data lives on {lost}" in waiting.unplaced


def test_what_a_wiped_host_brings_back_all_the_same_is_stale_told_and_not_used() -> None:
    agents = Agents(cluster(2, claim(), deployment(replicas=1, pods=template(**claiming()))))
    agents.settle(20)
    former = _claim(agents)
    agents.down.add(former.node)
    for _ in range(3):
        agents.step()
    agents.world = put(agents.world, replace(agents.world.nodes[former.node], confirmed_dead="wiped"))
    for _ in range(8):
        agents.step()
    agents.down.clear()
    events = {change.reason for _ in range(4) for change in agents.step().changes}
    present = _claim(agents)
    assert "StaleVolume" in events
    assert (present.node, list(present.stale)) != (former.node, [])
    assert present.stale[former.volume].node == former.node
    assert former.volume in agents.volumes[former.node], "nobody ordered its removal"

    _delete_claim(agents)
    _delete_all(agents, "Deployment")
    for _ in range(12):
        agents.step()
    assert not agents.world.claims
    assert all(former.volume not in held and present.volume not in held for held in agents.volumes.values())


def test_an_agent_that_has_not_looked_yet_says_nothing_of_volumes() -> None:
    agents = Agents(cluster(1, claim(), bare_pod(**claiming())))
    agents.settle(10)
    quiet = agents.observed()
    sightings = {name: replace(seen, volumes=None) for name, seen in quiet.sightings.items() if isinstance(seen, Seen)}
    plan = reconcile(replace(quiet, sightings=sightings), agents.now)
    assert plan.is_empty


def test_a_word_that_agents_do_not_have_changes_nothing() -> None:
    agents = Agents(cluster(1, claim(), bare_pod(**claiming())))
    agents.settle(10)
    volume = _claim(agents).volume
    agents.volumes["n1"][volume] = VolumeReport(volume, "vanished")
    assert not [change for change in agents.step().changes if isinstance(change.record, VolumeClaim)]


def test_a_host_that_lies_about_stale_volumes_holds_up_nobody_elses_claim() -> None:
    agents = Agents(cluster(2, claim(), bare_pod(**claiming())))
    agents.settle(10)
    record = _claim(agents)
    [liar] = {"n1", "n2"} - {record.node}
    lie = record.volume[:-1] + "9"
    strange = record.volume[:-1] + "\x1b[31m"
    agents.volumes.setdefault(liar, {})[lie] = VolumeReport(lie, VOLUME_HELD, "/lie")
    agents.volumes[liar][strange] = VolumeReport(strange, VOLUME_HELD, "/lie")
    agents.step()
    assert list(_claim(agents).stale) == [lie]
    _delete_claim(agents)
    _delete_all(agents, "Pod")
    for _ in range(10):
        agents.step()
        agents.volumes[liar][lie] = VolumeReport(lie, VOLUME_HELD, "/lie")
    assert not agents.world.claims


def test_a_host_that_says_removed_without_an_order_is_not_believed() -> None:
    agents = Agents(cluster(1, claim(), bare_pod(**claiming())))
    agents.settle(10)
    _delete_claim(agents)
    volume = _claim(agents).volume
    agents.volumes["n1"][volume] = VolumeReport(volume, "removed")
    for _ in range(3):
        agents.step()
    assert _claim(agents).report == VolumeReport(volume, VOLUME_HELD, f"/volumes/{volume}"), "its pod still runs"


# ---- deletion ---------------------------------------------------------------------------------------------------------------


def test_a_deleted_claim_waits_for_its_pods_then_for_the_word_that_the_volume_is_gone() -> None:
    agents = Agents(cluster(2, claim(), bare_pod(**claiming())))
    agents.settle(10)
    place = _claim(agents).node
    _delete_claim(agents)
    for _ in range(3):
        agents.step()
    assert _claim(agents).removing is None, "a pod uses it"

    _delete_all(agents, "Pod")
    recorded = False
    while agents.world.claims:
        agents.step()
        for item in agents.wanted[place].volumes:
            recorded = recorded or item.remove
            assert not item.remove or not agents.world.claims or _claim(agents).removing is not None
    assert recorded
    assert agents.volumes[place] == {} or all(one.state == "removed" for one in agents.volumes[place].values())


def test_a_claim_of_a_silent_node_stays_until_it_answers() -> None:
    agents = Agents(cluster(2, claim(), bare_pod(**claiming())))
    agents.settle(10)
    _delete_all(agents, "Pod")
    agents.settle(10)
    agents.down.add(_claim(agents).node)
    _delete_claim(agents)
    for _ in range(10):
        agents.step()
    assert len(agents.world.claims) == 1
    agents.down.clear()
    for _ in range(6):
        agents.step()
    assert not agents.world.claims


def test_pods_do_not_get_a_claim_that_is_being_deleted() -> None:
    agents = Agents(cluster(1, claim(), bare_pod(**claiming())))
    agents.settle(10)
    _delete_claim(agents)
    agents.world = put(agents.world, bare_pod("second", **claiming()))
    [unplaced] = agents.step().unplaced
    assert "volume claim data is being deleted" in unplaced.summary


def test_a_namespace_goes_after_the_data_of_its_claims() -> None:
    record = claim()
    there = replace(record, meta=replace(record.meta, namespace="shop"))
    pod = bare_pod(**claiming())
    pod = replace(pod, meta=replace(pod.meta, namespace="shop"))
    agents = Agents(cluster(1, namespace("shop"), there, pod))
    agents.settle(10)
    [space] = [item for item in agents.world.declared.values() if item.meta.kind == "Namespace"]
    agents.world = put(agents.world, replace(space, meta=replace(space.meta, deleting=agents.now)))
    for _ in range(12):
        agents.step()
        assert not agents.world.claims or agents.world.declared, "the namespace is there while a claim is"
    assert not agents.world.claims
    assert not agents.world.declared


def test_a_forgotten_node_keeps_the_volume_and_the_claim_can_go() -> None:
    agents = Agents(cluster(2, _bound(claim(), "n9")))
    _delete_claim(agents)
    [change] = [change for change in agents.step().changes if change.verb == "remove"]
    assert change.warning
    assert "n9 was forgotten" in change.because


@pytest.mark.parametrize("field", ["removing", "node", "remove"])
def test_a_plan_that_would_lose_data_is_refused(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last check before anything is done, whatever the reasoning that led there."""
    from controller.decide import claims
    from controller.model.plan import Change

    held = replace(_bound(claim(), "n1"), is_made=True)
    broken = {
        "removing": Change("update", replace(held, removing=moment()), "a defect"),
        "node": Change("update", replace(held, node="n2"), "a defect"),
        "remove": Change("remove", held, "a defect"),
    }
    monkeypatch.setattr(claims, "follow", lambda *_: (broken[field],))
    with pytest.raises(PlanBug):
        reconcile(cluster(2, held), moment())


# ---- stateful sets ----------------------------------------------------------------------------------------------------------


def test_a_stateful_set_makes_a_claim_for_each_pod_and_each_template() -> None:
    agents = _running(replicas=2)
    assert _placed(agents) == {"data-web-0": "web-0", "data-web-1": "web-1"}
    [first] = [item for item in agents.world.claims.values() if item.meta.name == "data-web-0"]
    assert first.meta.labels == {"app": "web"}, "those that the set selects by"
    mounts = {pod.name: pod.volumes[0].claim for item in agents.wanted.values() for pod in item.pods}
    assert mounts["web-0"] == first.volume


def test_pods_that_come_again_find_their_claims_and_go_where_these_are() -> None:
    agents = _running(replicas=3)
    before = {item.meta.name: (item.meta.uid, item.node) for item in agents.world.claims.values()}
    for replicas in (1, 3):
        _edit(agents, replicas=replicas)
        agents.settle(80)
    _delete_all(agents, "StatefulSet")
    for _ in range(20):
        agents.step()
    assert not agents.world.pods
    assert not agents.world.workloads
    agents.world = put(agents.world, _set(replicas=3))
    agents.settle(80)
    assert {item.meta.name: (item.meta.uid, item.node) for item in agents.world.claims.values()} == before
    assert all(_claim(agents, f"data-{pod.meta.name}").node == pod.node for pod in agents.world.pods.values())


def test_when_scaled_delete_takes_the_claims_of_the_pods_that_go_and_no_others() -> None:
    agents = _running(
        replicas=3, persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete", "whenDeleted": "Retain"}
    )
    _edit(agents, replicas=1)
    agents.settle(80)
    assert _placed(agents) == {"data-web-0": "web-0"}
    _edit(agents, replicas=2)
    agents.settle(80)
    assert sorted(_placed(agents)) == ["data-web-0", "data-web-1"]
    _delete_all(agents, "StatefulSet")
    for _ in range(20):
        agents.step()
    assert sorted(item.meta.name for item in agents.world.claims.values()) == ["data-web-0", "data-web-1"]


def test_when_scaled_delete_takes_the_claim_of_a_pod_that_was_stopping_already() -> None:
    agents = _running(replicas=3, persistentVolumeClaimRetentionPolicy={"whenScaled": "Delete"})
    [last] = [pod for pod in agents.world.pods.values() if pod.meta.name == "web-2"]
    for change in verbs.delete(agents.world, last, agents.now):
        agents.world = put(agents.world, change.record)
    _edit(agents, replicas=2)
    agents.settle(80)
    assert sorted(claim.meta.name for claim in agents.world.claims.values()) == ["data-web-0", "data-web-1"]


def test_when_deleted_delete_takes_the_claims_with_the_set_and_only_its_own() -> None:
    agents = _running(
        claim("data-web-extra"), replicas=2, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Delete"}
    )
    _delete_all(agents, "StatefulSet")
    for _ in range(25):
        agents.step()
    assert [item.meta.name for item in agents.world.claims.values()] == ["data-web-extra"]


def test_a_pod_waits_for_the_end_of_the_claim_that_had_its_name() -> None:
    agents = _running(replicas=1)
    former = _claim(agents, "data-web-0")
    _delete_claim(agents)
    _delete_all(agents, "Pod")
    for _ in range(30):
        agents.step()
        claims = [item.meta.uid for item in agents.world.claims.values()]
        assert len(claims) <= 1
    assert _claim(agents, "data-web-0").meta.uid != former.meta.uid
    assert _claim(agents, "data-web-0").volume != former.volume


def test_a_sticky_set_without_volumes_waits_for_its_node_until_that_is_dead_for_sure() -> None:
    agents = Agents(cluster(3, _annotated(stateful_set(replicas=1), "sshoal.dev/sticky-node")))
    agents.settle(30)
    [pod] = agents.world.pods.values()
    home = pod.node
    agents.world = put(agents.world, replace(agents.world.nodes[home], cordoned=True))
    _delete_all(agents, "Pod")
    for _ in range(8):
        plan = agents.step()
    [waiting] = plan.unplaced
    assert f"web-0 is sticky: its node is {home}" in waiting.summary
    agents.world = put(agents.world, replace(agents.world.nodes[home], cordoned=False))
    agents.settle(20)
    assert [pod.node for pod in agents.world.pods.values()] == [home]

    agents.down.add(home)
    for _ in range(3):
        agents.step()
    agents.world = put(agents.world, replace(agents.world.nodes[home], confirmed_dead="powered-off"))
    for _ in range(8):
        agents.step()
    [moved] = agents.world.pods.values()
    assert moved.node not in ("", home)


def test_a_sticky_address_comes_from_the_upper_half_and_is_kept() -> None:
    record = _annotated(stateful_set(replicas=2), "sshoal.dev/sticky-address")
    agents = Agents(world(node("n1"), record))
    agents.settle(40)
    addresses = {pod.name: pod.address for pod in agents.wanted["n1"].pods}
    assert addresses == {"web-0": "10.86.1.128", "web-1": "10.86.1.129"}
    _delete_all(agents, "Pod")
    agents.settle(60)
    assert {pod.name: pod.address for pod in agents.wanted["n1"].pods} == addresses


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["OrderedReady", "Parallel"]),
    st.sampled_from(["Retain", "Delete"]),
    st.randoms(use_true_random=False),
)
def test_data_goes_by_a_persons_word_only_and_pods_run_where_theirs_is(policy: str, scaled: str, dice: Random) -> None:
    """Nodes fall silent, are confirmed off or wiped and return; the set is scaled, deleted and declared again; claims are deleted."""
    spec = {"podManagementPolicy": policy, "persistentVolumeClaimRetentionPolicy": {"whenScaled": scaled}}
    agents = Agents(cluster(4, _set(replicas=3, **spec)), step_s=30.0)
    agreed: set[str] = set()  # uids of claims that may lose their volume
    made: dict[str, str] = {}  # by volume: uid of its claim
    for _ in range(60):
        match dice.randint(0, 8):
            case 0:
                agents.down = {name for name in agents.world.hosts if dice.random() < 0.3}
            case 1 if _sets(agents) and not _sets(agents)[0].meta.deleting:
                _edit(agents, replicas=dice.randint(0, 4))
            case 2:
                _delete_all(agents, "Pod")
            case 3 if agents.world.claims:
                gone = dice.choice(sorted(agents.world.claims))
                agreed.add(gone)
                for change in verbs.delete(agents.world, agents.world.claims[gone], agents.now):
                    agents.world = put(agents.world, change.record)
            case 4:
                _delete_all(agents, "StatefulSet")
            case 5 if not _sets(agents):
                fresh = _set(replicas=3, **spec)
                agents.world = put(agents.world, replace(fresh, meta=replace(fresh.meta, uid=f"uid-{agents.seconds}")))
            case 6 if agents.down:
                _lose(agents, dice.choice(sorted(agents.down)), dice.choice(["powered-off", "wiped"]), made, agreed)
        agents.step()
        made |= {claim.volume: uid for uid, claim in agents.world.claims.items() if claim.volume}
        if scaled == "Delete":
            agreed |= {uid for uid, claim in agents.world.claims.items() if claim.meta.deleting is not None}
        for held in agents.volumes.values():
            removed = {made[name] for name, report in held.items() if report.state == "removed" and name in made}
            assert removed <= agreed
        by_volume = {claim.volume: claim for claim in agents.world.claims.values() if claim.volume}
        for name, item in agents.wanted.items():
            here = {volume.name for volume in item.volumes}
            mounted = {volume.claim for pod in item.pods for volume in pod.volumes if not pod.stop and volume.claim}
            current = mounted & by_volume.keys()
            assert current <= here, "a pod is told to mount what its node has"
            assert name in agents.down or all(by_volume[volume].node == name for volume in current)
    agents.down.clear()
    for _ in range(120):
        agents.step()
    assert reconcile(agents.observed(), agents.now).is_empty


def _sets(agents: Agents) -> list[Any]:
    return [item for item in agents.world.workloads.values() if item.meta.kind == "StatefulSet"]


def _lose(agents: Agents, name: str, how: str, made: dict[str, str], agreed: set[str]) -> None:
    """A host that is off for sure: nothing runs there, and of a wiped one nothing is left."""
    agents.pods[name] = {}
    agents.wanted.pop(name, None)
    if how == "wiped":
        agents.volumes.pop(name, None)
        agreed |= {uid for uid, claim in agents.world.claims.items() if claim.node == name}
    agents.world = put(agents.world, replace(agents.world.nodes[name], confirmed_dead=how))


# ---- helpers ----------------------------------------------------------------------------------------------------------------


def _bound(record: VolumeClaim, where: str) -> VolumeClaim:
    return replace(record, node=where, bound=moment(), volume="sshoal-bound", volumes_made=1)


def _set(**spec: Any) -> Any:
    mounts = {"name": "main", "image": "web:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    pods = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [mounts]}}
    return stateful_set(pods=pods, volumeClaimTemplates=TEMPLATES, **spec)


def _running(*others: Any, **spec: Any) -> Agents:
    agents = Agents(cluster(3, _set(**spec), *others))
    agents.settle(60)
    return agents


def _annotated(record: Any, name: str) -> Any:
    return replace(record, meta=replace(record.meta, annotations={name: "true"}))


def _claim(agents: Agents, name: str = "") -> VolumeClaim:
    [found] = [item for item in agents.world.claims.values() if not name or item.meta.name == name]
    return found


def _placed(agents: Agents) -> dict[str, str]:
    """Name of each claim → name of the pod on its node that uses it."""
    volumes = {item.volume: item.meta.name for item in agents.world.claims.values()}
    pods = [pod for item in agents.wanted.values() for pod in item.pods]
    return {volumes[volume.claim]: pod.name for pod in pods for volume in pod.volumes if volume.claim in volumes}


def _delete_claim(agents: Agents) -> None:
    for change in verbs.delete(agents.world, _claim(agents), agents.now):
        agents.world = put(agents.world, change.record)


def _delete_all(agents: Agents, kind: str) -> None:
    tables = (agents.world.pods, agents.world.workloads, agents.world.deployments)
    for record in [item for table in tables for item in table.values() if item.meta.kind == kind]:
        for change in verbs.delete(agents.world, record, agents.now):
            agents.world = put(agents.world, change.record)


def _edit(agents: Agents, **spec: Any) -> None:
    [record] = [item for item in agents.world.workloads.values() if item.meta.kind == "StatefulSet"]
    source = {**record.source, "spec": {**record.source["spec"], **spec}}  # type: ignore[union-attr]
    meta = replace(record.meta, generation=record.meta.generation + 1)
    agents.world = put(agents.world, replace(record, meta=meta, source=source))  # type: ignore[call-arg]
