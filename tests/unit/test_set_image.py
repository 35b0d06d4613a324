"""`set image`: which containers get which image, in every kind that has some, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from controller.decide.setimage import parse_images, with_images
from controller.model.errors import NotFound, SshoalError, UsageError
from tests.shell import Shell

POD = {
    "initContainers": [{"name": "begin", "image": "begin:1"}],
    "containers": [{"name": "app", "image": "app:1"}, {"name": "side", "image": "side:1"}],
}


def declared(kind: str) -> dict[str, Any]:
    template = {"template": {"spec": POD}}
    spec = {"Pod": POD, "CronJob": {"jobTemplate": {"spec": template}}}.get(kind, template)
    return {"kind": kind, "metadata": {"name": "web"}, "spec": spec}


@pytest.mark.parametrize("kind", ["Pod", "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob"])
@pytest.mark.parametrize(
    ("words", "images"),
    [
        ("app=app:2", ["begin:1", "app:2", "side:1"]),
        ("app=app:2 begin=host:5000/begin@sha256:00", ["host:5000/begin@sha256:00", "app:2", "side:1"]),
        ("*=all:2", ["all:2", "all:2", "all:2"]),
        ("*=all:2 side=side:2", ["all:2", "all:2", "side:2"]),
    ],
)
def test_the_containers_that_are_named_get_the_image(kind: str, words: str, images: list[str]) -> None:
    before = declared(kind)
    after = with_images(before, parse_images(words.split()))
    spec = {"Pod": lambda: after["spec"], "CronJob": lambda: after["spec"]["jobTemplate"]["spec"]["template"]["spec"]}
    pod = spec.get(kind, lambda: after["spec"]["template"]["spec"])()
    assert [one["image"] for one in (*pod["initContainers"], *pod["containers"])] == images
    assert before == declared(kind), "what is declared stays as it was"


@pytest.mark.parametrize(
    ("kind", "words", "error", "told"),
    [
        ("Deployment", "ap=app:2", NotFound, "no container 'ap'"),
        ("Deployment", "app=", UsageError, "'app=' is not CONTAINER=IMAGE"),
        ("Deployment", "=app:2", UsageError, "'=app:2' is not CONTAINER=IMAGE"),
        ("Deployment", "app=a:1 app=a:2", UsageError, "app is named twice"),
        ("ConfigMap", "app=app:2", UsageError, "a ConfigMap has no containers"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: str, words: str, error: type[SshoalError], told: str) -> None:
    thing = declared(kind) if kind != "ConfigMap" else {"kind": kind, "data": {"a": "b"}}
    with pytest.raises(error, match=told):
        with_images(thing, parse_images(words.split()))


@pytest.fixture
def web(shell: Shell) -> Shell:
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1\n")
    (shell.home / "web.yaml").write_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n"
        "  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: app, image: 'app:1'}]}\n"
    )
    code, _, told = shell("apply", "-f", "web.yaml", "-i", "hosts.ini", "--no-wait")
    assert code == 0, told
    return shell


def image_of(shell: Shell) -> str:
    words = ("get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}", "--cached")
    return shell(*words)[1]


def test_it_is_declared_as_apply_would(web: Shell) -> None:
    same = web("set", "image", "deployment/web", "app=app:1", "-i", "hosts.ini", "--no-wait")
    assert same[:2] == (0, "deployment.apps/web unchanged\n")
    done = web("set", "image", "deployment/web", "app=app:2", "-i", "hosts.ini", "--no-wait")
    assert (done[:2], image_of(web)) == ((0, "deployment.apps/web image updated\n"), "app:2")
    again = web("set", "image", "deployment", "web", "*=app:2", "-i", "hosts.ini", "--no-wait")
    assert again[:2] == (0, "deployment.apps/web unchanged\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("deployment/web", "which image?"),
        ("app=app:2", "of which object?"),
        ("deployment/other app=app:2", "other"),
        ("deployment/web other=app:2", "its containers: app"),
        ("deployment/web app=App:2", "spec.template.spec.containers[0].image"),
    ],
)
def test_a_mistake_changes_nothing(web: Shell, words: str, told: str) -> None:
    code, out, err = web("set", "image", *words.split(), "-i", "hosts.ini", "--no-wait")
    assert (code, out, told in err, image_of(web)) == (2, "", True, "app:1"), err
