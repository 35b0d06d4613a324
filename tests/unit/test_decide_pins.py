"""What a tag stands for is settled once per revision: from pushes, from nodes, from registries; and otherwise said to be open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controller.decide.pins import PUSHED_MAX, remember_pushed
from controller.decide.reconcile import reconcile
from controller.model.cluster import Answer, Deployment, ReplicaSet, World
from controller.model.identity import template_hash
from controller.model.plan import Plan, changed
from nodeagent.protocol import ImageReport
from tests.builders import (
    after,
    cluster,
    daemon_set,
    deployment,
    edited,
    job,
    moment,
    secret,
    seen,
    template,
    unseen,
    with_sightings,
)

ONE, TWO, DIGEST = ("sha256:" + letter * 64 for letter in "123")
WEB, LOCAL = "reg.example/web:v1", "localhost/web:v1"


def image(name: str, image_id: str = ONE) -> ImageReport:
    return ImageReport(image_id, (name,))


def running(policy: str = "IfNotPresent", name: str = WEB, **spec: Any) -> Deployment:
    pods = template(name, **spec)
    pods["spec"]["containers"][0]["imagePullPolicy"] = policy
    return deployment(replicas=3, pods=pods)


def with_images(world: World, **images: tuple[ImageReport, ...]) -> World:
    return with_sightings(world, **{name: seen(name, images=held) for name, held in images.items()})


def pushed(world: World, names: Mapping[str, str]) -> World:
    return changed(world, remember_pushed(world, names, moment()))


def answered(world: World, **answer: str) -> World:
    return replace(world, answers={(WEB, ()): Answer(**answer)})


def pins(plan: Plan) -> set[str]:
    """Of all containers that any node is told to run."""
    return {c.pin for wanted in plan.wanted.values() for pod in wanted.pods for c in pod.containers}


def replica_sets(world: World) -> list[ReplicaSet]:
    return sorted(world.replica_sets.values(), key=lambda item: item.revision)


THREE = {f"n{number}": (image(WEB),) for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("policy", "name", "held", "expected"),
    [
        ("IfNotPresent", WEB, THREE, f"image:{ONE}"),
        ("Never", WEB, {"n2": (image(WEB),)}, f"image:{ONE}"),
        ("IfNotPresent", LOCAL, {"n2": (image(LOCAL),)}, f"image:{ONE}"),
        ("IfNotPresent", "web", {f"n{n}": (image("docker.io/library/web:latest"),) for n in (1, 2, 3)}, f"image:{ONE}"),
        ("Never", WEB, {}, ""),
        ("IfNotPresent", f"reg.example/web@{DIGEST}", {}, ""),
    ],
    ids=[
        "every node has the same",
        "never pulled, one node has it",
        "no registry has it, one node does",
        "a short name",
        "never pulled, nobody has it",
        "written with its digest",
    ],
)
def test_without_asking_anybody(policy: str, name: str, held: dict[str, Any], expected: str) -> None:
    plan = reconcile(with_images(cluster(3, running(policy, name)), **held), moment())
    assert plan.asks == ()
    assert pins(plan) == {expected}


@pytest.mark.parametrize(
    ("policy", "held"),
    [
        ("IfNotPresent", {}),
        ("IfNotPresent", {"n1": (image(WEB),)}),
        ("IfNotPresent", {**THREE, "n2": (image(WEB, TWO),)}),
        ("Always", THREE),
    ],
    ids=["nobody has it", "one node has it", "nodes differ", "its policy is Always"],
)
def test_the_registry_is_asked_through_nodes_that_shall_run_it(policy: str, held: dict[str, Any]) -> None:
    start = with_images(cluster(3, running(policy)), **held)
    plan = reconcile(start, moment())
    [ask] = plan.asks
    assert (ask.image, ask.secrets) == (WEB, ())
    bound = {pod.node for pod in after(start, plan).pods.values()}
    assert len(ask.nodes) == 2
    assert set(ask.nodes) <= bound
    assert [item.images for item in replica_sets(after(start, plan))] == [None]
    told = reconcile(answered(start, digest=DIGEST), moment())
    assert told.asks == ()
    assert pins(told) == {f"manifest:{DIGEST}"}


def test_pull_secrets_that_exist_go_with_the_question() -> None:
    web = running(imagePullSecrets=[{"name": "login"}, {"name": "missing"}])
    [ask] = reconcile(cluster(3, web, secret("login", "h1")), moment()).asks
    assert ask.secrets == ("default/login",)


def test_two_revisions_of_one_image_ask_once() -> None:
    start = cluster(3, running(), job(pods=template(WEB, restartPolicy="Never")))
    assert [ask.image for ask in reconcile(start, moment()).asks] == [WEB]


# ---- settled once -------------------------------------------------------------------------------------------------------


def test_what_was_settled_stays_for_pods_that_come_later_whatever_the_tag_becomes() -> None:
    first = answered(cluster(3, running()), digest=DIGEST)
    later = after(first, reconcile(first, moment()))
    [web] = later.deployments.values()
    scaled = replace(later, deployments={web.meta.uid: edited(web, replicas=6)}, answers={})
    moved = with_images(scaled, n1=(image(WEB, TWO),), n2=(image(WEB, TWO),), n3=(image(WEB, TWO),))
    plan = reconcile(moved, moment(10))
    assert plan.asks == ()
    assert sum(len(wanted.pods) for wanted in plan.wanted.values()) == 6
    assert pins(plan) == {f"manifest:{DIGEST}"}


def test_a_new_revision_settles_it_anew_and_the_old_one_keeps_its_own() -> None:
    first = answered(cluster(3, running()), digest=DIGEST)
    later = after(first, reconcile(first, moment()))
    [web] = later.deployments.values()
    restarted = template(WEB, terminationGracePeriodSeconds=7)
    second = replace(later, deployments={web.meta.uid: edited(web, restarted)})
    third = after(second, reconcile(replace(second, answers={(WEB, ()): Answer(TWO)}), moment(10)))
    assert [item.images for item in replica_sets(third)] == [{WEB: f"manifest:{DIGEST}"}, {WEB: f"manifest:{TWO}"}]


def test_the_template_and_its_hash_stay_as_they_were() -> None:
    start = answered(cluster(3, running()), digest=DIGEST)
    [item] = replica_sets(after(start, reconcile(start, moment())))
    [web] = start.deployments.values()
    assert item.template == web.source["spec"]["template"]
    assert item.template_hash == web.template_hash == template_hash(item.template)


def test_a_pass_over_what_is_settled_changes_nothing() -> None:
    start = answered(cluster(3, running()), digest=DIGEST)
    world = after(start, reconcile(start, moment()))
    again = reconcile(world, moment(1))
    assert again.asks == ()
    assert [change for change in again.changes if change.record.meta.kind == "ReplicaSet"] == []


@pytest.mark.parametrize(
    "workload",
    [daemon_set(pods=template(WEB)), job(pods=template(WEB, restartPolicy="Never"))],
    ids=["daemon set", "job"],
)
def test_other_workloads_settle_it_too(workload: Any) -> None:
    start = cluster(3, workload)
    assert [ask.image for ask in reconcile(start, moment()).asks] == [WEB]
    assert pins(reconcile(answered(start, digest=DIGEST), moment())) == {f"manifest:{DIGEST}"}


def test_nothing_is_settled_while_no_pod_has_a_node() -> None:
    start = with_sightings(cluster(1, running()), n1=unseen())
    plan = reconcile(start, moment())
    assert plan.asks == ()
    assert [item.images for item in replica_sets(after(start, plan))] == [None]


# ---- pushed -------------------------------------------------------------------------------------------------------------


def test_a_pushed_image_is_what_its_name_stands_for_also_where_an_older_one_has_it() -> None:
    held = {"n1": (image(LOCAL, TWO),), "n2": (image(LOCAL, ONE),), "n3": (image(LOCAL, ONE),)}
    start = with_images(pushed(cluster(3, running(name=LOCAL)), {LOCAL: TWO}), **held)
    assert pins(reconcile(start, moment())) == {f"image:{TWO}"}


def test_a_pushed_image_that_no_node_has_any_more_counts_for_nothing() -> None:
    start = with_images(pushed(cluster(3, running()), {WEB: TWO}), **THREE)
    assert pins(reconcile(start, moment())) == {f"image:{ONE}"}


def test_with_always_it_is_the_registry_that_counts_also_after_a_push() -> None:
    start = with_images(pushed(cluster(3, running("Always")), {WEB: ONE}), **THREE)
    assert [ask.image for ask in reconcile(start, moment()).asks] == [WEB]


def test_the_oldest_of_too_many_pushed_names_are_forgotten() -> None:
    world = pushed(cluster(1), {f"localhost/{number:04}:1": ONE for number in range(PUSHED_MAX)})
    full = changed(world, remember_pushed(world, {LOCAL: ONE, "localhost/0000:1": TWO}, moment(1)))
    names = {item.meta.name: item.source["id"] for item in full.declared.values()}
    assert len(names) == PUSHED_MAX
    assert (names[LOCAL], names["localhost/0000:1"], "localhost/0001:1" in names) == (ONE, TWO, False)


# ---- open ---------------------------------------------------------------------------------------------------------------


def warnings(plan: Plan) -> list[str]:
    return [change.because for change in plan.changes if change.reason == "ImageNotResolved" and change.warning]


def test_what_a_registry_does_not_tell_goes_on_by_its_tag_and_that_is_said_once() -> None:
    start = answered(cluster(3, running()), why="asked from n1: reg.example answers 429 (too many requests)")
    plan = reconcile(start, moment())
    assert pins(plan) == {""}
    [said] = warnings(plan)
    assert f"{WEB} goes on by its tag" in said
    assert "429" in said
    again = reconcile(replace(after(start, plan), answers={}), moment(1))
    assert again.asks == ()
    assert warnings(again) == []


def test_when_the_registry_is_silent_what_the_nodes_agree_on_counts() -> None:
    start = answered(with_images(cluster(3, running()), n2=(image(WEB),)), why="no answer")
    plan = reconcile(start, moment())
    assert pins(plan) == {f"image:{ONE}"}
    assert warnings(plan) == []


def test_nodes_that_differ_in_what_no_registry_has_are_named() -> None:
    held = {"n1": (image(LOCAL, ONE),), "n2": (image(LOCAL, TWO),)}
    plan = reconcile(with_images(cluster(3, running(name=LOCAL)), **held), moment())
    assert pins(plan) == {""}
    [said] = warnings(plan)
    assert "n1 has 111111111111, n2 has 222222222222" in said


def test_images_of_several_architectures_are_pinned_by_the_registry_only() -> None:
    arm = seen("n2", images=(image(WEB, TWO),))
    arm = replace(arm, capacity=replace(arm.capacity, arch="arm64"))
    start = with_sightings(cluster(2, running()), n1=seen("n1", images=(image(WEB),)), n2=arm)
    assert [ask.image for ask in reconcile(start, moment()).asks] == [WEB]
    plan = reconcile(answered(start, why="no answer"), moment())
    assert pins(plan) == {""}
