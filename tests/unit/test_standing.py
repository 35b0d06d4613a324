"""What is said of objects: how far they are, what keeps them, and the word for each pod."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.decide.standing import condition_of, desired_replicas, is_ready, progress_of, status_word
from controller.model.cluster import (
    AVAILABLE,
    Deployment,
    DeploymentStatus,
    Pod,
    Ref,
    ReplicaSet,
    Sighting,
    StatusCondition,
    Stop,
)
from nodeagent.protocol import ContainerReport
from tests.builders import (
    bare_pod,
    config_map,
    deployment,
    edited,
    host,
    meta,
    moment,
    node,
    put,
    replica_set,
    report,
    seen,
    template,
    unseen,
    world,
)


def pod(name: str = "web-1", *, told: str | None = "Running", ready: bool = True, **fields: Any) -> Pod:
    """A bound pod and what its agent said last (`told`: the phase; None: nothing yet)."""
    made = replace(bare_pod(name), node="n1", **fields)
    return replace(made, report=report(made, told, ready=ready) if told else None)


def with_containers(*containers: ContainerReport, phase: str = "Running", reason: str = "") -> Pod:
    made = pod(told=phase, ready=False)
    assert made.report is not None
    return replace(made, report=replace(made.report, containers=containers, reason=reason))


def container(state: str, reason: str = "", **fields: Any) -> ContainerReport:
    return ContainerReport("main", state, reason, **fields)


def init(state: str, reason: str = "", name: str = "prepare", **fields: Any) -> ContainerReport:
    return ContainerReport(name, state, reason, init=True, **fields)


def with_sidecar(given: Pod) -> Pod:
    """As given, by a manifest in which the init container `log` is a sidecar."""
    return replace(given, source=bare_pod(initContainers=[{"name": "log", "restartPolicy": "Always"}]).source)


# ---- the word for a pod -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (replace(pod(), node="", report=None), "Pending"),
        (pod(told=None), "Pending"),
        (pod(), "Running"),
        (pod(told="Succeeded"), "Completed"),
        (pod(stop=Stop("scaled down", moment())), "Terminating"),
        (pod(lost=moment()), "Lost"),
        (pod(lost=moment(), stop=Stop("scaled down", moment())), "Lost"),
        (with_containers(container("running")), "Running"),
        (with_containers(container("waiting")), "ContainerCreating"),
        (with_containers(container("waiting", "CrashLoopBackOff")), "CrashLoopBackOff"),
        (with_containers(container("running"), container("waiting", "ErrImagePull")), "ErrImagePull"),
        (with_containers(container("terminated", exit_code=0)), "Completed"),
        (with_containers(container("terminated", exit_code=1)), "Error"),
        (with_containers(container("terminated", "OOMKilled", exit_code=137)), "OOMKilled"),
        (with_containers(container("terminated")), "Error"),  # nobody knows how it ended: not a success
        (with_containers(container("running"), phase="Failed", reason="DeadlineExceeded"), "DeadlineExceeded"),
    ],
)
def test_a_pods_word_is_that_of_kubectl(given: Pod, word: str) -> None:
    assert status_word(world(), given) == word


@pytest.mark.parametrize(
    ("inits", "word"),
    [
        ((init("waiting", "ContainerCreating"), init("waiting", "PodInitializing")), "Init:0/2"),
        ((init("terminated", exit_code=0), init("running", started=True)), "Init:1/2"),
        ((init("waiting", "CrashLoopBackOff"),), "Init:CrashLoopBackOff"),
        ((init("terminated", exit_code=3),), "Init:Error"),
        ((init("terminated", exit_code=0),), "ContainerCreating"),
        ((init("running", name="log", started=True),), "ContainerCreating"),
        ((init("running", name="log"),), "Init:0/1"),
    ],
)
def test_init_containers_that_are_not_through_come_first(inits: tuple[ContainerReport, ...], word: str) -> None:
    given = with_containers(*inits, container("waiting", "ContainerCreating"), phase="Pending")
    assert status_word(world(), with_sidecar(given)) == word


@pytest.mark.parametrize(
    ("sidecar", "main", "word"),
    [
        (init("waiting", "CrashLoopBackOff", name="log"), container("running"), "Init:CrashLoopBackOff"),
        (init("waiting", "CrashLoopBackOff", name="log"), container("terminated", "Error", exit_code=1), "Error"),
        (init("running", name="log", started=True), container("running"), "Running"),
    ],
)
def test_a_sidecar_that_starts_anew_leaves_the_pod_initialized(
    sidecar: ContainerReport, main: ContainerReport, word: str
) -> None:
    assert status_word(world(), with_sidecar(with_containers(sidecar, main))) == word


@pytest.mark.parametrize(("ready", "word"), [(True, "Running"), (False, "NotReady")])
def test_a_pod_of_which_only_some_containers_have_ended_runs_only_if_it_is_ready(ready: bool, word: str) -> None:
    given = with_containers(container("terminated", "Completed", exit_code=0), container("running"))
    assert given.report is not None
    assert status_word(world(), replace(given, report=replace(given.report, ready=ready))) == word


def test_a_pod_behind_scheduling_gates_says_so_until_it_has_a_node() -> None:
    given = bare_pod("gated", schedulingGates=[{"name": "example.com/quota"}])
    assert status_word(world(), given) == "SchedulingGated"
    assert status_word(world(), replace(given, node="n1")) == "Pending"


def test_a_pod_on_a_silent_node_is_unknown_unless_it_was_given_up() -> None:
    assert status_word(world(), pod(), node_unseen=True) == "Unknown"
    assert status_word(world(), pod(lost=moment()), node_unseen=True) == "Lost"


@pytest.mark.parametrize(
    ("given", "ready"),
    [
        (pod(), True),
        (pod(ready=False), False),
        (pod(told=None), False),
        (pod(stop=Stop("", moment())), False),
        (pod(lost=moment()), False),
    ],
)
def test_only_what_runs_and_stays_is_ready(given: Pod, ready: bool) -> None:
    assert is_ready(given) is ready


# ---- how far a deployment is --------------------------------------------------------------------------------------------


def rolled(status: DeploymentStatus, **spec: Any) -> Deployment:
    made = deployment("web", 3, **spec)
    return replace(made, status=replace(status, observed_generation=status.observed_generation or 1))


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (DeploymentStatus(updated=1, replicas=3), "1 of 3 new replicas have been started"),
        (DeploymentStatus(updated=3, replicas=5), "2 old replicas are still to stop"),
        (DeploymentStatus(updated=3, replicas=4), "1 old replica is still to stop"),
        (DeploymentStatus(updated=3, replicas=3, available=2), "2 of 3 replicas are available"),
    ],
)
def test_a_rollout_under_way_tells_what_it_waits_for(status: DeploymentStatus, text: str) -> None:
    record = rolled(status)
    progress = progress_of(world(record), record)
    assert not progress.done
    assert text in progress.text


def test_a_rollout_is_done_when_all_new_replicas_are_available_and_no_old_one_is_left() -> None:
    record = rolled(DeploymentStatus(updated=3, replicas=3, available=3))
    progress = progress_of(world(record), record)
    assert (progress.done, progress.text) == (True, "deployment web: 3 of 3 replicas are available")


def test_a_status_from_before_the_last_change_proves_nothing() -> None:
    record = edited(rolled(DeploymentStatus(updated=3, replicas=3, available=3)), template("web:2"))
    assert record.meta.generation == 2
    progress = progress_of(world(record), record)
    assert (progress.done, progress.text) == (False, "deployment web: waiting for the change to be seen")


def test_a_paused_rollout_is_not_waited_for() -> None:
    record = rolled(DeploymentStatus(), paused=True)
    assert progress_of(world(record), record).done


@pytest.mark.parametrize(
    ("available", "enough", "paused", "is_available", "is_ready_"),
    [
        pytest.param(0, False, True, False, False, id="paused, and nothing serves"),
        pytest.param(2, True, True, True, False, id="paused, and all but maxUnavailable serve"),
        pytest.param(3, True, True, True, True, id="paused, and old replicas serve"),
        pytest.param(3, True, False, True, False, id="a rollout under way, while old replicas serve"),
    ],
)
def test_available_and_ready_ask_for_replicas_that_serve(
    available: int, enough: bool, paused: bool, is_available: bool, is_ready_: bool
) -> None:
    told = StatusCondition(AVAILABLE, enough, "", "", moment())
    record = rolled(DeploymentStatus(replicas=3, available=available, conditions=(told,)), paused=paused)
    found = condition_of("available")(world(record), record)
    assert (found.done, found.text) == (is_available, f"deployment web: {available} of 3 replicas are available")
    assert condition_of("ready")(world(record), record).done is is_ready_
    unseen_change = edited(record, template("web:2"))
    assert not condition_of("available")(world(unseen_change), unseen_change).done
    assert not condition_of("ready")(world(unseen_change), unseen_change).done


def test_available_of_what_has_no_such_condition_is_as_declared() -> None:
    assert condition_of("available")(world(), pod()).done
    assert not condition_of("available")(world(), pod(ready=False)).done


def test_what_keeps_the_new_pods_is_told_once_for_all_of_them() -> None:
    record = rolled(DeploymentStatus(updated=3, replicas=3))
    owner = Ref("Deployment", "web", record.meta.uid)
    owned = ReplicaSet(meta("ReplicaSet", "web-new", owner=owner), template(), record.template_hash, 3)
    stuck = with_containers(container("waiting", "ImagePullBackOff", message="no such tag"))
    pods = [
        replace(
            stuck,
            meta=meta("Pod", f"web-new-{number}", owner=Ref("ReplicaSet", "web-new", owned.meta.uid)),
            template_hash=record.template_hash,
        )
        for number in range(3)
    ]
    progress = progress_of(world(record, owned, *pods), record)
    assert progress.trouble == ("web-new-0 and 2 more: ImagePullBackOff: no such tag",)


# ---- the others ---------------------------------------------------------------------------------------------------------


def test_a_pod_of_its_own_is_done_when_ready_or_through() -> None:
    assert progress_of(world(), pod()).done
    assert progress_of(world(), pod(told="Succeeded")).done
    assert not progress_of(world(), pod(told="Failed")).done


def test_a_pod_that_has_no_node_says_why() -> None:
    waiting = replace(pod(told=None), node="", unplaced="0/3 nodes fit: 3 cordoned")
    assert progress_of(world(), waiting).trouble == ("web-1: no node: 0/3 nodes fit: 3 cordoned",)


@pytest.mark.parametrize(
    ("joining", "trouble"),
    [
        ({"n1": unseen("installing")}, False),
        ({"n1": unseen("not-ready", "no Podman")}, True),
        ({"n1": unseen()}, True),
        ({"n1": seen("n1")}, True),
    ],
    ids=["being installed", "not fit for the agent", "silent", "answers: the next pass will place"],
)
def test_that_there_is_no_node_yet_is_no_trouble_while_a_host_is_being_installed(
    joining: dict[str, Sighting], trouble: bool
) -> None:
    waiting = replace(pod(told=None), node="", unplaced="there are no nodes yet")
    assert bool(progress_of(world(host("n1"), waiting, sightings=joining), waiting).trouble) is trouble


def test_in_stored_records_a_host_that_is_no_node_yet_may_be_on_its_way() -> None:
    waiting = replace(pod(told=None), node="", unplaced="there are no nodes yet")
    stored = replace(world(host("n1"), waiting), sightings={})
    assert not progress_of(stored, waiting).trouble
    assert progress_of(put(stored, node("n1")), waiting).trouble


def test_a_missing_image_is_trouble_whatever_is_being_installed() -> None:
    stuck = with_containers(container("waiting", "ErrImagePull"))
    assert progress_of(world(host("n1"), stuck, sightings={"n1": unseen("installing")}), stuck).trouble


def test_a_replica_set_counts_its_own_ready_pods() -> None:
    bare = replica_set(replicas=2)
    owner = Ref("ReplicaSet", bare.meta.name, bare.meta.uid)
    pods = [replace(pod(name), meta=meta("Pod", name, owner=owner)) for name in ("bare-a", "bare-b")]
    assert not progress_of(world(bare, pods[0]), bare).done
    assert progress_of(world(bare, *pods), bare).done


def test_what_has_no_progress_is_there() -> None:
    assert progress_of(world(), config_map("settings", {})).done


def test_replicas_left_open_are_one() -> None:
    record = deployment("web", 3)
    spec = {key: value for key, value in record.source["spec"].items() if key != "replicas"}
    assert desired_replicas(replace(record, source={**record.source, "spec": spec})) == 1
    assert desired_replicas(deployment("web", 0)) == 0
