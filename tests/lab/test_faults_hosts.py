"""Faults of one host under a cluster: Podman hangs, records are lost, disks fill, processes cannot be killed (docs/faults.md)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.host import LabHost
from lab.lab import Lab
from tests.lab.cluster import PATIENCE_S, Cluster, deployment, ids, shell, single, tolerating, wait_for
from tests.lab.test_cluster_healing import DEATHS, answers, serves, wait_back

SLOW_S = 150.0  # Podman's deadlines are tens of seconds


@contextmanager
def network_teardown_that_hangs(node: LabHost) -> Iterator[None]:
    """The next pod whose network is taken down keeps its lock for ever, as in containers/podman#29646.

    What hangs is called netavark, as the real one is: it may be the helper of a cleanup or of the service, whoever comes first.
    """
    script = (
        '#!/bin/sh\\ncase "$*" in *teardown*) [ ! -e /root/hang ] || { rm /root/hang; exec /root/hanging/netavark 98765; } ;; esac\\n'
        'exec /root/netavark.real "$@"\\n'
    )
    node.run(
        f"cp /usr/lib/podman/netavark /root/netavark.real; printf '{script}' >/root/netavark; chmod 755 /root/netavark; "
        "mkdir -p /root/hanging; ln -sf /bin/sleep /root/hanging/netavark; touch /root/hang; "
        "mount --bind /root/netavark /usr/lib/podman/netavark"
    )
    try:
        yield
    finally:
        node.run("umount /usr/lib/podman/netavark; rm -f /root/hang")


def test_a_podman_that_hangs_on_a_cleanup_of_ours_is_freed_and_no_pod_notices(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, single("victim", node="node1"), single("bystander", node="node1"))
    before = {one.pod: one for one in cluster.running(ns)}
    node = cluster.host("node1")
    with network_teardown_that_hangs(node):
        node.run(f"id={before['victim'].id}; pod={before['victim'].podman_pod}; {DEATHS['infra']}")
        hangs = "pgrep -f 'netavark 9876[5]'"  # no container of another test sleeps so long
        wait_for(lambda: node.run(hangs, check=False), "the cleanup to hang")
        wait_for(lambda: not node.run(hangs, check=False), "the agent to end it", SLOW_S)
    back = wait_back(cluster, before["victim"])
    wait_for(lambda: serves(cluster, back), "the victim to be ready again")
    assert before["bystander"] in cluster.running(ns)
    cluster.run("reconcile", "--settle")
    assert "which it seemed to wait for" in cluster.run("events", "--all-namespaces")


def test_a_podman_service_that_is_frozen_is_replaced_and_no_pod_notices(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, single("web", node="node1"))
    (before,) = cluster.running(ns)
    node = cluster.host("node1")
    service = node.run("systemctl show --property MainPID --value sshoal-podman").strip()
    node.run(f"kill -STOP {service}")
    wait_for(
        lambda: node.run("systemctl show --property MainPID --value sshoal-podman").strip() not in ("0", service),
        "the frozen service to be replaced",
        SLOW_S,
    )
    assert cluster.running(ns) == [before]
    cluster.apply(ns, single("another", node="node1"))
    assert before in cluster.running(ns)


@pytest.mark.parametrize(
    "loss",
    [
        "rm -rf /var/lib/sshoal/documents",
        "for file in /var/lib/sshoal/documents/*; do : >$file; done",
        "for file in /var/lib/sshoal/documents/*; do sed -i s/sha256/sha255/ $file; done",
    ],
    ids=["gone", "empty", "broken"],
)
def test_an_agent_whose_records_are_lost_keeps_every_pod(cluster: Cluster, ns: str, loss: str) -> None:
    cluster.apply(ns, deployment("web"))
    before = cluster.running(ns)
    node = cluster.host("node1")
    node.run(f"systemctl kill --kill-who=main -s KILL sshoal-agent; {loss}; systemctl restart sshoal-agent")
    wait_for(lambda: answers(cluster, "node1"), "the agent to answer again")
    assert cluster.running(ns) == before
    cluster.run("reconcile", "--settle")
    assert "everything is as declared" in cluster.run("reconcile", "--settle")
    assert cluster.running(ns) == before


def test_a_host_that_was_suspended_is_replaced_and_its_surplus_stops_on_return(
    cluster: Cluster, whole_lab3: Lab, ns: str
) -> None:
    cluster.apply(ns, deployment("web", 3, pod=tolerating(3)))
    before = cluster.running(ns)
    with cluster.watching():
        whole_lab3.freeze("node3")
        wait_for(lambda: len(cluster.running(ns, ["node1", "node2"])) == 3, "the lost replica to run elsewhere")
        others = cluster.running(ns, ["node1", "node2"])
        whole_lab3.thaw("node3")
        wait_for(lambda: len(cluster.running(ns)) == 3 == len(cluster.pods(ns)), "the surplus to stop")
    assert ids(cluster.running(ns)) < ids(before) | ids(others), "nothing was restarted"


def test_a_host_port_that_somebody_took_is_named_and_used_once_it_is_free(cluster: Cluster, ns: str) -> None:
    node = cluster.host("node1")
    node.run("systemd-run --unit=squatter python3 -m http.server 8099")
    try:
        wait_for(
            lambda: node.run("curl -s http://127.0.0.1:8099/ | head -c1", check=False), "somebody to hold the port"
        )
        taker = single("taker", node="node1", container={"ports": [{"containerPort": 8080, "hostPort": 8099}]})
        said = cluster.apply(ns, taker, flags=["--timeout", f"{PATIENCE_S / 2:g}s"], expect=3)
        assert "8099" in said
        assert "in use" in said
    finally:
        node.run("systemctl stop squatter")
    cluster.run("wait", "pod/taker", "-n", ns, "--timeout", "120s")


def test_a_process_that_cannot_be_killed_holds_up_no_other_pod(cluster: Cluster, ns: str) -> None:
    """A frozen control group of v1 takes no SIGKILL, as a process that waits for a dead disk."""
    cluster.apply(ns, single("stuck", node="node1"))
    (stuck,) = cluster.running(ns)
    node = cluster.host("node1")
    group = node.run(f"awk -F: '$2 == \"freezer\" {{ print $3 }}' /proc/{stuck.pid}/cgroup").strip()
    state = f"/sys/fs/cgroup/freezer{group}/freezer.state"
    if not group or not node.run(f"ls {state}", check=False):
        pytest.skip("no freezer of cgroup v1 here")
    node.run(f"echo FROZEN >{state}")
    try:
        cluster.call("delete", "pod/stuck", "-n", ns, "--grace-period", "0", "--timeout", "5s")
        cluster.apply(ns, single("other", node="node1"), single("third", node="node1"))
        assert node.run(f"cat /proc/{stuck.pid}/comm", check=False), "it is still there"
        assert {"other", "third"} <= {one.pod for one in cluster.running(ns)}
        assert [pod["metadata"]["name"] for pod in cluster.pods(ns)] == ["other", "stuck", "third"], (
            "not said to be gone"
        )
    finally:
        node.run(f"echo THAWED >{state}", check=False)
    wait_for(lambda: len(cluster.running(ns)) == 2, "it to go once it can")
    cluster.run("reconcile", "--settle")
    assert [pod["metadata"]["name"] for pod in cluster.pods(ns)] == ["other", "third"]


def test_a_probe_that_hangs_is_a_failure_and_leaves_no_process(cluster: Cluster, ns: str) -> None:
    probe = {"exec": {"command": ["sleep", "9876"]}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 2}
    cluster.apply(
        ns, single("hung", node="node1", container={"readinessProbe": probe}), flags=["--timeout", "10s"], expect=3
    )
    wait_for(lambda: "did not end within 1 s" in cluster.run("events", "-n", ns), "the failure to be told")
    node = cluster.host("node1")
    counts = [int(node.run("pgrep -fc 'sleep 987[6]'", check=False) or 0) for _ in range(20)]
    assert max(counts) <= 2, "one at a time; the second is one that is just being ended"
    (hung,) = cluster.running(ns)
    assert hung.attempt == 0, "readiness restarts nothing"
    cluster.run("delete", "pod/hung", "-n", ns, "--grace-period", "0")
    wait_for(lambda: not node.run("pgrep -f 'sleep 987[6]'", check=False), "nothing to be left")


def test_a_container_that_writes_without_end_fills_no_disk(cluster: Cluster, ns: str) -> None:
    script = "yes 'a line that is written again and again' | head -c 60000000; echo written; exec sleep 1000"
    cluster.apply(ns, single("writer", node="node1", container=shell(script)))
    node = cluster.host("node1")

    def is_written() -> bool:
        """The word comes behind a line that was cut anywhere."""
        return cluster.call("logs", "writer", "-n", ns, "--tail", "1").out.endswith("written\n")

    wait_for(is_written, "all to be written", SLOW_S)
    (writer,) = cluster.running(ns)
    size = int(node.run(f"du -sb /var/lib/sshoal/logs/{writer.uid} | cut -f1"))
    assert size < 25 * 1024 * 1024
    assert is_written()
