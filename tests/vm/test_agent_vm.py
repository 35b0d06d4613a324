"""The real agent on a current Debian: Podman 5, cgroup v2, systemd's manager, Python 3.13. What differs there from the lab's hosts.

One machine, one set of workloads (tests.vm.node), which tests break and find mended. The order does not matter.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.act.bootstrap import AgentNotUp, Pushed
from tests.lab.cluster import ids, shell, single
from tests.lab.test_bootstrap import LEFT_BEHIND, newer, variant
from tests.vm.node import NAMESPACE, VmNode, measured

# ---- the node ---------------------------------------------------------------------------------------------------------


def test_the_node_is_ready_and_says_what_it_runs_on(node: VmNode) -> None:
    said = node.run("describe", "node", node.vm.name)

    assert "Ready   True" in said
    assert "Podman:           5.4.2, cgroups v2\n" in said
    assert "Python 3.13." in said
    assert node.hello().bundle == node.bundle.digest


def test_podman_filters_in_nftables_itself(node: VmNode) -> None:
    """Where netavark speaks nftables there is no iptables that could be in the way."""
    assert node.vm.run("podman info --format '{{.Host.NetworkBackend}}'") == "netavark\n"
    address = node.inspect(node.one("front"))["NetworkSettings"]
    assert node.vm.run("nft list table inet netavark | grep --count 8088") != "0\n", address


# ---- pods -------------------------------------------------------------------------------------------------------------


def test_limits_are_those_of_the_unified_hierarchy(node: VmNode) -> None:
    web = node.of("web")[0]

    limits = node.inside(web, "cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max cpu.weight")
    assert limits.split("\n")[:3] == [str(64 << 20), "0", "50000 100000"]
    assert int(limits.split("\n")[3]) < 100  # a tenth of a processor is less than the default weight stands for


def test_config_and_secret_are_files_in_the_pod_and_the_secret_on_no_disk(node: VmNode) -> None:
    web = node.of("web")[0]

    assert node.inside(web, "cat /etc/settings/colour /etc/login/password") == "blueopensesame"
    types = {line.split()[1]: line.split()[2] for line in node.inside(web, "cat /proc/mounts").splitlines()}
    assert types["/etc/login"] == "tmpfs"


def test_a_host_port_serves_at_the_nodes_address(node: VmNode) -> None:
    assert "version=v1" in node.vm.run("curl --silent --max-time 30 http://127.0.0.1:8088/")


def test_top_and_autoscalers_see_what_a_pod_uses(node: VmNode) -> None:
    cpu_m, memory_mib = measured(node, NAMESPACE)
    assert 100 < cpu_m < 400
    assert 12 <= memory_mib < 64


def test_running_out_of_memory_is_told(node: VmNode) -> None:
    """By the kernel's own count of kills in the container's group."""
    limits = {"resources": {"limits": {"memory": "24Mi"}}}
    swell = shell("a=0123456789abcdef; while :; do a=$a$a; done", **limits)
    assert how_it_ended(node, "swell", swell) == ("OOMKilled", 137)


def test_a_guaranteed_pod_is_one_of_the_last_to_be_killed_for_memory(node: VmNode) -> None:
    limits = {"resources": {"limits": {"cpu": "100m", "memory": "24Mi"}}}
    look = shell('test "$(cat /proc/self/oom_score_adj)" = -997', **limits)
    assert how_it_ended(node, "guaranteed", look) == ("Completed", 0)


def how_it_ended(node: VmNode, name: str, container: dict[str, Any]) -> tuple[str, int]:
    """Reason and exit code of a pod that runs once."""
    node.apply(NAMESPACE, single(name, container=container, pod={"restartPolicy": "Never"}), flags=("--no-wait",))

    def ended() -> list[tuple[str, int]]:
        states = [container["state"].get("terminated") for container in node.status(name)]
        return [(state["reason"], state["exitCode"]) for state in states if state]

    node.wait(ended, f"the end of {name}")
    found = ended()[0]
    node.run("delete", f"pod/{name}", "-n", NAMESPACE)
    return found


def test_exec_probes_leave_no_processes(node: VmNode) -> None:
    """Podman keeps what served an exec for five minutes unless told otherwise; a probe every two seconds would pile them up."""
    front = node.one("front")
    count = f"ps axww -o args | grep -- --exec | grep --count {front.id}"

    seen = [int(node.vm.run(count, check=False)) for _ in range(10)]
    assert max(seen) <= 30, seen  # some last for seconds on an emulated processor; piled up there would be 150
    assert [container["ready"] for container in node.status("front")] == [True]


def test_an_images_health_check_starts_no_timer(node: VmNode) -> None:
    check = "--change 'HEALTHCHECK --interval=1s CMD touch /checked'"
    node.vm.run(
        f"c=$(podman create localhost/sshoal-test:v1) && podman commit --quiet --format docker {check} $c"
        " localhost/checked:1 && podman rm $c",
        timeout_s=240,
    )
    image = {"image": "localhost/checked:1"}
    node.declare(single("checked", container=image))

    [of_image] = json.loads(node.vm.run("podman image inspect localhost/checked:1"))
    assert of_image["Healthcheck"]["Test"] == ["CMD-SHELL", "touch /checked"]
    one = node.one("checked")
    assert node.inspect(one)["Config"]["Healthcheck"]["Test"] == ["NONE"]
    assert one.id not in node.vm.run("systemctl list-units --all --no-legend --plain '*.timer'")
    node.run("delete", "pod/checked", "-n", NAMESPACE)


def test_logs_are_ours_though_journald_is_the_default(node: VmNode) -> None:
    assert node.vm.run("podman info --format '{{.Host.LogDriver}}'") == "journald\n"
    front = node.one("front")

    config = node.inspect(front)["HostConfig"]["LogConfig"]
    assert (config["Type"], config["Path"].startswith("/var/lib/sshoal/logs/")) == ("k8s-file", True)
    assert node.run("logs", "pod/front", "-n", NAMESPACE)


# ---- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "victims",
    [("State.Pid",), ("State.ConmonPid",), ("State.ConmonPid", "State.Pid")],
    ids=["payload", "conmon", "both"],
)
def test_a_killed_container_is_back_in_its_pod_and_nothing_else_restarts(
    node: VmNode, victims: tuple[str, ...]
) -> None:
    """Without its conmon a payload lives on: that is no reason to restart it."""
    app = "spare" if len(victims) == 2 else "front"  # a second death would be answered after a back-off
    victim, others = node.one(app), ids(node.of("web"))
    wanted = " ".join(f"{{{{.{part}}}}}" for part in victims)
    node.vm.run(f"kill -KILL $(podman inspect --format '{wanted}' {victim.id})")

    if "State.Pid" in victims:
        node.wait(lambda: ids(node.of(app)) - {victim.id}, "another container")
        again = node.one(app)
        assert (again.attempt, again.podman_pod, again.uid) == (victim.attempt + 1, victim.podman_pod, victim.uid)
    else:
        node.run("reconcile")
        assert node.one(app) == victim
    assert ids(node.of("web")) == others
    node.wait(lambda: all(one["ready"] for one in node.status(app)), "the pod to be Ready")


@pytest.mark.parametrize(("unit", "number"), [("sshoal-agent", 0), ("sshoal-podman", 1)])
def test_pods_do_not_notice_that_our_services_are_killed(node: VmNode, unit: str, number: int) -> None:
    before, pid = node.running(NAMESPACE), node.main_pid(unit)
    node.vm.run(f"kill -KILL {pid}")
    node.wait(lambda: node.main_pid(unit) not in (0, pid), f"{unit} to be back")

    node.wait(lambda: node.call("reconcile").exit_code == 0, "a pass that sees the node")
    assert node.running(NAMESPACE) == before
    victim = node.of("web")[number]  # another one each time: a second death would be answered after a back-off
    node.vm.run(f"kill -KILL {victim.pid}")
    node.wait(
        lambda: [one for one in node.of("web") if one.pod == victim.pod and one.id != victim.id],
        "the pods to be cared for",
    )


def test_the_deaths_of_both_services_at_once_are_survived(node: VmNode) -> None:
    before = node.running(NAMESPACE)
    agent, podman = node.main_pid("sshoal-agent"), node.main_pid("sshoal-podman")
    node.vm.run(f"kill -KILL {agent} {podman}")
    node.wait(lambda: node.agent_pid() not in (0, agent), "the agent to be back")

    node.wait(lambda: node.call("reconcile").exit_code == 0, "a pass that sees the node")
    assert node.running(NAMESPACE) == before


# ---- boots ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["power cut", "reboot"])
def test_pods_come_back_after_a_boot_without_a_controller(node: VmNode, how: str) -> None:
    before = {(one.pod, one.uid, one.container) for one in node.running(NAMESPACE)}
    if how == "reboot":
        node.vm.reboot()
    else:
        node.vm.kill()
        node.vm.start()
        node.vm.wait_ready(timeout_s=600)

    node.wait(lambda: {(one.pod, one.uid, one.container) for one in node.running(NAMESPACE)} == before, "the same pods")
    page = "curl --silent --max-time 10 http://127.0.0.1:8088/"
    node.wait(lambda: "version=v1" in node.vm.run(page, check=False), "the page")
    assert node.inside(node.of("web")[0], "cat /etc/settings/colour /etc/login/password") == "blueopensesame"
    assert node.vm.run("systemctl --failed --no-legend --plain") == ""


# ---- the agent's versions -----------------------------------------------------------------------------------------------


def test_an_upgrade_and_a_broken_one_leave_every_process_as_it_is(node: VmNode) -> None:
    before, podman = node.running(NAMESPACE), node.main_pid("sshoal-podman")

    assert node.push(newer(node.bundle)) == Pushed(changed=True)
    assert node.hello().bundle == newer(node.bundle).digest
    broken = variant(node.bundle, "nodeagent/main.py", "raise SystemExit('this version is broken')\n")
    with pytest.raises(AgentNotUp, match="the former agent is in charge again"):
        node.push(broken)
    assert node.hello().bundle == newer(node.bundle).digest
    assert node.push(node.bundle) == Pushed(changed=True)

    assert node.running(NAMESPACE) == before
    assert node.main_pid("sshoal-podman") == podman


# ---- forget -----------------------------------------------------------------------------------------------------------


def test_a_forgotten_node_has_nothing_of_ours_left(node: VmNode) -> None:
    node.is_up = False  # whatever test comes next begins anew
    node.run("node", "forget", node.vm.name, "--yes")

    assert node.vm.run(LEFT_BEHIND, check=False) == ""
    assert node.vm.run("systemctl --failed --no-legend --plain; nft list ruleset | grep 10.86 || true") == ""
    assert node.vm.run("podman images --quiet") != ""  # images were not ours to take
