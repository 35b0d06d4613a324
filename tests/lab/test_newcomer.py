"""From addresses to the first pod and back to bare hosts, as a newcomer types it: init, trust, check, apply, forget."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cluster import PATIENCE_S, SSHOAL, Cluster, Done, deployment, manifest, running_on
from tests.lab.test_commands import _await

# All that could stay behind on a host.
EVERYTHING = r"""
cd /; find / /run /var/lib/containers /dev/shm -xdev \
    \( -path /proc -o -path /sys -o -path /run/systemd -o -path /run/log \) -prune -o -printf '%y %m %u %p %l\n'
systemctl list-unit-files --no-legend --plain
systemctl list-units --all --plain --no-legend | awk '$1 !~ /[.]mount$/ { print $1, $2, $3 }'
podman ps --all --external --format '{{.ID}}'; podman pod ps --format '{{.ID}}'; podman network ls --format '{{.Name}}'
podman volume ls --format '{{.Name}}'; podman images --format '{{.Repository}}:{{.Tag}}'
ip -brief link | awk '{ print $1 }'; ip route
nft --stateless list ruleset 2>/dev/null
sysctl --all 2>/dev/null | grep -E '^net[.].*(forward|bridge|rp_filter|route_localnet)'
awk '{ print $2, $3 }' /proc/mounts
ps ax -o comm= | grep -vE '^(sshd|sftp-server|bash|sh|ps|sort|find|awk|grep|sudo)$'
getent passwd; getent group
"""
# Mounts are asked of the kernel: systemd hears of one's end a little later. Logins come and go; a target is no more than a name for
# others to wait for.
PASSING = re.compile(r"(session-|user-|user@|/run/user/|\(sd-pam\)|network-online[.]target)")


class Newcomer:
    """Somebody with a home directory, a key, and hosts. No variable of ours is set."""

    def __init__(self, lab: Lab, home: Path, user: str, count: int) -> None:
        self.home = home
        self.hosts = lab.hosts[:count]
        self.words = [f"{user}@{host.address}" for host in self.hosts]
        self.key = str(lab.root_key if user == "root" else lab.user_key)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SSHOAL_")}
        self.environment = {**kept, "HOME": str(home), "COLUMNS": "200"}

    def call(self, *arguments: str, stdin: str = "") -> Done:
        done = subprocess.run(
            [SSHOAL, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=self.environment,
            cwd=self.home,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *arguments: str, stdin: str = "", expect: int = 0) -> str:
        done = self.call(*arguments, stdin=stdin)
        assert done.exit_code == expect, done.out + done.err
        return done.out + done.err

    def answers(self, answer: str, *arguments: str) -> tuple[int, str]:
        """At a terminal: waits for the question, types the answer → exit code, what was on the screen."""
        controller, terminal = pty.openpty()
        process = subprocess.Popen(
            [SSHOAL, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, env=self.environment, cwd=self.home
        )
        os.close(terminal)
        screen = _await(controller, b"[y/N]")
        os.write(controller, f"{answer}\n".encode())
        try:
            while part := os.read(controller, 4096):
                screen += part
        except OSError:  # Linux says so when the last program has left the terminal
            pass
        os.close(controller)
        return process.wait(PATIENCE_S), screen.decode(errors="replace")


@pytest.fixture(params=[("root", 3), ("ubuntu", 1)], ids=["root on three hosts", "a user with sudo on one"])
def newcomer(
    lab3: Lab, test_images: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Newcomer]:
    Cluster(lab3, tmp_path).wipe()
    yield Newcomer(lab3, tmp_path, *request.param)
    Cluster(lab3, tmp_path).wipe()


def test_from_addresses_to_the_first_pods_and_back_to_a_bare_host(newcomer: Newcomer) -> None:
    first, count = newcomer.hosts[0], len(newcomer.hosts)
    before = everything(first)

    init = ["init", *newcomer.words, "--key", newcomer.key]
    code, screen = newcomer.answers("y", *init)
    assert code == 0, screen
    for host in newcomer.hosts:
        assert host.run("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1] in screen
    assert screen.count("the agent is installed and answers") == count
    assert "the agent was there and answers" in newcomer.run(*init), "repeating it is harmless"
    assert len(re.findall(r"\bfit\b", newcomer.run("node", "check"))) == count
    assert newcomer.run("node", "trust").count("known") == count

    newcomer.run("apply", "-f", "-", stdin=manifest("shop", deployment("web", count)))
    pods = [one for host in newcomer.hosts for one in running_on(host, "shop")]
    assert [one.host for one in pods] == [host.name for host in newcomer.hosts]

    assert "forgotten" in newcomer.run("node", "forget", str(first.address), "--yes")
    after = everything(first)
    assert sorted(after - before) == []
    assert sorted(before - after) == []
    assert [one for host in newcomer.hosts for one in running_on(host, "shop")] == pods[1:]


@pytest.mark.parametrize("newcomer", [("root", 1)], indirect=True)
def test_an_init_that_came_to_nothing_changes_nothing_and_can_be_corrected(newcomer: Newcomer) -> None:
    inventory = newcomer.home / "hosts.ini"
    init = ["init", newcomer.words[0], "--key", newcomer.key]
    code, screen = newcomer.answers("n", *init)
    assert code == 2, screen
    assert "nobody can be asked" in newcomer.run(*init, expect=2)
    nobody = str(newcomer.hosts[0].address + 50)
    assert nobody in newcomer.run("init", f"root@{nobody}", "--key", newcomer.key, "--yes", expect=4)
    assert not inventory.exists()
    assert newcomer.hosts[0].run("ls -d /var/lib/sshoal", check=False) == ""

    # One of two is there: it is a node and can be used; the other is told of.
    said = newcomer.run(*init, f"root@{nobody}", "--yes", expect=4)
    assert "1 of 2 are ready" in said
    assert str(newcomer.hosts[0].address) in newcomer.run("get", "nodes", "--cached")
    assert inventory.exists()


def everything(host: LabHost) -> set[str]:
    """What there is on a host, a line each. Podman has been used, so that what it makes for itself once is no difference."""
    used = "podman pod create --name used && podman run --pod used localhost/sshoal-test:v1 true; podman pod rm --force used"
    lines = host.run(f"({used}) >/dev/null 2>&1; {EVERYTHING}", timeout_s=60).splitlines()
    return {line for line in lines if not PASSING.search(line)}
