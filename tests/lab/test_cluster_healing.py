"""Hosts heal themselves while no controller runs: killed containers, agents and services, reboots, power cuts, agent upgrades."""

from __future__ import annotations

import asyncio
import io
import tarfile
import zlib
from collections.abc import Callable, Iterator

import pytest

from controller.act.bundle import build
from controller.model.errors import HostError
from lab.host import LabHost
from lab.lab import Lab
from lab.system import LabError
from nodeagent.protocol import Hello
from tests.lab.cluster import Cluster, Running, deployment, ids, single, wait_for
from tests.lab.test_bootstrap import entry, transport_of
from tests.lab.test_bootstrap import hello as agent_hello

# How each victim dies: on its host, `id` being its container and `pod` its pod in Podman.
DEATHS = {
    "payload": "kill -9 $(podman inspect --format {{.State.Pid}} $id)",
    "both": "kill -9 $(podman inspect --format '{{.State.ConmonPid}} {{.State.Pid}}' $id)",
    "removed": "podman rm -f -t 0 $id",
    "stopped": "podman stop -t 1 $id",
    "infra": "kill -9 $(podman inspect --format {{.State.Pid}} $(podman pod inspect --format {{.InfraContainerID}} $pod))",
    "pod": "podman pod rm -f -t 0 $pod",
}


@pytest.fixture(scope="module")
def victims(cluster: Cluster) -> Iterator[str]:
    """A namespace with a pod for every kind of death, and one that nobody kills, all on node1."""
    cluster.apply("victims", *(single(name, node="node1") for name in (*DEATHS, "conmon", "bystander")))
    yield "victims"
    cluster.run("delete", "namespace/victims", "--grace-period", "0")


@pytest.mark.parametrize("death", DEATHS)
def test_what_was_killed_is_back_and_ready_without_a_controller(cluster: Cluster, victims: str, death: str) -> None:
    before = {one.pod: one for one in cluster.running(victims)}
    victim = before[death]
    cluster.host("node1").run(f"id={victim.id}; pod={victim.podman_pod}; {DEATHS[death]}")
    back = wait_back(cluster, victim)
    assert back.uid == victim.uid
    wait_for(lambda: serves(cluster, back), f"{death} to be ready again")
    others = {one.pod: one.id for one in cluster.running(victims) if one.pod != death}
    assert others == {pod: one.id for pod, one in before.items() if pod != death}


def test_a_container_that_lost_its_conmon_runs_on_and_is_replaced_once_it_ends(cluster: Cluster, victims: str) -> None:
    node = cluster.host("node1")
    (victim,) = [one for one in cluster.running(victims) if one.pod == "conmon"]
    node.run(f"kill -9 $(podman inspect --format {{{{.State.ConmonPid}}}} {victim.id})")
    assert serves(cluster, victim)
    assert victim in cluster.running(victims)
    node.run(f"kill -9 {victim.pid}")
    wait_for(lambda: serves(cluster, wait_back(cluster, victim)), "it to be ready again")


def test_containers_of_others_are_never_touched(cluster: Cluster, ns: str) -> None:
    node = cluster.host("node1")
    image = "localhost/sshoal-test:v1"
    foreign = "--label sshoal.dev/cluster=11111111-2222-4333-8444-555555555555 --label sshoal.dev/pod-uid=x"
    node.run(f"podman run -d --name stranger --network none {image} && podman run -d --name alike {foreign} {image}")
    listing = "podman inspect --format '{{.Id}} {{.State.Pid}} {{.State.Running}}' stranger alike"
    try:
        before = node.run(listing)
        cluster.apply(ns, deployment("web"))
        (ours,) = cluster.running(ns, ["node1"])
        node.run(f"podman rm -f -t 0 {ours.id}")
        wait_back(cluster, ours)
        kill_agent(node)
        cluster.run("delete", "deployment/web", "-n", ns)
        assert node.run(listing) == before
        assert before.count("true") == 2
    finally:
        node.run("podman rm -f -t 0 stranger alike")


def test_a_killed_agent_is_back_and_its_pods_never_noticed(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web"))
    before = cluster.running(ns)
    first = hello(cluster, "node1")
    kill_agent(cluster.host("node1"))
    wait_for(lambda: answers(cluster, "node1"), "the agent to answer again", timeout_s=20)
    second = hello(cluster, "node1")
    assert (second.agent, second.bundle) == (first.agent, first.bundle)
    assert second.instance != first.instance
    cluster.run("reconcile", "--settle")
    assert cluster.running(ns) == before


def test_a_killed_podman_service_is_back_and_its_pods_never_noticed(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web"))
    before = cluster.running(ns)
    node = cluster.host("node1")
    node.run("systemctl kill --kill-who=main -s KILL sshoal-podman")
    (ours,) = [one for one in before if one.host == "node1"]
    node.run(f"podman kill {ours.id}")
    back = wait_back(cluster, ours)
    wait_for(lambda: serves(cluster, back), "the killed container to be ready again")
    assert ids(before) - ids(cluster.running(ns)) == {ours.id}


@pytest.mark.parametrize("how", ["reboot", "power cut"])
def test_a_host_brings_its_pods_back_by_itself(cluster: Cluster, whole_lab3: Lab, ns: str, how: str) -> None:
    cluster.apply(ns, deployment("web", 6))
    before = cluster.running(ns)
    if how == "reboot":
        whole_lab3.reboot("node2")
    else:
        whole_lab3.kill("node2")
        whole_lab3.start("node2")
    wait_for(lambda: len(cluster.running(ns, ["node2"])) == 2, "both pods of node2 to run again")
    after = cluster.running(ns)
    assert {one.uid for one in after} == {one.uid for one in before}
    assert {one.id for one in after if one.host != "node2"} == {one.id for one in before if one.host != "node2"}
    wait_for(lambda: all(serves(cluster, one) for one in cluster.running(ns, ["node2"])), "both to be ready again")
    cluster.run("wait", "deployment/web", "-n", ns, "--timeout", "60s")
    assert "everything is as declared" in cluster.run("reconcile", "--settle")
    assert cluster.running(ns) == after


def test_an_upgrade_of_the_agent_leaves_every_pod_as_it_is(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web"))
    before, first = cluster.running(ns), hello(cluster, "node1")
    with other_bundle(cluster, lambda text: text + "\n# another version\n"):
        cluster.run("reconcile", "--settle")
        second = hello(cluster, "node1")
    assert second.bundle != first.bundle
    assert second.agent == first.agent
    assert cluster.running(ns) == before


def test_an_agent_that_does_not_start_is_replaced_by_the_former_one(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web"))
    before, first = cluster.running(ns), hello(cluster, "node1")
    with other_bundle(cluster, lambda _: "raise SystemExit('broken on purpose')\n"):
        said = cluster.run("reconcile", expect=4)
    assert "does not come up; the former agent is in charge again" in said
    assert hello(cluster, "node1").bundle == first.bundle
    assert cluster.running(ns) == before
    cluster.run("reconcile", "--settle")
    assert cluster.running(ns) == before


# ---- helpers --------------------------------------------------------------------------------------------------------


def wait_back(cluster: Cluster, gone: Running) -> Running:
    """The container that took the place of one that died."""

    def replaced() -> list[Running]:
        found = cluster.running(gone.namespace, [gone.host])
        same = [one for one in found if one.pod == gone.pod and one.container == gone.container]
        return [one for one in same if one.id != gone.id]

    wait_for(replaced, f"{gone.pod} to have a new container")
    (back,) = replaced()
    return back


def serves(cluster: Cluster, one: Running) -> bool:
    """Whether the test image's web server says that it is ready; asked from inside, as no address is known."""
    script = f"podman exec {one.id} test -e /www/ready && echo yes"
    try:
        return cluster.host(one.host).run(script, user=cluster.user).strip() == "yes"
    except LabError:
        return False


def kill_agent(host: LabHost, user: str = "root") -> None:
    manager = "systemctl" if user == "root" else "systemctl --user"
    host.run(f"{manager} kill --kill-who=main -s KILL sshoal-agent", user=user)


def answers(cluster: Cluster, node: str) -> bool:
    try:
        hello(cluster, node)
    except HostError:
        return False
    return True


def hello(cluster: Cluster, node: str) -> Hello:
    """What the agent of a host says of itself, over SSH. HostError when it does not answer."""

    async def ask() -> Hello:
        modes = {} if cluster.user == "root" else {"sshoal_rootless": True}
        host = entry(cluster.lab, cluster.host(node), cluster.user, **modes)
        session = await transport_of(cluster.lab).connect(host)
        try:
            return await agent_hello(session)
        finally:
            await session.close()

    return asyncio.run(ask())


class other_bundle:
    """For a while this installation brings another agent: `change` makes the text of one of its modules.

    The finished archive in the context's cache is the one that is pushed; its name says what it was made from, not what is in it.
    """

    def __init__(self, cluster: Cluster, change: Callable[[str], str]) -> None:
        self._cache = cluster.directory / "cache"
        self._change = change

    def __enter__(self) -> None:
        build(self._cache)
        (self._file,) = self._cache.glob("agent-*.tar.z")
        self._former = self._file.read_bytes()
        self._file.write_bytes(_changed(self._former, "nodeagent/main.py", self._change))

    def __exit__(self, *_: object) -> None:
        self._file.write_bytes(self._former)


def _changed(packed: bytes, name: str, change: Callable[[str], str]) -> bytes:
    target = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(zlib.decompress(packed))) as source,
        tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as made,
    ):
        for member in source.getmembers():
            content = source.extractfile(member).read()  # type: ignore[union-attr]
            if member.name == name:
                content = change(content.decode()).encode()
                member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return zlib.compress(target.getvalue())
