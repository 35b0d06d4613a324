"""`node check` on real hosts: every reason at once, the exit codes, and what an ordinary user sees where sudo refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cluster import Cluster, single


@pytest.fixture
def context(lab3: Lab, tmp_path: Path) -> Cluster:
    return Cluster(lab3, tmp_path)


@contextmanager
def spoiled(host: LabHost, spoil: str, mend: str) -> Iterator[None]:
    host.run(spoil)
    try:
        yield
    finally:
        host.run(mend)


def away(program: str) -> tuple[str, str]:
    """Commands that hide a program, and bring it back."""
    return f"mv {program} {program}.away", f"mv {program}.away {program}"


def findings(checked: list[dict[str, Any]], host: str) -> dict[str, str]:
    """Problem → severity, of one host."""
    (one,) = [entry for entry in checked if entry["host"] == host]
    return {finding["problem"]: finding["severity"] for finding in one["findings"]}


def check(context: Cluster, expect: int, *flags: str) -> list[dict[str, Any]]:
    return list(json.loads(context.run("node", "check", "-o", "json", *flags, expect=expect)))


def test_hosts_that_can_serve_are_fit_and_nothing_is_changed_on_them(context: Cluster) -> None:
    before = [host.run("ls -A /var/lib /run /etc /root") for host in context.lab.hosts]
    checked = check(context, 0)
    assert [one["result"] for one in checked] == ["fit"] * 3
    assert {one["facts"]["programs"]["podman"][0] for one in checked} == {"4"}
    assert [host.run("ls -A /var/lib /run /etc /root") for host in context.lab.hosts] == before


def test_every_reason_is_told_at_once_each_with_what_to_do(context: Cluster) -> None:
    host = context.lab.hosts[0]
    settings = r"printf 'AllowStreamLocalForwarding no\nMaxSessions 4\n' >/etc/ssh/sshd_config.d/test.conf"
    include = "sed -i '1i Include /etc/ssh/sshd_config.d/*.conf' /etc/ssh/sshd_config"
    with ExitStack() as stack:
        for spoil, mend in (
            away("/usr/bin/catatonit"),
            away("/usr/bin/crun"),
            away("/usr/lib/podman/netavark"),
            ("mount -t tmpfs -o noexec,size=2m tmpfs /var/lib/sshoal", "umount /var/lib/sshoal"),
            (
                f"mkdir -p /etc/ssh/sshd_config.d; {settings}; {include}",
                "rm /etc/ssh/sshd_config.d/test.conf; sed -i 1d /etc/ssh/sshd_config",
            ),
        ):
            if "tmpfs" in spoil:
                host.run("mkdir -p /var/lib/sshoal")
            stack.enter_context(spoiled(host, spoil, mend))
        checked = check(context, 1)
        text = context.run("node", "check", "node1", "-o", "wide", expect=1)
    found = findings(checked, "node1")
    assert {problem.split()[0] for problem, severity in found.items() if severity == "fails"} == {
        "catatonit",
        "no",  # OCI runtime
        "netavark",
        "only",  # 2 MiB are free
    }
    assert [severity for problem, severity in found.items() if "noexec" in problem] == ["warning"]
    assert [severity for problem, severity in found.items() if "4 sessions" in problem] == ["warning"]
    assert [severity for problem, severity in found.items() if "does not forward sockets" in problem] == ["note"]
    assert [one["result"] for one in checked] == ["not fit", "fit", "fit"]
    assert text.count("→") == len(found)
    host.run("rmdir /var/lib/sshoal")


def test_where_sudo_refuses_the_other_reasons_are_told_too(lab3: Lab, tmp_path: Path) -> None:
    context, host = Cluster(lab3, tmp_path, lab3.inventory_sudo), lab3.hosts[0]
    rule = "/etc/sudoers.d/zz-test"
    with (
        spoiled(host, f"echo 'Defaults:ubuntu requiretty' >{rule}", f"rm {rule}"),
        spoiled(host, *away("/usr/bin/podman")),
    ):
        found = findings(check(context, 1), "node1")
    assert found["sudo wants a terminal (requiretty)"] == "fails"
    assert found["Podman is not installed"] == "fails"
    assert check(context, 0, "node1")[0]["result"] == "fit"


def test_a_host_that_is_not_reached_is_no_reason_to_say_less_of_the_others(whole_lab3: Lab, tmp_path: Path) -> None:
    context = Cluster(whole_lab3, tmp_path)
    whole_lab3.kill("node3")
    checked = check(context, 4)
    assert [one["result"] for one in checked] == ["fit", "fit", "unreachable"]
    assert checked[2]["problem"]


def test_another_clusters_agent_is_told_and_our_own_is_none(cluster: Cluster, ns: str, tmp_path: Path) -> None:
    cluster.apply(ns, single("one", node="node1"))
    assert check(cluster, 0)[0]["facts"]["owner"]
    stranger = Cluster(cluster.lab, tmp_path)
    found = findings(check(stranger, 1), "node1")
    assert [problem for problem in found if "belongs to cluster" in problem]
