"""What a manifest says of pods is what containers on real hosts get: volumes, order, hooks, probes, ports, limits, rights."""

from __future__ import annotations

import shlex
import socket
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.image import REPOSITORY
from tests.lab.cluster import Cluster, Object, Running, deployment, shell, single, wait_for

WORK: Object = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
EMPTY: Object = {"volumes": [{"name": "work", "emptyDir": {}}]}
IMAGE = f"{REPOSITORY}:v1"


def more(name: str, script: str, **fields: Any) -> Object:
    """A further container of a pod."""
    return {"name": name, "image": IMAGE, "command": ["sh", "-c", script], **WORK, **fields}


def two_in_one(name: str) -> Object:
    pod = single(name, container=shell("echo written >/work/file; sleep 1000", **WORK), pod=EMPTY)
    pod["spec"]["containers"].append(more("second", "sleep 1000"))
    return pod


def probe(fields: Object) -> Object:
    return {**fields, "periodSeconds": 1}


ZOO = (
    two_in_one("shared"),
    single(
        "ordered",
        container=shell("sleep 1000", **WORK),
        pod={
            **EMPTY,
            "initContainers": [
                more("one", "sleep 1; echo one >>/work/order"),
                more("two", "echo two >>/work/order"),
                more("helper", "echo helper >>/work/order; sleep 1000", restartPolicy="Always"),
                more("three", "echo three >>/work/order"),
            ],
        },
    ),
    single(
        "finished",
        container=shell("exit 0"),
        pod={
            **EMPTY,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "initContainers": [more("helper", "sleep 1000", restartPolicy="Always")],
        },
    ),
    single(
        "hooked",
        container={
            **WORK,
            "livenessProbe": probe({"httpGet": {"path": "/live", "port": 8080}, "failureThreshold": 2}),
            "lifecycle": {
                "postStart": {"exec": {"command": ["sh", "-c", "echo started >>/work/hooks"]}},
                "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >>/work/hooks"]}},
            },
        },
        pod=EMPTY,
    ),
    single("stubborn", container={"env": [{"name": "IGNORE_TERM", "value": "yes"}]}),
    single(
        "greedy",
        container=shell("x=aaaaaaaa; while :; do x=$x$x; done", resources={"limits": {"memory": "32Mi"}}),
        pod={"restartPolicy": "Never"},
    ),
    single(
        "confined",
        container=shell(
            "sleep 1000",
            securityContext={
                "runAsUser": 1234,
                "runAsGroup": 2345,
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            },
        ),
    ),
    single(
        "slow-start",
        container={
            "env": [{"name": "READY_AFTER", "value": "4"}],
            "startupProbe": probe({"httpGet": {"path": "/ready", "port": 8080}, "failureThreshold": 60}),
            "livenessProbe": probe({"httpGet": {"path": "/ready", "port": 8080}, "failureThreshold": 1}),
        },
    ),
    single(
        "never-starts",
        container={
            "startupProbe": probe({"exec": {"command": ["false"]}, "failureThreshold": 2}),
        },
    ),
    single("by-exec", container={"readinessProbe": probe({"exec": {"command": ["test", "-e", "/www/ready"]}})}),
    single("by-tcp", container={"readinessProbe": probe({"tcpSocket": {"port": 8080}})}),
    single("by-grpc", container={"readinessProbe": probe({"grpc": {"port": 8080}})}),
    single("with-host-path", pod={"volumes": [{"name": "work", "hostPath": {"path": "/etc"}}]}, container=WORK),
)
NEVER_READY = {"finished", "greedy", "never-starts", "by-grpc", "with-host-path"}


@pytest.fixture(scope="module")
def zoo(cluster: Cluster) -> Iterator[str]:
    """All the pods above, in one namespace; those that can be are ready."""
    cluster.apply("zoo", *ZOO, flags=["--no-wait"])
    ready = [f"pod/{pod['metadata']['name']}" for pod in ZOO if pod["metadata"]["name"] not in NEVER_READY]
    cluster.run("wait", *ready, "-n", "zoo", "--timeout", "120s")
    yield "zoo"
    cluster.run("delete", "namespace/zoo", "--grace-period", "0")


def test_an_empty_dir_is_shared_by_the_containers_of_a_pod(cluster: Cluster, zoo: str) -> None:
    assert cluster.inside(find(cluster, "shared", "second"), "cat /work/file") == "written"


def test_init_containers_run_one_after_another_and_a_sidecar_stays(cluster: Cluster, zoo: str) -> None:
    assert cluster.inside(find(cluster, "ordered"), "cat /work/order").split() == ["one", "two", "helper", "three"]
    assert find(cluster, "ordered", "helper")


def test_a_pod_is_finished_when_its_containers_are_and_its_sidecar_ends_with_them(cluster: Cluster, zoo: str) -> None:
    wait_for(lambda: cluster.pod(zoo, "finished")["status"]["phase"] == "Succeeded", "the pod to be finished")
    assert not [one for one in cluster.running(zoo) if one.pod == "finished"]


def test_hooks_run_and_a_failing_liveness_probe_restarts_the_container(cluster: Cluster, zoo: str) -> None:
    before = find(cluster, "hooked")
    assert cluster.inside(before, "cat /work/hooks").split() == ["started"]
    cluster.inside(before, "/www/cgi-bin/set live=no")
    wait_for(lambda: any(one.pod == "hooked" and one.id != before.id for one in cluster.running(zoo)), "a restart")
    after = find(cluster, "hooked")
    assert after.attempt == before.attempt + 1
    wait_for(
        lambda: cluster.inside(after, "cat /work/hooks").split() == ["started", "stopping", "started"],
        "the hooks to have run around the restart",
    )
    assert "Unhealthy" in cluster.run("describe", "pod/hooked", "-n", zoo)


def test_what_ignores_sigterm_is_killed_when_its_grace_is_over(cluster: Cluster, zoo: str) -> None:
    victim = find(cluster, "stubborn")
    cluster.run("delete", "pod/stubborn", "-n", zoo, "--grace-period", "1")
    assert not [one for one in cluster.running(zoo) if one.pod == "stubborn"]
    assert cluster.host(victim.host).run(f"podman ps -aq --filter pod={victim.podman_pod}", check=False) == ""


def test_a_container_that_takes_more_memory_than_its_limit_is_killed(cluster: Cluster, zoo: str) -> None:
    wait_for(lambda: cluster.pod(zoo, "greedy")["status"]["phase"] == "Failed", "the memory to run out")
    (status,) = cluster.pod(zoo, "greedy")["status"]["containerStatuses"]
    ended = status["state"]["terminated"]
    # Podman's monitor misses the kernel's kill on some kernels with control groups version 1: then nobody knows why it ended.
    assert (ended["exitCode"], ended["reason"] in ("OOMKilled", "Error")) == (137, True)


def test_user_capabilities_and_read_only_root_are_as_declared(cluster: Cluster, zoo: str) -> None:
    confined = find(cluster, "confined")
    assert cluster.inside(confined, "id -u; id -g").split() == ["1234", "2345"]
    assert cluster.inside(confined, "touch /tmp/x 2>/dev/null || echo refused") == "refused"
    status = dict(
        line.split(":\t", 1) for line in cluster.inside(confined, "cat /proc/1/status").splitlines() if ":\t" in line
    )
    assert int(status["CapBnd"], 16) == 1 << 10, "NET_BIND_SERVICE alone"
    assert status["NoNewPrivs"].strip() == "1"


def test_liveness_waits_for_the_startup_probe(cluster: Cluster, zoo: str) -> None:
    assert find(cluster, "slow-start").attempt == 0


def test_a_startup_probe_that_fails_too_often_restarts_the_container(cluster: Cluster, zoo: str) -> None:
    def restarts() -> int:
        return int(cluster.pod(zoo, "never-starts")["status"]["containerStatuses"][0]["restartCount"])

    wait_for(lambda: restarts() > 0, "a restart")
    assert not cluster.pod(zoo, "never-starts")["status"]["containerStatuses"][0]["ready"]


def test_readiness_by_exec_and_tcp_passes_and_by_grpc_fails_where_no_grpc_is_spoken(cluster: Cluster, zoo: str) -> None:
    ready = {pod["metadata"]["name"]: is_ready(pod) for pod in cluster.pods(zoo)}
    assert (ready["by-exec"], ready["by-tcp"], ready["by-grpc"]) == (True, True, False)
    wait_for(lambda: "Unhealthy" in cluster.run("describe", "pod/by-grpc", "-n", zoo), "the probe's failure to be told")
    cluster.inside(find(cluster, "by-exec"), "/www/cgi-bin/set ready=no")
    wait_for(lambda: not is_ready(cluster.pod(zoo, "by-exec")), "readiness to be lost")


def test_a_host_path_outside_the_allow_list_is_refused_with_a_reason(cluster: Cluster, zoo: str) -> None:
    said = cluster.run("wait", "pod/with-host-path", "-n", zoo, "--timeout", "15s", expect=3)
    assert "not within the host paths that this node allows" in said
    assert not [one for one in cluster.running(zoo) if one.pod == "with-host-path"]


def test_a_deployment_with_a_forbidden_host_path_makes_no_pods_and_says_why(cluster: Cluster, ns: str) -> None:
    volume = {"volumes": [{"name": "work", "hostPath": {"path": "/etc"}}]}
    said = cluster.apply(ns, deployment("web", container=WORK, pod=volume), expect=3)
    assert "hostPath /etc is not in the allow-list" in said
    assert not cluster.pods(ns)


def test_a_host_port_is_reachable_at_the_node_and_never_given_twice(cluster: Cluster, ns: str) -> None:
    ports = {"ports": [{"containerPort": 8080, "hostPort": 18080}]}
    said = cluster.apply(ns, deployment("web", 4, container=ports, surge=0, unavailable=1), expect=3)
    assert "18080" in said
    assert sorted(one.host for one in cluster.running(ns)) == ["node1", "node2", "node3"]
    for host in cluster.lab.hosts:
        with urllib.request.urlopen(f"http://{host.address}:18080/", timeout=10) as page:
            assert b"version=v1" in page.read()
    (pending,) = [pod for pod in cluster.pods(ns) if pod["status"]["phase"] == "Pending"]
    (scheduled,) = [one for one in pending["status"]["conditions"] if one["type"] == "PodScheduled"]
    assert scheduled["status"] == "False"
    for host in cluster.lab.hosts:
        assert host.name in cluster.run("describe", f"pod/{pending['metadata']['name']}", "-n", ns)


def test_host_ports_are_apart_by_protocol_and_by_address(cluster: Cluster, ns: str) -> None:
    host = cluster.host("node1")

    def served(name: str, **port: Any) -> Object:
        fields = {"containerPort": 8080, "hostPort": 18081, **port}
        return single(name, node="node1", container={"ports": [fields]})

    cluster.apply(
        ns,
        served("outside", hostIP=str(host.address)),
        served("inside", hostIP="127.0.0.1"),
        served("datagrams", protocol="UDP"),
    )
    with urllib.request.urlopen(f"http://{host.address}:18081/", timeout=10) as page:
        assert "hostname=outside" in page.read().decode().split()
    assert "hostname=inside" in host.run("curl --silent --max-time 10 http://127.0.0.1:18081/").split()

    (datagrams,) = [one for one in cluster.running(ns) if one.pod == "datagrams"]
    # The image can't listen for datagrams: somebody else does, in the pod's network.
    listen = "import socket as s; u = s.socket(s.AF_INET, s.SOCK_DGRAM); u.bind(('', 8080)); u.settimeout(60); print(u.recv(99).decode())"
    with ThreadPoolExecutor(1) as pool, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        script = f"nsenter --target {datagrams.pid} --net python3 -c {shlex.quote(listen)}"
        heard = pool.submit(host.run, script, timeout_s=90)

        def is_heard() -> bool:
            sender.sendto(b"tell-tale", (str(host.address), 18081))
            return heard.done()

        wait_for(is_heard, "a datagram to arrive")
        assert heard.result().strip() == "tell-tale"
    said = cluster.apply(ns, served("too", hostIP=str(host.address)), flags=["--timeout", "3s"], expect=3)
    assert "18081" in said


def test_pods_go_where_labels_taints_and_cordons_of_nodes_let_them(cluster: Cluster, ns: str) -> None:
    former = cluster.inventory
    cluster.inventory = cluster.directory / "inventory.ini"
    lines = former.read_text().splitlines()
    extra = {"node1": ' node_labels=\'{"disk": "ssd"}\'', "node2": " node_taints='[\"dedicated=db:NoSchedule\"]'"}
    cluster.inventory.write_text("\n".join(line + extra.get(line.partition(" ")[0], "") for line in lines) + "\n")
    tolerant = {"tolerations": [{"key": "dedicated", "operator": "Equal", "value": "db", "effect": "NoSchedule"}]}
    try:
        cluster.apply(ns, single("fast", pod={"nodeSelector": {"disk": "ssd"}}), deployment("plain", 4))
        cluster.apply(ns, single("db", pod={**tolerant, "nodeSelector": {"kubernetes.io/hostname": "node2"}}))
        where = {one.pod.partition("-")[0]: set[str]() for one in cluster.running(ns)}
        for one in cluster.running(ns):
            where[one.pod.partition("-")[0]].add(one.host)
        assert where == {"fast": {"node1"}, "plain": {"node1", "node3"}, "db": {"node2"}}
        before = {one.id for one in cluster.running(ns)}
        cluster.run("node", "cordon", "node3")
        cluster.run("scale", "deployment/plain", "--replicas", "6", "-n", ns)
        added = [one for one in cluster.running(ns) if one.id not in before]
        assert {one.host for one in added} == {"node1"}
        assert before <= {one.id for one in cluster.running(ns)}, "a cordon takes nothing away"
        cluster.run("node", "uncordon", "node3")
        cluster.run("scale", "deployment/plain", "--replicas", "8", "-n", ns)
        assert {one.host for one in cluster.running(ns) if one.id not in before | {one.id for one in added}} == {
            "node3"
        }
    finally:
        cluster.call("node", "uncordon", "node3")
        cluster.inventory = former
        cluster.run("reconcile")


def find(cluster: Cluster, pod: str, container: str = "main") -> Running:
    (found,) = [one for one in cluster.running("zoo") if (one.pod, one.container) == (pod, container)]
    return found


def is_ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])
