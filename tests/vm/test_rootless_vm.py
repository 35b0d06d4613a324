"""The rootless agent on a current Debian: Podman 5, pasta, control groups version 2 with what systemd delegates to a user.

One test for each step of a node's life, in this order; on one machine of its own user, beside the agent of root that other tests use.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import image
from lab.inventory import inventory_text
from lab.rootfs import LOGIN_USER
from lab.vm import LOGIN_TIMEOUT_S, Vm
from tests.lab.cluster import Cluster, deployment, ids, single, wait_for
from tests.vm.node import LIMITS, PAGE, PATIENCE_S, OneHost, VmNode, measured

NAMESPACE = "rootless"


@pytest.fixture(scope="module")
def rootless(vm: Vm, _cluster: VmNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The machine as a rootless node of a cluster of its own, its workloads Ready. An agent of root, if there is one, goes first."""
    directory = tmp_path_factory.mktemp("rootless")
    archive = image.build()
    vm.copy_in(archive, "/tmp/image.tar", timeout_s=120)
    vm.run("podman load --quiet --input /tmp/image.tar", user=LOGIN_USER, timeout_s=240)
    inventory = directory / "inventory.ini"
    inventory.write_text(
        inventory_text(
            {vm.name: str(vm.address)},
            user=LOGIN_USER,
            key=vm.user_key,
            known_hosts=vm.known_hosts,
            become=True,
            rootless=True,
            port=vm.port,
            timeout_s=LOGIN_TIMEOUT_S,
        )
    )
    _cluster.wipe()
    _cluster.is_up = False
    cluster = Cluster(OneHost(vm), directory, inventory, LOGIN_USER)  # type: ignore[arg-type]  # as much of a lab as is needed
    front = single("front", container={"ports": [{"containerPort": 8080, "hostPort": 18088}]})
    web = deployment("web", 1, container={"readinessProbe": PAGE, "livenessProbe": PAGE, "resources": LIMITS})
    cluster.apply(NAMESPACE, front, web, flags=("--timeout", f"{PATIENCE_S:g}s"))
    yield cluster
    cluster.wipe()


def test_the_node_says_how_it_runs(rootless: Cluster, vm: Vm) -> None:
    said = rootless.run("describe", "node", vm.name)
    assert "cgroups v2, rootless" in said
    assert "LimitsIgnored" not in said
    assert "rootless" in rootless.run("node", "check", "-o", "wide")


def test_limits_are_enforced_where_systemd_delegates(rootless: Cluster) -> None:
    (web,) = [one for one in rootless.running(NAMESPACE) if one.pod.startswith("web")]
    limits = rootless.inside(web, "cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max")
    assert limits.split("\n") == [str(64 << 20), "0", "50000 100000"]


def test_top_and_autoscalers_see_what_a_pod_uses(rootless: Cluster) -> None:
    cpu_m, memory_mib = measured(rootless, NAMESPACE)
    assert 100 < cpu_m < 400
    assert 12 <= memory_mib < 64


def test_a_host_port_serves_at_the_nodes_address(rootless: Cluster, vm: Vm) -> None:
    assert "version=v1" in vm.run("curl --silent --max-time 30 http://127.0.0.1:18088/")


def test_a_killed_container_is_back(rootless: Cluster, vm: Vm) -> None:
    (web,) = [one for one in rootless.running(NAMESPACE) if one.pod.startswith("web")]
    vm.run(f"kill -9 {web.pid}", user=LOGIN_USER)
    wait_for(
        lambda: [
            one.attempt for one in rootless.running(NAMESPACE) if one.uid == web.uid and one.attempt > web.attempt
        ],
        "the container to be back",
        PATIENCE_S,
    )


def test_a_killed_agent_is_back_and_its_pods_never_noticed(rootless: Cluster, vm: Vm) -> None:
    rootless.run("reconcile", "--settle", "--budget", f"{PATIENCE_S:g}s")
    before = ids(rootless.running(NAMESPACE))
    vm.run("systemctl --user kill --kill-who=main -s KILL sshoal-agent", user=LOGIN_USER)
    rootless.run("reconcile", "--settle", "--budget", f"{PATIENCE_S:g}s")
    assert ids(rootless.running(NAMESPACE)) == before


def test_a_reboot_brings_agent_and_pods_back_without_a_login(rootless: Cluster, vm: Vm) -> None:
    vm.reboot()
    serving = "curl --silent --max-time 30 http://127.0.0.1:18088/"
    wait_for(lambda: "version=v1" in vm.run(serving, check=False), "the pod to serve again", PATIENCE_S)


def test_a_forgotten_node_keeps_nothing_of_ours(rootless: Cluster, vm: Vm) -> None:
    assert "forgotten" in rootless.run("node", "forget", vm.name, "--yes")
    look = "cd; ls -d .local/share/sshoal /run/user/*/sshoal 2>/dev/null; find .config -name 'sshoal-*' 2>/dev/null; podman ps -aq"
    assert vm.run(look, user=LOGIN_USER, check=False) == ""
