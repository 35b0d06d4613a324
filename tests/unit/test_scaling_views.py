"""Budgets and autoscalers as people and programs see them; stored and read back; gone with their namespace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from controller.act.store import Store
from controller.cli.describe import describe
from controller.cli.objects import to_object
from controller.cli.scene import Scene, stored_scene
from controller.cli.tables import rows_of
from controller.decide import verbs
from controller.decide.rebalance import rebalance
from controller.decide.reconcile import reconcile
from controller.model.cluster import World
from controller.model.plan import NodeView, changed
from controller.model.policies import Autoscaler, Budget, Recommended, Scaled
from nodeagent.protocol import ContainerUsage, Sample, Usage
from tests.agents import Agents
from tests.builders import autoscaler, budget, cluster, deployment, meta, moment, namespace, put, template

PODS = template(requests={"cpu": "500m"})


def live() -> Scene:
    """Two pods that use 100m of the 500m that they ask for, longer than five minutes."""
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    agents = Agents(cluster(2, deployment(replicas=2, pods=PODS), budget(minAvailable=1), autoscaler(metrics=[metric])))
    for _ in range(8):
        agents.step()
    agents.seconds += 600.0
    world = agents.observed()
    told = {}
    for name, sighting in world.sightings.items():
        sample = Sample(agents.boottime_s, 15.0, 100_000, 2**20)
        used = tuple(ContainerUsage(uid, "main", (sample,)) for uid in agents.pods[name])
        told[name] = replace(sighting, usage=Usage("boot", agents.boottime_s, (sample,), used))  # type: ignore[arg-type]
    world = replace(world, sightings=told)
    plan = reconcile(world, agents.now)
    return Scene(changed(world, plan.changes), plan.nodes, agents.now, True)


def of(world: World, kind: type[Budget] | type[Autoscaler]) -> Budget | Autoscaler:
    return next(item for item in world.policies.values() if isinstance(item, kind))


def test_budgets_have_kubectl_s_columns_and_status() -> None:
    scene = live()
    item = of(scene.world, Budget)
    header, [row] = rows_of(scene, "PodDisruptionBudget", [item], wide=False, namespaces=False)
    assert header == ["NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "AGE"]
    assert row[:4] == ["web", "1", "N/A", "1"]
    shown = to_object(scene, item)
    assert (shown["apiVersion"], shown["status"]["currentHealthy"], shown["status"]["disruptionsAllowed"]) == (
        "policy/v1",
        2,
        1,
    )
    assert "2 healthy, 1 have to be, 2 expected" in describe(scene, item, [])


def test_autoscalers_show_what_is_measured_now() -> None:
    scene = live()
    item = of(scene.world, Autoscaler)
    header, [row] = rows_of(scene, "HorizontalPodAutoscaler", [item], wide=False, namespaces=True)
    assert header == ["NAMESPACE", "NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]
    assert row[1:7] == ["web", "Deployment/web", "cpu: 20%/80%", "1", "10", "2"]
    [metric] = to_object(scene, item)["status"]["currentMetrics"]
    assert metric["resource"]["current"] == {"averageValue": "100m", "averageUtilization": 20}
    text = describe(scene, item, [])
    assert "Max of 4 Pods in 15s, 100 Percent in 15s; 0s of stabilization" in text
    assert "ScaleDownStabilized" in text


def test_from_the_store_alone_it_is_not_known_what_pods_use() -> None:
    scene = stored_scene(live().world, moment())
    item = of(scene.world, Autoscaler)
    _, [row] = rows_of(scene, "HorizontalPodAutoscaler", [item], wide=False, namespaces=False)
    assert row[2] == "cpu: <unknown>/80%"
    assert "currentMetrics" not in to_object(scene, item)["status"]


def test_they_are_stored_with_their_status_and_read_back(tmp_path: Path) -> None:
    status = replace(
        autoscaler().status,
        recommended=(Recommended(3, moment(1)),),
        scaled=(Scaled(-2, moment(2)),),
        last_scale=moment(2),
    )
    records = [budget(minAvailable=1), replace(autoscaler(), status=status)]
    store = Store(tmp_path / "store.db", create=True)
    store.edit(records)
    store.close()
    store = Store(tmp_path / "store.db")
    found = {item.meta.kind: item for item in store.load().policies.values()}
    store.close()
    assert found["PodDisruptionBudget"].source == records[0].source
    read = found["HorizontalPodAutoscaler"]
    assert isinstance(read, Autoscaler)
    assert read.status == status


def test_they_are_deleted_at_once_and_go_with_their_namespace() -> None:
    item = budget(minAvailable=1)
    [change] = verbs.delete(cluster(1, item), item, moment())
    assert (change.verb, change.reason) == ("remove", "Deleted")
    shop = replace(item, meta=meta("PodDisruptionBudget", "web", "shop"))
    agents = Agents(cluster(1, shop, namespace("shop", deleting=moment())))
    agents.step()
    assert not agents.world.policies


def test_rebalance_leaves_pods_that_a_budget_keeps() -> None:
    """All on n1, since n2 came back: without a budget some would move."""
    agents = Agents(cluster(2, deployment(replicas=4, pods=PODS)))
    agents.world = changed(agents.world, verbs.cordon(agents.world.nodes["n2"], True))
    agents.settle(40)
    agents.world = changed(agents.world, verbs.cordon(agents.world.nodes["n2"], False))
    views = {name: NodeView(name, "Ready", may_push=True, may_place=True) for name in ("n1", "n2")}
    world = agents.observed()
    assert rebalance(world, views, 5)
    assert rebalance(put(world, budget(minAvailable=4)), views, 5) == ()
