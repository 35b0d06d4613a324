"""What the agent is told of a pod."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controller.model.kinds import Pod, PodSpec
from controller.model.manifest import load
from controller.model.wire import referred_configs, wire_pod
from nodeagent import protocol

EVERYTHING = Path(__file__).parents[1] / "cases" / "manifests" / "good" / "everything.yaml"
MIB = 1024 * 1024


def wire(spec: PodSpec, **more: Any) -> protocol.Pod:
    identity: dict[str, Any] = {
        "uid": "u",
        "namespace": "shop",
        "name": "a",
        "hash": "h",
        "labels": {},
        "annotations": {},
    }
    return wire_pod(spec, **{**identity, **more})


def pod_spec(**fields: Any) -> PodSpec:
    return PodSpec.model_validate({"containers": [{"name": "c", "image": "i:1"}], **fields})


def container(**fields: Any) -> protocol.Container:
    return wire(pod_spec(containers=[{"name": "c", "image": "i:1", **fields}])).containers[0]


@pytest.fixture(scope="module")
def everything() -> protocol.Pod:
    pod = load(EVERYTHING.read_text(), "everything.yaml").manifests[0].object
    assert isinstance(pod, Pod)
    return wire(pod.spec, labels=pod.metadata.labels, annotations=pod.metadata.annotations)


def test_the_smallest_pod_has_kubernetes_defaults() -> None:
    assert wire(pod_spec()) == protocol.Pod(
        uid="u",
        namespace="shop",
        name="a",
        hash="h",
        containers=(protocol.Container("c", "i:1"),),
        hostname="a",
    )


def test_a_wire_pod_survives_the_wire(everything: protocol.Pod) -> None:
    assert protocol.decode(protocol.Pod, protocol.encode(everything), strict=True) == everything


def test_the_pod_itself(everything: protocol.Pod) -> None:
    assert (everything.restart, everything.grace_s, everything.hostname) == ("OnFailure", 45, "every")
    assert everything.subdomain == "things"
    assert (everything.deadline_s, everything.host_pid, everything.host_ipc, everything.share_pid) == (
        3600,
        False,
        True,
        True,
    )
    assert (everything.containers[0].stdin, everything.containers[0].tty) == (True, True)
    assert everything.host_aliases == (protocol.HostAlias("10.1.2.3", ("db.example.com", "db")),)
    assert everything.dns == protocol.Dns(("10.0.0.10",), ("example.com",), ("ndots:2", "edns0"))
    assert everything.fs_group == 2000
    assert everything.sysctls == {"net.core.somaxconn": "1024"}
    assert everything.pull_secrets == ("shop/registry",)
    assert everything.labels == {"app": "everything", "example.com/tier": "back"}


def test_init_containers_keep_their_order_and_sidecars_are_marked(everything: protocol.Pod) -> None:
    assert [(c.name, c.sidecar, c.pull) for c in everything.init_containers] == [
        ("prepare", False, "IfNotPresent"),
        ("proxy", True, "Always"),
    ]
    readiness = everything.init_containers[1].readiness
    assert readiness is not None
    assert readiness.handler == protocol.Handler("grpc", port=9000, service="ready")


@pytest.mark.parametrize(
    ("resource", "divisor", "sent"),
    [
        ("limits.cpu", "1000m", ""),
        ("limits.cpu", "0.001", "1m"),
        ("limits.memory", "0", ""),
        ("limits.memory", "1024Ki", "1Mi"),
        ("limits.memory", "1P", "1P"),
        ("limits.memory", "1Ei", "1Ei"),
    ],
)
def test_divisors_are_read_by_what_they_amount_to(resource: str, divisor: str, sent: str) -> None:
    source = {"resourceFieldRef": {"resource": resource, "divisor": divisor}}
    (variable,) = container(env=[{"name": "X", "valueFrom": source}]).env
    assert variable.divisor == sent


def test_the_environment(everything: protocol.Pod) -> None:
    main = everything.containers[0]
    assert main.env == (
        protocol.EnvVar("PLAIN", value="$(POD_NAME) here"),
        protocol.EnvVar("EMPTY", value=""),
        protocol.EnvVar("POD_NAME", field="metadata.name"),
        protocol.EnvVar("TIER", field="metadata.labels['example.com/tier']"),
        protocol.EnvVar("MEMORY", resource="limits.memory", divisor="1Mi"),
        protocol.EnvVar("LEVEL", config="shop/settings", key="level", optional=True),
        protocol.EnvVar("PASSWORD", secret="shop/database", key="password"),
    )
    assert main.env_from == (
        protocol.EnvFrom(config="shop/settings", prefix="S_"),
        protocol.EnvFrom(secret="shop/database", optional=True),
    )


def test_command_ports_and_resources(everything: protocol.Pod) -> None:
    main = everything.containers[0]
    assert (main.command, main.args, main.working_dir, main.pull) == (("/app",), ("--port", "8080"), "/srv", "Never")
    assert main.ports == (protocol.Port(8080, "http", 80, "127.0.0.1"), protocol.Port(53, "dns", protocol="UDP"))
    assert (main.cpu_request_m, main.cpu_limit_m) == (100, 1500)
    assert (main.memory_request_bytes, main.memory_limit_bytes) == (128 * MIB, 128 * MIB)  # request: the limit


def test_probes_have_port_numbers_and_hooks_are_handlers(everything: protocol.Pod) -> None:
    main = everything.containers[0]
    assert main.startup == protocol.Probe(
        protocol.Handler("http", port=8080, path="/healthz"), period_s=1, failure_threshold=30
    )
    assert main.readiness == protocol.Probe(
        protocol.Handler("http", port=8080, host="example.com", scheme="HTTPS", headers=(("X-Probe", "1"),)),
        success_threshold=2,
    )
    assert main.liveness == protocol.Probe(
        protocol.Handler("exec", command=("/check",)), initial_delay_s=5, timeout_s=2, grace_s=3
    )
    assert main.post_start == protocol.Handler("exec", command=("/started",))
    assert main.pre_stop == protocol.Handler("sleep", seconds=5)


def test_volumes(everything: protocol.Pod) -> None:
    item, source = protocol.Item, protocol.Source
    assert everything.volumes == (
        protocol.Volume("work", "empty"),
        protocol.Volume("memory", "memory", size_bytes=16 * MIB),
        protocol.Volume(
            "config",
            "files",
            sources=(source("config", "shop/settings", (item("a", "sub/a", 0o600),), True),),
            mode=0o400,
        ),
        protocol.Volume("secret", "files", sources=(source("secret", "shop/database"),)),
        protocol.Volume("host", "host", path="/srv/data", path_type="DirectoryOrCreate"),
        protocol.Volume(
            "self",
            "files",
            sources=(
                source(
                    "downward",
                    items=(
                        item(path="labels", field="metadata.labels"),
                        item(path="cpu", resource="requests.cpu", container="main"),
                    ),
                ),
            ),
        ),
        protocol.Volume(
            "mixed",
            "files",
            sources=(
                source("config", "shop/settings"),
                source("secret", "shop/database", (item("password", "pw"),)),
                source("downward", items=(item(path="name", field="metadata.name"),)),
            ),
            mode=0o440,
        ),
    )
    assert everything.containers[0].mounts[:2] == (
        protocol.Mount("work", "/work", sub_path="deep/er"),
        protocol.Mount("config", "/config", read_only=True),
    )


def test_what_a_pod_refers_to_is_found(everything: protocol.Pod) -> None:
    assert referred_configs(everything) == (
        frozenset({"shop/settings"}),
        frozenset({"shop/database", "shop/registry"}),
    )


def test_a_containers_security_wins_over_the_pods(everything: protocol.Pod) -> None:
    assert everything.containers[0].security == protocol.Security(
        user=0,
        group=1000,
        non_root=False,
        groups=(3000, 2000),
        read_only_root=True,
        escalation=False,
        add=("NET_BIND_SERVICE",),
        drop=("ALL",),
    )
    assert everything.init_containers[0].security == protocol.Security(
        user=1000, group=1000, non_root=True, groups=(3000, 2000)
    )


@pytest.mark.parametrize(
    ("own", "pods", "seccomp"),
    [
        ({}, {}, "RuntimeDefault"),
        ({}, {"seccompProfile": {"type": "Unconfined"}}, "Unconfined"),
        ({"seccompProfile": {"type": "RuntimeDefault"}}, {"seccompProfile": {"type": "Unconfined"}}, "RuntimeDefault"),
        ({"privileged": True}, {"seccompProfile": {"type": "RuntimeDefault"}}, "Unconfined"),
    ],
)
def test_seccomp_profile(own: dict[str, Any], pods: dict[str, Any], seccomp: str) -> None:
    spec = pod_spec(containers=[{"name": "c", "image": "i:1", "securityContext": own}], securityContext=pods)
    assert wire(spec).containers[0].security.seccomp == seccomp


def test_capabilities_are_named_without_cap() -> None:
    security = container(securityContext={"capabilities": {"add": ["CAP_SYS_TIME"], "drop": ["MKNOD"]}}).security
    assert (security.add, security.drop) == (("SYS_TIME",), ("MKNOD",))


def test_an_empty_command_is_the_images_own() -> None:
    assert (container(command=[], args=[]).command, container(command=[], args=[]).args) == (None, None)


def test_a_long_pod_name_is_cut_to_a_hostname() -> None:
    assert wire(pod_spec(), name="a" * 62 + "-b").hostname == "a" * 62


def test_the_order_to_stop_and_the_behaviour_at_boot_are_passed_on() -> None:
    pod = wire(pod_spec(), stop=True, stop_grace_s=0, at_boot="hold")
    assert (pod.stop, pod.stop_grace_s, pod.at_boot) == (True, 0, "hold")


def test_what_a_pod_says_of_its_end_and_its_name_goes_over_the_wire() -> None:
    written = {
        "name": "c",
        "image": "i:1",
        "terminationMessagePath": "/x",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"stopSignal": "SIGUSR1"},
        "resources": {"limits": {"ephemeral-storage": "1Ki"}},
        "volumeMounts": [
            {"name": "v", "mountPath": "/v", "subPathExpr": "$(A)", "mountPropagation": "HostToContainer"}
        ],
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}}],
    }
    told = wire(pod_spec(setHostnameAsFQDN=True, volumes=[{"name": "v"}], containers=[written]))
    (sent,) = told.containers
    assert (told.fqdn, sent.stop_signal, sent.disk_limit_bytes, sent.disk_request_bytes) == (
        True,
        "SIGUSR1",
        1024,
        1024,
    )
    assert (sent.termination_message_path, sent.termination_message_policy) == ("/x", "FallbackToLogsOnError")
    assert sent.mounts == (protocol.Mount("v", "/v", False, "", "$(A)", "HostToContainer"),)
    assert sent.env == (protocol.EnvVar("A", value="default"),)
