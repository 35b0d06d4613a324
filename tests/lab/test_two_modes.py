"""One story, told twice: by an agent of root, and by one of an ordinary user whose Podman is rootless. What differs comes after it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.model.errors import HostError
from lab import image
from lab.lab import Lab
from lab.rootfs import LOGIN_USER
from lab.system import require_root_and_programs
from tests.lab.cluster import Cluster, deployment, ids, secret, single, spread, wait_for
from tests.lab.test_cluster_healing import answers, hello, kill_agent, other_bundle, serves, wait_back

USERS = {"root": "root", "rootless": LOGIN_USER}
LIVE = {
    "livenessProbe": {
        "httpGet": {"path": "/live", "port": 8080},
        "periodSeconds": 1,
        "timeoutSeconds": 10,
        "failureThreshold": 1,
    }
}
IMAGES = {"v1": "good", "v2": "good", "bad": "bad"}

# All of an agent's that could stay behind. {inside}: what looks into the user's containers, {manager}: his systemd.
LEFT_BEHIND = """cd; name=sshoal run=/run; [ "$(id -u)" = 0 ] || run=/run/user/$(id -u)
ls -d /var/lib/$name .local/share/$name $run/$name .config/systemd 2>/dev/null
find /etc/systemd/system -name 'sshoal-[ap]*' 2>/dev/null
podman ps --all --external --noheading; podman pod ps --noheading; podman network ls --quiet | grep sshoal
{manager} list-units --all --no-legend 'sshoal-[ap]*'
{inside} awk '$2 ~ /sshoal/' /proc/mounts; pgrep -u "$(id -u)" -fl '[s]hare/sshoal|[l]ib/sshoal'"""


@pytest.fixture(scope="module")
def lab2() -> Iterator[Lab]:
    """Two hosts of this module's own: their ordinary user begins as a distribution leaves him, without linger."""
    require_root_and_programs()
    name = f"modes-{os.getpid()}"
    try:
        yield Lab.up(name, hosts=2)
    finally:
        if name in Lab.names():
            Lab.load(name).down()


@pytest.fixture(scope="module", params=USERS)
def cluster(lab2: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from cluster_of(lab2, request.param, tmp_path_factory.mktemp("context"))


@pytest.fixture(scope="module")
def rootless(lab2: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from cluster_of(lab2, "rootless", tmp_path_factory.mktemp("context"))


def cluster_of(lab: Lab, mode: str, directory: Path) -> Iterator[Cluster]:
    user = USERS[mode]
    for version, variant in IMAGES.items():
        lab.load_image(image.build(f"{image.REPOSITORY}:{version}", variant), user=user)
    cluster = Cluster(lab, directory, lab.inventory if user == "root" else lab.inventory_rootless, user)
    cluster.wipe()
    yield cluster
    cluster.wipe()


# ---- the story ------------------------------------------------------------------------------------------------------


def test_pods_are_spread_probed_and_restarted(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 4, container=LIVE))
    before = cluster.running(ns)
    assert spread(before) == {"node1": 2, "node2": 2}
    for name, victim in (("killed", before[0]), ("removed", before[1])):
        end = f"kill -9 {victim.pid}" if name == "killed" else f"podman rm -f -t 0 {victim.id}"
        cluster.host(victim.host).run(end, user=cluster.user)
        back = wait_back(cluster, victim)
        assert back.uid == victim.uid
        wait_for(lambda back=back: serves(cluster, back), f"the {name} one to be ready again")  # type: ignore[misc]
    cluster.inside(before[2], "/www/cgi-bin/set live=no")
    assert wait_back(cluster, before[2]).attempt == before[2].attempt + 1, "its liveness probe has failed"
    assert before[3] in cluster.running(ns)


def test_scaling_and_updates_keep_what_serves(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 2))
    two = cluster.running(ns)
    cluster.run("scale", "deployment/web", "--replicas", "4", "-n", ns)
    assert ids(two) < ids(cluster.running(ns))
    cluster.apply(ns, deployment("web", 4, "v2"))
    served = cluster.wait_running(ns, 4)
    assert {one.image for one in served} == {f"{image.REPOSITORY}:v2"}
    said = cluster.apply(ns, deployment("web", 4, "bad"), flags=["--timeout", "6s"], expect=3)
    assert "not as declared yet" in said
    assert ids(served) < ids(cluster.running(ns))
    assert "rolled back" in cluster.run("rollout", "undo", "deployment/web", "-n", ns)
    wait_for(lambda: ids(cluster.running(ns)) == ids(served), "the broken one to be gone")


def test_neither_a_killed_agent_nor_a_killed_podman_ends_a_pod(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 2))
    before, first = cluster.running(ns), hello(cluster, "node1")
    node = cluster.host("node1")
    kill_agent(node, cluster.user)
    node.run(f"{manager(cluster)} kill --kill-who=main -s KILL sshoal-podman", user=cluster.user)
    wait_for(lambda: answers(cluster, "node1"), "the agent to answer again")
    second = hello(cluster, "node1")
    assert (second.agent, second.bundle) == (first.agent, first.bundle)
    assert second.instance != first.instance
    (ours,) = [one for one in before if one.host == "node1"]
    node.run(f"kill -9 {ours.pid}", user=cluster.user)
    back = wait_back(cluster, ours)
    wait_for(lambda: serves(cluster, back), "the killed container to be ready again")
    assert ids(before) - ids(cluster.running(ns)) == {ours.id}


def test_upgrade_failed_upgrade_and_return_leave_pods_alone(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 2))
    before, first = cluster.running(ns), hello(cluster, "node1")
    with other_bundle(cluster, lambda text: text + "\n# another version\n"):
        cluster.run("reconcile", "--settle")
        second = hello(cluster, "node1")
    assert (second.agent, second.bundle != first.bundle) == (first.agent, True)
    with other_bundle(cluster, lambda _: "raise SystemExit('broken on purpose')\n"):
        said = cluster.run("reconcile", expect=4)
    assert "does not come up; the former agent is in charge again" in said
    assert "broken on purpose" in said
    assert hello(cluster, "node1").bundle == second.bundle
    cluster.run("reconcile", "--settle")
    assert hello(cluster, "node1").bundle == first.bundle
    assert cluster.running(ns) == before


def test_volumes_secrets_ports_and_streams_work(cluster: Cluster, ns: str) -> None:
    volumes = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "token", "secret": {"secretName": "token"}},
    ]
    main = {
        "securityContext": {"runAsUser": 33},
        "ports": [{"containerPort": 8080, "hostPort": 18080}],
        "volumeMounts": [
            {"name": "disk", "mountPath": "/disk"},
            {"name": "disk", "mountPath": "/part", "subPath": "a/b"},
            {"name": "memory", "mountPath": "/memory"},
            {"name": "token", "mountPath": "/token"},
        ],
        "command": ["sh", "-c", "echo mine >/disk/mine; echo part >/part/x; echo hello; exec httpd -f -p 8080 -h /www"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    pod = single("app", container=main, node="node1", pod={"volumes": volumes, "securityContext": {"fsGroup": 2000}})
    cluster.apply(ns, secret("token", key="hunter2"), pod)
    look = "id -u; id -G; cat /token/key; echo; stat -c '%u %g' /disk/mine; cat /disk/a/b/x; df -k /memory | tail -n 1"
    said = cluster.run("exec", "-n", ns, "app", "--", "sh", "-c", look).split()
    assert said[0] == "33"
    assert "2000" in said
    assert {"hunter2", "part"} <= set(said)
    assert said[said.index("hunter2") + 1 :][:2] == ["33", "2000"]
    assert "1024" in said, "the size of the volume in memory"
    assert "hello" in cluster.run("logs", "-n", ns, "app")
    port = free_port()
    with cluster.started("port-forward", "-n", ns, "app", f"{port}:8080"):
        wait_for(lambda: answers_http(port), "the forwarded port to answer")
    node = cluster.host("node1")
    page = f"curl --silent --output /dev/null --write-out '%{{http_code}}' --max-time 5 http://{node.address}:18080/"
    assert cluster.host("node2").run(page, check=False) != "000", "the hostPort is reached from another host"
    (one,) = cluster.running(ns)
    cluster.run("delete", "pod/app", "-n", ns)
    left = f"cd; ls -d /var/lib/sshoal/pods/{one.uid} .local/share/sshoal/pods/{one.uid} 2>/dev/null"
    wait_for(lambda: node.run(left, user=cluster.user, check=False) == "", "files that the pod's users own to be gone")


def test_a_reboot_brings_back_agent_and_pods_without_a_controller_or_login(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 2))
    before = cluster.running(ns)
    cluster.lab.reboot("node2")
    wait_for(lambda: answers_as_root(cluster, ns, "node2"), "the pod of node2 to serve again")
    after = cluster.running(ns)
    assert {one.uid for one in after} == {one.uid for one in before}
    assert {one.id for one in after if one.host == "node1"} == {one.id for one in before if one.host == "node1"}
    assert "everything is as declared" in cluster.run("reconcile", "--settle")


def test_a_forgotten_node_keeps_nothing_of_ours(cluster: Cluster) -> None:
    cluster.apply("leaving", deployment("web", 2), secret("token", a="b"))
    assert "forgotten" in cluster.run("node", "forget", "node2", "--yes")
    inside = "" if cluster.user == "root" else "podman unshare"
    look = LEFT_BEHIND.format(manager=manager(cluster), inside=inside)
    wait_for(lambda: cluster.host("node2").run(look, user=cluster.user, check=False) == "", "no trace of it")
    cluster.run("reconcile", "--settle")  # it is still in the inventory, and becomes a node again
    assert len(cluster.running("leaving")) == 2
    cluster.run("delete", "namespace/leaving", "--grace-period", "0")


# ---- rootless alone -------------------------------------------------------------------------------------------------

SPOILED = {
    "no subordinate ids": ("sed -i.kept '/^ubuntu:/d' /etc/subuid", "mv /etc/subuid.kept /etc/subuid", "no subordinate ids in /etc/subuid"),
    "a closed tun device": ("chmod 600 /dev/net/tun", "chmod 666 /dev/net/tun", "may not open /dev/net/tun"),
    "no newuidmap": ("mv /usr/bin/newuidmap /root", "mv /root/newuidmap /usr/bin", "newuidmap and newgidmap are missing"),
    "an agent of root": ("touch /etc/systemd/system/sshoal-agent.service", "rm /etc/systemd/system/sshoal-agent.service", "two nodes"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILED)
def test_node_check_says_what_a_rootless_host_lacks(rootless: Cluster, what: str) -> None:
    spoil, mend, words = SPOILED[what]
    node = rootless.host("node2")
    node.run(spoil)
    try:
        said = rootless.run("node", "check", "node2", expect=1)
    finally:
        node.run(mend)
    assert words in said
    assert "not fit" in said
    said = rootless.run("node", "check", "node2", "-o", "wide")
    assert "rootless" in said
    assert "hostPort below 1024" in said


def test_without_linger_and_the_right_to_it_a_host_is_refused_and_left_as_it_is(rootless: Cluster) -> None:
    rootless.wipe()
    node = rootless.host("node1")
    node.run(f"loginctl disable-linger {LOGIN_USER}")
    kept, rootless.inventory = rootless.inventory, rootless.directory / "no-sudo.ini"
    rootless.inventory.write_text(kept.read_text().replace("ansible_become=true\n", ""))
    try:
        assert "linger is off for ubuntu" in rootless.run("node", "check", "node1")
        said = rootless.run("reconcile", expect=4)
        assert "node1 gives no report: linger is off" in said
        assert "loginctl enable-linger says: Could not enable linger" in said
        assert node.run("cd; ls -d .local/share/sshoal .config/systemd 2>/dev/null", user=LOGIN_USER, check=False) == ""
    finally:
        rootless.inventory = kept
    rootless.run("reconcile", "--settle")
    assert node.run("ls /var/lib/systemd/linger").split() == [LOGIN_USER]


def test_an_agent_follows_its_podman_into_new_namespaces(rootless: Cluster) -> None:
    namespace = "moved"
    rootless.wipe()  # with a container there, Podman finds its way back to the namespaces of that
    rootless.run("reconcile", "--settle")
    before = instance(rootless)
    end = "kill -9 $(cat /run/user/$(id -u)/libpod/tmp/pause.pid); systemctl --user restart sshoal-podman"
    rootless.host("node1").run(end, user=LOGIN_USER)
    wait_for(lambda: instance(rootless) not in ("", before), "the agent to start anew")
    memory = {"volumes": [{"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}
    mounts = {"volumeMounts": [{"name": "memory", "mountPath": "/memory"}]}
    rootless.apply(namespace, single("app", container=mounts, node="node1", pod=memory))
    (one,) = rootless.running(namespace)
    assert "1024" in rootless.inside(one, "df -k /memory")
    services = "ps axww -o args | grep -c '^/usr/bin/podman.*[s]ystem service'"
    assert rootless.host("node1").run(services, user=LOGIN_USER).strip() == "2", (
        "the one that waits, and the one that serves"
    )
    rootless.run("delete", f"namespace/{namespace}", "--grace-period", "0")


# ---- helpers --------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers_http(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def instance(cluster: Cluster) -> str:
    """Of the agent on node1; "" while none answers."""
    try:
        return hello(cluster, "node1").instance
    except HostError:
        return ""


def manager(cluster: Cluster) -> str:
    return "systemctl" if cluster.user == "root" else "systemctl --user"


def answers_as_root(cluster: Cluster, ns: str, name: str) -> bool:
    """Looked at from the host's root, so that no login of the pod's user can be what started it."""
    node = cluster.host(name)
    script = "for pid in $(pgrep -x httpd); do [ -e /proc/$pid/root/www/ready ] && echo yes; done"
    return "yes" in node.run(script, check=False)
