"""nodeagent.spec: names, the environment as Kubernetes builds it, and the bodies. What the bodies do is shown in tests/contract."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent import protocol
from nodeagent.protocol import Capacity, Container, EnvFrom, EnvVar, Mount, Pod, Port, Security
from nodeagent.runtime import Content, ImageInfo
from nodeagent.spec import (
    TERMINATION_KEY,
    HostRules,
    SpecError,
    container_body,
    container_name,
    expand,
    oom_score_adj,
    pod_body,
    pod_name,
    selinux_level,
    with_sub_paths,
)

CLUSTER = "5f0c5a4e-9d6b-4a0f-8a7e-3f1d2c4b5a69"
NODE = protocol.NodeConfig(name="n1", subnet="10.86.3.0/24", cluster_range="10.86.0.0/16", address="192.0.2.1")
PATHS = {"/etc/resolv.conf": "/f/resolv.conf", "/etc/hosts": "/f/hosts"}
IMAGE = ImageInfo("sha256:" + "ab" * 32)


def pod(*containers: Container, **changes: Any) -> Pod:
    return replace(Pod("uid-1", "default", "web-0", "h", containers or (Container("app", "img"),)), **changes)


def body(container: Container, wanted: Pod | None = None, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "cluster": CLUSTER,
        "pod": wanted or pod(container),
        "container": container,
        "attempt": 2,
        "pod_id": "p",
        "ip": "10.86.3.7",
        "node": NODE,
        "paths": PATHS,
        "content": Content({}, {}),
        "image": IMAGE,
        "log_path": "/logs/app/2.log",
        "log_bytes_max": 10_000_000,
    }
    return container_body(**{**arguments, **changes})


def environment(*env: EnvVar, env_from: tuple[EnvFrom, ...] = (), **changes: Any) -> dict[str, str]:
    found: dict[str, str] = body(Container("app", "img", env=env, env_from=env_from), **changes)["env"]
    return found


# ---- names ------------------------------------------------------------------------------------------------------------------


def test_names_are_readable() -> None:
    assert re.fullmatch(r"sshoal-5f0c5a4e-default-web-0-[0-9a-f]{16}", pod_name(CLUSTER, pod()))
    assert re.fullmatch(r"sshoal-5f0c5a4e-default-web-0-[0-9a-f]{16}-app-3", container_name(CLUSTER, pod(), "app", 3))


DNS_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
POD_NAME = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?", fullmatch=True)


@given(DNS_LABEL, POD_NAME, DNS_LABEL, st.uuids(), st.integers(0, 2**31))
def test_names_are_valid_and_at_most_128_characters(
    namespace: str, name: str, container: str, uid: Any, attempt: int
) -> None:
    wanted = pod(namespace=namespace, name=name, uid=str(uid))
    for found in (pod_name(CLUSTER, wanted), container_name(CLUSTER, wanted, container, attempt)):
        assert len(found) <= 128
        assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*", found)


def test_names_that_look_alike_once_cut_are_different() -> None:
    long = "x" * 253
    of = [
        (CLUSTER, pod(name=long, uid="1"), "a" * 63),
        (CLUSTER, pod(name=long, uid="2"), "a" * 63),
        (CLUSTER, pod(name=long, uid="1"), "a" * 62 + "b"),
        (CLUSTER[:8] + "other", pod(name=long, uid="1"), "a" * 63),
    ]
    assert len({container_name(cluster, wanted, container, 0) for cluster, wanted, container in of}) == 4


# ---- $(NAME) ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$(C)", "$(C)"),
        ("$()", "$()"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("100$", "100$"),
        ("$($(A))", "$($(A))"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet="$()AB ", max_size=12))
def test_doubled_dollars_keep_any_text_as_it_is(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "1", "AB": "2", "": "3"}) == text


# ---- environment ------------------------------------------------------------------------------------------------------------

CONTENT = Content(
    {"default/one": protocol.Config("h", {"A": "one", "B": "one"}), "default/two": protocol.Config("h", {"B": "two"})},
    {"default/secret": protocol.SecretValue("h", {"KEY": base64.b64encode(b"s3cret").decode(), "raw": "/w=="})},
    {"default/secret": "h", "default/late": "h"},
)


def test_later_sources_win_over_earlier_and_env_over_all() -> None:
    sources = (EnvFrom(config="default/one", prefix="P_"), EnvFrom(config="default/one"), EnvFrom(config="default/two"))
    found = environment(EnvVar("A", "env"), env_from=sources, content=CONTENT)
    assert found == {"P_A": "one", "P_B": "one", "A": "env", "B": "two"}


def test_a_variable_sees_only_those_before_it() -> None:
    found = environment(EnvVar("A", "1"), EnvVar("B", "$(A)$(C)"), EnvVar("C", "3"))
    assert found["B"] == "1$(C)"


def test_values_from_keys_are_not_expanded() -> None:
    content = Content({"default/c": protocol.Config("h", {"k": "$(A)"})}, {})
    found = environment(EnvVar("A", "1"), EnvVar("B", config="default/c", key="k"), content=content)
    assert found["B"] == "$(A)"


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("metadata.name", "web-0"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "uid-1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['a/b']", "note"),
        ("spec.nodeName", "n1"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.86.3.7"),
        ("status.podIPs", "10.86.3.7"),
        ("status.hostIP", "192.0.2.1"),
    ],
)
def test_fields_of_the_pod(field: str, expected: str) -> None:
    container = Container("app", "img", env=(EnvVar("X", field=field),))
    wanted = pod(container, labels={"app": "web"}, annotations={"a/b": "note"})
    assert body(container, wanted)["env"]["X"] == expected


def test_the_address_on_the_hosts_network_is_the_nodes() -> None:
    assert environment(EnvVar("X", field="status.podIP"), ip="")["X"] == "192.0.2.1"


@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("limits.cpu", "", "2"),
        ("limits.cpu", "1m", "1500"),
        ("requests.cpu", "1m", "250"),
        ("limits.memory", "", "67108864"),
        ("limits.memory", "1Mi", "64"),
        ("limits.memory", "1M", "68"),
        ("requests.memory", "1Ki", "32768"),
        ("requests.memory", "1Pi", "1"),
        ("limits.memory", "1E", "1"),
    ],
)
def test_resources_are_divided_and_rounded_up(resource: str, divisor: str, expected: str) -> None:
    container = Container(
        "app",
        "img",
        cpu_request_m=250,
        cpu_limit_m=1500,
        memory_request_bytes=32 << 20,
        memory_limit_bytes=64 << 20,
        env=(EnvVar("X", resource=resource, divisor=divisor),),
    )
    assert body(container)["env"]["X"] == expected


def test_an_unset_limit_counts_as_what_the_node_has() -> None:
    variables = (EnvVar("CPU", resource="limits.cpu"), EnvVar("MEMORY", resource="limits.memory", divisor="1Gi"))
    found = environment(*variables, capacity=Capacity(cpu_m=4000, memory_bytes=8 << 30))
    assert found == {"CPU": "4", "MEMORY": "8"}


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (EnvVar("X", config="default/none", key="k"), "config map default/none not found"),
        (EnvVar("X", config="default/one", key="k"), "config map default/one has no key 'k'"),
        (EnvVar("X", secret="default/none", key="k"), "secret default/none not found"),
        (EnvVar("X", secret="default/late", key="k"), "secret default/late has not arrived on the node yet"),
        (EnvVar("X", secret="default/secret", key="k"), "secret default/secret has no key 'k'"),
        (EnvVar("X", secret="default/secret", key="raw"), "key 'raw' of secret default/secret is not text"),
        (EnvVar("X", field="status.phase"), "field 'status.phase' can't be had"),
        (EnvVar("X", resource="limits.gpu"), "resource 'limits.gpu' can't be had"),
        (EnvVar("X", resource="limits.cpu", container="none"), "the pod has no container 'none'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_variable_refers_to_must_exist(variable: EnvVar, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)) as error:
        environment(variable, content=CONTENT)
    assert error.value.reason == "CreateContainerConfigError"


@pytest.mark.parametrize(
    "variable",
    [
        EnvVar("X", config="default/none", key="k", optional=True),
        EnvVar("X", config="default/one", key="k", optional=True),
        EnvVar("X", secret="default/none", key="k", optional=True),
    ],
)
def test_an_optional_reference_that_leads_nowhere_sets_nothing(variable: EnvVar) -> None:
    assert environment(variable, content=CONTENT) == {}


def test_a_missing_source_of_all_keys_is_an_error_unless_optional() -> None:
    assert environment(env_from=(EnvFrom(config="default/none", optional=True),), content=CONTENT) == {}
    with pytest.raises(SpecError, match="default/none"):
        environment(env_from=(EnvFrom(config="default/none"),), content=CONTENT)


def test_secrets_are_decoded() -> None:
    assert environment(EnvVar("X", secret="default/secret", key="KEY"), content=CONTENT) == {"X": "s3cret"}


def test_no_error_shows_the_value_of_a_secret() -> None:
    content = Content({}, {"default/s": protocol.SecretValue("h", {"k": base64.b64encode(b"\xffs3cret").decode()})})
    with pytest.raises(SpecError) as error:
        environment(EnvVar("X", secret="default/s", key="k"), content=content)
    assert "s3cret" not in str(error.value)
    assert content.secrets["default/s"].data["k"] not in str(error.value)


# ---- container bodies -------------------------------------------------------------------------------------------------------


def test_what_must_never_change_is_in_every_body() -> None:
    found = body(Container("app", "img"))
    assert found["restart_policy"] == "no"
    assert found["healthconfig"] == {"Test": ["NONE"]}
    assert found["log_configuration"] == {"driver": "k8s-file", "path": "/logs/app/2.log", "size": 10_000_000}
    assert found["stop_timeout"] == 0
    assert "r_limits" not in found
    assert found["labels"] == {
        "sshoal.dev/cluster": CLUSTER,
        "sshoal.dev/pod-uid": "uid-1",
        "sshoal.dev/namespace": "default",
        "sshoal.dev/pod": "web-0",
        "sshoal.dev/hash": "h",
        "sshoal.dev/container": "app",
        "sshoal.dev/attempt": "2",
    }
    assert found["image"] == "ab" * 32
    json.dumps(found)


@pytest.mark.parametrize(
    ("command", "args", "entrypoint", "arguments"),
    [
        (None, None, None, None),
        (("a",), None, ["a"], None),
        (None, ("b",), None, ["b"]),
        (("a", "$(X)"), ("b", "$(Y)"), ["a", "1"], ["b", "$(Y)"]),
        ((), (), None, None),
    ],
)
def test_command_replaces_the_entrypoint_and_args_the_cmd(
    command: Any, args: Any, entrypoint: Any, arguments: Any
) -> None:
    found = body(Container("app", "img", command=command, args=args, env=(EnvVar("X", "1"),)))
    assert (found.get("entrypoint"), found.get("command")) == (entrypoint, arguments)


@pytest.mark.parametrize(
    ("security", "image_user", "expected"),
    [
        (Security(), "", None),
        (Security(), "www", None),
        (Security(user=0), "www", "0"),
        (Security(user=1000, group=5), "", "1000:5"),
        (Security(group=5), "", "0:5"),
        (Security(group=5), "www:www", "www:5"),
        (Security(non_root=True), "1000", None),
        (Security(non_root=True, user=7), "root", "7"),
    ],
)
def test_the_user_is_the_specs_or_the_images(security: Security, image_user: str, expected: str | None) -> None:
    found = body(Container("app", "img", security=security), image=replace(IMAGE, user=image_user))
    assert found.get("user") == expected


@pytest.mark.parametrize(
    ("security", "image_user", "message"),
    [
        (Security(non_root=True), "", "would run as root"),
        (Security(non_root=True), "0:1000", "would run as root"),
        (Security(non_root=True), "00", "would run as root"),
        (Security(non_root=True), "000:7", "would run as root"),
        (Security(non_root=True), "²", "'²' is no number"),
        (Security(non_root=True), "root", "would run as root"),
        (Security(non_root=True, user=0), "1000", "would run as root"),
        (Security(non_root=True), "www", "'www' is no number"),
    ],
)
def test_run_as_non_root_refuses_root_and_names_it_cannot_judge(
    security: Security, image_user: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        body(Container("app", "img", security=security), image=replace(IMAGE, user=image_user))


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (Container("a", "i"), {"cpu": {"shares": 2}}),
        (Container("a", "i", cpu_request_m=100), {"cpu": {"shares": 102}}),
        (Container("a", "i", cpu_limit_m=5), {"cpu": {"shares": 2, "quota": 1000, "period": 100_000}}),
        (Container("a", "i", cpu_limit_m=1500), {"cpu": {"shares": 2, "quota": 150_000, "period": 100_000}}),
        (Container("a", "i", memory_limit_bytes=7), {"cpu": {"shares": 2}, "memory": {"limit": 7, "swap": 7}}),
    ],
)
def test_resources_are_those_of_kubelet(container: Container, expected: dict[str, Any]) -> None:
    assert body(container)["resource_limits"] == expected


GIB = 1 << 30
GUARANTEED = Container("a", "i", cpu_limit_m=100, cpu_request_m=100, memory_limit_bytes=GIB, memory_request_bytes=GIB)
BURSTABLE = Container("a", "i", memory_request_bytes=GIB)


@pytest.mark.parametrize(
    ("containers", "memory_bytes", "expected"),
    [
        ((Container("a", "i"),), 4 * GIB, 1000),
        ((GUARANTEED,), 4 * GIB, -997),
        ((BURSTABLE,), 4 * GIB, 750),
        ((BURSTABLE,), GIB, 2),
        ((BURSTABLE,), 4096 * GIB, 999),
        ((BURSTABLE,), 0, 999),
        ((GUARANTEED, Container("b", "i")), 4 * GIB, 750),
    ],
)
def test_oom_scores_follow_the_quality_of_service(
    containers: tuple[Container, ...], memory_bytes: int, expected: int
) -> None:
    assert oom_score_adj(pod(*containers), containers[0], memory_bytes) == expected


@pytest.mark.parametrize(("lowest", "expected"), [(-1000, -997), (0, 0), (100, 100)])
def test_an_oom_score_is_never_lower_than_the_host_lets_us_set(lowest: int, expected: int) -> None:
    assert body(GUARANTEED, rules=HostRules(oom_score_min=lowest))["oom_score_adj"] == expected


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (HostRules(), {"cpu", "memory"}),
        (HostRules(cpu=False), {"memory"}),
        (HostRules(memory=False), {"cpu"}),
        (HostRules(cpu=False, memory=False), set()),
    ],
)
def test_what_the_host_cannot_limit_is_not_asked_of_its_engine(rules: HostRules, expected: set[str]) -> None:
    assert set(body(GUARANTEED, rules=rules)["resource_limits"]) == expected


def test_volumes_are_bound_beside_our_own_files() -> None:
    mounts = (Mount("v", "/data", read_only=True), Mount("v", "/part", sub_path="a/b"), Mount("w", "/etc/hosts"))
    found = body(Container("app", "img", mounts=mounts), paths={**PATHS, "v": "/v", "v/a/b": "/sub", "w": "/w"})
    assert [(item["source"], item["destination"], item["options"][1]) for item in found["mounts"]] == [
        ("/f/resolv.conf", "/etc/resolv.conf", "rw"),
        ("/v", "/data", "ro"),
        ("/sub", "/part", "rw"),
        ("/w", "/etc/hosts", "rw"),
    ]


@pytest.mark.parametrize("read_only", [True, False])
def test_config_maps_secrets_and_pod_fields_are_read_only_whatever_the_mount_says(read_only: bool) -> None:
    mounts = (Mount("conf", "/conf", read_only=read_only), Mount("conf", "/key", sub_path="key"), Mount("v", "/v"))
    wanted = pod(volumes=(protocol.Volume("conf", "files"), protocol.Volume("v", "empty")))
    paths = {**PATHS, "conf": "/c", "conf/key": "/k", "v": "/w"}
    found = body(Container("app", "img", mounts=mounts), wanted, paths=paths)["mounts"]
    assert {item["destination"]: item["options"][1] for item in found if item["source"][1] != "f"} == {
        "/conf": "ro",
        "/key": "ro",
        "/v": "rw",
    }


@pytest.mark.parametrize(("mounts", "bound"), [((), True), ((Mount("v", "/last/words"),), False)])
def test_the_termination_message_is_a_file_of_ours_unless_a_volume_is_there(
    mounts: tuple[Mount, ...], bound: bool
) -> None:
    container = Container("app", "img", mounts=mounts, termination_message_path="/last/words")
    found = body(container, paths={**PATHS, "v": "/v", TERMINATION_KEY: "/t"})["mounts"]
    assert (("/t", "/last/words") in {(item["source"], item["destination"]) for item in found}) is bound


@pytest.mark.parametrize("sub_path", ["../etc", "a/../../etc", "/etc", "not/made"])
def test_a_sub_path_is_never_put_together_here(sub_path: str) -> None:
    container = Container("app", "img", mounts=(Mount("v", "/data", sub_path=sub_path),))
    with pytest.raises(SpecError, match=re.escape(sub_path)):
        body(container, paths={**PATHS, "v": "/v"})


# ---- pod bodies -------------------------------------------------------------------------------------------------------------


def test_a_pod_joins_our_network_and_publishes_its_host_ports() -> None:
    ports = (Port(80, host_port=8080), Port(53, host_port=53, host_ip="192.0.2.1", protocol="UDP"), Port(9))
    found = pod_body(CLUSTER, pod(Container("app", "img", ports=ports), name="web.0" + "x" * 70), NODE, PATHS)
    assert found["Networks"] == {"sshoal": {}}
    assert found["portmappings"] == [
        {"container_port": 80, "host_port": 8080, "host_ip": "", "protocol": "tcp"},
        {"container_port": 53, "host_port": 53, "host_ip": "192.0.2.1", "protocol": "udp"},
    ]
    assert found["hostname"] == "web.0" + "x" * 58
    assert found["shared_namespaces"] == ["net", "uts", "ipc"]
    assert found["labels"]["sshoal.dev/pod-uid"] == "uid-1"


def test_a_pod_on_the_hosts_network_publishes_nothing() -> None:
    container = Container("app", "img", ports=(Port(80, host_port=80),))
    found = pod_body(CLUSTER, pod(container, host_network=True), NODE, PATHS)
    assert found["netns"] == {"nsmode": "host"}
    assert not {"portmappings", "Networks", "hostname"} & found.keys()


def test_namespaces_shared_by_choice() -> None:
    found = pod_body(CLUSTER, pod(share_pid=True, host_ipc=True, sysctls={"net.core.somaxconn": "9"}), NODE, PATHS)
    assert found["shared_namespaces"] == ["net", "uts", "pid"]
    assert found["sysctl"] == {"net.core.somaxconn": "9"}
    container = Container("app", "img")
    of_container = body(container, pod(container, host_pid=True, host_ipc=True))
    assert (of_container["pidns"], of_container["ipcns"]) == ({"nsmode": "host"}, {"nsmode": "host"})


def test_a_pod_may_know_itself_by_its_full_name() -> None:
    wanted = pod(hostname="one", subdomain="group", fqdn=True)
    assert pod_body(CLUSTER, wanted, NODE, PATHS)["hostname"] == "one.group.default.svc.cluster.local"
    assert pod_body(CLUSTER, pod(hostname="one", fqdn=True), NODE, PATHS)["hostname"] == "one"
    with pytest.raises(SpecError, match="64 at most"):
        pod_body(CLUSTER, pod(hostname="o" * 40, subdomain="group", fqdn=True), NODE, PATHS)


# ---- parts of volumes by variables, propagation of mounts -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "sub_path"),
    [("runs/$(NAME)", "runs/web-0"), ("plain", "plain"), ("$$(NAME)", "$(NAME)"), ("$(FIXED)/$(NAME)", "a/web-0")],
)
def test_a_sub_path_takes_the_containers_variables(expression: str, sub_path: str) -> None:
    env = (EnvVar("NAME", field="metadata.name"), EnvVar("FIXED", value="a"))
    container = Container("app", "img", env=env, mounts=(Mount("v", "/v", sub_path_expr=expression), Mount("w", "/w")))
    found = with_sub_paths(pod(container), container, ip="10.86.3.7", node=NODE, content=Content({}, {}))
    assert [mount.sub_path for mount in found.mounts] == [sub_path, ""]


def test_a_sub_path_with_a_variable_that_is_not_set_is_an_error() -> None:
    container = Container("app", "img", mounts=(Mount("v", "/v", sub_path_expr="$(NOBODY)"),))
    with pytest.raises(SpecError, match="NOBODY is not set"):
        with_sub_paths(pod(container), container, ip="", node=NODE, content=Content({}, {}))


def test_mounts_of_the_host_reach_the_container_where_the_manifest_says_so() -> None:
    mounts = (
        Mount("v", "/a"),
        Mount("v", "/b", propagation="HostToContainer"),
        Mount("v", "/c", True, propagation="Bidirectional"),
    )
    found = body(Container("app", "img", mounts=mounts), paths={**PATHS, "v": "/v"})["mounts"]
    assert {item["destination"]: item["options"] for item in found if item["source"] == "/v"} == {
        "/a": ["rbind", "rw"],
        "/b": ["rbind", "rw", "rslave"],
        "/c": ["rbind", "ro", "rshared"],
    }


# ---- SELinux --------------------------------------------------------------------------------------------------------------

VOLUMES = tuple(protocol.Volume(kind, kind) for kind in ("empty", "memory", "files", "host"))
ALL_PATHS = {**PATHS, TERMINATION_KEY: "/f/last", **{volume.name: f"/v/{volume.name}" for volume in VOLUMES}}
MOUNTS = tuple(Mount(volume.name, f"/m/{volume.name}") for volume in VOLUMES)


def relabelled(found: dict[str, Any]) -> set[str]:
    return {mount["source"] for mount in found["mounts"] if "Z" in mount["options"]}


def test_with_selinux_what_was_made_for_the_pod_gets_its_label_and_a_host_path_never() -> None:
    container = Container("app", "img", mounts=MOUNTS, termination_message_path="/dev/termination-log")
    found = body(container, pod(container, volumes=VOLUMES), paths=ALL_PATHS, selinux=True)
    assert found["selinux_opts"] == [f"level:{selinux_level('uid-1')}"]
    assert relabelled(found) == {"/f/resolv.conf", "/f/hosts", "/f/last", "/v/empty", "/v/memory", "/v/files"}


def test_all_containers_of_a_pod_and_its_sandbox_have_one_label() -> None:
    wanted = pod(Container("app", "img"), Container("side", "img"))
    sandbox = pod_body(CLUSTER, wanted, NODE, PATHS, selinux=True)["security_opt"]
    levels = {body(container, wanted, selinux=True)["selinux_opts"][0] for container in wanted.containers}
    assert sandbox == [f"label={levels.pop()}"]
    assert not levels


@pytest.mark.parametrize(
    ("changes", "security"),
    [({}, Security(privileged=True)), ({"host_pid": True}, Security()), ({"host_ipc": True}, Security())],
    ids=["privileged", "host's processes", "host's semaphores"],
)
def test_what_podman_does_not_confine_takes_no_volume_away_from_the_others(
    changes: dict[str, Any], security: Security
) -> None:
    container = Container("app", "img", mounts=MOUNTS, security=security)
    found = body(container, pod(container, volumes=VOLUMES, **changes), paths=ALL_PATHS, selinux=True)
    assert "selinux_opts" not in found
    assert not relabelled(found)


def test_without_selinux_no_body_mentions_it() -> None:
    container = Container("app", "img", mounts=MOUNTS)
    wanted = pod(container, volumes=VOLUMES)
    text = json.dumps([body(container, wanted, paths=ALL_PATHS), pod_body(CLUSTER, wanted, NODE, PATHS)])
    assert '"Z"' not in text
    assert "level:" not in text


@given(st.text(max_size=40))
def test_a_level_has_two_categories_and_is_always_the_same(uid: str) -> None:
    match = re.fullmatch(r"s0:c(\d+),c(\d+)", selinux_level(uid))
    assert match
    assert 0 <= int(match[1]) < int(match[2]) < 1024
    assert selinux_level(uid) == selinux_level(uid)


def test_pods_have_labels_of_their_own() -> None:
    levels = {selinux_level(f"uid-{number}") for number in range(200)}
    assert len(levels) >= 199
