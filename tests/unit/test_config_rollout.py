"""Content that changes restarts pods of those who asked for it, by their own strategy, and of nobody else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.decide import verbs
from controller.decide.configroll import ANNOTATION
from controller.model import manifest
from controller.model.cluster import Declared, World
from controller.model.errors import ManifestError
from controller.model.plan import changed
from tests import builders
from tests.agents import Agents

READS = builders.template(
    env_from=[{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "login", "optional": True}}]
)


def asking(record: Any) -> Any:
    return replace(record, meta=replace(record.meta, annotations={ANNOTATION: "true"}))


def settings(**data: str) -> Declared:
    return builders.config_map("settings", data)


def templates(world: World) -> set[str]:
    return {pod.template_hash for pod in world.pods.values()}


THINGS = [
    builders.deployment(replicas=2, pods=READS),
    builders.daemon_set("each", READS),
    builders.stateful_set("db", 2, READS),
]


@pytest.mark.parametrize("thing", THINGS, ids=lambda item: str(item.meta.kind))
def test_changed_content_is_a_new_revision_told_with_its_reason(thing: Any) -> None:
    agents = Agents(builders.cluster(2, asking(thing), settings(a="1")))
    agents.settle(60)
    before, old = set(agents.world.pods), templates(agents.world)
    agents.world = builders.put(agents.world, settings(a="2"))
    plan = agents.step()
    told = [change.because for change in plan.changes if change.reason == "ConfigChanged"]
    assert told == [f"configmap default/settings changed: the pods of {thing.meta.name} are replaced"]
    agents.settle(90)
    assert before.isdisjoint(agents.world.pods)
    assert old.isdisjoint(templates(agents.world))


@pytest.mark.parametrize("thing", THINGS, ids=lambda item: str(item.meta.kind))
def test_nothing_restarts_without_the_annotation(thing: Any) -> None:
    agents = Agents(builders.cluster(2, thing, settings(a="1")))
    agents.settle(60)
    started = len(agents.started)
    agents.world = builders.put(agents.world, settings(a="2"))
    agents.settle(60)
    assert len(agents.started) == started


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ((), settings(a="1")),  # it comes later than who names it
        ((settings(a="1"),), builders.config_map("other", {"a": "2"})),  # nobody names it
        ((settings(a="1"),), builders.secret("login", "h1")),  # a secret that was not there
        ((settings(a="1"),), settings(a="1")),
    ],
)
def test_what_is_no_change_of_content_restarts_nothing(first: tuple[Declared, ...], then: Declared) -> None:
    agents = Agents(builders.cluster(2, asking(THINGS[0]), *first))
    agents.settle(60)
    before = set(agents.world.pods)
    agents.world = builders.put(agents.world, then)
    agents.settle(60)
    assert set(agents.world.pods) == before


def test_a_secrets_new_content_counts_and_a_pull_secrets_does_not() -> None:
    pods = {**READS, "spec": {**READS["spec"], "imagePullSecrets": [{"name": "registry"}]}}
    things = (settings(a="1"), builders.secret("login", "h1"), builders.secret("registry", "r1"))
    agents = Agents(builders.cluster(2, asking(builders.deployment(replicas=1, pods=pods)), *things))
    agents.settle(60)
    before = set(agents.world.pods)
    agents.world = builders.put(agents.world, builders.secret("registry", "r2"))
    agents.settle(60)
    assert set(agents.world.pods) == before
    agents.world = builders.put(agents.world, builders.secret("login", "h2"))
    agents.settle(60)
    assert before.isdisjoint(agents.world.pods)


def test_content_that_was_deleted_and_came_back_the_same_is_no_change() -> None:
    agents = Agents(builders.cluster(2, asking(THINGS[0]), settings(a="1")))
    agents.settle(60)
    before = set(agents.world.pods)
    there = settings(a="1")
    agents.world = replace(agents.world, declared={})
    agents.settle(60)
    agents.world = builders.put(agents.world, there)
    agents.settle(60)
    assert set(agents.world.pods) == before


def test_asking_for_restarts_restarts_nothing_and_asking_again_compares_with_today() -> None:
    agents = Agents(builders.cluster(2, THINGS[0], settings(a="1")))
    agents.settle(60)
    before = set(agents.world.pods)
    for words, content in (({ANNOTATION: "true"}, "1"), ({}, "2"), ({ANNOTATION: "true"}, "2")):
        (record,) = agents.world.deployments.values()
        record = replace(record, meta=replace(record.meta, annotations=words))
        agents.world = builders.put(agents.world, record)
        agents.settle(60)
        agents.world = builders.put(agents.world, settings(a=content))
        agents.settle(60)
    assert set(agents.world.pods) == before


TEXT = """\
apiVersion: apps/v1
kind: {kind}
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: "{image}"}}]}}}}
"""


def apply(world: World, text: str) -> World:
    manifests = manifest.load(text, "a.yaml").manifests
    applied = verbs.apply(world, manifests, str, builders.moment())
    return changed(world, [one.change for one in applied if one.change])


@pytest.mark.parametrize("kind", ["Deployment", "DaemonSet", "StatefulSet"])
def test_a_manifest_that_is_applied_again_undoes_no_restart(kind: str) -> None:
    world = apply(builders.world(), TEXT.format(kind=kind, image="i:1"))
    record = verbs.find(world, kind, "default", "web")
    world = changed(world, verbs.restart(record, "2025-01-01T00:00:00Z"))  # type: ignore[arg-type]
    restarted: Any = verbs.find(world, kind, "default", "web")
    again: Any = verbs.find(apply(world, TEXT.format(kind=kind, image="i:1")), kind, "default", "web")
    assert again.template_hash == restarted.template_hash
    newer: Any = verbs.find(apply(world, TEXT.format(kind=kind, image="i:2")), kind, "default", "web")
    assert newer.source["spec"]["template"]["metadata"]["annotations"] == {verbs.RESTARTED_AT: "2025-01-01T00:00:00Z"}
    assert newer.template_hash != restarted.template_hash


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("data: {a: b}\nimmutable: true", ""),
        ("data: {a: c}\nimmutable: true", "data: .* is immutable"),
        ("data: {a: c}", "data: .* is immutable"),
        ("data: {a: b}", "immutable: cannot be taken back once it is true"),
        ("data: {a: b}\nimmutable: false", "immutable: cannot be taken back once it is true"),
    ],
)
@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
def test_what_is_immutable_keeps_its_content_and_stays_so(kind: str, fields: str, problem: str) -> None:
    def text(fields: str) -> str:
        lines = f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: a}}\n{fields}\n"
        return lines.replace("\ndata:", "\nstringData:") if kind == "Secret" else lines

    world = apply(builders.world(), text("data: {a: b}\nimmutable: true"))
    if not problem:
        assert apply(world, text(fields)) == world
        return
    with pytest.raises(ManifestError, match=problem):
        apply(world, text(fields))
