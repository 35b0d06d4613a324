"""Pods as Podman is told them: protocol.Pod → JSON bodies of the libpod API. Pure. Next: podman_runtime sends them.

What is decided here once for all (records that can't be changed later): names, labels, restart policy no, no health check of Podman's own,
log driver k8s-file with our path and cap, our own resolv.conf and hosts, stop timeout 0 (the agent keeps the grace period itself).
No ulimits: with any given, Podman adds others that some hosts refuse.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from nodeagent import downward, netfiles
from nodeagent.protocol import Capacity, Container, EnvFrom, EnvVar, NodeConfig, Pod
from nodeagent.runtime import (
    LABEL_ATTEMPT,
    LABEL_CLUSTER,
    LABEL_CONTAINER,
    LABEL_HASH,
    LABEL_NAMESPACE,
    LABEL_POD,
    LABEL_UID,
    NETWORK_NAME,
    Content,
    ImageInfo,
)

NAME_PREFIX = "sshoal-"
CONFIG_ERROR = "CreateContainerConfigError"

_STEM_LENGTH = 58  # of a name: the readable beginning; what makes it unique comes after it, uncut
_CONTAINER_LENGTH = 40
_HOSTNAME_LENGTH = 64
_CPU_PERIOD_US = 100_000
_CPU_QUOTA_US_MIN = 1_000
_CPU_SHARES_MIN = 2
_UNKNOWN = Capacity()


@dataclass(frozen=True)
class HostRules:
    """What this host lets the engine set for containers.

    `oom_score_min`: the lowest oom score; below 0 needs a right that not every host has, an ordinary user can't go below his own.
    `cpu`, `memory`: whether limits and shares of it can be set. They are left out where not, since the engine may refuse them.
    """

    oom_score_min: int = 0
    cpu: bool = True
    memory: bool = True


ROOTFUL_RULES = HostRules()
OOM_SCORE_MIN = -997  # of Guaranteed pods


class SpecError(Exception):
    """This container cannot be made as specified. `reason` is Kubernetes' word for it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# ---- names ----------------------------------------------------------------------------------------------------------------


def pod_name(cluster: str, pod: Pod) -> str:
    """Readable, at most 128 characters, and unique by a hash over cluster and uid, which is never cut."""
    return f"{_stem(cluster, pod)}-{_unique(cluster, pod.uid)}"


def container_name(cluster: str, pod: Pod, container: str, attempt: int) -> str:
    """As pod_name; the hash covers the container's name too, since that may be cut."""
    return f"{_stem(cluster, pod)}-{_unique(cluster, pod.uid, container)}-{container[:_CONTAINER_LENGTH]}-{attempt}"


def _stem(cluster: str, pod: Pod) -> str:
    return f"{NAME_PREFIX}{cluster[:8]}-{pod.namespace}-{pod.name}"[:_STEM_LENGTH]


def _unique(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16]


def _labels(cluster: str, pod: Pod) -> dict[str, str]:
    return {
        LABEL_CLUSTER: cluster,
        LABEL_UID: pod.uid,
        LABEL_NAMESPACE: pod.namespace,
        LABEL_POD: pod.name,
        LABEL_HASH: pod.hash,
    }


# ---- pods -----------------------------------------------------------------------------------------------------------------


def pod_body(
    cluster: str, pod: Pod, node: NodeConfig, paths: Mapping[str, str], *, selinux: bool = False
) -> dict[str, Any]:
    """Body of POST /pods/create: the infra container with the namespaces that the pod's containers share.

    `selinux`: whether it is on there; the pod then gets a label of its own (see selinux_level).
    """
    shared = ["net", "uts"] + ([] if pod.host_ipc else ["ipc"]) + (["pid"] if pod.share_pid else [])
    body: dict[str, Any] = {
        "name": pod_name(cluster, pod),
        "labels": _labels(cluster, pod),
        "shared_namespaces": shared,
        "exit_policy": "continue",
        "no_manage_resolv_conf": True,
        "no_manage_hosts": True,
    }
    if pod.sysctls:
        body["sysctl"] = dict(pod.sysctls)
    if selinux and _is_confined(pod):
        body["security_opt"] = [f"label=level:{selinux_level(pod.uid)}"]
    if pod.host_network:
        return {**body, "netns": {"nsmode": "host"}}
    return {
        **body,
        "hostname": _hostname(pod),
        "netns": {"nsmode": "bridge"},
        "Networks": {NETWORK_NAME: {"static_ips": [pod.address]} if pod.address else {}},
        "portmappings": list(_port_mappings(pod)),
    }


def _hostname(pod: Pod) -> str:
    """Raises SpecError: the kernel takes 64 characters, and a cut name would be another one."""
    name = netfiles.domain_name(pod) if pod.fqdn else netfiles.hostname(pod)
    if len(name) > _HOSTNAME_LENGTH:
        raise SpecError(
            CONFIG_ERROR, f"setHostnameAsFQDN: {name} has {len(name)} characters, {_HOSTNAME_LENGTH} at most"
        )
    return name


def _port_mappings(pod: Pod) -> Iterator[dict[str, Any]]:
    for container in (*pod.init_containers, *pod.containers):
        for port in container.ports:
            if port.host_port:
                yield {
                    "container_port": port.container_port,
                    "host_port": port.host_port,
                    "host_ip": port.host_ip,
                    "protocol": port.protocol.lower(),
                }


# ---- containers -----------------------------------------------------------------------------------------------------------


def container_body(
    *,
    cluster: str,
    pod: Pod,
    container: Container,
    attempt: int,
    pod_id: str,
    ip: str,
    node: NodeConfig,
    paths: Mapping[str, str],
    content: Content,
    image: ImageInfo,
    log_path: str,
    log_bytes_max: int,
    capacity: Capacity = _UNKNOWN,
    rules: HostRules = ROOTFUL_RULES,
    selinux: bool = False,
) -> dict[str, Any]:
    """Body of POST /containers/create.

    Args:
        ip: the pod's address; empty on the host's network, where the node's stands for it.
        paths: host paths as runtime.Files gives them: by volume name, of our own files, and of this container's.
        capacity: what unset limits count as, and what a Burstable container's oom score is measured against.
        selinux: whether it is on there.
    Raises: SpecError.
    """
    environment = _environment(pod, container, ip or node.address, node, content, capacity)
    security = container.security
    labelled = selinux and _is_confined(pod) and not security.privileged
    body: dict[str, Any] = {
        "name": container_name(cluster, pod, container.name, attempt),
        "labels": {**_labels(cluster, pod), LABEL_CONTAINER: container.name, LABEL_ATTEMPT: str(attempt)},
        "pod": pod_id,
        "image": image.id.rpartition(":")[2],
        "raw_image_name": container.image,
        "env": environment,
        "httpproxy": False,
        "entrypoint": [expand(word, environment) for word in container.command or ()],
        "command": [expand(word, environment) for word in container.args or ()],
        "stdin": container.stdin,
        "terminal": container.tty,
        "mounts": list(_mounts(pod, container, paths, labelled)),
        "restart_policy": "no",
        "healthconfig": {"Test": ["NONE"]},
        "log_configuration": {"driver": "k8s-file", "path": log_path, "size": log_bytes_max},
        "stop_timeout": 0,
        "systemd": "false",
        "resource_limits": _resources(container, rules),
        "oom_score_adj": max(oom_score_adj(pod, container, capacity.memory_bytes), rules.oom_score_min),
        "privileged": security.privileged,
        "read_only_filesystem": security.read_only_root,
        "no_new_privileges": not security.escalation,
        "cap_add": list(security.add),
        "cap_drop": list(security.drop),
        "groups": [str(group) for group in security.groups],
        "user": _user(container, image),
    }
    if container.working_dir:
        body["work_dir"] = expand(container.working_dir, environment)
    if labelled:
        body["selinux_opts"] = [f"level:{selinux_level(pod.uid)}"]
    if security.seccomp == "Unconfined":
        body["seccomp_profile_path"] = "unconfined"
    if pod.host_pid:
        body["pidns"] = {"nsmode": "host"}
    if pod.host_ipc:
        body["ipcns"] = {"nsmode": "host"}
    return {key: value for key, value in body.items() if value not in ([], "")}


_CATEGORIES = 1024  # of SELinux' targeted policy: c0 to c1023


def selinux_level(uid: str) -> str:
    """The level of a pod: two categories out of its uid, so that a restart finds its volumes labelled as they were: "s0:c12,c345".

    Containers may touch only what has both categories of theirs: those of one pod share its volumes, those of others are kept out
    (multi-category security; Podman draws such pairs too). There are 523,776 pairs: of 100 pods on a host two share one in 1 % of cases.
    """
    number = int(hashlib.sha256(uid.encode()).hexdigest()[:16], 16)
    first, second = number % _CATEGORIES, number // _CATEGORIES % (_CATEGORIES - 1)
    second += second >= first  # never the same twice
    return f"s0:c{min(first, second)},c{max(first, second)}"


def _is_confined(pod: Pod) -> bool:
    """With the host's processes or semaphores Podman runs a container without confinement, so that a label would only keep others out."""
    return not pod.host_pid and not pod.host_ipc


def _user(container: Container, image: ImageInfo) -> str:
    """user[:group]; empty leaves it to the image."""
    security = container.security
    user = image.user if security.user is None else str(security.user)
    name = user.partition(":")[0]
    if security.non_root:
        is_number = name.isascii() and name.isdigit()
        if name in ("", "root") or (is_number and int(name) == 0):  # "00" is root for Podman too
            raise SpecError(CONFIG_ERROR, f"container {container.name}: runAsNonRoot, but it would run as root")
        if not is_number:
            raise SpecError(
                CONFIG_ERROR,
                f"container {container.name}: runAsNonRoot, but the image's user {name!r} is no number; set runAsUser",
            )
    if security.group is not None:
        return f"{name or '0'}:{security.group}"
    return "" if security.user is None else name


def _resources(container: Container, rules: HostRules) -> dict[str, Any]:
    """cgroup settings as kubelet makes them: shares from the request, quota and memory from the limits, no swap."""
    resources: dict[str, Any] = {}
    cpu: dict[str, int] = {"shares": max(_CPU_SHARES_MIN, container.cpu_request_m * 1024 // 1000)}
    if container.cpu_limit_m:
        cpu["quota"] = max(_CPU_QUOTA_US_MIN, container.cpu_limit_m * _CPU_PERIOD_US // 1000)
        cpu["period"] = _CPU_PERIOD_US
    if rules.cpu:
        resources["cpu"] = cpu
    limit = container.memory_limit_bytes
    if limit and rules.memory:
        resources["memory"] = {"limit": limit, "swap": limit}
    return resources


def oom_score_adj(pod: Pod, container: Container, memory_bytes: int) -> int:
    """Kubernetes' values by QoS class: Guaranteed -997, BestEffort 1000, Burstable by its share of memory.

    Worked example: a request of 1 GiB on a host of 4 GiB gives 1000 - 1000/4 = 750. Source: node-pressure eviction in Kubernetes' docs.
    """
    containers = (*pod.containers, *pod.init_containers)
    if not any(c.cpu_request_m or c.cpu_limit_m or c.memory_request_bytes or c.memory_limit_bytes for c in containers):
        return 1000
    if all(
        c.cpu_limit_m
        and c.memory_limit_bytes
        and c.cpu_request_m in (0, c.cpu_limit_m)
        and c.memory_request_bytes in (0, c.memory_limit_bytes)
        for c in containers
    ):
        return OOM_SCORE_MIN
    share = 1000 * container.memory_request_bytes // memory_bytes if memory_bytes else 0
    return min(max(2, 1000 - share), 999)


# ---- mounts ---------------------------------------------------------------------------------------------------------------

TERMINATION_KEY = "/termination-message"  # in `paths`; no volume has a "/" in its name


def sub_path_key(volume: str, sub_path: str) -> str:
    """Under which key `paths` holds a part of a volume.

    A pod can plant symlinks in its own volume, so the path must not be put together here: runtime.Files walks it from the volume's
    directory with O_NOFOLLOW, binds what it has opened to a place of its own, and gives that place.
    """
    return f"{volume}/{sub_path}"


# Podman's option by kind of volume: Z for what was made for this pod alone, z for what several pods may have. A hostPath is somebody else's
# and is never relabelled.
_RELABEL = {"empty": "Z", "memory": "Z", "files": "Z", "claim": "z"}


def _mounts(pod: Pod, container: Container, paths: Mapping[str, str], labelled: bool) -> Iterator[dict[str, Any]]:
    """Volumes, and our own files unless the container mounts something else there. Config maps, secrets and pod fields are read-only.

    `labelled`: what was made for this pod gets its SELinux label as the container is made, and what claims share one without categories.
    """
    places = {mount.path for mount in container.mounts}
    ours = {"/etc/resolv.conf": "/etc/resolv.conf", "/etc/hosts": "/etc/hosts"}
    if TERMINATION_KEY in paths:
        ours[container.termination_message_path] = TERMINATION_KEY
    for place, key in ours.items():
        if place not in places:
            yield _bind(paths[key], place, read_only=False, relabel="Z" if labelled else "")
    options = {volume.name: _RELABEL.get(volume.kind, "") for volume in pod.volumes}
    fixed = {volume.name for volume in pod.volumes if volume.kind == "files" or volume.read_only}
    for mount in container.mounts:
        if ".." in mount.sub_path.split("/") or mount.sub_path.startswith("/"):
            raise SpecError(
                CONFIG_ERROR, f"container {container.name}: subPath {mount.sub_path!r} leads out of its volume"
            )
        key = sub_path_key(mount.volume, mount.sub_path) if mount.sub_path else mount.volume
        if key not in paths:
            raise SpecError(CONFIG_ERROR, f"container {container.name}: volume {key} is not on the node")
        yield _bind(
            paths[key],
            mount.path,
            read_only=mount.read_only or mount.volume in fixed,
            relabel=options.get(mount.volume, "") if labelled else "",
            propagation=_PROPAGATION.get(mount.propagation, ""),
        )


_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}


def _bind(source: str, destination: str, *, read_only: bool, relabel: str, propagation: str = "") -> dict[str, Any]:
    options = ["rbind", "ro" if read_only else "rw"]
    options += [propagation] if propagation else []
    options += [relabel] if relabel else []
    return {"type": "bind", "source": source, "destination": destination, "options": options}


# ---- environment ------------------------------------------------------------------------------------------------------------

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Kubernetes' $(NAME): replaced when NAME is set, left as it is otherwise; $$ is a dollar that starts no reference."""

    def value(match: "re.Match[str]") -> str:
        name = match.group(1)
        return "$" if name is None else environment.get(name, match.group(0))

    return _REFERENCE.sub(value, text)


def with_sub_paths(
    pod: Pod, container: Container, *, ip: str, node: NodeConfig, content: Content, capacity: Capacity = _UNKNOWN
) -> Container:
    """The container with the subPathExpr of its mounts worked out. Raises SpecError: a variable that is not set."""
    if not any(mount.sub_path_expr for mount in container.mounts):
        return container
    environment = _environment(pod, container, ip or node.address, node, content, capacity)
    mounts = []
    for mount in container.mounts:
        if mount.sub_path_expr:
            missing = [name for name in _REFERENCE.findall(mount.sub_path_expr) if name and name not in environment]
            if missing:
                problem = f"container {container.name}: subPathExpr {mount.sub_path_expr!r}: {missing[0]} is not set"
                raise SpecError(CONFIG_ERROR, problem)
            mount = replace(mount, sub_path=expand(mount.sub_path_expr, environment))
        mounts.append(mount)
    return replace(container, mounts=tuple(mounts))


def _environment(
    pod: Pod, container: Container, ip: str, node: NodeConfig, content: Content, capacity: Capacity
) -> dict[str, str]:
    """envFrom first, later ones win; env on top, each seeing those before it."""
    environment: dict[str, str] = {}
    for source in container.env_from:
        for key, text in _all_of(source, container, content).items():
            name = source.prefix + key
            if name and "=" not in name and "\0" not in name:  # Kubernetes skips keys that can't be variables
                environment[name] = text
    for variable in container.env:
        found = _value(variable, pod, container, ip, node, content, capacity)
        if found is not None:
            environment[variable.name] = expand(found, environment) if variable.value is not None else found
    return environment


def _all_of(source: EnvFrom, container: Container, content: Content) -> Mapping[str, str]:
    data = _texts(source.config, source.secret, content)
    if data is not None:
        return {key: _text(data[key], key, source.secret, container) for key in data}
    if source.optional:
        return {}
    raise _missing(container, source.config, source.secret, content)


def _value(
    variable: EnvVar, pod: Pod, container: Container, ip: str, node: NodeConfig, content: Content, capacity: Capacity
) -> Optional[str]:
    """None: an optional reference that leads nowhere; the variable is then not set."""
    if variable.field:
        return _field(variable.field, pod, container, ip, node)
    if variable.resource:
        return _resource(variable, pod, container, capacity)
    if not variable.config and not variable.secret:
        return variable.value or ""
    data = _texts(variable.config, variable.secret, content)
    if data is not None and variable.key in data:
        return _text(data[variable.key], variable.key, variable.secret, container)
    if variable.optional:
        return None
    if data is None:
        raise _missing(container, variable.config, variable.secret, content)
    source = f"config map {variable.config}" if variable.config else f"secret {variable.secret}"
    raise SpecError(CONFIG_ERROR, f"container {container.name}: {source} has no key {variable.key!r}")


def _texts(config: str, secret: str, content: Content) -> Optional[Mapping[str, str]]:
    """Content of a config map, or of a secret (still base64); None when it is not here."""
    found = content.configs.get(config) if config else content.secrets.get(secret)
    return None if found is None else found.data


def _text(value: str, key: str, secret: str, container: Container) -> str:
    if not secret:
        return value
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        message = f"container {container.name}: key {key!r} of secret {secret} is not text and can't be a variable"
        raise SpecError(CONFIG_ERROR, message) from None


def _missing(container: Container, config: str, secret: str, content: Content) -> SpecError:
    if config:
        return SpecError(CONFIG_ERROR, f"container {container.name}: config map {config} not found")
    why = "has not arrived on the node yet" if secret in content.wanted_secrets else "not found"
    return SpecError(CONFIG_ERROR, f"container {container.name}: secret {secret} {why}")


def _field(path: str, pod: Pod, container: Container, ip: str, node: NodeConfig) -> str:
    """A downward API field as kubelet writes it."""
    here = {
        "spec.nodeName": node.name,
        "spec.serviceAccountName": "default",
        "status.podIP": ip,
        "status.podIPs": ip,
        "status.hostIP": node.address,
        "status.hostIPs": node.address,
    }
    found = here[path] if path in here else downward.field(pod, path)
    if found is None:
        raise SpecError(CONFIG_ERROR, f"container {container.name}: field {path!r} can't be had in a variable")
    return found


def _resource(variable: EnvVar, pod: Pod, container: Container, capacity: Capacity) -> str:
    name = variable.container or container.name
    try:
        return downward.resource(pod, name, variable.resource, variable.divisor, capacity)
    except LookupError as error:
        raise SpecError(CONFIG_ERROR, f"container {container.name}: {error.args[0]}") from None
