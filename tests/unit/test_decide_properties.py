"""What holds for every small world and every course of events. Hypothesis looks for the exception."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.decide.pods import is_active, ready_ages
from controller.decide.reconcile import reconcile
from controller.decide.shapes import spec_of
from controller.model.cluster import Deployment, World
from controller.model.plan import Plan
from nodeagent.protocol import PENDING, STOPPED
from tests.agents import Agents
from tests.builders import (
    after,
    bare_pod,
    cluster,
    deployment,
    edited,
    host,
    job,
    moment,
    put,
    replica_set,
    template,
    unseen,
    world,
)

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

amounts = st.one_of(st.integers(0, 4), st.sampled_from(["0%", "25%", "50%", "100%"]))


@st.composite
def strategies(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.integers(0, 4)) == 0:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": draw(amounts), "maxUnavailable": draw(amounts)}}


_WEB = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

wishes = st.sampled_from(
    [
        {},
        {"topologySpreadConstraints": [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", **_WEB}]},
        {"affinity": {"podAntiAffinity": {_REQUIRED: [_WEB]}}},
        {"affinity": {"podAffinity": {_REQUIRED: [_WEB]}}},
        {"nodeSelector": {"kubernetes.io/hostname": "n1"}},
        {"priorityClassName": "system-cluster-critical"},
    ]
)


@st.composite
def deployments(draw: st.DrawFn, name: str = "web") -> Deployment:
    requests = draw(st.sampled_from([{}, {"cpu": "500m"}, {"memory": "1Gi", "cpu": "250m"}]))
    return deployment(
        name,
        draw(st.integers(0, 8)),
        template("web:1", requests=requests, **draw(wishes)),
        strategy=draw(strategies()),
        minReadySeconds=draw(st.sampled_from([0, 0, 8])),
        revisionHistoryLimit=draw(st.integers(0, 2)),
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    hosts = [host(f"n{number}") for number in range(1, draw(st.integers(1, 5)) + 1)]
    things: list[Any] = [draw(deployments("web"))]
    if draw(st.booleans()):
        things.append(draw(deployments("api")))
    if draw(st.booleans()):
        things.append(replica_set(replicas=draw(st.integers(0, 3))))
    if draw(st.booleans()):
        things.append(bare_pod())
    if draw(st.booleans()):  # its pods end, and stay for their logs
        port = {"containerPort": 80, "hostPort": 8080}
        things.append(job("sum", template("sum:1", restartPolicy="Never", requests={"cpu": "1"}, ports=[port])))
    return world(*hosts, *things)


def _agents(start: World, step_s: float = 5.0) -> Agents:
    return Agents(start, step_s=step_s, ends={"sum:1": [0]})


@quick
@given(worlds())
def test_every_world_comes_to_rest_and_then_nothing_changes(start: World) -> None:
    agents = _agents(start)
    last = agents.settle(40)
    assert last.is_empty
    assert reconcile(agents.observed(), agents.now).is_empty


@quick
@given(worlds(), st.lists(st.sampled_from(range(10)), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_every_world_comes_to_rest_after_faults_and_edits(start: World, acts: list[int], dice: Random) -> None:
    agents = _agents(start, step_s=40.0)
    for act in acts:
        _DISTURBANCES[act](agents, dice)
        for _ in range(dice.randint(0, 12)):
            agents.step()
    agents.down.clear()
    agents.broken.clear()
    agents.world = replace(agents.world, hosts=start.hosts)
    for node in list(agents.world.nodes.values()):
        agents.world = put(agents.world, replace(node, cordoned=False))
    last = agents.settle(80)
    assert last.is_empty
    assert len(agents.started) == len(set(agents.started))
    running = {uid for reports in agents.pods.values() for uid in reports}
    assert running == {uid for uid, pod in agents.world.pods.items() if pod.node}


def _some_silent(agents: Agents, dice: Random) -> None:
    agents.down = {name for name in sorted(agents.world.hosts) if dice.random() < 0.4}


def _all_silent(agents: Agents, dice: Random) -> None:
    agents.down = set(agents.world.hosts)


def _new_template(agents: Agents, dice: Random) -> None:
    if webs := _webs(agents):
        agents.world = put(agents.world, edited(dice.choice(webs), template(f"web:{dice.randint(1, 4)}")))


def _other_size(agents: Agents, dice: Random) -> None:
    if webs := _webs(agents):
        agents.world = put(agents.world, edited(dice.choice(webs), replicas=dice.randint(0, 8)))


def _bad_image(agents: Agents, dice: Random) -> None:
    agents.broken = {f"web:{dice.randint(1, 4)}"}


def _deletion(agents: Agents, dice: Random) -> None:
    if webs := _webs(agents):
        chosen = dice.choice(webs)
        agents.world = put(agents.world, replace(chosen, meta=replace(chosen.meta, deleting=agents.now)))


def _reboot(agents: Agents, dice: Random) -> None:
    name = dice.choice(sorted(agents.world.hosts) or ["n1"])
    agents.pods[name] = {
        uid: replace(report, phase=PENDING, ready=False, ready_since_s=0.0)
        for uid, report in agents.pods.get(name, {}).items()
        if report.phase != STOPPED
    }


def _confirmed_dead(agents: Agents, dice: Random) -> None:
    for name in sorted(agents.down & set(agents.world.nodes)):
        agents.world = put(agents.world, replace(agents.world.nodes[name], confirmed_dead="powered-off"))


def _cordon(agents: Agents, dice: Random) -> None:
    for node in list(agents.world.nodes.values()):
        agents.world = put(agents.world, replace(node, cordoned=dice.random() < 0.5))


def _out_of_the_inventory(agents: Agents, dice: Random) -> None:
    """And the controller may have been away meanwhile."""
    left = {name: entry for name, entry in agents.world.hosts.items() if dice.random() < 0.7}
    agents.world = replace(agents.world, hosts=left)
    agents.seconds += dice.choice([0, 7200])


def _webs(agents: Agents) -> list[Deployment]:
    return [item for item in agents.world.deployments.values() if item.meta.deleting is None]


_DISTURBANCES = (
    _some_silent,
    _all_silent,
    _new_template,
    _other_size,
    _bad_image,
    _deletion,
    _reboot,
    _confirmed_dead,
    _cordon,
    _out_of_the_inventory,
)


@quick
@given(
    deployments(), st.lists(st.sampled_from(["web:2", "web:3", "bad:1", "web:1"]), min_size=1, max_size=3), st.data()
)
def test_rollouts_keep_enough_available_and_never_too_many_pods(
    start: Deployment, images: list[str], data: Any
) -> None:
    agents = Agents(cluster(4, start), broken={"bad:1"})
    agents.settle(40)
    spec = spec_of(start)
    rolling = spec.strategy.rolling_update
    least = spec.replicas - (rolling.unavailable(spec.replicas) if rolling else spec.replicas)
    most = spec.replicas + (rolling.surge(spec.replicas) if rolling else 0)
    if _available(agents) < least:
        return  # it never fitted: promises are about what runs

    def check(plan: Plan) -> None:
        assert _available(agents) >= least
        assert sum(is_active(pod) for pod in agents.world.pods.values()) <= most

    for image in images:
        [web] = agents.world.deployments.values()
        agents.world = put(agents.world, edited(web, template(image)))
        for _ in range(data.draw(st.integers(1, 6))):
            check(agents.step())
    agents.settle(60, check)


def _available(agents: Agents) -> int:
    """Pods that are available once the plan of the last step is carried out, by what their agents said before it."""
    views = reconcile(agents.observed(), agents.now).nodes
    ages = ready_ages(agents.world, views)
    owners = {
        pod.meta.uid: agents.world.replica_sets.get(pod.meta.owner.uid if pod.meta.owner else "")
        for pod in agents.world.pods.values()
    }
    return sum(age >= owner.min_ready_s for uid, age in ages.items() if (owner := owners[uid]) is not None)


@quick
@given(worlds(), st.integers(0, 6), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_change_the_plan(start: World, steps: int, dice: Random) -> None:
    agents = _agents(start)
    for _ in range(steps):
        agents.step()
    seen = agents.observed()
    assert reconcile(_shuffled(seen, dice), agents.now) == reconcile(seen, agents.now)


def _shuffled(start: World, dice: Random) -> World:
    tables: dict[str, Any] = {}
    for name in ("hosts", "nodes", "sightings", "declared", "deployments", "replica_sets", "pods"):
        items = list(getattr(start, name).items())
        dice.shuffle(items)
        tables[name] = dict(items)
    return replace(start, **tables)


@quick
@given(worlds(), st.integers(1, 30))
def test_nothing_is_evicted_when_no_host_answers(start: World, steps: int) -> None:
    agents = _agents(start, step_s=60.0)
    agents.settle(40)
    agents.down = set(agents.world.hosts)
    for _ in range(steps):
        plan = agents.step()
        assert not [change for change in plan.changes if change.verb in ("evict", "stop", "remove", "create")]
    assert all(pod.lost is None for pod in agents.world.pods.values())


@quick
@given(worlds())
def test_a_plan_applied_is_a_fixed_point_while_nothing_else_happens(start: World) -> None:
    settled = after(start, reconcile(start, moment()))
    assert reconcile(settled, moment()).is_empty


@quick
@given(worlds(), st.data())
def test_silence_alone_writes_a_series_and_no_more(start: World, data: Any) -> None:
    agents = _agents(start)
    agents.settle(40)
    down = data.draw(st.sampled_from(sorted(agents.world.hosts)))
    silent = replace(agents.observed(), sightings={**agents.observed().sightings, down: unseen()})
    plan = reconcile(silent, agents.now)
    written = {(change.record.meta.kind, change.reason) for change in plan.changes}
    assert written <= {("Node", "NodeUnseen"), ("Deployment", ""), ("Pod", "FailedScheduling")}
