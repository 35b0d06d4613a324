"""Autoscalers: the formula, what is not known, windows, policies, limits, and that a steady load writes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.decide import verbs
from controller.decide.autoscale import autoscale, fastest_down, fastest_up, replicas_of
from controller.decide.pods import is_active
from controller.decide.replicas import Measured, demand
from controller.model.cluster import World
from controller.model.errors import ManifestError
from controller.model.kinds.autoscaling import HorizontalPodAutoscaler, HPAScalingRules, MetricSpec
from controller.model.manifest import load
from controller.model.plan import Plan, changed
from controller.model.policies import Autoscaler, Scaled
from nodeagent.protocol import ContainerUsage, Sample, Usage
from tests.agents import Agents
from tests.builders import autoscaler, cluster, deployment, moment, replica_set, stateful_set, template


def cpu(percent: int) -> MetricSpec:
    target = {"type": "Utilization", "averageUtilization": percent}
    return MetricSpec.model_validate({"type": "Resource", "resource": {"name": "cpu", "target": target}})


CPU_50 = cpu(50)
CPU_500M = MetricSpec.model_validate(
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "500m"}}}
)
TENTH = Fraction(1, 10)


def measured(used: list[int], *, unready: int = 0, missing: int = 0, **fields: Any) -> Measured:
    """Pods that ask for a cpu each and use so many thousandths."""
    names = [f"p{number}" for number in range(len(used) + unready + missing)]
    counted, young, silent = names[: len(used)], names[len(used) : len(used) + unready], names[len(used) + unready :]
    return Measured(
        {name: value * 1000 for name, value in zip(counted, used, strict=True)},
        dict.fromkeys(names, 1_000_000),
        frozenset(young),
        frozenset(silent),
        **fields,
    )


# ---- one metric ----


@pytest.mark.parametrize("metric", [CPU_50, CPU_500M], ids=["utilization", "average value"])
@pytest.mark.parametrize(
    ("pods", "current", "wanted"),
    [
        pytest.param(measured([900, 900, 900]), 3, 6, id="ceil(3 × 90/50)"),
        pytest.param(measured([500, 500, 500]), 3, 3, id="on target"),
        pytest.param(measured([550, 550, 550]), 3, 3, id="a tenth above is near enough"),
        pytest.param(measured([560, 560, 560]), 3, 4, id="more than a tenth above"),
        pytest.param(measured([450, 450, 450]), 3, 3, id="a tenth below is near enough"),
        pytest.param(measured([100, 100, 100]), 3, 1, id="ceil(3 × 10/50)"),
        pytest.param(measured([0, 0, 0]), 3, 0, id="nothing used: nothing wanted, minReplicas holds"),
        pytest.param(measured([800, 800], missing=1), 3, 3, id="missing is 0 when going up, which ends near the target"),
        pytest.param(measured([1500, 1500], missing=1), 3, 6, id="missing is 0 when going up: ceil(3 × 100/50)"),
        pytest.param(measured([600, 600], missing=2), 4, 4, id="missing turns up into down: nothing"),
        pytest.param(measured([1500], unready=2), 3, 3, id="not ready is 0 when going up: ends on target"),
        pytest.param(measured([3000], unready=2), 3, 6, id="not ready is 0 when going up: ceil(3 × 100/50)"),
        pytest.param(measured([100, 100], unready=2), 4, 1, id="not ready does not count when going down: ceil(2 × 10/50)"),
        pytest.param(measured([600], unready=1), 2, 2, id="not ready turns up into down: nothing"),
    ],
)  # fmt: skip
def test_what_a_metric_asks_for(metric: MetricSpec, pods: Measured, current: int, wanted: int) -> None:
    assert demand(metric, pods, current, TENTH, TENTH).replicas == wanted


@pytest.mark.parametrize(
    ("metric", "pods", "current", "wanted"),
    [
        pytest.param(CPU_50, measured([100, 100], missing=1), 3, 3, id="all of the request: ceil(3 × 40/50)"),
        pytest.param(CPU_50, measured([200, 200, 200], missing=1), 4, 4, id="all of the request: ceil(4 × 40/50)"),
        pytest.param(CPU_50, measured([0, 0, 0], missing=1), 4, 2, id="all of the request: ceil(4 × 25/50)"),
        pytest.param(
            CPU_50, measured([400, 400], missing=2), 4, 4, id="all of the request turns down into up: nothing"
        ),
        pytest.param(
            cpu(100), measured([200, 200], missing=2), 4, 3, id="of a target of 100 the same: ceil(4 × 60/100)"
        ),
        pytest.param(cpu(200), measured([500, 500], missing=2), 4, 3, id="a target above 100: ceil(4 × 125/200)"),
        pytest.param(CPU_500M, measured([100, 100], missing=1), 3, 2, id="the average value: ceil(3 × 233/500)"),
        pytest.param(CPU_500M, measured([400, 400], missing=2), 4, 4, id="the average value: 450 is near enough"),
    ],
)
def test_with_what_a_pod_without_figures_counts_on_the_way_down(
    metric: MetricSpec, pods: Measured, current: int, wanted: int
) -> None:
    """Kubernetes' GetResourceReplicas: with all that it asks for, or the target when that is more; of a plain value with the target."""
    assert demand(metric, pods, current, TENTH, TENTH).replicas == wanted


def test_a_metric_says_why_it_asks_for_nothing() -> None:
    assert "no pod has told yet what cpu it uses" in demand(CPU_50, measured([], unready=2), 2, TENTH, TENTH).trouble
    trouble = "container main of pod a has no request for cpu"
    assert demand(CPU_50, measured([100], trouble=trouble), 1, TENTH, TENTH).trouble == trouble


def test_tolerances_of_both_directions_are_their_own() -> None:
    assert demand(CPU_50, measured([500, 510]), 2, Fraction(0), TENTH).replicas == 2  # 50 %: percent are whole numbers
    assert demand(CPU_50, measured([520, 520]), 2, Fraction(0), TENTH).replicas == 3
    assert demand(CPU_50, measured([300, 300]), 2, TENTH, Fraction(1, 2)).replicas == 2


# ---- policies ----


def rules(**fields: Any) -> HPAScalingRules:
    return HPAScalingRules.model_validate(fields)


PODS_4 = {"type": "Pods", "value": 4, "periodSeconds": 60}
DOUBLE = {"type": "Percent", "value": 100, "periodSeconds": 15}


@pytest.mark.parametrize(
    ("given", "current", "scaled", "most"),
    [
        ({"policies": [PODS_4]}, 10, [], 14),
        ({"policies": [PODS_4]}, 10, [(3, 30)], 11),  # 7 were there a minute ago
        ({"policies": [PODS_4]}, 10, [(3, 61)], 14),
        ({"policies": [PODS_4]}, 10, [(-2, 30)], 16),
        ({"policies": [DOUBLE]}, 10, [(3, 10)], 14),
        ({"policies": [{**DOUBLE, "value": 10}]}, 1, [], 2),  # 1.1 rounds up
        ({"policies": [PODS_4, DOUBLE]}, 10, [], 20),
        ({"policies": [PODS_4, DOUBLE], "selectPolicy": "Min"}, 10, [], 14),
        ({"policies": [PODS_4], "selectPolicy": "Disabled"}, 10, [], 10),
    ],
)
def test_how_fast_it_may_go_up(given: dict[str, Any], current: int, scaled: list[tuple[int, float]], most: int) -> None:
    history = [Scaled(by, moment(100 - ago_s)) for by, ago_s in scaled]
    assert fastest_up(rules(**given), current, history, moment(100)) == most


@pytest.mark.parametrize(
    ("given", "current", "scaled", "least"),
    [
        ({"policies": [PODS_4]}, 10, [], 6),
        ({"policies": [PODS_4]}, 10, [(-3, 30)], 9),
        ({"policies": [{**DOUBLE, "value": 10}]}, 5, [], 4),  # 4.5 rounds down
        ({"policies": [DOUBLE]}, 10, [], 0),
        ({"policies": [PODS_4, DOUBLE], "selectPolicy": "Min"}, 10, [], 6),
        ({"policies": [PODS_4, DOUBLE]}, 3, [], 0),
        ({"policies": [DOUBLE], "selectPolicy": "Disabled"}, 10, [], 10),
    ],
)
def test_how_fast_it_may_go_down(
    given: dict[str, Any], current: int, scaled: list[tuple[int, float]], least: int
) -> None:
    history = [Scaled(by, moment(100 - ago_s)) for by, ago_s in scaled]
    assert fastest_down(rules(**given), current, history, moment(100)) == least


def test_behaviour_that_is_not_written_is_kubernetes() -> None:
    spec = _model({}).spec
    up, down = spec.behavior.up, spec.behavior.down
    assert (up.stabilization_window_seconds, down.stabilization_window_seconds) == (0, 300)
    assert [(one.type, one.value, one.period_seconds) for one in up.policies or ()] == [
        ("Pods", 4, 15),
        ("Percent", 100, 15),
    ]
    assert [(one.type, one.value, one.period_seconds) for one in down.policies or ()] == [("Percent", 100, 15)]
    assert (up.select_policy, up.tolerance, spec.min_replicas) == ("Max", None, 1)
    [metric] = spec.counted
    assert _model({"metrics": []}).spec.counted == spec.counted
    assert (metric.source.name, metric.source.target.average_utilization) == ("cpu", 80)
    partly = _model({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}}}).spec.behavior.down
    assert (partly.stabilization_window_seconds, len(partly.policies or ())) == (5, 1)


def _model(spec: dict[str, Any]) -> HorizontalPodAutoscaler:
    return HorizontalPodAutoscaler.model_validate(autoscaler(**spec).source)


# ---- over time ----


@dataclass
class Load:
    """A cluster whose pods use what a test says, sampled every 15 s as agents do it."""

    agents: Agents
    each_m: int = 250  # thousandths of a cpu, each pod
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    silent: bool = False  # no samples come

    def step(self) -> Plan:
        """15 s: a sample of each running pod, then a pass."""
        self.agents.world = self.observed()
        agents = self.agents
        observed = agents.observed
        agents.observed = self.observed  # type: ignore[method-assign]
        try:
            return agents.step()
        finally:
            agents.observed = observed  # type: ignore[method-assign]

    def observed(self) -> World:
        world = Agents.observed(self.agents)
        told = dict(world.sightings)
        for name, sighting in told.items():
            reports = self.agents.pods.get(name, {})
            for uid, report in reports.items():
                ring = self.samples.setdefault(uid, [])
                if (
                    report.phase == "Running"
                    and not self.silent
                    and (not ring or ring[-1].at_s < self.agents.boottime_s)
                ):
                    ring.append(Sample(self.agents.boottime_s, 15.0, self.each_m * 1000, 64 * 2**20))
            used = tuple(ContainerUsage(uid, "main", tuple(self.samples[uid][-21:])) for uid in reports)
            told[name] = replace(sighting, usage=Usage(f"boot-{name}", self.agents.boottime_s, (), used))  # type: ignore[arg-type]
        return replace(world, sightings=told)

    def run(self, seconds: float) -> list[int]:
        """How many replicas were wanted after each pass."""
        found = []
        for _ in range(int(seconds // 15)):
            self.step()
            found.append(self.replicas)
        return found

    @property
    def replicas(self) -> int:
        world = self.agents.world
        targets = [*world.deployments.values(), *world.replica_sets.values(), *world.workloads.values()]
        return next(
            replicas_of(one)
            for one in targets
            if one.meta.name in ("web", "bare") and one.meta.kind != "ControllerRevision"
        )

    @property
    def item(self) -> Autoscaler:
        return next(one for one in self.agents.world.policies.values() if isinstance(one, Autoscaler))

    def condition(self, kind: str) -> tuple[bool, str]:
        return next((one.status, one.reason) for one in self.item.status.conditions if one.kind == kind)


PODS = template(requests={"cpu": "500m", "memory": "64Mi"})


def load_on(replicas: int = 2, target: Any = None, **spec: Any) -> Load:
    """Pods that ask for 500m; the target is 50 % of that."""
    metrics = [CPU_50.dump()]
    thing = target or deployment(replicas=replicas, pods=PODS)
    item = autoscaler(target=f"{thing.meta.kind}/{thing.meta.name}", **{"metrics": metrics, **spec})
    agents = Agents(cluster(8, thing, item), step_s=15.0)
    load = Load(agents)
    load.run(420)  # past the first five minutes, on target
    return load


def test_more_load_makes_more_replicas_at_once_and_less_only_after_the_window() -> None:
    load = load_on()
    assert load.replicas == 2
    load.each_m = 450  # 90 % of the requests
    assert load.run(30)[-1] == 4
    load.each_m = 10
    assert set(load.run(270)) == {4}, "the window of 300 s"
    assert load.run(120)[-1] == 1


def test_a_restless_load_shortens_no_window() -> None:
    """Another recommendation every 15 s for most of an hour, the longest window: the highest, long ago, still counts."""
    load = load_on(behavior={"scaleDown": {"stabilizationWindowSeconds": 3600}})
    load.each_m = 500
    assert load.run(30)[-1] == 4
    for restless in range(200):
        load.each_m = (20, 100)[restless % 2]
        load.step()
    assert load.replicas == 4
    assert load.run(900)[-1] < 4


def test_an_autoscaler_does_not_begin_by_taking_away() -> None:
    load = Load(
        Agents(cluster(8, deployment(replicas=5, pods=PODS), autoscaler(metrics=[CPU_50.dump()])), step_s=15.0),
        each_m=1,
    )
    load.run(30)
    began = load.item.status.recommended[0]
    assert (began.replicas, load.replicas) == (5, 5)
    assert load.run(480)[-1] == 1


def test_a_steady_load_writes_nothing() -> None:
    load = load_on()
    plans = [load.step() for _ in range(60)]
    assert all(plan.is_empty for plan in plans), [change.because for plan in plans for change in plan.changes]


def test_what_falls_out_of_the_window_is_no_reason_to_write() -> None:
    load = load_on()
    load.each_m = 450
    load.run(30)
    load.each_m = 225
    load.run(60)
    assert len(load.item.status.recommended) > 1
    plans = [load.step() for _ in range(30)]
    assert all(plan.is_empty for plan in plans), [change.because for plan in plans for change in plan.changes]


def test_scaling_goes_in_steps_of_the_policies() -> None:
    slow = {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
    load = load_on(behavior=slow)
    load.each_m = 500
    seen_ = load.run(150)
    assert sorted(set(seen_)) == [3, 4, 5]
    assert seen_.count(3) == seen_.count(4) == 4  # a minute of each
    assert load.condition("ScalingLimited")[1] in ("ScaleUpLimit", "DesiredWithinRange")


def test_targets_are_kept_within_their_limits_whatever_the_metrics_say() -> None:
    load = load_on(replicas=2, minReplicas=4)
    load.silent = True
    assert load.run(30)[-1] == 4
    assert load.replicas == 4
    high = load_on(replicas=6, maxReplicas=3)
    assert high.replicas == 3


def test_a_target_of_0_replicas_is_left_alone() -> None:
    load = load_on()
    [target] = load.agents.world.deployments.values()
    load.agents.world = changed(load.agents.world, verbs.scale(load.agents.world, target, 0))
    load.each_m = 500
    assert set(load.run(120)) == {0}
    assert load.condition("ScalingActive") == (False, "ScalingDisabled")


def test_an_error_of_one_metric_keeps_it_from_going_down_but_not_up() -> None:
    side = {"name": "cpu", "container": "side", "target": {"type": "Utilization", "averageUtilization": 50}}
    unknown = {"type": "ContainerResource", "containerResource": side}
    load = load_on(metrics=[CPU_50.dump(), unknown], behavior={"scaleDown": {"stabilizationWindowSeconds": 0}})
    load.each_m = 10
    assert set(load.run(60)) == {2}
    assert load.condition("ScalingActive") == (False, "FailedGetResourceMetric")
    load.each_m = 450
    assert load.run(30)[-1] == 4
    assert load.condition("ScalingActive") == (True, "ValidMetricFound")


def test_of_several_metrics_the_one_that_asks_for_most_counts() -> None:
    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "16Mi"}},
    }
    load = load_on(metrics=[CPU_50.dump(), memory])
    assert load.replicas == 10  # each uses 64Mi: four times the target, again and again, up to maxReplicas
    assert load.condition("ScalingLimited") == (True, "TooManyReplicas")


def test_without_samples_nothing_is_done_and_the_reason_told() -> None:
    load = load_on()
    load.silent = True
    load.samples.clear()
    assert set(load.run(120)) == {2}
    [active] = [one for one in load.item.status.conditions if one.kind == "ScalingActive"]
    assert (active.status, active.reason) == (False, "FailedGetResourceMetric")
    assert "no pod has told yet what cpu it uses" in active.message


def test_a_target_that_is_not_there_is_told() -> None:
    world = cluster(1, autoscaler(target="Deployment/gone"))
    [change] = autoscale(world, {}, moment()).changes
    assert (change.reason, change.because) == ("FailedGetScale", "there is no Deployment gone in namespace default")
    assert autoscale(changed(world, [change]), {}, moment(60)).changes == ()


@pytest.mark.parametrize("target", [stateful_set(replicas=2, pods=PODS), replica_set(replicas=2, pods=PODS)])
def test_stateful_sets_and_replica_sets_are_scaled_as_well(target: Any) -> None:
    load = load_on(target=target)
    load.each_m = 450
    assert load.run(30)[-1] == 4


def test_apply_without_replicas_keeps_what_the_autoscaler_set() -> None:
    load = load_on()
    load.each_m = 450
    load.run(30)
    [target] = load.agents.world.deployments.values()
    written = {**target.source, "spec": {key: item for key, item in target.source["spec"].items() if key != "replicas"}}
    manifests = load_manifest(json.dumps(written))
    applied = verbs.apply(load.agents.world, manifests, lambda values: "", moment(1000))
    assert [one.outcome for one in applied] == ["unchanged"]


def load_manifest(text: str) -> Any:
    return load(text, "web.yaml").manifests


def test_in_cron_mode_a_peak_between_two_passes_holds_scaling_down_up() -> None:
    """One pass a minute. The load ends; the only peak afterwards lies between two passes, and nobody but the agents has seen it."""
    load = load_on(replicas=4)
    assert load.replicas == 4
    found = []
    for minute in range(11):
        for quarter in range(4):
            load.each_m = 400 if (minute, quarter) == (3, 0) else 10
            if quarter < 3:  # samples that no pass sees when they are made
                load.agents.seconds += 15.0
                load.agents.boottime_s += 15.0
                load.observed()
        load.step()
        found.append(load.replicas)
    assert found[:8] == [4] * 8, "300 s from the peak, not from the end of the load before"
    assert found[-1] == 1


def test_pods_in_their_first_minutes_count_once_a_whole_sample_lies_after_they_got_ready() -> None:
    agents = Agents(cluster(3, deployment(replicas=2, pods=PODS), autoscaler(metrics=[CPU_50.dump()])), step_s=15.0)
    load = Load(agents, each_m=500)  # starting costs all there is
    load.run(30)
    assert load.replicas == 2, "the samples of the start say nothing"
    load.run(60)
    assert load.replicas > 2


def test_what_a_host_says_of_pods_of_other_hosts_counts_for_nothing() -> None:
    load = load_on()
    world = load.observed()
    before = autoscale(world, _ready(load), load.agents.now).changes
    lies = tuple(
        ContainerUsage(uid, "main", (Sample(load.agents.boottime_s, 15.0, 9_000_000, 1),)) for uid in world.pods
    )
    empty = next(name for name in world.nodes if not any(pod.node == name for pod in world.pods.values()))
    sighting = replace(world.sightings[empty], usage=Usage("boot", load.agents.boottime_s, (), lies))  # type: ignore[arg-type]
    lied = replace(world, sightings={**world.sightings, empty: sighting})
    assert autoscale(lied, _ready(load), load.agents.now).changes == before


def _ready(load: Load) -> dict[str, float]:
    return dict.fromkeys(load.agents.world.pods, 400.0)


# ---- what must always hold ----


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    loads=st.lists(st.integers(0, 600), min_size=4, max_size=16),
    least=st.integers(1, 4),
    more=st.integers(0, 8),
    start=st.integers(1, 10),
)
def test_it_never_leaves_its_limits(loads: list[int], least: int, more: int, start: int) -> None:
    thing = deployment(replicas=start, pods=PODS)
    item = autoscaler(metrics=[CPU_50.dump()], minReplicas=least, maxReplicas=least + more)
    load = Load(Agents(cluster(8, thing, item), step_s=15.0))
    for each_m in loads:
        load.each_m = each_m
        load.step()
        assert least <= load.replicas <= least + more


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(loads=st.lists(st.integers(0, 600), min_size=10, max_size=40))
def test_it_never_goes_down_within_the_window_of_going_up(loads: list[int]) -> None:
    load = load_on()
    history: list[int] = [load.replicas]
    for each_m in loads:
        load.each_m = each_m
        load.step()
        history.append(load.replicas)
        if history[-1] < history[-2]:
            window = history[-21:-1]  # 300 s
            assert history[-1] >= 1
            assert window == sorted(window, reverse=True), "it went up within the last 300 s, and now down"


def _of(name: str, **target: Any) -> dict[str, Any]:
    return {"type": "Resource", "resource": {"name": name, "target": target}}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"maxReplicas": 0}, "spec.maxReplicas"),
        ({"minReplicas": 5, "maxReplicas": 4}, "spec.maxReplicas: may not be less than minReplicas, which is 5"),
        ({"minReplicas": 0}, "spec.minReplicas"),
        ({"metrics": [{"type": "External", "external": {}}]}, r"spec.metrics\[0\].type: External: Kubernetes has it"),
        ({"metrics": [{"type": "Resource"}]}, r"spec.metrics\[0\].resource: is required when type is Resource"),
        ({"metrics": [_of("disk", type="Utilization", averageUtilization=1)]}, "must be"),
        ({"metrics": [_of("cpu", type="Utilization")]}, "averageUtilization: is required"),
        ({"metrics": [_of("cpu", type="Value", value="1")]}, "Value: Kubernetes has it"),
        ({"behavior": {"scaleUp": {"policies": []}}}, "spec.behavior.scaleUp.policies: must have one policy at least"),
        ({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}}, "stabilizationWindowSeconds"),
        ({"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}}, "periodSeconds"),
        ({"scaleTargetRef": {"kind": "Job", "name": "x"}}, "spec.scaleTargetRef.kind"),
    ],
)  # fmt: skip
def test_autoscalers_that_make_no_sense_are_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        load(json.dumps(autoscaler(**spec).source), "hpa.yaml")


def test_nothing_of_a_deployment_is_touched_but_its_number_of_replicas() -> None:
    load = load_on()
    [before] = load.agents.world.deployments.values()
    load.each_m = 450
    load.run(30)
    [after_] = load.agents.world.deployments.values()
    without = [{key: item for key, item in one.source["spec"].items() if key != "replicas"} for one in (before, after_)]
    assert without[0] == without[1]
    assert before.template_hash == after_.template_hash
    assert sum(is_active(pod) for pod in load.agents.world.pods.values()) == 4
