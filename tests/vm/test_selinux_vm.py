"""What SELinux enforces of the labels that pods get: on a machine with Debian's policy, in which Podman and services are free (lab.vm).

One machine, one set of workloads; the order does not matter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from lab import image
from lab.vm import Vm, vm_down, vm_up
from nodeagent.spec import selinux_level
from tests.lab.cluster import Running, config_map, deployment, secret
from tests.vm.node import PATIENCE_S, VmNode

NAMESPACE = "labels"
FOLDERS = ("settings", "login", "scratch", "memory", "claim")
MOUNTS = [{"name": name, "mountPath": f"/{name}"} for name in FOLDERS]
VOLUMES = [
    {"name": "settings", "configMap": {"name": "settings"}},
    {"name": "login", "secret": {"secretName": "login"}},
    {"name": "scratch", "emptyDir": {}},
    {"name": "memory", "emptyDir": {"medium": "Memory"}},
    {"name": "claim", "persistentVolumeClaim": {"claimName": "shared"}},
]
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "shared"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
}
IDLE = "while :; do sleep 1000; done"


def two_containers(name: str) -> dict[str, Any]:
    side = {
        "name": "side",
        "image": f"{image.REPOSITORY}:v1",
        "command": ["sh", "-c", f"echo begun; {IDLE}"],
        "volumeMounts": MOUNTS,
    }
    made = deployment(name, 2, container={"volumeMounts": MOUNTS, "readinessProbe": {"exec": {"command": ["true"]}}})
    spec = made["spec"]["template"]["spec"]
    spec["containers"].append(side)
    spec["volumes"] = VOLUMES
    return made


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmNode]:
    """A machine that enforces, its workloads Ready. With SSHOAL_SELINUX_VM=name it is the machine of that name, which stays."""
    name = os.environ.get("SSHOAL_SELINUX_VM", "")
    vm = vm_up(name or f"selinux-{os.getpid()}", selinux=True)
    try:
        vm.copy_in(image.build(), "/tmp/image.tar", timeout_s=120)
        vm.run("podman load --quiet --input /tmp/image.tar && rm /tmp/image.tar", timeout_s=240)
        node = VmNode(vm, tmp_path_factory.mktemp("selinux"))
        objects = (config_map("settings", colour="blue"), secret("login", password="opensesame"), CLAIM)
        node.apply(NAMESPACE, *objects, two_containers("web"), flags=("--timeout", f"{PATIENCE_S:g}s"))
        yield node
    finally:
        if name:
            node.wipe()
        else:
            vm_down(vm.name)


def label(vm: Vm, pid: int) -> str:
    return vm.run(f"cat /proc/{pid}/attr/current").strip("\0\n")


def inside(node: VmNode, one: Running, script: str) -> str:
    """What a script says in a container. By the agent: the pipe of a login, which `podman exec` would give it, is closed to a container."""
    return node.run("exec", one.pod, "-n", NAMESPACE, "-c", one.container, "--", "sh", "-c", script).strip()


def web(node: VmNode) -> list[list[Running]]:
    """The containers of each of its pods."""
    running = node.running(NAMESPACE)
    uids = sorted({one.uid for one in running if one.pod.startswith("web")})
    return [[one for one in running if one.uid == uid] for uid in uids]


def test_node_check_tells_of_it(node: VmNode) -> None:
    said = node.call("node", "check", "-o", "wide").out
    assert "SELinux is enforcing: each pod gets a label of its own" in said
    assert "the policy for containers is missing" not in said
    assert "confines Podman" not in said  # it only warns about it


def test_containers_of_a_pod_have_one_label_and_other_pods_have_others(node: VmNode) -> None:
    assert node.vm.run("getenforce") == "Enforcing\n"
    labels = [{label(node.vm, one.pid) for one in pod} for pod in web(node)]
    expected = [{f"system_u:system_r:container_t:{selinux_level(pod[0].uid)}"} for pod in web(node)]
    assert labels == expected
    assert labels[0] != labels[1]


def test_what_a_config_map_says_anew_reaches_the_pods(node: VmNode) -> None:
    node.apply(NAMESPACE, config_map("settings", colour="green"))
    try:
        containers = [one for pod in web(node) for one in pod]
        node.wait(
            lambda: {inside(node, one, "cat /settings/colour") for one in containers} == {"green"}, "the new colour"
        )
    finally:
        node.apply(NAMESPACE, config_map("settings", colour="blue"))


def test_a_container_that_was_killed_has_its_label_and_volumes_again(node: VmNode) -> None:
    one = next(one for one in web(node)[0] if one.container == "side")
    inside(node, one, "echo kept > /scratch/kept")
    node.vm.run(f"kill -9 {one.pid}")

    def again() -> list[Running]:
        return [
            new
            for new in node.running(NAMESPACE)
            if (new.uid, new.container) == (one.uid, "side") and new.attempt > one.attempt
        ]

    node.wait(again, "the container to be back")
    (new,) = again()
    assert label(node.vm, new.pid).endswith(selinux_level(one.uid))
    assert inside(node, new, "cat /scratch/kept /login/password") == "kept\nopensesame"
