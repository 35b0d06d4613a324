"""Nodes are emptied within what budgets allow; replacements are ready elsewhere first where a budget asks for that."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.decide import verbs
from controller.decide.drain import leaving, order_drain
from controller.decide.pods import is_active, ready_ages
from controller.decide.reconcile import reconcile
from controller.model.cluster import Drain, World
from controller.model.errors import UsageError
from controller.model.plan import changed
from controller.model.workloads import Job
from nodeagent.protocol import FAILED, RUNNING_PHASE, STOPPED, SUCCEEDED, PodReport
from tests.agents import Agents
from tests.builders import (
    bare_pod,
    budget,
    cluster,
    daemon_set,
    deployment,
    job,
    moment,
    put,
    stateful_set,
    template,
)
from tests.fakes.podman import exits
from tests.simloop import simulate
from tests.unit.agentworld import World as Host
from tests.unit.agentworld import container, pod


def settled(*things: Any, nodes: int = 3) -> Agents:
    agents = Agents(cluster(nodes, *things))
    agents.settle(60)
    return agents


def drain(agents: Agents, name: str, *, ignore_daemon_sets: bool = False, **intent: Any) -> None:
    node = agents.world.nodes[name]
    changes, _ = order_drain(agents.world, node, Drain(agents.now, **intent), ignore_daemon_sets=ignore_daemon_sets)
    agents.world = changed(agents.world, changes)


def on(world: World, node: str) -> list[str]:
    return sorted(pod.meta.name for pod in world.pods.values() if pod.node == node)


def healthy(agents: Agents) -> int:
    plan = reconcile(agents.observed(), agents.now)
    return len(ready_ages(agents.observed(), plan.nodes))


def test_a_drained_node_is_cordoned_and_its_pods_run_elsewhere() -> None:
    agents = settled(deployment())
    assert on(agents.world, "n1")
    drain(agents, "n1")
    last = agents.settle(60)
    assert on(agents.world, "n1") == []
    assert agents.world.nodes["n1"].cordoned
    assert agents.world.nodes["n1"].drain is None
    assert sum(is_active(pod) for pod in agents.world.pods.values()) == 3
    assert last.is_empty


def test_where_the_budget_lets_none_go_the_replacement_is_ready_first() -> None:
    agents = settled(deployment(), budget(minAvailable=3))
    drain(agents, "n1")
    least = 99
    for _ in range(60):
        agents.step()
        least = min(least, healthy(agents))
        if agents.world.nodes["n1"].drain is None:
            break
    assert least == 3
    agents.settle(60)
    assert on(agents.world, "n1") == []
    assert sum(is_active(pod) for pod in agents.world.pods.values()) == 3


def test_a_stateful_set_s_pod_stops_is_heard_to_have_stopped_and_starts_elsewhere() -> None:
    agents = settled(stateful_set(), budget(maxUnavailable=1))
    [name] = on(agents.world, "n1")
    drain(agents, "n1")
    uid = next(pod.meta.uid for pod in agents.world.pods.values() if pod.meta.name == name)
    seen_together = []
    for _ in range(60):
        agents.step()
        seen_together.append(sum(pod.meta.name == name for pod in agents.world.pods.values()))
    assert max(seen_together) == 1
    again = next(pod for pod in agents.world.pods.values() if pod.meta.name == name)
    assert (again.meta.uid != uid, again.node in ("n2", "n3")) == (True, True)
    assert agents.world.nodes["n1"].drain is None


def test_a_budget_that_a_stateful_set_can_never_keep_holds_the_drain_up_and_says_so() -> None:
    agents = settled(stateful_set(), budget(maxUnavailable=0))
    drain(agents, "n1")
    for _ in range(20):
        plan = agents.step()
    assert len(on(agents.world, "n1")) == 1
    assert not plan.settled
    assert any("disruption budget web allows none to go: 3 healthy, 3 have to be" in line for line in plan.waiting)
    assert plan.is_empty, "waiting writes nothing"


def test_nothing_is_asked_of_a_silent_node_until_it_answers() -> None:
    agents = settled(deployment())
    drain(agents, "n1")
    agents.down = {"n1"}
    plan = agents.step()
    assert not any(pod.stop for pod in agents.world.pods.values())
    assert any(line.startswith("node n1: is drained when it answers again") for line in plan.waiting)
    agents.down = set()
    agents.settle(60)
    assert on(agents.world, "n1") == []


def test_a_silent_node_whose_pods_were_replaced_is_not_drained_while_they_may_run_there() -> None:
    agents = settled(deployment())
    drain(agents, "n1")
    agents.down = {"n1"}
    for _ in range(90):
        plan = agents.step()
    assert sum(is_active(pod) for pod in agents.world.pods.values() if pod.node != "n1") == 3, "all are replaced"
    assert agents.world.nodes["n1"].drain is not None
    assert [why for _, why in leaving(agents.world, agents.world.nodes["n1"])] == ["may still run there"]
    assert any(line.startswith("node n1: is drained when it answers again") for line in plan.waiting)
    agents.down = set()
    agents.settle(60)
    assert (on(agents.world, "n1"), agents.world.nodes["n1"].drain) == ([], None)


def test_a_node_that_is_confirmed_dead_is_drained_without_an_answer() -> None:
    agents = settled(deployment(), bare_pod(nodeName="n1"))
    agents.down = {"n1"}
    agents.step()
    agents.world = changed(agents.world, verbs.confirm_dead(agents.world.nodes["n1"], "powered-off"))
    drain(agents, "n1", force=True)
    agents.settle(60)
    assert agents.world.nodes["n1"].drain is None
    assert "lonely" not in on(agents.world, "n1")


def test_uncordon_ends_a_drain_and_what_was_made_for_it_goes() -> None:
    agents = settled(
        stateful_set(replicas=1),
        deployment("api", pods=_labelled("api")),
        budget(labels={"app": "api"}, minAvailable=3),
    )
    agents.broken = {"web:1"}  # replacements never get ready
    drain(agents, "n1")
    agents.step()
    assert any(pod.handover for pod in agents.world.pods.values())
    agents.world = changed(agents.world, verbs.cordon(agents.world.nodes["n1"], False))
    agents.broken = set()
    agents.settle(60)
    assert not any(pod.handover for pod in agents.world.pods.values())
    assert sum(pod.meta.labels["app"] == "api" for pod in agents.world.pods.values()) == 3
    assert agents.world.nodes["n1"].drain is None


def _labelled(app: str) -> dict[str, Any]:
    return {**template(), "metadata": {"labels": {"app": app}}}


def test_grace_and_selector_are_those_of_the_command() -> None:
    agents = settled(deployment(replicas=6))
    drain(agents, "n1", grace_s=1, selector="app=other")
    agents.step()
    assert not any(pod.stop for pod in agents.world.pods.values())
    drain(agents, "n1", grace_s=1, selector="app=web")
    agents.step()
    stopping = [pod for pod in agents.world.pods.values() if pod.stop is not None]
    assert [pod.stop.grace_s for pod in stopping if pod.stop] == [1, 1]
    assert [why for _, why in leaving(agents.world, agents.world.nodes["n1"])] == ["n1 is drained"] * 2


_EMPTY_DIR = template(volumes=[{"name": "scratch", "emptyDir": {}}])


@pytest.mark.parametrize(
    ("things", "options", "words"),
    [
        ([daemon_set()], {}, "default/web-.* belong to a DaemonSet.*--ignore-daemonsets"),
        ([bare_pod(nodeSelector={"kubernetes.io/hostname": "n1"})], {}, "default/lonely have no owner.*--force"),
        ([deployment(pods=_EMPTY_DIR)], {}, "keep data in emptyDir volumes.*--delete-emptydir-data"),
    ],
)
def test_what_may_not_go_without_more_being_said(things: list[Any], options: dict[str, Any], words: str) -> None:
    agents = settled(*things)
    with pytest.raises(UsageError) as refused:
        drain(agents, "n1", **options)
    assert re.search(words, f"{refused.value.message} {refused.value.hint}")
    assert not agents.world.nodes["n1"].cordoned


def test_with_all_said_daemons_stay_lonely_pods_end_and_scratch_data_goes() -> None:
    lonely = bare_pod(nodeSelector={"kubernetes.io/hostname": "n1"})
    agents = settled(daemon_set("agent"), lonely, deployment("api", pods=_EMPTY_DIR))
    drain(agents, "n1", ignore_daemon_sets=True, force=True, empty_dirs=True)
    agents.settle(60)
    assert [name.rpartition("-")[0] for name in on(agents.world, "n1")] == ["agent"]
    assert not any(pod.meta.name == "lonely" for pod in agents.world.pods.values())


def test_what_has_ended_stays_for_its_logs() -> None:
    lonely = bare_pod(nodeSelector={"kubernetes.io/hostname": "n1"})
    agents = settled(lonely)
    [pod] = agents.world.pods.values()
    assert pod.report is not None
    ended = put(agents.world, replace(pod, report=replace(pod.report, phase=FAILED)))
    changes, pods = order_drain(ended, ended.nodes["n1"], Drain(moment()), ignore_daemon_sets=False)
    assert (len(changes), pods) == (1, ())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.integers(1, 6),
    spec=st.one_of(
        st.integers(0, 6).map(lambda number: {"minAvailable": number}),
        st.integers(0, 100).map(lambda number: {"minAvailable": f"{number}%"}),
        st.integers(0, 6).map(lambda number: {"maxUnavailable": number}),
        st.integers(0, 100).map(lambda number: {"maxUnavailable": f"{number}%"}),
    ),
    kind=st.sampled_from([deployment, stateful_set]),
    dice=st.randoms(use_true_random=False),
)
def test_a_drain_never_takes_healthy_pods_below_the_budget(
    replicas: int, spec: dict[str, Any], kind: Any, dice: Random
) -> None:
    agents = settled(kind(replicas=replicas), budget(**spec), nodes=4)
    names = [f"n{number}" for number in range(1, 5)]
    for name in dice.sample(names, 2):
        drain(agents, name)
    for _ in range(50):
        before = healthy(agents)
        plan = agents.step()
        [item] = agents.world.policies.values()
        evicted = sum(change.reason == "Evicted" for change in plan.changes)
        least: int = item.status.desired_healthy  # type: ignore[union-attr]
        assert not evicted or before - evicted >= least
    if kind is deployment and not _impossible(spec, replicas):
        assert all(agents.world.nodes[name].drain is None for name in names), plan.waiting


def _impossible(spec: dict[str, Any], replicas: int) -> bool:
    """More pods have to be healthy than there ever are: such a budget holds every drain up, as in Kubernetes."""
    least = spec.get("minAvailable")
    return isinstance(least, int) and least > replicas


def test_a_job_s_pod_is_made_anew_elsewhere_and_the_job_still_completes() -> None:
    agents = Agents(cluster(2, job(completions=1)))
    for _ in range(3):
        agents.step()
    [pod] = agents.world.pods.values()
    drain(agents, pod.node)
    for _ in range(20):
        agents.step()
    agents.ends["sum:1"] = [0]
    for _ in range(10):
        agents.step()
    [item] = agents.world.workloads.values()
    assert isinstance(item, Job)
    assert item.status.succeeded == 1
    assert agents.world.nodes[pod.node].drain is None
    assert {one.node for one in agents.world.pods.values()} == {"n1", "n2"} - {pod.node}


DISRUPTED = [{"type": "DisruptionTarget"}]
IGNORES: dict[str, Any] = {"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": DISRUPTED}]}}
GIVES_UP: dict[str, Any] = {"podFailurePolicy": {"rules": [{"action": "FailJob", "onPodConditions": DISRUPTED}]}}


@pytest.mark.parametrize("passes", [0, 1, 3], ids=lambda count: f"{count} passes before it has stopped")
@pytest.mark.parametrize(
    ("code", "spec", "succeeded", "failed", "reason"),
    [
        (None, {"backoffLimit": 1}, 0, 1, ""),
        (None, {"backoffLimit": 0}, 0, 1, "BackoffLimitExceeded"),
        (None, {"backoffLimit": 0, **IGNORES}, 0, 0, ""),
        (None, GIVES_UP, 0, 1, "PodFailurePolicy"),
        (0, {"backoffLimit": 0}, 1, 0, "CompletionsReached"),
        (1, {"backoffLimit": 0, **IGNORES}, 0, 1, "BackoffLimitExceeded"),
    ],
    ids=["running", "the last that may fail", "ignored", "fails the job", "had succeeded", "had failed"],
)
def test_a_drained_pod_of_a_job_counts_the_same_however_soon_it_has_stopped(
    code: int | None, spec: dict[str, Any], succeeded: int, failed: int, reason: str, passes: int
) -> None:
    """`code`: how it ends by itself after the pass has looked, before the order is there."""
    agents = Agents(cluster(2, job(completions=1, **spec)))
    for _ in range(3):
        agents.step()
    [pod] = agents.world.pods.values()
    drain(agents, pod.node)
    obey = agents._advance

    def late(name: str) -> Any:
        reports = agents.pods[name]
        if name == pod.node and code is not None and reports[pod.meta.uid].phase == RUNNING_PHASE:
            reports[pod.meta.uid] = agents._ended(reports[pod.meta.uid], [code])
        return reports if passes else obey(name)

    agents._advance = late  # type: ignore[method-assign]
    for _ in range(max(1, passes)):
        agents.step()
    agents._advance = obey  # type: ignore[method-assign]
    for _ in range(8):
        agents.step()
    [item] = agents.world.workloads.values()
    assert isinstance(item, Job)
    assert (item.status.succeeded, item.status.failed) == (succeeded, failed)
    assert [one.reason for one in item.status.conditions if one.kind in ("Complete", "Failed")] == [reason] * bool(
        reason
    )
    assert agents.world.nodes[pod.node].drain is None
    assert pod.meta.uid not in agents.world.pods, "counted, it goes"


@pytest.mark.parametrize(
    ("image", "before", "verdict"),
    [("good", SUCCEEDED, "Succeeded"), ("bad", FAILED, "Failed"), ("serve", RUNNING_PHASE, "Ignored")],
)
def test_an_agent_s_last_word_tells_whether_a_pod_had_ended_before_it_was_to_stop(
    image: str, before: str, verdict: str
) -> None:
    """What a Job relies on, from the agent itself."""

    async def last_word() -> PodReport:
        host = Host(images={"good": exits(0, 1.0), "bad": exits(1, 1.0)})
        await host.start()
        one = pod(restart="Never", containers=(container(image=image),))
        await host.want(one)
        await host.until(one.uid, lambda report: report.phase == before)
        await host.want(replace(one, stop=True))
        said = await host.until(one.uid, lambda report: report.phase == STOPPED)
        await host.agent.close()
        return said

    said = simulate(last_word())
    agents = Agents(cluster(1, job(completions=1, **IGNORES)))
    for _ in range(3):
        agents.step()
    [ours] = agents.world.pods.values()
    drain(agents, ours.node)
    agents._advance = lambda name: {ours.meta.uid: replace(said, uid=ours.meta.uid)}  # type: ignore[method-assign]
    for _ in range(2):
        agents.step()
    assert agents.world.pods[ours.meta.uid].verdict == verdict
