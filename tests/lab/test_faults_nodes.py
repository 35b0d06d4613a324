"""Faults of a whole host under a cluster: who it is, which version its agent has, what it has run out of (docs/faults.md)."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.inventory import inventory_text
from lab.lab import Lab
from lab.rootfs import LOGIN_USER
from lab.system import cgroup_hierarchies
from nodeagent.protocol import HELLO, frame
from tests.lab.cluster import Cluster, deployment, ids, manifest, shell, single, spread, wait_for
from tests.lab.test_cluster_healing import answers, hello, kill_agent, wait_back

STATE = "/var/lib/sshoal"
MIB = 1024 * 1024
AGENT_MIB_MAX = 40

# What another version of the agent is, at the end of a module that it loads first.
NEWER = """
protocol.VERSION = (1, 99)
_encode = protocol.encode
def _with_more(value):
    made = _encode(value)
    return {**made, "addedLater": {"by": ["a newer agent"]}} if type(value).__name__ in ("Hello", "Report") else made
protocol.encode = _with_more
"""
OLDER = """
from nodeagent import server
protocol.VERSION = (1, 0)
del server._REQUESTS[protocol.USAGE]
"""
# Asks the agent who it is, on its host, as whoever runs this.
ASK = """
import socket
try:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(10)
        agent.connect("/run/sshoal/agent.sock")
        agent.sendall(FRAME)
        print("an answer" if agent.recv(65536) else "no answer")
except OSError as error:
    print(type(error).__name__)
""".replace("FRAME", repr(frame({"id": 0, "verb": HELLO})))


# ---- who a host is --------------------------------------------------------------------------------------------------


def test_a_host_under_two_names_is_used_under_neither_and_the_others_go_on(
    cluster: Cluster, ns: str, tmp_path: Path
) -> None:
    cluster.apply(ns, deployment("web"))
    before = cluster.running(ns)
    assert spread(before) == {"node1": 1, "node2": 1, "node3": 1}
    addresses = {host.name: str(host.address) for host in cluster.lab.hosts}
    listed = inventory(cluster.lab, tmp_path, addresses | {"again": addresses["node1"]})
    twice = Cluster(cluster.lab, cluster.directory, listed)
    said = twice.run("reconcile", expect=4)
    assert "one agent answers as again and node1: keep one name in the inventory" in said
    assert "Quarantined" in node_line(twice, "node1")
    assert "Ready" in node_line(twice, "node2")
    twice.call("scale", "deployment/web", "-n", ns, "--replicas", "5", "--timeout", "20s")
    twice.wait_running(ns, 4, hosts=["node2", "node3"])
    assert ids(before) < ids(twice.running(ns))
    cluster.run("reconcile", "--settle")  # by the inventory as it was
    assert "everything is as declared" in cluster.run("reconcile", "--settle")
    assert ids(before) < ids(cluster.running(ns))
    assert len(cluster.running(ns)) == 5


def test_a_new_host_under_two_names_becomes_a_node_once_one_of_them_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.host("node3")
    names = {name: str(node.address) for name in ("first", "second")}
    other = Cluster(cluster.lab, tmp_path, inventory(cluster.lab, tmp_path, names))
    cluster.wipe(node)
    try:
        said = other.run("reconcile", expect=4)
        for name in names:
            assert f"host {name} is not used: one agent answers as first and second: keep one name" in said, said
            assert "Quarantined" in node_line(other, name)
        inventory(cluster.lab, tmp_path, {"second": names["second"]})
        other.apply("two-names", single("web", node="second"))
        assert "Ready" in node_line(other, "second")
    finally:
        cluster.wipe(node)
    cluster.run("reconcile", "--settle")


def test_a_clone_of_a_host_is_used_no_more_than_its_original_until_it_has_an_agent_of_its_own(
    cluster: Cluster, ns: str, tmp_path: Path
) -> None:
    """All that node1's agent knows, its identity first, is on node2 as well: what a copy of a virtual machine is to us."""
    cluster.apply(ns, single("original", node="node1"), single("bystander", node="node3"))
    before = cluster.running(ns)
    documents = tmp_path / "documents.tar"
    packed = cluster.host("node1").run(f"tar -C {STATE} --exclude=.ballast -c documents | base64 -w0")
    documents.write_bytes(base64.b64decode(packed))
    clone = cluster.host("node2")
    clone.copy_in(documents, "/root/documents.tar")
    clone.run(
        f"systemctl stop sshoal-agent; rm -rf {STATE}/documents; tar -C {STATE} -xf /root/documents.tar; "
        "rm /root/documents.tar; systemctl start sshoal-agent"
    )
    wait_for(lambda: answers(cluster, "node2"), "the clone's agent to answer")
    assert hello(cluster, "node2").agent == hello(cluster, "node1").agent
    wait_for(lambda: cluster.running(ns, ["node2"]), "the clone to run what its original runs")
    said = cluster.run("reconcile", expect=4)
    assert "one agent answers as node1 and node2" in said
    assert "Quarantined" in node_line(cluster, "node1")
    assert "Quarantined" in node_line(cluster, "node2")
    cluster.call("apply", "-f", "-", "--timeout", "20s", stdin=manifest(ns, single("another", node="node3")))
    cluster.wait_running(ns, 2, hosts=["node3"])
    assert ids(before) < ids(cluster.running(ns))
    mend = re.search(r"on a cloned machine: (.+)", said)
    assert mend is not None
    clone.run(mend[1])
    wait_for(lambda: answers(cluster, "node2"), "an agent of its own to answer")
    cluster.run("reconcile", "--settle")
    assert "everything is as declared" in cluster.run("reconcile", "--settle")
    assert hello(cluster, "node2").agent != hello(cluster, "node1").agent
    wait_for(lambda: not cluster.running(ns, ["node2"]), "what the clone had of its original to stop")
    assert ids(before) < ids(cluster.running(ns))
    assert sorted(one.pod for one in cluster.running(ns)) == ["another", "bystander", "original"]


# ---- versions that differ -------------------------------------------------------------------------------------------


def test_an_agent_of_a_newer_protocol_is_read_and_neither_replaced_nor_commanded(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web"))
    before, agent = cluster.running(ns), hello(cluster, "node1")
    with changed_agent(cluster, "node1", NEWER):
        assert tuple(hello(cluster, "node1").version) == (1, 99)
        said = cluster.run("reconcile")
        assert re.search(r"protocol 1\.99, this sshoal 1\.\d+: upgrade sshoal on this machine", said), said
        cluster.call("scale", "deployment/web", "-n", ns, "--replicas", "5", "--timeout", "20s")
        cluster.wait_running(ns, 4, hosts=["node2", "node3"])
        assert hello(cluster, "node1").bundle == agent.bundle
        assert ids(before) < ids(cluster.running(ns))
        (there,) = [pod for pod in cluster.pods(ns) if pod["spec"]["nodeName"] == "node1"]
        assert there["status"]["phase"] == "Running"
    cluster.run("reconcile", "--settle")
    assert "everything is as declared" in cluster.run("reconcile", "--settle")
    assert ids(before) < ids(cluster.running(ns))


def test_an_agent_of_an_older_protocol_takes_orders_and_what_it_cannot_tell_is_left_out(
    cluster: Cluster, ns: str
) -> None:
    cluster.apply(ns, single("before", node="node1"))
    before = cluster.running(ns)
    with changed_agent(cluster, "node1", OLDER):
        cluster.apply(ns, single("after", node="node1"))
        assert ids(before) < ids(cluster.running(ns, ["node1"]))
        figures = {line.split()[0]: line.split()[1] for line in cluster.call("top", "nodes").out.splitlines()[1:]}
        assert figures["node1"] == "<unknown>"
    cluster.run("reconcile", "--settle")
    assert {one.pod for one in cluster.running(ns)} == {"before", "after"}


# ---- what a host has run out of -------------------------------------------------------------------------------------


def test_on_a_full_disk_pods_run_on_and_are_healed_orders_are_refused_and_room_ends_it(
    cluster: Cluster, ns: str
) -> None:
    node = cluster.host("node1")
    with small_disk(cluster, node) as resize:
        cluster.apply(ns, single("victim", node="node1"), single("doomed", node="node1"))
        before = {one.pod: one for one in cluster.running(ns)}
        resize("full")  # but for the ballast
        node.run(f"kill -9 {before['victim'].pid}")
        back = wait_back(cluster, before["victim"])
        said = cluster.apply(ns, single("late", node="node1"), flags=["--timeout", "3s"], expect=3)
        assert "DiskPressure: less than 512 MiB are free" in said + cluster.run("describe", "node/node1")
        resize("full")  # and the ballast is used up
        kill_agent(node)
        wait_for(lambda: answers(cluster, "node1"), "the agent to answer again")
        instance = hello(cluster, "node1").instance
        said = cluster.call("delete", "pod/doomed", "-n", ns, "--timeout", "3s").err
        said += cluster.run("describe", "node/node1")
        assert "No space left on device" in said, said
        assert ids(cluster.running(ns)) == {back.id, before["doomed"].id}, "a set that is not stored is not in force"
        assert hello(cluster, "node1").instance == instance, "it crashes again and again"
        resize("2g")
        cluster.run("wait", "pod/late", "-n", ns, "--timeout", "60s")
        cluster.run("reconcile", "--settle")
        wait_for(lambda: {one.pod for one in cluster.running(ns)} == {"victim", "late"}, "the order to be carried out")
        assert back in cluster.running(ns)
        assert "DiskPressure" not in cluster.run("describe", "node/node1")
        wait_for(lambda: node.run(f"ls {STATE}/documents/.ballast", check=False), "the ballast to be there again")


def test_a_host_without_processes_to_spare_judges_no_pod_by_probes_that_it_cannot_start(
    cluster: Cluster, whole_lab3: Lab, ns: str
) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 1}
    cluster.apply(ns, single("probed", node="node1", container={"livenessProbe": probe}), single("other", node="node1"))
    before = cluster.running(ns)
    group = control_group(whole_lab3.host("node1"), "pids.max")

    def refused() -> int:
        # Which kernel counts in which group differs.
        return sum(int(file.read_text().split()[1]) for file in group.rglob("pids.events"))

    told_before = refused()
    (group / "pids.max").write_text(str(int((group / "pids.current").read_text()) // 2))
    try:
        assert "node1" in cluster.run("reconcile", expect=4)
        wait_for(lambda: refused() >= told_before + 10, "processes to be refused to the host")
    finally:
        (group / "pids.max").write_text("max")
    wait_for(lambda: answers(cluster, "node1"), "the agent to answer")
    cluster.run("reconcile", "--settle")
    assert cluster.running(ns) == before
    # And probes are made again: one that fails is a verdict.
    (probed,) = [one for one in before if one.pod == "probed"]
    cluster.host("node1").run(f"kill -9 {probed.pid}")
    wait_back(cluster, probed)


def test_on_a_host_without_memory_the_kernel_takes_the_hog_and_neither_the_agent_nor_other_pods(
    cluster: Cluster, whole_lab3: Lab, ns: str
) -> None:
    cluster.apply(ns, single("bystander", node="node1"))
    before, agent = cluster.running(ns), hello(cluster, "node1")
    node = whole_lab3.host("node1")
    group = control_group(node, "memory.limit_in_bytes")
    used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    hog = single("hog", node="node1", container=shell("exec dd if=/dev/zero of=/dev/null bs=1G count=1"))
    hog["spec"]["restartPolicy"] = "Never"
    (group / "memory.limit_in_bytes").write_text(str(int(used["total_rss"]) + 400 * MIB))
    try:
        cluster.apply(ns, hog, flags=["--no-wait"])
        wait_for(lambda: cluster.pod(ns, "hog")["status"]["phase"] == "Failed", "the hog to end")
    finally:
        (group / "memory.limit_in_bytes").write_text("-1")
    (ended,) = cluster.pod(ns, "hog")["status"]["containerStatuses"]
    assert ended["state"]["terminated"]["exitCode"] == 137
    assert cluster.running(ns) == before
    assert hello(cluster, "node1").instance == agent.instance
    resident = "grep VmRSS /proc/$(systemctl show --property MainPID --value sshoal-agent)/status"
    assert int(node.run(resident).split()[1]) < AGENT_MIB_MAX * 1024


# ---- who may talk to the agent --------------------------------------------------------------------------------------


def test_another_user_of_the_host_reaches_the_agent_neither_by_its_socket_nor_where_that_is_open_to_all(
    cluster: Cluster,
) -> None:
    cluster.run("reconcile")
    node, ask = cluster.host("node1"), shlex.quote(ASK)
    assert "sshoal" not in node.run("id -nG", user=LOGIN_USER)
    assert node.run(f"python3 -c {ask}").startswith("an answer")
    assert node.run(f"python3 -c {ask}", user=LOGIN_USER).strip() == "PermissionError"
    node.run(
        "chmod 755 /run/sshoal; chmod 666 /run/sshoal/agent.sock"
    )  # what nobody should do: the agent looks who it is as well
    try:
        assert node.run(f"python3 -c {ask}", user=LOGIN_USER).strip() in (
            "no answer",
            "ConnectionResetError",
            "BrokenPipeError",
        )
        assert node.run(f"python3 -c {ask}").startswith("an answer")
    finally:
        node.run("chmod 700 /run/sshoal; chmod 600 /run/sshoal/agent.sock")
    assert f"refused a connection of user {node.run('id -u', user=LOGIN_USER).strip()}" in node.run(
        "journalctl -u sshoal-agent --no-pager --quiet --since -5min"
    )


# ---- helpers --------------------------------------------------------------------------------------------------------


def inventory(lab: Lab, directory: Path, addresses: Mapping[str, str]) -> Path:
    """An inventory of hosts of the lab, as root's, by other names."""
    file = directory / "inventory.ini"
    file.write_text(inventory_text(addresses, user="root", key=lab.root_key, known_hosts=lab.known_hosts, become=False))
    return file


def node_line(cluster: Cluster, name: str) -> str:
    """What `get nodes` says of one node."""
    (line,) = [line for line in cluster.call("get", "nodes").out.splitlines() if line.startswith(f"{name} ")]
    return line


@contextmanager
def changed_agent(cluster: Cluster, name: str, more: str) -> Iterator[None]:
    """The agent of one host with some lines more, under the same digest, so that nobody replaces it for that."""
    node, file = cluster.host(name), f"{STATE}/agent/current/nodeagent/main.py"
    node.run(f"cp -p {file} /root/main.py; printf %s {shlex.quote(more)} >>{file}; systemctl restart sshoal-agent")
    try:
        wait_for(lambda: answers(cluster, name), "the other agent to answer")
        yield
    finally:
        node.run(f"cp -p /root/main.py {file}; rm /root/main.py; systemctl restart sshoal-agent")
        wait_for(lambda: answers(cluster, name), "the agent to answer")


class Resize:
    """Makes the file system of an agent larger, or just as large as what is in it."""

    def __init__(self, node: LabHost) -> None:
        self._node = node

    def __call__(self, size: str) -> None:
        wanted = f"$(df --output=used -k {STATE} | tail -1 | tr -d ' ')k" if size == "full" else size
        self._node.run(f"mount -o remount,size={wanted} {STATE}")


@contextmanager
def small_disk(cluster: Cluster, node: LabHost) -> Iterator[Resize]:
    """The agent's directory on a file system of its own in memory, 2 GiB at most, of which nothing is used but what is written."""
    node.run(
        f"set -e; systemctl stop sshoal-agent; rm -f {STATE}/documents/.ballast; mkdir /root/disk; "
        f"mount -t tmpfs -o size=2g,mode=0700 disk /root/disk; cp -a {STATE}/. /root/disk; "
        f"mount --bind /root/disk {STATE}; systemctl start sshoal-agent"
    )
    try:
        wait_for(lambda: answers(cluster, node.name), "the agent to answer")
        yield Resize(node)
    finally:
        # Lazily: containers that still run have their logs open there.
        node.run(
            f"mount -o remount,size=2g {STATE}; systemctl stop sshoal-agent; umount -l {STATE}; "
            f"rm -f /root/disk/documents/.ballast; cp -a /root/disk/. {STATE}; umount -l /root/disk; rmdir /root/disk; "
            "systemctl start sshoal-agent"
        )
        wait_for(lambda: answers(cluster, node.name), "the agent to answer")


def control_group(host: LabHost, file: str) -> Path:
    """The control group of version 1 with all processes of a host in which a limit can be set."""
    for hierarchy in cgroup_hierarchies():
        if (hierarchy / host.machine / file).exists():
            return hierarchy / host.machine
    pytest.skip(f"no {file} of a control group of version 1 here")
