"""Kubernetes' defaults, each by itself, and what they depend on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.kinds import Container, Deployment, Pod, PodSpec, Probe
from controller.model.kinds.meta import LabelRequirement, LabelSelector
from controller.model.kinds.pod import default_pull_policy
from controller.model.kinds.sets import RollingUpdateStatefulSet
from controller.model.kinds.workloads import RollingUpdateDeployment
from controller.model.manifest import load, parse_object

SMALLEST = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "nginx:1.27"}]},
        },
    },
}


def pod_spec(**fields: Any) -> PodSpec:
    return PodSpec.model_validate({"containers": [{"name": "c", "image": "i:1"}], **fields})


def container(**fields: Any) -> Container:
    return Container.model_validate({"name": "c", "image": "i:1", **fields})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("replicas", 1),
        ("min_ready_seconds", 0),
        ("progress_deadline_seconds", 600),
        ("revision_history_limit", 10),
        ("paused", False),
        ("strategy.type", "RollingUpdate"),
        ("strategy.rolling_update.max_surge", "25%"),
        ("strategy.rolling_update.max_unavailable", "25%"),
        ("template.spec.restart_policy", "Always"),
        ("template.spec.termination_grace_period_seconds", 30),
        ("template.spec.dns_policy", "ClusterFirst"),
        ("template.spec.enable_service_links", True),
        ("template.spec.host_network", False),
        ("template.spec.node_name", ""),
    ],
)
def test_deployment_default(field: str, value: object) -> None:
    thing: Any = parse_object("Deployment", SMALLEST)
    found: Any = thing.spec
    for step in field.split("."):
        found = getattr(found, step)
    assert found == value


def test_metadata_defaults_to_the_default_namespace() -> None:
    thing = parse_object("Deployment", SMALLEST)
    assert (thing.kind, thing.api_version, thing.metadata.namespace) == ("Deployment", "apps/v1", "default")
    assert thing.key == ("Deployment", "default", "web")


def test_a_namespace_lies_in_no_namespace() -> None:
    thing = parse_object("Namespace", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    assert thing.key == ("Namespace", "", "shop")


def test_explicit_zero_replicas_are_not_unset() -> None:
    thing: Any = parse_object("Deployment", {**SMALLEST, "spec": {**SMALLEST["spec"], "replicas": 0}})  # type: ignore[dict-item]
    assert thing.spec.replicas == 0


def test_recreate_has_no_rolling_update() -> None:
    spec = {**SMALLEST["spec"], "strategy": {"type": "Recreate"}}  # type: ignore[dict-item]
    thing: Any = parse_object("Deployment", {**SMALLEST, "spec": spec})
    assert thing.spec.strategy.rolling_update is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("initial_delay_seconds", 0),
        ("period_seconds", 10),
        ("timeout_seconds", 1),
        ("success_threshold", 1),
        ("failure_threshold", 3),
        ("termination_grace_period_seconds", None),
    ],
)
def test_probe_default(field: str, value: object) -> None:
    assert getattr(Probe.model_validate({"tcpSocket": {"port": 1}}), field) == value


@pytest.mark.parametrize(
    ("field", "value"), [("periodSeconds", 10), ("timeoutSeconds", 1), ("successThreshold", 1), ("failureThreshold", 3)]
)
def test_an_explicit_zero_of_a_probe_is_the_default_as_in_kubernetes(field: str, value: int) -> None:
    assert Probe.model_validate({"tcpSocket": {"port": 1}, field: 0}).dump()[field] == value


def test_http_probe_defaults_to_path_slash_over_http() -> None:
    action = Probe.model_validate({"httpGet": {"port": 80}}).http_get
    assert action is not None
    assert (action.path, action.scheme, action.host, action.http_headers) == ("/", "HTTP", "", ())


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.27", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:v1", "IfNotPresent"),
        ("localhost/sshoal-test:v1", "IfNotPresent"),
        (f"nginx@sha256:{'0' * 64}", "IfNotPresent"),
        (f"nginx:latest@sha256:{'0' * 64}", "Always"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert default_pull_policy(image) == policy
    assert container(image=image).image_pull_policy == policy


def test_a_written_pull_policy_stays() -> None:
    assert container(image="nginx", imagePullPolicy="Never").image_pull_policy == "Never"


@pytest.mark.parametrize("source", ["configMap", "secret", "projected", "downwardAPI"])
def test_files_of_volumes_have_mode_0644(source: str) -> None:
    names: dict[str, dict[str, str]] = {"configMap": {"name": "a"}, "secret": {"secretName": "a"}}
    spec = pod_spec(volumes=[{"name": "v", source: names.get(source, {})}])
    assert spec.volumes[0].dump()[source]["defaultMode"] == 0o644


def test_ports_are_tcp_and_tolerations_equal() -> None:
    spec = pod_spec(
        containers=[{"name": "c", "image": "i:1", "ports": [{"containerPort": 80}]}], tolerations=[{"key": "a"}]
    )
    assert spec.containers[0].ports[0].protocol == "TCP"
    assert spec.tolerations[0].operator == "Equal"
    assert spec.tolerations[0].toleration_seconds is None


@pytest.mark.parametrize(
    ("resources", "cpu_m"),
    [
        ({}, 0),
        ({"limits": {"cpu": "1"}}, 1000),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}, 100),
        ({"limits": {"cpu": "1"}, "requests": {"memory": "1Mi"}}, 1000),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": 0}}, 0),
    ],
)
def test_an_unset_request_is_the_limit(resources: dict[str, Any], cpu_m: int) -> None:
    assert container(resources=resources).requested("cpu") == cpu_m


def _asks(name: str, cpu: str, *, sidecar: bool = False) -> dict[str, Any]:
    written: dict[str, Any] = {"name": name, "image": "i:1", "resources": {"requests": {"cpu": cpu}}}
    return {**written, "restartPolicy": "Always"} if sidecar else written


@pytest.mark.parametrize(
    ("init", "main", "cpu_m"),
    [
        ([], [_asks("a", "100m"), _asks("b", "100m")], 200),
        ([_asks("i", "500m")], [_asks("a", "100m")], 500),
        ([_asks("i", "50m")], [_asks("a", "100m")], 100),
        ([_asks("s", "50m", sidecar=True)], [_asks("a", "100m")], 150),
        ([_asks("s", "50m", sidecar=True), _asks("i", "300m")], [_asks("a", "100m"), _asks("b", "100m")], 350),
        ([_asks("i", "300m"), _asks("s", "50m", sidecar=True)], [_asks("a", "100m")], 300),
    ],
)
def test_a_pod_asks_for_what_runs_at_once(init: list[Any], main: list[Any], cpu_m: int) -> None:
    assert pod_spec(containers=main, initContainers=init).requested("cpu") == cpu_m


def test_host_ports_are_those_written_and_all_with_host_network() -> None:
    containers = [
        {"name": "c", "image": "i:1", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 9}]}
    ]
    assert pod_spec(containers=containers).host_ports() == (("", "TCP", 8080),)
    containers[0]["ports"] = [{"containerPort": 80}]
    assert pod_spec(containers=containers, hostNetwork=True).host_ports() == (("", "TCP", 80),)


@pytest.mark.parametrize(
    ("max_surge", "max_unavailable", "replicas", "surge", "unavailable"),
    [
        ("25%", "25%", 10, 3, 2),
        ("25%", "25%", 1, 1, 0),
        ("25%", "25%", 3, 1, 0),
        ("25%", "25%", 4, 1, 1),
        (1, 0, 10, 1, 0),
        (0, 1, 10, 0, 1),
        (0, "1%", 10, 0, 1),  # both come out as 0: one may be missing, or nothing could move
        ("100%", 0, 5, 5, 0),
        ("0%", "50%", 0, 0, 1),
    ],
)
def test_surge_rounds_up_and_unavailable_down(
    max_surge: int | str, max_unavailable: int | str, replicas: int, surge: int, unavailable: int
) -> None:
    rolling = RollingUpdateDeployment(max_surge=max_surge, max_unavailable=max_unavailable)
    assert (rolling.surge(replicas), rolling.unavailable(replicas)) == (surge, unavailable)


@pytest.mark.parametrize(
    ("max_unavailable", "replicas", "unavailable"),
    [(1, 10, 1), (3, 2, 3), ("25%", 10, 2), ("25%", 4, 1), ("50%", 3, 1), ("10%", 3, 1), ("100%", 5, 5), ("50%", 0, 1)],
)
def test_of_a_stateful_set_unavailable_rounds_down_to_one_at_least(
    max_unavailable: int | str, replicas: int, unavailable: int
) -> None:
    assert RollingUpdateStatefulSet(max_unavailable=max_unavailable).unavailable(replicas) == unavailable


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 10_000))
def test_a_rolling_update_can_always_move(surge: int, unavailable: int, replicas: int) -> None:
    rolling = RollingUpdateDeployment(max_surge=f"{surge}%", max_unavailable=f"{unavailable}%")
    assert rolling.surge(replicas) + rolling.unavailable(replicas) >= 1


@pytest.mark.parametrize(
    ("operator", "values", "labels", "matches"),
    [
        ("In", ("a", "b"), {"k": "a"}, True),
        ("In", ("a",), {"k": "c"}, False),
        ("In", ("a",), {}, False),
        ("NotIn", ("a",), {"k": "c"}, True),
        ("NotIn", ("a",), {"k": "a"}, False),
        ("NotIn", ("a",), {}, True),
        ("Exists", (), {"k": ""}, True),
        ("Exists", (), {}, False),
        ("DoesNotExist", (), {}, True),
        ("DoesNotExist", (), {"k": ""}, False),
    ],
)
def test_selector_operators(operator: Any, values: tuple[str, ...], labels: dict[str, str], matches: bool) -> None:
    requirement = LabelRequirement(key="k", operator=operator, values=values)
    assert LabelSelector(match_expressions=(requirement,)).matches(labels) is matches


def test_a_dump_has_defaults_and_nothing_empty() -> None:
    assert parse_object("Deployment", SMALLEST).dump() == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {
                            "name": "web",
                            "image": "nginx:1.27",
                            "imagePullPolicy": "IfNotPresent",
                            "terminationMessagePath": "/dev/termination-log",
                            "terminationMessagePolicy": "File",
                        }
                    ],
                    "restartPolicy": "Always",
                    "terminationGracePeriodSeconds": 30,
                    "dnsPolicy": "ClusterFirst",
                    "enableServiceLinks": True,
                },
            },
            "replicas": 1,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
        },
    }


def test_empty_values_that_mean_something_are_dumped() -> None:
    spec = pod_spec(volumes=[{"name": "v", "emptyDir": {}}], terminationGracePeriodSeconds=0, enableServiceLinks=False)
    dumped = spec.dump()
    assert dumped["volumes"] == [{"name": "v", "emptyDir": {}}]
    assert (dumped["terminationGracePeriodSeconds"], dumped["enableServiceLinks"]) == (0, False)


def test_source_is_untouched_by_defaults() -> None:
    """Golden: hashes are made from the source, so a default added by an upgrade must not change it."""
    text = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: web, image: "nginx:1.27"}
"""
    (manifest,) = load(text, "web.yaml").manifests
    assert manifest.source == SMALLEST
    assert isinstance(manifest.object, Deployment)
    assert manifest.object.spec.replicas == 1
    assert list(manifest.source["spec"]) == ["selector", "template"]


def test_models_are_frozen_and_refuse_what_they_do_not_know() -> None:
    pod = parse_object("Pod", {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}})
    assert isinstance(pod, Pod)
    with pytest.raises(ValueError, match="frozen"):
        pod.spec.host_network = True  # type: ignore[misc]
    with pytest.raises(ValueError, match="extra"):
        PodSpec.model_validate({"containers": [], "hostPort": 1})


def test_a_secret_does_not_show_its_values() -> None:
    secret = parse_object(
        "Secret", {"metadata": {"name": "a"}, "data": {"k": "aHVudGVyMg=="}, "stringData": {"l": "hunter2"}}
    )
    assert "hunter2" not in repr(secret)
    assert "aHVu" not in repr(secret)
    assert secret.contents() == {"k": b"hunter2", "l": b"hunter2"}  # type: ignore[attr-defined]


def test_string_data_wins_over_data() -> None:
    secret: Any = parse_object("Secret", {"metadata": {"name": "a"}, "data": {"k": "YQ=="}, "stringData": {"k": "b"}})
    assert secret.contents() == {"k": b"b"}


def test_a_config_map_has_texts_and_bytes() -> None:
    config: Any = parse_object(
        "ConfigMap", {"metadata": {"name": "a"}, "data": {"t": "é"}, "binaryData": {"b": "AAE="}}
    )
    assert config.contents() == {"t": "é".encode(), "b": b"\x00\x01"}
