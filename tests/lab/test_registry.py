"""A registry that wants a password, and has bad days: who has the password gets the image and nobody sees it; tags move, it refuses."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest

from lab import image
from tests.lab.cluster import Cluster, Object, deployment, single, wait_for
from tests.lab.registry import Registry, serving

USER, PASSWORD = "puller", "canary-password-41c7"
NODE = "node1"
NODES = ("node1", "node2", "node3")
BACK_OFF_S = 100.0  # after two or three pulls that failed, 20 or 40 s; the rest is for a busy machine


@pytest.fixture(scope="module")
def registry(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry on this machine's end of the lab's network, which the hosts trust as any host trusts a registry of a private CA."""
    archives = [image.build(f"{image.REPOSITORY}:{tag}") for tag in ("private", "moved")]
    with serving(archives, str(cluster.lab.subnet[1]), USER, PASSWORD, tmp_path_factory.mktemp("registry")) as registry:
        trusted = f"/etc/containers/certs.d/{registry.address}"
        for host in map(cluster.host, NODES):
            host.run(f"mkdir -p {trusted}")
            host.copy_in(registry.certificate, f"{trusted}/ca.crt")
        yield registry
        # By name: an image without --force loses this name only, whoever else has one for it.
        names = "podman images --format '{{.Repository}}:{{.Tag}}' | grep -F " + registry.address
        for host in map(cluster.host, NODES):
            host.run(f"rm -r {trusted}; {names} | grep -v none | xargs -r podman rmi")


@pytest.fixture(autouse=True)
def _well_again(registry: Registry) -> Iterator[None]:
    yield
    registry.tagged, registry.refuses = 0, 0


def pull_secret(name: str, registry: Registry, user: str, password: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": registry.docker_config(user, password)},
    }


def private(registry: Registry, name: str, *secrets: str) -> Object:
    """A pod of an image that only this registry has; `name` is also the image's, so that no test finds what another pulled."""
    container = {"image": registry.reference(name), "readinessProbe": None}
    return single(name, container=container, pod={"imagePullSecrets": [{"name": one} for one in secrets]}, node=NODE)


def test_a_pod_with_the_right_pull_secret_runs_at_once_and_the_password_is_nowhere_to_be_seen(
    cluster: Cluster, registry: Registry, ns: str
) -> None:
    said = cluster.apply(ns, pull_secret("login", registry, USER, PASSWORD), private(registry, "right", "login"))
    (pod,) = cluster.running(ns)
    assert (pod.host, pod.image) == (NODE, registry.reference("right"))
    # Nothing was tried before the secret had arrived.
    assert [status for path, _, status in registry.asked if "/right/" in path and status != 200] == []
    said += cluster.run("describe", "pod/right", "-n", ns) + cluster.run("get", "pod", "right", "-n", ns, "-o", "yaml")
    assert "Pulling" in said
    assert "Warning" not in said
    assert_unseen(cluster, said + cluster.run("events", "-n", ns))


def test_without_the_right_pull_secret_the_refusal_of_the_registry_is_told_and_no_password(
    cluster: Cluster, registry: Registry, ns: str
) -> None:
    names = ["no-secret", "wrong-password", "missing-secret"]
    said = cluster.apply(
        ns,
        pull_secret("old-login", registry, USER, f"{PASSWORD}-old"),
        private(registry, "no-secret"),
        private(registry, "wrong-password", "old-login"),
        private(registry, "missing-secret", "lost-login"),
        flags=["--timeout", "5s"],
        expect=3,
    )
    assert not cluster.running(ns)
    for name in names:
        assert re.search(
            rf"{name}: (ErrImagePull|ImagePullBackOff): {registry.reference(name)}: .*unauthorized", said
        ), said
        assert {status for path, _, status in registry.asked if f"/{name}/" in path} == {401}
        said += cluster.run("describe", f"pod/{name}", "-n", ns)
    assert_unseen(cluster, said + cluster.run("events", "-n", ns))


def test_a_corrected_pull_secret_is_used_at_once(cluster: Cluster, registry: Registry, ns: str) -> None:
    pod = private(registry, "corrected", "login")
    cluster.apply(ns, pull_secret("login", registry, USER, "wrong"), pod, flags=["--no-wait"])
    wait_for(lambda: ("/v2/corrected/manifests/v1", USER, 401) in registry.asked, "the wrong password to be tried")
    cluster.apply(ns, pull_secret("login", registry, USER, PASSWORD))
    (running,) = cluster.wait_running(ns, 1)
    assert running.image == registry.reference("corrected")


# ---- bad days -------------------------------------------------------------------------------------------------------


def web(registry: Registry, name: str, replicas: int = 1, **more: Any) -> Object:
    """A Deployment of an image that only this registry has, spread over the nodes."""
    spread_out = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    pod = {
        "imagePullSecrets": [{"name": "login"}],
        "topologySpreadConstraints": [{**spread_out, "labelSelector": {"matchLabels": {"app": name}}}],
    }
    container = {"image": registry.reference(name), "imagePullPolicy": "IfNotPresent", **more}
    return deployment(name, replicas=replicas, container=container, pod=pod)


def login(registry: Registry) -> Object:
    return pull_secret("login", registry, USER, PASSWORD)


def images_of(cluster: Cluster, ns: str) -> dict[str, set[str]]:
    """Node → ids of the images that its running containers are of."""
    found: dict[str, set[str]] = {}
    for one in cluster.running(ns):
        image_id = cluster.host(one.host).run(f"podman inspect --format '{{{{.Image}}}}' {one.id}").strip()
        found.setdefault(one.host, set()).add(image_id)
    return found


def test_a_tag_that_moves_in_a_rollout_changes_no_bytes_and_the_next_revision_takes_what_it_is_then(
    cluster: Cluster, registry: Registry, ns: str
) -> None:
    cluster.apply(ns, login(registry), web(registry, "moving"))
    (first,) = images_of(cluster, ns).values()
    registry.tagged = 1
    cluster.run("scale", "deployment/moving", "-n", ns, "--replicas", "3")
    scaled = images_of(cluster, ns)
    assert set(scaled) == set(NODES)
    assert set.union(*scaled.values()) == first
    assert "manifest:sha256:" in cluster.run("describe", "replicaset", "-n", ns)
    cluster.run("rollout", "restart", "deployment/moving", "-n", ns)
    cluster.run("rollout", "status", "deployment/moving", "-n", ns)
    cluster.wait_running(ns, 3)
    again = set.union(*images_of(cluster, ns).values())
    assert len(again) == 1
    assert again != first


def test_what_runs_needs_no_registry_not_even_to_restart_with_the_policy_always(
    cluster: Cluster, registry: Registry, ns: str
) -> None:
    cluster.apply(ns, login(registry), web(registry, "steady", imagePullPolicy="Always"))
    (before,) = cluster.running(ns)
    registry.refuses = 500
    asked = len(registry.asked)
    cluster.host(before.host).run(f"kill -9 {before.pid}")
    wait_for(lambda: [one for one in cluster.running(ns) if one.attempt == 1], "the container to run again")
    assert len(registry.asked) == asked


def test_a_registry_that_refuses_is_told_the_old_version_serves_on_and_the_rollout_ends_once_it_is_well(
    cluster: Cluster, registry: Registry, ns: str
) -> None:
    status = 429
    cluster.apply(ns, login(registry), web(registry, f"old-{status}"))
    (old,) = cluster.running(ns)
    registry.refuses = status
    update = web(registry, f"old-{status}", image=registry.reference(f"new-{status}"))
    cluster.apply(ns, update, flags=["--timeout", "8s"], expect=3)
    assert [one.id for one in cluster.running(ns)] == [old.id]
    events = cluster.run("events", "-n", ns)
    assert "ImageNotResolved" in events
    assert str(status) in events
    registry.refuses = 0
    cluster.run("rollout", "status", f"deployment/old-{status}", "-n", ns, "--timeout", "120s")
    (new,) = cluster.wait_running(ns, 1)
    assert new.image == registry.reference(f"new-{status}")


def test_a_pod_whose_registry_fails_says_so_and_runs_soon_after_it_is_well_whatever_else_was_ordered(
    cluster: Cluster, registry: Registry, ns: str
) -> None:
    registry.refuses = 500
    ailing = private(registry, "ailing", "login")
    said = cluster.apply(ns, login(registry), ailing, flags=["--timeout", "5s"], expect=3)
    told = rf"ailing: (ErrImagePull|ImagePullBackOff): {registry.reference('ailing')}: .*500"
    assert re.search(told, said), said

    def waits_for() -> str:
        (status,) = cluster.pod(ns, "ailing")["status"]["containerStatuses"]
        return str(status["state"]["waiting"]["reason"])

    # Each order about another pod has the pull tried once more, and is no reason to wait longer afterwards.
    for number in range(3):
        cluster.apply(ns, single(f"other-{number}", node=NODE))
    wait_for(lambda: waits_for() == "ImagePullBackOff", "pulls to fail by themselves")
    registry.refuses = 0
    wait_for(lambda: [one for one in cluster.running(ns) if one.pod == "ailing"], "the next pull", BACK_OFF_S)


def assert_unseen(cluster: Cluster, said: str) -> None:
    """The password, plain or as a header has it, is in nothing that was said, stored or logged, in no argument and no file."""
    joined = f"{USER}:{PASSWORD}".encode()
    traces = [PASSWORD, base64.b64encode(joined).decode().rstrip("=")[:-1]]
    for trace in traces:
        assert trace not in said
        for file in cluster.directory.rglob("*"):
            assert not file.is_file() or trace.encode() not in file.read_bytes(), file
        pattern = f"{trace[:6]}[{trace[6]}]{trace[7:]}"  # split, so that the search does not find itself
        places = (
            "/var/lib/sshoal /etc /var/log /tmp /root /run/containers /var/lib/containers/storage/overlay-containers"
        )
        sweep = (
            f"grep -lrs '{pattern}' {places}; "
            f"journalctl --no-pager -q | grep '{pattern}'; grep -ls '{pattern}' /proc/[0-9]*/cmdline /proc/[0-9]*/environ"
        )
        assert cluster.host(NODE).run(sweep, check=False) == ""
