"""Jobs, CronJobs, DaemonSets and StatefulSets as users meet them: verbs, waits, tables, objects, `describe`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from controller.cli.describe import describe
from controller.cli.objects import to_object
from controller.cli.scene import Scene, live_scene
from controller.cli.tables import rows_of
from controller.decide import verbs
from controller.decide.reconcile import reconcile
from controller.decide.standing import condition_of, progress_of
from controller.loop import Pass
from controller.model.cluster import World
from controller.model.errors import ManifestError, UsageError
from controller.model.manifest import load
from controller.model.workloads import CronJob, DaemonSet, Job, StatefulSet
from tests.agents import Agents
from tests.builders import cluster, cron_job, daemon_set, job, moment, put, stateful_set, template

IMAGE = "sum:1"


# ---- what is shown ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("Job", ["sum", "Complete", "2/2"]),
        ("CronJob", ["tick", "* * * * *", "<none>", "False"]),
        ("DaemonSet", ["agent", "3", "3", "3", "3", "3", "<none>"]),
        ("StatefulSet", ["db", "2/2"]),
    ],
)
def test_the_columns_are_kubectl_s(kind: str, row: list[str]) -> None:
    scene = _scene()
    header, rows = rows_of(scene, kind, scene.records(kind), wide=True, namespaces=False)
    mine = next(found for found in rows if found[0] == row[0])
    assert len(mine) == len(header)
    assert mine[: len(row)] == row


@pytest.mark.parametrize(
    ("spec", "shown"),
    [({}, "0/1"), ({"parallelism": 1}, "0/1"), ({"parallelism": 3}, "0/1 of 3"), ({"completions": 4}, "0/4")],
)
def test_a_job_of_which_one_success_is_enough_says_how_many_run_at_once(spec: dict[str, int], shown: str) -> None:
    record = job(**spec)
    _, [row] = rows_of(Scene(cluster(1, record), {}, moment()), "Job", [record], wide=False, namespaces=False)
    assert row[2] == shown


def test_objects_have_kubernetes_status() -> None:
    scene = _scene()
    found = {kind: to_object(scene, scene.records(kind)[0]) for kind in ("Job", "CronJob", "DaemonSet", "StatefulSet")}
    assert found["Job"]["apiVersion"] == "batch/v1"
    status = found["Job"]["status"]
    assert (status["succeeded"], status["completedIndexes"]) == (2, "0,1")
    assert {one["type"] for one in status["conditions"]} == {"SuccessCriteriaMet", "Complete"}
    assert "completionTime" in status
    assert found["DaemonSet"]["status"]["desiredNumberScheduled"] == 3
    assert found["StatefulSet"]["status"]["readyReplicas"] == 2
    assert found["StatefulSet"]["status"]["currentRevision"] == found["StatefulSet"]["status"]["updateRevision"]
    assert found["CronJob"]["apiVersion"] == "batch/v1"


def test_a_cron_job_names_the_jobs_that_run() -> None:
    agents = Agents(cluster(1, cron_job()))
    for _ in range(100):
        agents.step()
        if len(agents.world.workloads) > 1:
            break
    started = _only(agents, Job)
    scene = Scene(agents.world, {}, agents.now)
    assert "active" not in to_object(scene, replace(_only(agents, CronJob), meta=started.meta))["status"]
    [active] = to_object(scene, _only(agents, CronJob))["status"]["active"]
    assert active == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": started.meta.name,
        "namespace": "default",
        "uid": started.meta.uid,
    }


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("Job", ["Complete", "2 (Indexed)", "Completed indexes", "EXIT CODES", "main 0", "JOB_COMPLETION_INDEX"]),
        ("CronJob", ["* * * * * (UTC)", "Next run", "Concurrency"]),
        ("DaemonSet", ["3 nodes", "RollingUpdate, maxUnavailable 1, maxSurge 0", "(current)"]),
        ("StatefulSet", ["2 replicas", "OrderedReady", "RollingUpdate, partition 0", "db-0"]),
    ],
)
def test_describe_tells_what_matters(kind: str, words: list[str]) -> None:
    scene = _scene()
    text = describe(scene, scene.records(kind)[0], [])
    assert [word for word in words if word not in text] == []


def test_waiting_for_a_condition_ends_with_it_or_with_its_opposite() -> None:
    agents = Agents(cluster(1, job(backoffLimit=0)))
    agents.step()
    complete, failed = condition_of("complete"), condition_of("failed")
    assert not complete(agents.world, _only(agents, Job)).done
    agents.ends = {IMAGE: [3]}
    agents.settle(30)
    assert failed(agents.world, _only(agents, Job)).done
    other = complete(agents.world, _only(agents, Job))
    assert not other.done
    assert "failed pods: 1" in other.trouble[0], "it will not come: there is no use in waiting"


def test_only_jobs_complete() -> None:
    with pytest.raises(UsageError, match="has no condition complete"):
        condition_of("complete")(cluster(1), stateful_set())


def test_apply_waits_until_a_job_runs_and_until_sets_are_there() -> None:
    agents = Agents(cluster(2, job(), stateful_set("db"), daemon_set("agent"), cron_job(suspend=True)))
    agents.step()
    kinds = (Job, StatefulSet, DaemonSet)
    assert [progress_of(agents.world, _only(agents, kind)).done for kind in kinds] == [False, False, False]
    assert progress_of(agents.world, _only(agents, CronJob)).done
    for _ in range(20):
        agents.step()
    assert [progress_of(agents.world, _only(agents, kind)).done for kind in kinds] == [True, True, True]


def test_a_live_view_counts_what_agents_say_now_and_nothing_that_a_pass_would_make() -> None:
    agents = Agents(cluster(2, job(completions=2)))
    for _ in range(3):
        agents.step()
    agents.ends = {IMAGE: [0]}
    agents.pods = {name: agents._advance(name) for name in agents.pods}
    world = agents.observed()
    plan = reconcile(world, agents.now)
    scene = live_scene(Pass(world, plan, world, {}), agents.now)
    [first] = scene.records("Job")
    assert isinstance(first, Job)
    assert len(scene.world.pods) == 1
    assert first.pods_made == 1
    agents = Agents(cluster(2, job()))
    for _ in range(3):
        agents.step()
    agents.ends = {IMAGE: [0]}
    agents.pods = {name: agents._advance(name) for name in agents.pods}
    world = agents.observed()
    scene = live_scene(Pass(world, reconcile(world, agents.now), world, {}), agents.now)
    [only] = scene.records("Job")
    assert isinstance(only, Job)
    assert only.status.succeeded == 1


# ---- verbs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DaemonSet, StatefulSet])
def test_undo_and_restart(kind: Any) -> None:
    agents = _settled(stateful_set("db") if kind is StatefulSet else daemon_set("agent"))
    first = _only(agents, kind).source["spec"]["template"]
    changed = verbs.with_spec(_only(agents, kind), {"template": template("web:2")})
    agents.world = put(agents.world, changed)
    agents.settle(60)
    [change] = verbs.undo(agents.world, _only(agents, kind))
    back: Any = change.record
    assert back.source["spec"]["template"] == first
    agents.world = put(agents.world, change.record)
    agents.settle(60)
    assert [one.number for one in verbs.history(agents.world, _only(agents, kind))] == [2, 3]
    [change] = verbs.restart(_only(agents, kind), "2026-01-01T00:00:00Z")
    restarted: Any = change.record
    assert restarted.template_hash != _only(agents, kind).template_hash


def test_a_stateful_set_is_scaled_and_apply_does_not_undo_it() -> None:
    agents = _settled(stateful_set("db"))
    [change] = verbs.scale(agents.world, _only(agents, StatefulSet), 5)
    agents.world = put(agents.world, change.record)
    source = {key: item for key, item in stateful_set("db").source["spec"].items() if key != "replicas"}
    [applied] = _apply(agents.world, {**stateful_set("db").source, "spec": source})
    assert applied.outcome == "unchanged"
    with pytest.raises(UsageError, match="no replicas"):
        verbs.scale(agents.world, daemon_set(), 2)


@pytest.mark.parametrize(
    ("record", "field", "value"),
    [
        (job(completions=2), "completions", 3),
        (job(), "template", template("sum:2", restartPolicy="Never")),
        (stateful_set("db"), "podManagementPolicy", "Parallel"),
        (stateful_set("db"), "serviceName", "other"),
        (daemon_set("agent"), "selector", {"matchLabels": {"app": "web", "more": "x"}}),
    ],
)
def test_what_kubernetes_does_not_let_change_is_refused(record: Any, field: str, value: Any) -> None:
    pods = record.source["spec"]["template"]
    if field == "selector":
        pods = {**pods, "metadata": {"labels": {"app": "web", "more": "x"}}}
    source = {**record.source, "spec": {**record.source["spec"], "template": pods, field: value}}
    with pytest.raises(ManifestError, match="cannot be changed"):
        _apply(cluster(1, record), source)


def test_what_may_change_changes_and_makes_a_new_generation() -> None:
    [applied] = _apply(cluster(1, job(parallelism=1)), job(parallelism=3).source)
    assert applied.outcome == "configured"
    assert applied.change is not None
    assert applied.change.record.meta.generation == 2


def test_a_job_of_a_cron_job_is_not_changed_by_hand() -> None:
    agents = Agents(cluster(1, cron_job()))
    agents.seconds = 61
    agents.step()
    made = _only(agents, Job)
    with pytest.raises(ManifestError, match="belongs to cronjob tick"):
        _apply(agents.world, made.source)


# ---- helpers ---------------------------------------------------------------------------------------------------------------


def _scene() -> Scene:
    """All four kinds, at rest."""
    work = job(completions=2, parallelism=2, completionMode="Indexed")
    agents = Agents(cluster(3, work, cron_job(suspend=True), daemon_set("agent"), stateful_set("db", replicas=2)))
    agents.ends = {IMAGE: [0]}
    agents.settle(60)
    world = put(agents.world, replace(_only(agents, CronJob), source=cron_job().source))
    return Scene(world, agents.step().nodes, moment(agents.seconds))


def _settled(record: Any) -> Agents:
    agents = Agents(cluster(3, record))
    agents.settle(60)
    return agents


def _only(agents: Agents, kind: Any) -> Any:
    [found] = [item for item in agents.world.workloads.values() if isinstance(item, kind)]
    return found


def _apply(world: World, source: Any) -> Any:
    loaded = load(yaml.safe_dump(source), "a.yaml")
    return verbs.apply(world, loaded.manifests, lambda values: "", moment(100))
