"""Node states, absence and return, the brake, and who is not used."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.decide import verbs
from controller.decide.nodes import judge
from controller.decide.reconcile import reconcile
from controller.model.cluster import AGENT_NEWER, Moment, Node, Settings, Sighting
from controller.model.plan import Change, Plan, changed
from nodeagent.protocol import Condition, Epoch, Owner
from tests.agents import Agents
from tests.builders import (
    after,
    bare_pod,
    cluster,
    condition,
    deployment,
    edited,
    host,
    job,
    moment,
    node,
    put,
    seen,
    stateful_set,
    taint,
    template,
    unseen,
    with_sightings,
    world,
)


def test_a_host_becomes_a_node_once_its_agent_answers() -> None:
    start = world(host("n1"), host("n2"), sightings={"n2": unseen()})
    plan = reconcile(start, moment())
    assert [change.record for change in plan.changes if change.verb == "create"] == [
        replace(node("n1", 0), meta=_created(plan, "n1").meta)
    ]
    assert (plan.nodes["n1"].state, plan.nodes["n2"].state) == ("Ready", "Unseen")


def test_labels_taints_and_address_follow_the_inventory() -> None:
    entry = host("n1", address="10.0.0.9", labels={"disk": "ssd"}, taints=(taint("gpu"),), bastion="jump")
    found = _only_node(reconcile(world(node("n1"), entry), moment(5)))
    assert found.address == "10.0.0.9"
    assert found.bastion == "jump"
    assert found.labels == {**node("n1").labels, "disk": "ssd"}
    assert found.taints == (replace(taint("gpu"), added=moment(5)),)


def test_a_taint_that_stays_keeps_its_age() -> None:
    entry = host("n1", taints=(taint("gpu"),))
    start = world(node("n1"), entry)
    start = after(start, reconcile(start, moment(5)))
    assert reconcile(start, moment(500)).is_empty


def test_subnets_are_never_given_twice_and_their_end_is_told() -> None:
    settings = Settings(cluster_range="10.9.0.0/22", node_prefix=24)
    start = world(node("n1", subnet="10.9.1.0/24"), *(host(f"n{number}") for number in range(2, 6)), settings=settings)
    plan = reconcile(start, moment())
    held = [after(start, plan).nodes[name].subnet for name in ("n1", "n2", "n3", "n4")]
    assert held == ["10.9.1.0/24", "10.9.0.0/24", "10.9.2.0/24", "10.9.3.0/24"]
    assert plan.notes == ("host n5 is not used: no /24 is left in 10.9.0.0/22",)


def test_a_subnet_of_another_size_is_not_overlapped() -> None:
    settings = Settings(cluster_range="10.9.0.0/22", node_prefix=24)
    start = world(node("n1", subnet="10.9.0.0/23"), host("n2"), settings=settings)
    assert after(start, reconcile(start, moment())).nodes["n2"].subnet == "10.9.2.0/24"


# ---- absence -----------------------------------------------------------------------------------------------------------


def test_a_first_missed_poll_opens_a_series_and_the_second_makes_the_node_unknown() -> None:
    start = with_sightings(cluster(3), n1=unseen())
    first = reconcile(start, moment(0))
    assert first.nodes["n1"].state == "Unseen"
    second_world = after(start, first)
    second = reconcile(second_world, moment(60))
    assert second.nodes["n1"].state == "Unknown"
    missing = after(second_world, second).nodes["n1"].missing
    assert missing is not None
    assert (missing.since, missing.latest, missing.polls) == (moment(0), moment(60), 2)


@pytest.mark.parametrize(
    ("period_s", "gap_s", "written"),
    [(60.0, 59.0, False), (60.0, 60.0, True), (2.0, 9.0, False), (2.0, 10.0, True)],
)
def test_a_lasting_silence_is_written_once_a_period_and_at_most_every_ten_seconds(
    period_s: float, gap_s: float, written: bool
) -> None:
    start = with_sightings(cluster(3, settings=Settings(period_s=period_s)), n1=unseen())
    for at_s in (0, 10):
        start = after(start, reconcile(start, moment(at_s)))
    assert bool(reconcile(start, moment(10 + gap_s)).changes) == written


@pytest.mark.parametrize(
    ("period_s", "gap_s", "polls"),
    [(2.0, 1.9, 1), (2.0, 2.0, 2), (10.0, 9.9, 1), (10.0, 10.0, 2), (60.0, 9.9, 1), (60.0, 10.0, 2)],
)
def test_two_passes_in_quick_succession_miss_one_poll(period_s: float, gap_s: float, polls: int) -> None:
    """`watch` polls at once after news: what is missed within the same moment may be one and the same hiccup."""
    start = with_sightings(cluster(3, settings=Settings(period_s=period_s)), n1=unseen())
    for at_s in (0.0, 0.05, gap_s):
        start = after(start, reconcile(start, moment(at_s)))
    missing = start.nodes["n1"].missing
    assert missing is not None
    assert (missing.since, missing.polls) == (moment(0), polls)


def test_a_pod_that_tolerates_no_absence_is_replaced_after_two_polls_and_not_after_two_passes() -> None:
    key = "node.kubernetes.io/unreachable"
    now = [{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}]
    agents = _running(3, deployment(replicas=3, pods=template(tolerations=now)))
    agents.down = {"n1"}
    agents.step_s = 0.25
    evicted = [at_s for at_s, plan in _steps(agents, until_s=60) if _verbs(plan, "evict")]
    assert evicted == [10]


@pytest.mark.parametrize(
    ("later", "polls"),
    [
        pytest.param(moment(180), 2, id="three periods are one series"),
        pytest.param(moment(181), 1, id="more than three periods: the controller was away"),
        pytest.param(moment(181, boot_id="another"), 1, id="away, and rebooted"),
        pytest.param(moment(60, boot_id="another"), 2, id="a quick reboot breaks nothing"),
    ],
)
def test_a_gap_in_our_own_polling_restarts_the_series(later: Moment, polls: int) -> None:
    start = with_sightings(cluster(3), n1=unseen())
    start = after(start, reconcile(start, moment(0)))
    missing = after(start, reconcile(start, later)).nodes["n1"].missing
    assert missing is not None
    assert missing.polls == polls


def test_an_answer_ends_the_series() -> None:
    start = with_sightings(cluster(3), n1=unseen())
    start = after(start, reconcile(start, moment(0)))
    plan = reconcile(with_sightings(start, n1=seen("n1")), moment(60))
    assert _only_node(plan).missing is None
    assert [change.reason for change in plan.changes if not change.quiet] == ["NodeReady"]


def test_a_host_that_refuses_is_there_and_opens_no_series() -> None:
    plan = reconcile(with_sightings(cluster(3), n1=unseen("refused", "owned by another")), moment())
    assert _only_node(plan).missing is None
    assert plan.nodes["n1"].state == "Quarantined"


# ---- the brake ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "silent", "brake"),
    [
        (1, 1, True),
        (2, 1, False),
        (2, 2, True),
        (3, 1, False),
        (3, 2, True),
        (10, 5, False),
        (10, 6, True),
        (20, 11, True),
    ],
)
def test_the_brake_is_on_when_most_nodes_are_silent(nodes: int, silent: int, brake: bool) -> None:
    told: dict[str, Sighting] = {f"n{number}": unseen() for number in range(1, silent + 1)}
    assert bool(judge(with_sightings(cluster(nodes), **told), moment()).brake) == brake


def test_nodes_that_are_confirmed_dead_do_not_pull_the_brake() -> None:
    start = cluster(3, node("n4", 4, confirmed_dead="wiped"), node("n5", 5, confirmed_dead="wiped"))
    assert not judge(with_sightings(start, n4=unseen(), n5=unseen(), n1=unseen()), moment()).brake


@pytest.mark.parametrize(("silent", "brake"), [(("n1",), False), (("n1", "n2"), True)])
def test_all_nodes_behind_one_bastion_are_one_failure(silent: tuple[str, ...], brake: bool) -> None:
    behind = [node(f"n{number}", number, bastion="jump") for number in (1, 2)]
    direct = [node(f"n{number}", number) for number in (3, 4, 5, 6)]
    start = with_sightings(world(*behind, *direct), **{name: unseen() for name in silent})
    assert bool(judge(start, moment()).brake) == brake


def test_the_brake_says_so() -> None:
    plan = reconcile(with_sightings(cluster(3), n1=unseen(), n2=unseen()), moment())
    assert plan.notes == ("2 of 3 nodes do not answer: nothing is given up",)


# ---- giving up and coming back -------------------------------------------------------------------------------------------


def test_pods_of_a_silent_node_are_replaced_after_five_minutes_and_not_before() -> None:
    agents = _running(3, deployment(replicas=3))
    agents.down = {"n1"}
    plans = _steps(agents, until_s=360)
    evicted = [at_s for at_s, plan in plans if _verbs(plan, "evict")]
    assert len(evicted) == 1
    assert 300 <= evicted[0] <= 360
    assert {pod.node for pod in agents.world.pods.values() if pod.lost is None} == {"n2", "n3"}


def test_the_replacement_comes_in_the_pass_that_gives_the_node_up() -> None:
    agents = _running(3, deployment(replicas=3))
    agents.down = {"n1"}
    plan = next(plan for _, plan in _steps(agents, until_s=360) if _verbs(plan, "evict"))
    assert [change.reason for change in plan.changes if not change.quiet] == [
        "NodeGivenUp",
        "TaintManagerEviction",
        "SuccessfulCreate",
        "Scheduled",
    ]


@pytest.mark.parametrize(
    ("tolerations", "due_s"),
    [
        ([], 300),
        (
            [
                {
                    "key": "node.kubernetes.io/unreachable",
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": 5,
                }
            ],
            60,
        ),
        ([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}], None),
        ([{"operator": "Exists"}], None),
        ([{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 900}], 900),
        ([{"key": "other", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}], 300),
    ],
    ids=["default", "five seconds, two polls", "for ever", "everything for ever", "fifteen minutes", "another taint"],
)
def test_tolerations_say_how_long_a_pod_waits_for_its_node(
    tolerations: list[dict[str, object]], due_s: int | None
) -> None:
    agents = _running(3, deployment(replicas=3, pods=template(tolerations=tolerations)))
    agents.down = {"n1"}
    evicted = [at_s for at_s, plan in _steps(agents, until_s=1200) if _verbs(plan, "evict")]
    assert evicted == ([due_s] if due_s is not None else [])


def test_the_brake_keeps_all_pods() -> None:
    agents = _running(3, deployment(replicas=3))
    agents.down = {"n1", "n2"}
    assert not [plan for _, plan in _steps(agents, until_s=3600) if _verbs(plan, "evict")]


def test_after_the_brake_the_time_that_is_tolerated_counts_anew() -> None:
    """When the controller's own network comes back, hosts answer one after the other: those that are a moment later are not given up."""
    agents = _running(3, deployment(replicas=3))
    agents.down = {"n1", "n2", "n3"}
    _steps(agents, until_s=1000)
    agents.down = {"n1"}
    evicted = [at_s for at_s, plan in _steps(agents, until_s=360) if _verbs(plan, "evict")]
    assert evicted == [300]


def test_a_poll_that_others_missed_once_gives_a_dead_node_no_more_time() -> None:
    agents = _running(3, deployment(replicas=3))
    evicted = []
    for number in range(100):
        agents.down = {"n1", "n2", "n3"} if number % 12 == 11 else {"n1"}
        if _verbs(agents.step(), "evict"):
            evicted.append(number * agents.step_s)
    assert len(evicted) == 1
    assert 300 <= evicted[0] <= 300 + 2 * agents.step_s


def test_nodes_are_given_up_one_a_minute_in_a_small_cluster() -> None:
    """Ten nodes: at most one of them in any minute."""
    agents = _running(10, deployment(replicas=10))
    agents.down = {"n1", "n2", "n3"}
    agents.step_s = 20
    evicted = [at_s for at_s, plan in _steps(agents, until_s=600) if _verbs(plan, "evict")]
    assert evicted == [300, 360, 420]


class _Rebooted(Agents):
    """Their controller was booted again: what was stored before is compared by wall clock only."""

    @property
    def now(self) -> Moment:
        return moment(self.seconds, "a later boot")


@pytest.mark.parametrize("before_s", [60, 360], ids=["missing twice", "given up"])
def test_a_controller_whose_clock_was_a_day_ahead_before_it_was_booted_again_goes_on_at_once(before_s: int) -> None:
    """By that clock nothing of what was stored has happened yet: a silence is counted anew, and nothing counts as having just been done."""
    agents = _running(4, deployment(replicas=4))
    agents.down = {"n1"}
    _steps(agents, until_s=before_s)
    agents = _Rebooted(**vars(agents))
    agents.seconds -= 86400
    agents.down = {"n1", "n2"} if before_s > 300 else {"n1"}
    evicted = [at_s for at_s, plan in _steps(agents, until_s=900) if _verbs(plan, "evict")]
    assert evicted == [300]


def test_a_node_that_is_confirmed_dead_is_given_up_at_once_even_under_the_brake() -> None:
    agents = _running(3, deployment(replicas=3))
    agents.down = {"n1", "n2", "n3"}
    agents.world = put(agents.world, replace(agents.world.nodes["n1"], confirmed_dead="powered-off"))
    plan = agents.step()
    assert [change.record.meta.uid for change in _verbs(plan, "evict")] == [
        pod.meta.uid for pod in agents.world.pods.values() if pod.node == "n1"
    ]


def test_a_pod_of_its_own_waits_for_its_node() -> None:
    agents = _running(3, bare_pod(nodeName="n1"))
    agents.down = {"n1"}
    _steps(agents, until_s=900)
    [pod] = agents.world.pods.values()
    assert (pod.node, pod.lost, pod.stop) == ("n1", None, None)


def test_on_return_the_healthy_originals_stay_and_their_replacements_stop() -> None:
    agents = _running(3, deployment(replicas=6))
    originals = set(agents.world.pods)
    agents.down = {"n1"}
    _steps(agents, until_s=600)
    agents.down = set()
    agents.settle(20)
    assert set(agents.world.pods) == originals
    assert len(agents.started) == 6 + 2  # nothing healthy was started again


def test_on_return_a_pod_that_no_longer_runs_gives_way_to_its_healthy_replacement() -> None:
    agents = _running(3, deployment(replicas=3))
    [lost] = [uid for uid, pod in agents.world.pods.items() if pod.node == "n1"]
    agents.down = {"n1"}
    _steps(agents, until_s=600)
    agents.pods["n1"] = {}
    agents.wanted.pop("n1")  # the host was set up anew, and remembers nothing
    agents.down = set()
    agents.settle(20)
    assert lost not in agents.world.pods
    assert agents.started.count(lost) == 1


def test_a_lost_pod_of_an_old_revision_stops_on_return_though_the_new_one_is_not_available() -> None:
    """The rollout went on without it: it no longer counts, and the invariant of availability does not hold it."""
    web = deployment(
        replicas=1, strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    )
    agents = _running(3, web)
    [old] = agents.world.pods.values()
    agents.down = {old.node}
    _steps(agents, until_s=600)
    agents.world = put(agents.world, edited(next(iter(agents.world.deployments.values())), template("web:2")))
    _steps(agents, until_s=600)
    [new] = [pod for pod in agents.world.pods.values() if pod.lost is None]
    agents.pods[new.node] = {uid: replace(report, ready=False) for uid, report in agents.pods[new.node].items()}
    agents.down = set()
    plan = agents.step()
    assert [change.record.meta.uid for change in _verbs(plan, "stop")] == [old.meta.uid]


def test_the_plan_says_when_the_next_toleration_ends() -> None:
    agents = _running(3, deployment(replicas=3))
    agents.down = {"n1"}
    plans = dict(_steps(agents, until_s=240))
    assert [plans[at_s].wake_s for at_s in (60, 120, 240)] == [240, 180, 60]


def test_the_plan_says_when_the_next_node_may_be_given_up() -> None:
    agents = _running(10, deployment(replicas=10))
    agents.down = {"n1", "n2"}
    agents.step_s = 20
    plans = dict(_steps(agents, until_s=320))
    assert (plans[300].wake_s, plans[320].wake_s) == (60, 40)


# ---- not used ------------------------------------------------------------------------------------------------------------


def test_one_agent_under_two_names_is_used_under_neither() -> None:
    start = with_sightings(cluster(3), n2=seen("n2", agent="agent-n1"))
    plan = reconcile(start, moment())
    assert {name: view.state for name, view in plan.nodes.items()} == {
        "n1": "Quarantined",
        "n2": "Quarantined",
        "n3": "Ready",
    }
    assert set(plan.wanted) == {"n3"}
    assert "n1 and n2" in plan.notes[0]


@pytest.mark.parametrize("second", ["agent-n1", "agent-new"], ids=["swapped", "moved on"])
def test_machines_that_changed_places_in_the_inventory_get_each_others_orders_under_neither_name(second: str) -> None:
    """What n1 is told to run would start on the machine of n2, while that of n1 still runs it."""
    start = with_sightings(cluster(3), n1=seen("n1", agent="agent-n2"), n2=seen("n2", agent=second))
    plan = reconcile(start, moment())
    assert set(plan.wanted) == {"n3"}
    assert "the machines of n1 and n2 have changed places" in plan.notes[0]
    there_again = after(start, plan)
    assert [there_again.nodes[name].agent for name in ("n1", "n2")] == ["agent-n1", "agent-n2"]
    mended = with_sightings(there_again, n1=seen("n1"), n2=seen("n2"))
    assert set(reconcile(mended, moment(60)).wanted) == {"n1", "n2", "n3"}


def test_another_machine_under_a_nodes_name_gets_its_pods_only_once_a_person_says_that_the_node_is_dead() -> None:
    """Its address was changed in the inventory; the machine that it was may be alive and run them."""
    agents = Agents(cluster(2, stateful_set(replicas=2), deployment("api", replicas=2)), machines={"n1": "old"})
    agents.settle(40)
    there = {uid for uid, pod in agents.world.pods.items() if pod.node == "n1"}
    agents.exchange("n1", "new")
    for _ in range(5):
        plan = agents.step()
        assert set(plan.wanted) == {"n2"}
    assert "another machine answers as n1" in plan.nodes["n1"].why
    assert {uid for uid, pod in agents.world.pods.items() if pod.node == "n1"} >= there, "nothing is given up for that"

    agents.world = changed(agents.world, verbs.confirm_dead(agents.world.nodes["n1"], "wiped"))
    assert agents.step().nodes["n1"].state == "Dead"
    assert agents.settle(40).nodes["n1"].state == "Ready"
    assert (agents.world.nodes["n1"].agent, agents.world.nodes["n1"].host_key) == ("agent-new", "SHA256:new")
    assert [pod.report is not None and pod.report.ready for pod in agents.world.pods.values()] == [True] * 4


def test_a_node_in_whose_place_another_machine_answers_is_silent() -> None:
    """Its shared pods are replaced after their toleration, and it counts for the brake."""
    agents = Agents(cluster(4, deployment(replicas=4)), machines={"n1": "old"})
    agents.settle(20)
    there = {uid for uid, pod in agents.world.pods.items() if pod.node == "n1"}
    agents.exchange("n1", "new")
    agents.down = {"n2", "n3"}
    for _ in range(70):
        plan = agents.step()
    assert plan.brake.startswith("3 of 4 nodes do not answer")
    agents.down = set()
    for _ in range(70):
        plan = agents.step()
    assert (plan.nodes["n1"].state, plan.brake) == ("Quarantined", "")
    assert {uid for uid, pod in agents.world.pods.items() if pod.lost is not None} == there
    assert [pod.node == "n1" for pod in agents.world.pods.values() if pod.lost is None] == [False] * 4


def test_pods_of_a_job_that_have_ended_do_not_keep_the_next_machine_out() -> None:
    """Nobody gives them up: they stay for their logs, or for ever."""
    agents = Agents(cluster(1, job("sum")), machines={"n1": "old"}, ends={"sum:1": [0]})
    agents.settle(20)
    agents.exchange("n1", "new")
    agents.step()
    agents.world = changed(agents.world, verbs.confirm_dead(agents.world.nodes["n1"], "wiped"))
    assert agents.settle(20).nodes["n1"].state == "Ready"
    assert agents.started == [*{*agents.started}], "what it has done is not done again"


@pytest.mark.parametrize(
    ("agent", "key"), [("agent-new", "SHA256:old"), ("agent-old", "SHA256:new")], ids=["state lost", "key renewed"]
)
def test_a_machine_is_known_by_its_agent_or_by_its_key(agent: str, key: str) -> None:
    """An agent that lost its state has another identity; another key is one that a person has trusted."""
    start = with_sightings(
        cluster(0, node("n1", agent="agent-old", host_key="SHA256:old")), n1=seen("n1", agent=agent, host_key=key)
    )
    plan = reconcile(start, moment())
    assert plan.nodes["n1"].state == "Ready"
    known = after(start, plan).nodes["n1"]
    assert (known.agent, known.host_key) == (agent, key)


def test_a_renamed_host_says_how_the_old_name_is_forgotten_and_is_a_node_again_after_that() -> None:
    told = {"old": seen("old"), "new": seen("new", agent="agent-old")}
    plan = reconcile(world(node("old", orphaned=True), host("new"), sightings=told), moment())
    assert {name: view.state for name, view in plan.nodes.items()} == {"old": "Quarantined", "new": "Quarantined"}
    assert "sshoal node forget old --force" in plan.nodes["new"].why
    forgotten = world(host("new"), sightings={"new": told["new"]})
    assert [change.subject for change in reconcile(forgotten, moment()).changes if change.verb == "create"] == [
        "node new"
    ]


def test_a_cloned_machine_is_told_how_to_get_an_agent_of_its_own() -> None:
    plan = reconcile(with_sightings(cluster(2), n2=seen("n2", agent="agent-n1")), moment())
    assert "rm -r /var/lib/sshoal/documents;" in plan.nodes["n2"].why  # its identity, and its original's orders


def test_a_second_name_for_a_known_agent_makes_no_node() -> None:
    start = world(node("n1"), host("alias"), sightings={"alias": seen("alias", agent="agent-n1"), "n1": unseen()})
    plan = reconcile(start, moment())
    assert not [change for change in plan.changes if change.verb == "create"]
    assert plan.nodes["alias"].state == "Quarantined"


@pytest.mark.parametrize(
    "sighting",
    [
        pytest.param(unseen("key-changed", "host key changed: SHA256:a, trusted was SHA256:b"), id="key changed"),
        pytest.param(unseen("refused", "two controllers hold epoch 3"), id="forked"),
        pytest.param(seen("n1", owner=Owner("another-cluster", Epoch(1, "x"), 1)), id="another cluster's"),
    ],
)
def test_a_quarantined_node_gets_no_commands_and_no_pods(sighting: Sighting) -> None:
    plan = reconcile(with_sightings(cluster(2, deployment(replicas=4)), n1=sighting), moment())
    assert plan.nodes["n1"].state == "Quarantined"
    assert set(plan.wanted) == {"n2"}
    assert {change.record.node for change in plan.changes if change.verb == "bind"} == {"n2"}  # type: ignore[union-attr]


def test_a_stranger_s_answer_does_not_bring_a_dead_node_back() -> None:
    stranger = seen("n1", owner=Owner("another-cluster", Epoch(1, "x"), 1))
    start = with_sightings(cluster(1, node("n2", 2), node("n1", 1, confirmed_dead="wiped")), n1=stranger)
    assert after(start, reconcile(start, moment())).nodes["n1"].confirmed_dead == "wiped"


def test_silence_does_not_end_a_quarantine_but_a_trusted_answer_does() -> None:
    start = with_sightings(cluster(2), n1=unseen("key-changed", "another key"))
    start = after(start, reconcile(start, moment(0)))
    silent = with_sightings(start, n1=unseen())
    assert reconcile(silent, moment(60)).nodes["n1"].state == "Quarantined"
    assert reconcile(with_sightings(start, n1=seen("n1")), moment(60)).nodes["n1"].state == "Ready"


def test_an_orphaned_node_keeps_its_pods_and_gets_no_new_ones() -> None:
    agents = _without_hosts(_running(4, deployment(replicas=4)), "n1")
    agents.world = put(agents.world, edited(next(iter(agents.world.deployments.values())), replicas=10))
    plan = agents.step()
    assert plan.nodes["n1"].state == "Orphaned"
    assert [len(plan.wanted[name].pods) for name in ("n1", "n2", "n3", "n4")] == [1, 3, 3, 3]


def test_an_inventory_that_lost_many_hosts_at_once_is_not_believed_until_a_person_says_so() -> None:
    agents = _without_hosts(_running(4, deployment(replicas=4)), "n1", "n2")
    plan = agents.step()
    assert not plan.changes
    assert "the inventory has lost 2 of 4 hosts (n1, n2)" in plan.notes[0]
    accepted = replace(agents.world.cluster, settings=Settings(accept_inventory_loss=True))
    agents.world = replace(agents.world, cluster=accepted)
    plan = agents.step()
    assert [name for name, view in plan.nodes.items() if view.state == "Orphaned"] == ["n1", "n2"]
    assert not plan.notes


@pytest.mark.parametrize("kind", ["DiskPressure", "RuntimeUnhealthy"])
def test_a_sick_node_keeps_its_pods_and_gets_no_new_ones(kind: str) -> None:
    start = with_sightings(cluster(2, deployment(replicas=2)), n1=seen("n1", conditions=(condition(kind),)))
    plan = reconcile(start, moment())
    assert plan.nodes["n1"].state == "NotReady"
    assert {name: len(item.pods) for name, item in plan.wanted.items()} == {"n1": 0, "n2": 2}


def test_a_node_that_cannot_seal_its_secrets_is_a_node_like_any_other() -> None:
    start = with_sightings(
        cluster(1, deployment(replicas=2)), n1=seen("n1", conditions=(condition("SecretsUnsealed"),))
    )
    plan = reconcile(start, moment())
    assert plan.nodes["n1"].state == "Ready"
    assert len(plan.wanted["n1"].pods) == 2


def test_an_agent_that_lost_its_state_is_taken_back_with_a_warning() -> None:
    plan = reconcile(with_sightings(cluster(1), n1=seen("n1", agent="fresh")), moment())
    [change] = [change for change in plan.changes if not change.quiet]
    assert (change.reason, change.warning, _only_node(plan).agent) == ("AgentReplaced", True, "fresh")


def test_a_no_execute_taint_stops_what_does_not_tolerate_it() -> None:
    agents = _running(2, deployment(replicas=2))
    tainted = host("n1", taints=(taint("maintenance", "NoExecute"),))
    agents.world = replace(agents.world, hosts={**agents.world.hosts, "n1": tainted})
    agents.settle(20)
    assert {pod.node for pod in agents.world.pods.values()} == {"n2"}


def test_a_no_execute_taint_waits_for_toleration_seconds() -> None:
    patient = [{"key": "maintenance", "operator": "Exists", "tolerationSeconds": 100}]
    agents = _running(2, deployment(replicas=2, pods=template(tolerations=patient)))
    tainted = host("n1", taints=(taint("maintenance", "NoExecute"),))
    agents.world = replace(agents.world, hosts={**agents.world.hosts, "n1": tainted})
    agents.step_s = 30
    first = agents.step()
    assert first.wake_s == 100
    assert [at_s for at_s, plan in _steps(agents, until_s=300, start_s=30) if _verbs(plan, "stop")][:1] == [120]


def test_a_pod_that_comes_after_the_taint_has_its_whole_time() -> None:
    patient = [{"key": "maintenance", "operator": "Exists", "tolerationSeconds": 100}]
    agents = Agents(cluster(1))
    agents.world = replace(agents.world, hosts={"n1": host("n1", taints=(taint("maintenance", "NoExecute"),))})
    agents.settle(20)
    agents.seconds = 500.0
    agents.world = put(agents.world, deployment(replicas=1, pods=template(tolerations=patient)))
    agents.step_s = 30
    stops = [at_s for at_s, plan in _steps(agents, until_s=800, start_s=500) if _verbs(plan, "stop")]
    assert 600 <= stops[0] <= 630


# ---- helpers -------------------------------------------------------------------------------------------------------------


def _running(nodes: int, *things: object) -> Agents:
    agents = Agents(cluster(nodes, *things))
    agents.settle(20)
    agents.step_s = 60
    return agents


def _without_hosts(agents: Agents, *names: str) -> Agents:
    hosts = {name: entry for name, entry in agents.world.hosts.items() if name not in names}
    agents.world = replace(agents.world, hosts=hosts)
    return agents


def _steps(agents: Agents, until_s: float, start_s: float = 0.0) -> list[tuple[float, Plan]]:
    """Passes with their time since the first of them."""
    begin_s = agents.seconds - start_s
    plans = []
    while agents.seconds - begin_s <= until_s:
        at_s = agents.seconds - begin_s
        plans.append((at_s, agents.step()))
    return plans


def _verbs(plan: Plan, verb: str) -> list[Change]:
    return [change for change in plan.changes if change.verb == verb]


def _created(plan: Plan, name: str) -> Node:
    return next(
        change.record
        for change in plan.changes
        if isinstance(change.record, Node) and change.record.meta.name == name and change.verb == "create"
    )


def _only_node(plan: Plan) -> Node:
    [*_, last] = [change.record for change in plan.changes if isinstance(change.record, Node)]
    return last


def test_a_clock_that_differs_is_told() -> None:
    told = with_sightings(cluster(3), n1=replace(seen("n1"), skew_s=3600.0), n2=replace(seen("n2"), skew_s=-1.5))
    notes = [note for note in reconcile(told, moment()).notes if "clock" in note]
    assert notes == ["the clock of n1 is 3600 s ahead of this machine's: times that it tells are off"]


def test_a_node_with_an_agent_of_a_newer_protocol_is_told_nothing_and_keeps_its_pods() -> None:
    newer = replace(seen("n1"), conditions=(Condition(AGENT_NEWER, "Protocol", "its agent speaks protocol 1.9"),))
    plan = reconcile(with_sightings(cluster(2, deployment(replicas=4)), n1=newer), moment())
    assert (plan.nodes["n1"].state, plan.nodes["n1"].why) == ("NotReady", "its agent speaks protocol 1.9")
    assert set(plan.wanted) == {"n2"}
    assert not [change for change in plan.changes if change.verb == "remove"]
