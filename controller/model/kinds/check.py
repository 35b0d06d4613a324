"""What the fields of an object must agree on, as the API server checks it. Pure.

In: an object whose shape is right. Out: every problem as (path, message); the message completes a sentence that begins
with the path. Objects read back from the store were checked when they came in and do not pass here again.
Semantics: Kubernetes' own validation of core/v1 and apps/v1.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from controller.model import quantity
from controller.model.kinds.check_scheduling import (
    priority_class_problems,
    requirements_problems,
    scheduling_problems,
)
from controller.model.kinds.config import ConfigMap, Namespace, Secret
from controller.model.kinds.meta import (
    LabelSelector,
    Model,
    Object,
    check_dns_subdomain,
    check_label_key,
    is_more_than_all,
    shown,
)
from controller.model.kinds.pod import (
    Container,
    DownwardAPIVolumeFile,
    EnvVar,
    KeyToPath,
    LifecycleHandler,
    Pod,
    PodSpec,
    PodTemplateSpec,
    Probe,
    ProjectedVolumeSource,
    ResourceFieldSelector,
    ResourceRequirements,
    Volume,
    VolumeProjection,
)
from controller.model.kinds.scheduling import PriorityClass
from controller.model.kinds.workloads import Deployment, DeploymentSpec, ReplicaSet, RollingUpdateDeployment
from controller.model.text import HIDDEN

Path = tuple[str | int, ...]
Problem = tuple[Path, str]

LARGEST_CONFIG_BYTES = 1024 * 1024
LARGEST_ANNOTATIONS_BYTES = 256 * 1024
CONTAINERS_MAX = 64  # of a pod, those of its init phase included: agents take no more


def problems_of(thing: Object) -> Iterator[Problem]:
    """Every problem of `thing`, in the order of its fields."""
    yield from _annotations(thing)
    match thing:
        case Pod():
            yield from _pod_spec(thing.spec, ("spec",))
        case Deployment():
            yield from _workload(thing.spec.selector, thing.spec.template)
            yield from _deployment(thing.spec)
        case ReplicaSet():
            yield from _workload(thing.spec.selector, thing.spec.template)
        case ConfigMap():
            yield from _config_map(thing)
        case Secret():
            yield from _secret(thing)
        case PriorityClass():
            yield from priority_class_problems(thing)
        case Namespace():
            yield from _security_labels(thing)
        case _ if thing.kind in ("LimitRange", "ResourceQuota"):
            yield from _policy(thing)
        case _ if thing.kind in ("DaemonSet", "StatefulSet"):
            yield from _set(thing)
        case _ if thing.kind == "PersistentVolumeClaim":
            yield from _claim(thing)
        case _ if thing.kind in ("Job", "CronJob"):
            yield from _batch(thing)
        case _ if thing.kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler"):
            yield from _disruption(thing)


def _disruption(thing: Any) -> Iterator[Problem]:
    from controller.model.kinds.check_disruption import disruption_problems

    yield from disruption_problems(thing)


def _batch(thing: Any) -> Iterator[Problem]:
    from controller.model.kinds.check_batch import batch_problems  # with its models, only when such an object is there

    yield from batch_problems(thing, _pod_spec)


def _set(thing: Any) -> Iterator[Problem]:
    from controller.model.kinds.check_sets import set_problems

    claims = frozenset(item.metadata.name for item in getattr(thing.spec, "volume_claim_templates", ()))
    yield from _workload(thing.spec.selector, thing.spec.template, claims)
    yield from set_problems(thing)


def _policy(thing: Any) -> Iterator[Problem]:
    from controller.model.kinds.check_policy import policy_problems

    yield from policy_problems(thing)


def _security_labels(namespace: Namespace) -> Iterator[Problem]:
    if any(key.startswith("pod-security.kubernetes.io/") for key in namespace.metadata.labels):
        from controller.model.kinds.check_policy import label_problems

        yield from label_problems(namespace.metadata.labels)


def _claim(thing: Any) -> Iterator[Problem]:
    from controller.model.kinds.check_storage import claim_problems

    yield from claim_problems(thing.spec, ("spec",))


def _annotations(thing: Object) -> Iterator[Problem]:
    size_bytes = sum(len(key) + len(value.encode()) for key, value in thing.metadata.annotations.items())
    if size_bytes > LARGEST_ANNOTATIONS_BYTES:
        yield ("metadata", "annotations"), "are larger than 256 KiB together"


# --- workloads -----------------------------------------------------------------------------------------------------


def _workload(
    selector: LabelSelector, template: PodTemplateSpec, claims: frozenset[str] = frozenset()
) -> Iterator[Problem]:
    """`claims`: volumes that claim templates add to those of the template."""
    at: Path = ("spec", "selector")
    broken = list(requirements_problems(selector, (*at, "matchExpressions")))
    yield from broken
    if selector.is_empty:
        yield at, "must select something: repeat the labels of the template as matchLabels"
    elif not broken and not selector.matches(template.metadata.labels):
        yield (
            ("spec", "template", "metadata", "labels"),
            "do not match spec.selector: it must select the pods made here",
        )
    if template.spec.restart_policy != "Always":
        yield (
            ("spec", "template", "spec", "restartPolicy"),
            f"must be Always here, not {template.spec.restart_policy}: these pods run for ever",
        )
    if template.spec.active_deadline_seconds is not None:
        yield ("spec", "template", "spec", "activeDeadlineSeconds"), "may not be set here: these pods run for ever"
    yield from _pod_spec(template.spec, ("spec", "template", "spec"), claims)


def _deployment(spec: DeploymentSpec) -> Iterator[Problem]:
    at: Path = ("spec", "strategy", "rollingUpdate")
    rolling = spec.strategy.rolling_update
    if spec.strategy.type == "Recreate":
        if rolling is not None:
            yield at, "may not be set when type is Recreate"
    elif rolling is not None:
        yield from _rolling_update(rolling, at)
    if spec.progress_deadline_seconds <= spec.min_ready_seconds:
        yield (
            ("spec", "progressDeadlineSeconds"),
            f"must be greater than minReadySeconds ({spec.min_ready_seconds}), not {spec.progress_deadline_seconds}",
        )


def _rolling_update(rolling: RollingUpdateDeployment, at: Path) -> Iterator[Problem]:
    if str(rolling.max_surge).rstrip("%").strip("0") == str(rolling.max_unavailable).rstrip("%").strip("0") == "":
        yield (*at, "maxUnavailable"), "may not be 0 when maxSurge is 0 too: nothing could ever be replaced"
    unavailable = rolling.max_unavailable
    if is_more_than_all(unavailable):
        yield (*at, "maxUnavailable"), f"may not be more than 100%, not {unavailable}"


# --- pods ----------------------------------------------------------------------------------------------------------


def _pod_spec(spec: PodSpec, at: Path, claims: frozenset[str] = frozenset()) -> Iterator[Problem]:
    if not spec.containers:
        yield (*at, "containers"), "must name one container at least"
    every = [((*at, "initContainers", index), c) for index, c in enumerate(spec.init_containers)]
    every += [((*at, "containers", index), c) for index, c in enumerate(spec.containers)]
    if len(every) > CONTAINERS_MAX:
        longer = "containers" if len(spec.containers) >= len(spec.init_containers) else "initContainers"
        yield (*at, longer), f"may be {CONTAINERS_MAX} at most, init containers included, not {len(every)}"
    yield from _unique(((*path, "name"), c.name) for path, c in every)
    yield from _unique(((*at, "volumes", i, "name"), volume.name) for i, volume in enumerate(spec.volumes))
    volumes = {volume.name for volume in spec.volumes} | claims
    for index, volume in enumerate(spec.volumes):
        yield from _volume(volume, (*at, "volumes", index), spec)
    init = len(spec.init_containers)
    for index, (path, container) in enumerate(every):
        yield from _container(container, path, spec, volumes, is_init=index < init)
    yield from _host_ports(every, host_network=spec.host_network)
    yield from scheduling_problems(spec, at)
    yield from _unique(((*at, "schedulingGates", i, "name"), gate.name) for i, gate in enumerate(spec.scheduling_gates))
    if spec.scheduling_gates and spec.node_name:
        yield (*at, "nodeName"), "may not be set together with schedulingGates"
    if spec.priority_class_name:
        yield from _subdomain(spec.priority_class_name, (*at, "priorityClassName"))
    for index, alias in enumerate(spec.host_aliases):
        yield from _ip(alias.ip, (*at, "hostAliases", index, "ip"))
    yield from _dns(spec, (*at, "dnsConfig"))
    if spec.host_pid and spec.share_process_namespace:
        yield (*at, "shareProcessNamespace"), "may not be true when hostPID is true"
    if spec.dns_policy == "None" and not spec.dns_config.nameservers:
        yield (*at, "dnsConfig", "nameservers"), "must name one server at least when dnsPolicy is None"
    yield from _sysctls(spec, (*at, "securityContext", "sysctls"))


def _sysctls(spec: PodSpec, at: Path) -> Iterator[Problem]:
    sysctls = spec.security_context.sysctls
    yield from _unique(((*at, index, "name"), sysctl.name) for index, sysctl in enumerate(sysctls))
    for index, sysctl in enumerate(sysctls):
        name = sysctl.name.replace("/", ".")
        if spec.host_network and name.startswith("net."):
            yield (*at, index, "name"), "may not be set when hostNetwork is true: it would be the node's"
        if spec.host_ipc and (name == "kernel.sem" or name.startswith(("kernel.shm", "kernel.msg", "fs.mqueue."))):
            yield (*at, index, "name"), "may not be set when hostIPC is true: it would be the node's"


def _dns(spec: PodSpec, at: Path) -> Iterator[Problem]:
    if len(spec.dns_config.nameservers) > 3:
        yield (*at, "nameservers"), "may name three servers at most"
    if len(spec.dns_config.searches) > 32:
        yield (*at, "searches"), "may name 32 domains at most"
    for index, server in enumerate(spec.dns_config.nameservers):
        yield from _ip(server, (*at, "nameservers", index))
    for index, domain in enumerate(spec.dns_config.searches):
        if domain != "." and not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})", domain):
            yield (*at, "searches", index), "must be a domain such as example.com"
    for index, option in enumerate(spec.dns_config.options):
        if not re.fullmatch(r"[!-~]+", option.name) or not re.fullmatch(r"[!-~]*", option.value or ""):
            yield (*at, "options", index), "must be printable characters without spaces"


def _host_ports(every: list[tuple[Path, Container]], *, host_network: bool) -> Iterator[Problem]:
    """Init containers end before others begin: one by itself may use what another has. Sidecars stay."""
    together: dict[tuple[str, str, int], Path] = {}
    for at, container in every:
        ends = "initContainers" in at and container.restart_policy is None
        taken = {} if ends else together
        for index, port in enumerate(container.ports):
            here = (*at, "ports", index, "hostPort")
            if host_network and port.host_port not in (None, port.container_port):
                yield here, f"must equal containerPort ({port.container_port}) when hostNetwork is true"
            if port.host_port is None:
                here = (*at, "ports", index, "containerPort")
            number = port.host_port or (port.container_port if host_network else None)
            if number is None:
                continue
            key = (port.host_ip, port.protocol, number)
            if key in taken:
                yield here, f"{number} is taken by {show(taken[key])}"
            taken.setdefault(key, here)


# --- containers ----------------------------------------------------------------------------------------------------


def _container(container: Container, at: Path, spec: PodSpec, volumes: set[str], *, is_init: bool) -> Iterator[Problem]:
    yield from _unique(((*at, "ports", i, "name"), port.name) for i, port in enumerate(container.ports) if port.name)
    for index, port in enumerate(container.ports):
        if port.host_ip:
            yield from _ip(port.host_ip, (*at, "ports", index, "hostIP"))
    for index, variable in enumerate(container.env):
        yield from _env(variable, (*at, "env", index), spec)
    for index, source in enumerate(container.env_from):
        yield from _one_of(source, (*at, "envFrom", index), ("configMapRef", "secretRef"))
        if source.prefix and not re.fullmatch(r"[ -<>-~]+", source.prefix):
            yield (*at, "envFrom", index, "prefix"), "must be printable ASCII characters without '='"
    yield from _resources(container.resources, (*at, "resources"))
    yield from _mounts(container, (*at, "volumeMounts"), volumes)
    if not container.termination_message_path.startswith("/"):
        yield (*at, "terminationMessagePath"), "must begin with '/'"
    if container.working_dir and not container.working_dir.startswith("/"):
        yield (*at, "workingDir"), "must begin with '/'"
    yield from _security(container, (*at, "securityContext"))
    if container.restart_policy and not is_init:
        yield (*at, "restartPolicy"), "may only be set on init containers"
    if is_init and container.restart_policy is None:
        for name in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
            if getattr(container, _SNAKE[name]) not in (None, type(container).model_fields[_SNAKE[name]].default):
                yield (*at, name), "may not be set on an init container without restartPolicy: Always"
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe := getattr(container, _SNAKE[name]):
            yield from _probe(probe, (*at, name), container)
            if name != "readinessProbe" and probe.success_threshold != 1:
                yield (*at, name, "successThreshold"), f"must be 1 here, not {probe.success_threshold}"
    readiness = container.readiness_probe
    if readiness is not None and readiness.termination_grace_period_seconds is not None:
        yield (*at, "readinessProbe", "terminationGracePeriodSeconds"), "may not be set: this probe kills nothing"
    signal = container.lifecycle.stop_signal
    if signal is not None and not _SIGNAL.fullmatch(signal):
        yield (*at, "lifecycle", "stopSignal"), f"{shown(signal)} is no signal, such as SIGTERM or SIGUSR1"
    for name, handler in (("postStart", container.lifecycle.post_start), ("preStop", container.lifecycle.pre_stop)):
        if handler is not None:
            yield from _hook(handler, (*at, "lifecycle", name), container, spec)


# As core/v1 lists them: what is none would only be told by the runtime, when a container is to stop.
_SIGNAL = re.compile(
    "SIG(?:ABRT|ALRM|BUS|CHLD|CLD|CONT|FPE|HUP|ILL|INT|IO|IOT|KILL|PIPE|POLL|PROF|PWR|QUIT|SEGV|STKFLT|STOP|SYS|TERM|TRAP|TSTP|TTIN|TTOU|URG|"
    r"USR1|USR2|VTALRM|WINCH|XCPU|XFSZ|RTMIN(?:\+(?:[1-9]|1[0-5]))?|RTMAX(?:-(?:[1-9]|1[0-4]))?)"
)
_SNAKE = {
    "livenessProbe": "liveness_probe",
    "readinessProbe": "readiness_probe",
    "startupProbe": "startup_probe",
    "lifecycle": "lifecycle",
}
_ENV_FIELDS = re.compile(
    r"metadata\.(?:name|namespace|uid)|metadata\.(?:labels|annotations)\['[^']+'\]"
    r"|spec\.nodeName|spec\.serviceAccountName|status\.(?:hostIPs?|podIPs?)"
)
_VOLUME_FIELDS = re.compile(
    r"metadata\.(?:name|namespace|uid|labels|annotations)|metadata\.(?:labels|annotations)\['[^']+'\]"
)


def _env(variable: EnvVar, at: Path, spec: PodSpec) -> Iterator[Problem]:
    source = variable.value_from
    if source is None:
        return
    if variable.value:
        yield (*at, "valueFrom"), "may not be set together with value"
    yield from _one_of(source, (*at, "valueFrom"), ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"))
    if source.field_ref and not _ENV_FIELDS.fullmatch(source.field_ref.field_path):
        yield (
            (*at, "valueFrom", "fieldRef", "fieldPath"),
            "must be metadata.name, metadata.namespace, metadata.uid, metadata.labels['…'], metadata.annotations['…'], "
            "spec.nodeName, spec.serviceAccountName, status.hostIP, status.hostIPs, status.podIP or status.podIPs",
        )
    elif source.field_ref:
        yield from _named_key(source.field_ref.field_path, (*at, "valueFrom", "fieldRef", "fieldPath"))
    if source.resource_field_ref:
        yield from _resource_field(source.resource_field_ref, (*at, "valueFrom", "resourceFieldRef"), spec)


def _named_key(field_path: str, at: Path) -> Iterator[Problem]:
    """The key in metadata.labels['…'] or metadata.annotations['…']."""
    _, bracket, key = field_path.removesuffix("']").partition("['")
    if bracket:
        try:
            check_label_key(key)
        except ValueError as error:
            yield at, str(error)


def _resource_field(
    selector: ResourceFieldSelector, at: Path, spec: PodSpec, *, needs_name: bool = False
) -> Iterator[Problem]:
    if not re.fullmatch(r"(?:limits|requests)\.(?:cpu|memory|ephemeral-storage)", selector.resource):
        yield (*at, "resource"), "must be limits or requests of cpu, memory or ephemeral-storage, such as limits.cpu"
    if selector.canonical_divisor is None:
        yield (*at, "divisor"), f"must be one of {', '.join(selector.divisors)}"
    name = selector.container_name
    if needs_name and not name:
        yield (*at, "containerName"), "is required in a volume"
    if name and name not in {c.name for c in (*spec.containers, *spec.init_containers)}:
        yield (*at, "containerName"), f"{shown(name)} is no container of this pod"


def _resources(resources: ResourceRequirements, at: Path) -> Iterator[Problem]:
    for resource, request in resources.requests.items():
        limit = resources.limits.get(resource)
        exact: Callable[[str], int] = quantity.cpu_millicores if resource == "cpu" else quantity.memory_bytes
        if limit is not None and exact(request) > exact(limit):
            yield (*at, "requests", resource), f"{request} is more than the limit, {limit}"


def _mounts(container: Container, at: Path, volumes: set[str]) -> Iterator[Problem]:
    mounts = container.volume_mounts
    yield from _unique(((*at, index, "mountPath"), mount.mount_path) for index, mount in enumerate(mounts))
    for index, mount in enumerate(mounts):
        if mount.name not in volumes:
            yield (*at, index, "name"), f"{shown(mount.name)} is no volume of this pod{_there_are(volumes)}"
        if not mount.mount_path.startswith("/"):
            yield (*at, index, "mountPath"), "must begin with '/'"
        if ".." in mount.mount_path.split("/") or ":" in mount.mount_path:
            yield (*at, index, "mountPath"), "may not hold '..' or ':'"
        if mount.sub_path:
            yield from _relative(mount.sub_path, (*at, index, "subPath"))
        if mount.sub_path_expr:
            yield from _relative(mount.sub_path_expr, (*at, index, "subPathExpr"))
            if mount.sub_path:
                yield (*at, index, "subPathExpr"), "may not be set together with subPath"
        if mount.mount_propagation == "Bidirectional" and not container.security_context.privileged:
            yield (*at, index, "mountPropagation"), "may be Bidirectional in a privileged container only"


def _security(container: Container, at: Path) -> Iterator[Problem]:
    security = container.security_context
    if security.allow_privilege_escalation is False:
        if security.privileged:
            yield (*at, "allowPrivilegeEscalation"), "may not be false when privileged is true"
        if {"SYS_ADMIN", "CAP_SYS_ADMIN"} & set(security.capabilities.add):
            yield (*at, "allowPrivilegeEscalation"), "may not be false when SYS_ADMIN is added"
    for name, names in (("add", security.capabilities.add), ("drop", security.capabilities.drop)):
        for index, capability in enumerate(names):
            if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", capability):
                yield (*at, "capabilities", name, index), "must be a capability such as NET_BIND_SERVICE, or ALL"


def _probe(probe: Probe, at: Path, container: Container) -> Iterator[Problem]:
    yield from _one_of(probe, at, ("httpGet", "tcpSocket", "exec", "grpc"))
    yield from _actions(probe, at, container)


def _hook(handler: LifecycleHandler, at: Path, container: Container, spec: PodSpec) -> Iterator[Problem]:
    yield from _one_of(handler, at, ("exec", "httpGet", "tcpSocket", "sleep"))
    yield from _actions(handler, at, container)
    grace_s = spec.termination_grace_period_seconds
    if handler.sleep and handler.sleep.seconds > grace_s:
        yield (*at, "sleep", "seconds"), f"must be at most terminationGracePeriodSeconds ({grace_s})"


def _actions(handler: Probe | LifecycleHandler, at: Path, container: Container) -> Iterator[Problem]:
    if handler.exec and not handler.exec.command:
        yield (*at, "exec", "command"), "must not be empty"
    if handler.http_get and not re.fullmatch(r"[!-~\u00a0-\U0010ffff]+", handler.http_get.path):
        yield (*at, "httpGet", "path"), "may not hold spaces or control characters"
    named = {port.name for port in container.ports}
    for name, action in (("httpGet", handler.http_get), ("tcpSocket", handler.tcp_socket)):
        if action is None:
            continue
        if isinstance(action.port, str) and action.port not in named:
            yield (*at, name, "port"), f"{shown(action.port)} is no named port of this container"
        if action.host and not re.fullmatch(r"[A-Za-z0-9:._\[\]-]{1,253}", action.host):
            yield (*at, name, "host"), "must be a host name or an address"


# --- volumes -------------------------------------------------------------------------------------------------------

_VOLUME_SOURCES = (
    "configMap",
    "secret",
    "emptyDir",
    "hostPath",
    "projected",
    "downwardAPI",
    "persistentVolumeClaim",
)


def _volume(volume: Volume, at: Path, spec: PodSpec) -> Iterator[Problem]:
    yield from _one_of(volume, at, _VOLUME_SOURCES, none_is_fine=True)
    if volume.config_map:
        yield from _key_paths(volume.config_map.items, (*at, "configMap", "items"))
    if volume.secret:
        yield from _key_paths(volume.secret.items, (*at, "secret", "items"))
    if volume.host_path:
        path = volume.host_path.path
        if not path.startswith("/") or ".." in path.split("/") or ":" in path:
            yield (*at, "hostPath", "path"), "must begin with '/' and may not hold '..' or ':'"
    if volume.persistent_volume_claim:
        yield from _subdomain(volume.persistent_volume_claim.claim_name, (*at, "persistentVolumeClaim", "claimName"))
    if volume.downward_api:
        yield from _downward(volume.downward_api.items, (*at, "downwardAPI", "items"), spec)
    if volume.projected:
        yield from _sources_apart(volume.projected, (*at, "projected", "sources"))
        for index, source in enumerate(volume.projected.sources):
            here: Path = (*at, "projected", "sources", index)
            yield from _one_of(source, here, ("configMap", "secret", "downwardAPI"))
            if source.config_map:
                yield from _key_paths(source.config_map.items, (*here, "configMap", "items"))
            if source.secret:
                yield from _key_paths(source.secret.items, (*here, "secret", "items"))
            if source.downward_api:
                yield from _downward(source.downward_api.items, (*here, "downwardAPI", "items"), spec)


def _sources_apart(volume: ProjectedVolumeSource, at: Path) -> Iterator[Problem]:
    """No two sources name the same file. Of one that is taken as it is, nobody knows the files yet."""
    by: dict[str, int] = {}
    for index, source in enumerate(volume.sources):
        for kind, number, path in _files_named(source):
            if by.setdefault(path, index) != index:
                yield (*at, index, kind, "items", number, "path"), f"{shown(path)} is a file of sources[{by[path]}] too"


def _files_named(source: VolumeProjection) -> Iterator[tuple[str, int, str]]:
    """(kind of source, number, path) of each file whose name is given."""
    for kind, content in (("configMap", source.config_map), ("secret", source.secret)):
        for number, item in enumerate(content.items if content else ()):
            yield kind, number, item.path
    for number, file in enumerate(source.downward_api.items if source.downward_api else ()):
        yield "downwardAPI", number, file.path


def _key_paths(items: tuple[KeyToPath, ...], at: Path) -> Iterator[Problem]:
    yield from _unique(((*at, index, "path"), item.path) for index, item in enumerate(items))
    for index, item in enumerate(items):
        yield from _file(item.path, (*at, index, "path"))


def _downward(items: tuple[DownwardAPIVolumeFile, ...], at: Path, spec: PodSpec) -> Iterator[Problem]:
    yield from _unique(((*at, index, "path"), item.path) for index, item in enumerate(items))
    for index, item in enumerate(items):
        yield from _file(item.path, (*at, index, "path"))
        yield from _one_of(item, (*at, index), ("fieldRef", "resourceFieldRef"))
        if item.field_ref and not _VOLUME_FIELDS.fullmatch(item.field_ref.field_path):
            yield (
                (*at, index, "fieldRef", "fieldPath"),
                "must be metadata.name, metadata.namespace, metadata.uid, metadata.labels or metadata.annotations",
            )
        elif item.field_ref:
            yield from _named_key(item.field_ref.field_path, (*at, index, "fieldRef", "fieldPath"))
        if item.resource_field_ref:
            yield from _resource_field(item.resource_field_ref, (*at, index, "resourceFieldRef"), spec, needs_name=True)


# --- configuration -------------------------------------------------------------------------------------------------


def _config_map(config: ConfigMap) -> Iterator[Problem]:
    yield from _base64(config.binary_data, "binaryData")
    for key in config.data.keys() & config.binary_data.keys():
        yield ("binaryData", key), "is in data too"
    size_bytes = sum(len(value.encode()) for value in config.data.values())
    size_bytes += sum(len(value) * 3 // 4 for value in config.binary_data.values())
    if size_bytes > LARGEST_CONFIG_BYTES:
        yield ("data",), "is larger than 1 MiB together"


_KEYS_OF_SECRET_TYPE = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def _secret(secret: Secret) -> Iterator[Problem]:
    broken = list(_base64(secret.data, "data"))
    yield from broken
    if broken:
        return
    contents = secret.contents()
    if sum(map(len, contents.values())) > LARGEST_CONFIG_BYTES:
        yield ("data",), "is larger than 1 MiB together"
    if secret.type == "kubernetes.io/basic-auth" and not {"username", "password"} & contents.keys():
        yield ("data",), f"must hold username or password for type {secret.type}"
    for key in _KEYS_OF_SECRET_TYPE.get(secret.type, ()):
        if key not in contents:
            yield ("data",), f"must hold {key} for type {secret.type}"
        elif key.startswith(".docker") and not _is_json_object(contents[key]):
            yield ("stringData" if key in secret.string_data else "data", key), "must hold a JSON object"


def _base64(values: dict[str, str], name: str) -> Iterator[Problem]:
    for key, value in values.items():
        try:
            base64.b64decode(re.sub(r"[\r\n]", "", value), validate=True)
        except (binascii.Error, ValueError):
            if name == "data" and value == HIDDEN:
                yield (name, key), f"{HIDDEN} stands for a value that is not shown: write the value itself"
                continue
            hint = "; plain text belongs in stringData" if name == "data" else ""
            yield (name, key), f"is not base64{hint}"


def _is_json_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


# --- shared --------------------------------------------------------------------------------------------------------


def _one_of(thing: Model, at: Path, names: tuple[str, ...], *, none_is_fine: bool = False) -> Iterator[Problem]:
    given = [
        field.alias
        for name, field in type(thing).model_fields.items()
        if field.alias in names and getattr(thing, name) is not None
    ]
    if len(given) > 1:
        yield at, f"may have only one of {_and(given)}"
    if not given and not none_is_fine:
        yield at, f"needs one of {', '.join(names)}"


def _unique(values: Iterable[tuple[Path, str | None]]) -> Iterator[Problem]:
    first: dict[str | None, Path] = {}
    for path, value in values:
        if value in first:
            yield path, f"{shown(value or '')} is there twice: also {show(first[value])}"
        first.setdefault(value, path)


def _relative(path: str, at: Path) -> Iterator[Problem]:
    if not path or path.startswith("/") or ".." in path.split("/"):
        yield at, "must be a relative path without '..'"


def _subdomain(name: str, at: Path) -> Iterator[Problem]:
    try:
        check_dns_subdomain(name)
    except ValueError as error:
        yield at, str(error)


def _file(path: str, at: Path) -> Iterator[Problem]:
    """Of a volume that is written as a whole: names that begin with '..' are its own, as in Kubernetes."""
    yield from _relative(path, at)
    if path.startswith("..") and ".." not in path.split("/"):
        yield at, "may not begin with '..'"


def _ip(address: str, at: Path) -> Iterator[Problem]:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        yield at, f"{shown(address)} is not an IP address"


def _there_are(known: Iterable[str]) -> str:
    names = sorted(known)
    more = ", …" if len(names) > 8 else ""
    return f": there are {', '.join(names[:8])}{more}" if names else ": it has none"


def _and(names: list[Any]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def show(path: Path) -> str:
    """`("spec", "containers", 0, "name")` → `spec.containers[0].name`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:  # a key may be anything: a map's keys are the user's
            name = step if step.isprintable() and len(step) <= 80 else shown(step)
            text += f".{name}" if text else name
    return text
