"""Passes by a machine's own cron and systemd: `schedule install` there, what fires within a minute, `schedule remove`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cluster import Cluster, wait_for
from tests.lab.installed import PLACE, PYTHON, install

FIRES_WITHIN_S = 130.0
THEIRS = "17 3 * * * true theirs"
NAMESPACE = "shop"


@dataclass(frozen=True, slots=True)
class Machine:
    """A host that plays the machine where sshoal is used; its only node is itself, over SSH."""

    host: LabHost

    def sshoal(self, *arguments: str, check: bool = True) -> str:
        return self.host.run(f"cd /; {PLACE}/bin/sshoal {shlex.join(arguments)} 2>&1", check=check, timeout_s=120)

    def nodes(self) -> list[str]:
        """As the last pass stored them: this asks no host, and so is no pass itself."""
        return self.sshoal("get", "nodes", "--cached", "-o", "name", check=False).split()


@pytest.fixture(scope="module")
def machines(
    lab3: Lab, test_images: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Machine]]:
    """Two machines, with an inventory and trusted keys, that have never run a pass: one has the cron line, the other the timer."""
    scratch = tmp_path_factory.mktemp("installed")
    Cluster(lab3, scratch).wipe()
    chosen = {"cron": Machine(lab3.host("node1")), "systemd": Machine(lab3.host("node2"))}
    for kind, machine in chosen.items():
        host = machine.host
        if not host.run(f"command -v {PYTHON}", check=False):
            pytest.skip(
                f"sshoal is tested here under {PYTHON}, and lab hosts (Debian 12) have another Python: use theirs"
            )
        install(host, scratch)
        host.copy_in(lab3.root_key, "/root/.ssh/id_ed25519")
        inventory = f"{host.name} ansible_host={host.address} ansible_user=root"
        host.run(
            f"chmod 600 /root/.ssh/id_ed25519; mkdir -p /root/with%blank; echo {inventory!r} >/root/with%blank/hosts.ini"
        )
        machine.sshoal("node", "trust", "--yes", "-i", "/root/with%blank/hosts.ini")
        if kind == "cron":
            host.run(f"systemctl start cron; echo {THEIRS!r} | crontab -")
        machine.sshoal("schedule", "install", "--every", "1m", f"--{kind}", "-i", "/root/with%blank/hosts.ini")
    yield chosen
    for machine in chosen.values():
        machine.sshoal("schedule", "remove")
        machine.host.run(
            f"systemctl stop cron; crontab -r; rm -rf {PLACE} /root/.sshoal /root/with%blank /root/.ssh/id_ed25519",
            check=False,
        )
    Cluster(lab3, scratch).wipe()


@pytest.mark.parametrize("kind", ["cron", "systemd"])
def test_an_installed_schedule_makes_the_inventorys_host_a_node_with_nobody_there(
    machines: dict[str, Machine], kind: str
) -> None:
    machine = machines[kind]
    wait_for(lambda: machine.nodes() == [f"node/{machine.host.name}"], f"{kind} to run a pass", FIRES_WITHIN_S)
    assert machine.host.run("systemctl is-active sshoal-agent").strip() == "active"
    if kind == "cron":
        assert "reconcile --settle --scheduled" in machine.host.run("journalctl -q -t CRON -t cron | grep CMD")
    else:
        wait_for(lambda: timer(machine)["next"], "it to be due again, which it is not while a pass is under way")
        activates = timer(machine)["activates"]
        assert machine.host.run(f"systemctl show -p Result --value {activates}").strip() == "success"


def timer(machine: Machine) -> Any:
    (found,) = json.loads(machine.host.run("systemctl list-timers --output json 'sshoal-*'"))
    return found


def test_a_removed_schedule_leaves_other_peoples_lines_the_agent_and_the_nodes(machines: dict[str, Machine]) -> None:
    cron, systemd = machines["cron"], machines["systemd"]
    assert "crontab line removed" in cron.sshoal("schedule", "remove")
    assert cron.host.run("crontab -l").strip() == THEIRS
    assert ".timer removed" in systemd.sshoal("schedule", "remove")
    units = "systemctl list-units --all --plain --no-legend 'sshoal-*'"
    left = f"(ls /etc/systemd/system; {units}) | grep -E 'sshoal-[0-9a-f]{{8}}[.]'"
    wait_for(lambda: systemd.host.run(left, check=False) == "", "the units to be gone once a pass under way has ended")
    for machine in machines.values():
        assert "there was no schedule" in machine.sshoal("schedule", "remove")
        assert machine.host.run("systemctl is-active sshoal-agent").strip() == "active"
