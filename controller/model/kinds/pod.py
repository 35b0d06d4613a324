"""Pod and everything below PodSpec, with Kubernetes' defaults (core/v1). Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from controller.model.kinds.meta import (
    Bool,
    ConfigKey,
    Count,
    DnsLabel,
    DnsSubdomain,
    Id,
    LabelKey,
    Labels,
    Mode,
    Model,
    Object,
    ObjectMeta,
    Port,
    PortName,
    PortOrName,
    Quantity,
    Seconds,
    TemplateMeta,
)
from controller.model.kinds.scheduling import Affinity, PreemptionPolicy, TopologySpreadConstraint
from controller.model.quantity import cpu_millicores, exact, memory_bytes

PullPolicy = Literal["Always", "IfNotPresent", "Never"]
ResourceName = Literal["cpu", "memory", "ephemeral-storage"]

# --- image ---------------------------------------------------------------------------------------------------------

# Docker's reference grammar: [domain/]path[:tag][@digest]
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]{1,5})?/)?"
    rf"{_PATH_PART}(?:/{_PATH_PART})*"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"
    r"(?P<digest>@sha256:[0-9a-f]{64})?"
)


def default_pull_policy(image: str) -> PullPolicy:
    """Always for `:latest` or neither tag nor digest, else IfNotPresent."""
    match = _IMAGE.fullmatch(image)
    if match is None:
        return "IfNotPresent"
    untagged = match["tag"] is None and match["digest"] is None
    return "Always" if untagged or match["tag"] == ":latest" else "IfNotPresent"


def _check_image(image: str) -> str:
    if len(image) > 512 or not _IMAGE.fullmatch(image):
        hint = "; repository names are lower-case" if image != image.lower() else ""
        raise ValueError(f"{image[:80]!a} is not an image reference such as docker.io/library/nginx:1.27{hint}")
    return image


Image = Annotated[str, AfterValidator(_check_image)]


# --- environment ---------------------------------------------------------------------------------------------------


def _check_env_name(name: str) -> str:
    if not name or "=" in name or not all(" " <= c <= "~" for c in name):
        raise ValueError(f"{name[:80]!a} must be printable ASCII characters without '='")
    return name


EnvName = Annotated[str, AfterValidator(_check_env_name)]


class ObjectFieldSelector(Model):
    field_path: str
    api_version: Literal["v1"] = "v1"


class ResourceFieldSelector(Model):
    resource: str
    container_name: str = ""
    divisor: Quantity = "1"

    @property
    def divisors(self) -> tuple[str, ...]:
        """Those that Kubernetes allows for this resource."""
        return ("1", "1m") if self.resource.endswith(".cpu") else ("1", *_MULTIPLES)

    @property
    def canonical_divisor(self) -> str | None:
        """As the API server compares it: `1024Ki` is `1Mi`, and what was not given shows as 0 there. None when it is not allowed."""
        asked = exact(self.divisor) or 1
        return next((divisor for divisor in self.divisors if exact(divisor) == asked), None)


_MULTIPLES = ("1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")


class ConfigMapKeySelector(Model):
    name: DnsSubdomain
    key: ConfigKey
    optional: Bool = False


class SecretKeySelector(Model):
    name: DnsSubdomain
    key: ConfigKey
    optional: Bool = False


class EnvVarSource(Model):
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: ConfigMapKeySelector | None = None
    secret_key_ref: SecretKeySelector | None = None


class EnvVar(Model):
    name: EnvName
    value: str = ""
    value_from: EnvVarSource | None = None


class ConfigMapEnvSource(Model):
    name: DnsSubdomain
    optional: Bool = False


class SecretEnvSource(Model):
    name: DnsSubdomain
    optional: Bool = False


class EnvFromSource(Model):
    prefix: str = ""
    config_map_ref: ConfigMapEnvSource | None = None
    secret_ref: SecretEnvSource | None = None


# --- probes and hooks ----------------------------------------------------------------------------------------------


def _zero_means(default: int) -> BeforeValidator:
    """Kubernetes fills these defaults in where the number is 0, so an explicit 0 is the default too."""
    return BeforeValidator(lambda value: default if value == 0 and isinstance(value, int) else value)


def _empty_means(default: str) -> BeforeValidator:
    """The same where the text is empty."""
    return BeforeValidator(lambda value: default if value == "" else value)


class HTTPHeader(Model):
    name: Annotated[str, Field(pattern=r"^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")]
    # A line break would begin another header
    value: Annotated[str, Field(pattern=r"^[^\x00-\x08\x0a-\x1f\x7f]*$")] = ""


class HTTPGetAction(Model):
    port: PortOrName
    path: Annotated[str, _empty_means("/")] = "/"
    host: str = ""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    http_headers: tuple[HTTPHeader, ...] = ()


class TCPSocketAction(Model):
    port: PortOrName
    host: str = ""


class ExecAction(Model):
    command: tuple[str, ...]


class GRPCAction(Model):
    port: Port
    service: str = ""


class SleepAction(Model):
    seconds: Seconds


class Probe(Model):
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    exec: ExecAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: Seconds = 0
    period_seconds: Annotated[Seconds, _zero_means(10)] = 10
    timeout_seconds: Annotated[Seconds, _zero_means(1)] = 1
    success_threshold: Annotated[Count, _zero_means(1)] = 1
    failure_threshold: Annotated[Count, _zero_means(3)] = 3
    termination_grace_period_seconds: Annotated[Seconds, Field(ge=1)] | None = None  # None: the pod's


class LifecycleHandler(Model):
    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(Model):
    # None: the image's
    stop_signal: Annotated[str, Field(pattern=r"^SIG[A-Z0-9]{1,10}([+-][0-9]{1,2})?$")] | None = None
    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


# --- security ------------------------------------------------------------------------------------------------------


class Capabilities(Model):
    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SeccompProfile(Model):
    type: Literal["RuntimeDefault", "Unconfined"]


class SecurityContext(Model):
    """Of a container. None: the pod's setting, or the image's."""

    run_as_user: Id | None = None
    run_as_group: Id | None = None
    run_as_non_root: Bool | None = None
    privileged: Bool = False
    read_only_root_filesystem: Bool = False
    allow_privilege_escalation: Bool | None = None
    capabilities: Capabilities = Capabilities()
    seccomp_profile: SeccompProfile | None = None


class Sysctl(Model):
    name: Annotated[str, Field(pattern=r"^[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?(?:[./][a-z0-9](?:[-_a-z0-9]*[a-z0-9])?)*$")]
    value: str


class PodSecurityContext(Model):
    run_as_user: Id | None = None
    run_as_group: Id | None = None
    run_as_non_root: Bool | None = None
    fs_group: Id | None = None
    fs_group_change_policy: Literal["Always", "OnRootMismatch"] | None = None  # it is always as by the latter
    supplemental_groups: tuple[Id, ...] = ()
    seccomp_profile: SeccompProfile | None = None
    sysctls: tuple[Sysctl, ...] = ()


# --- volumes -------------------------------------------------------------------------------------------------------


class KeyToPath(Model):
    key: ConfigKey
    path: str
    mode: Mode | None = None


class ConfigMapVolumeSource(Model):
    name: DnsSubdomain
    items: tuple[KeyToPath, ...] = ()
    default_mode: Mode = 0o644
    optional: Bool = False


class SecretVolumeSource(Model):
    secret_name: DnsSubdomain
    items: tuple[KeyToPath, ...] = ()
    default_mode: Mode = 0o644
    optional: Bool = False


class EmptyDirVolumeSource(Model):
    medium: Literal["", "Memory"] = ""
    size_limit: Quantity | None = None


class HostPathVolumeSource(Model):
    path: str
    type: Literal[
        "", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"
    ] = ""


class DownwardAPIVolumeFile(Model):
    path: str
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: Mode | None = None


class DownwardAPIVolumeSource(Model):
    items: tuple[DownwardAPIVolumeFile, ...] = ()
    default_mode: Mode = 0o644


class ConfigMapProjection(Model):
    name: DnsSubdomain
    items: tuple[KeyToPath, ...] = ()
    optional: Bool = False


class SecretProjection(Model):
    name: DnsSubdomain
    items: tuple[KeyToPath, ...] = ()
    optional: Bool = False


class DownwardAPIProjection(Model):
    items: tuple[DownwardAPIVolumeFile, ...] = ()


class VolumeProjection(Model):
    config_map: ConfigMapProjection | None = None
    secret: SecretProjection | None = None
    downward_api: Annotated[DownwardAPIProjection | None, Field(alias="downwardAPI")] = None


class ProjectedVolumeSource(Model):
    sources: tuple[VolumeProjection, ...] = ()
    default_mode: Mode = 0o644


class PersistentVolumeClaimVolumeSource(Model):
    claim_name: str  # its syntax is checked in check.py: stored templates hold a place for the pod's name
    read_only: Bool = False


class Volume(Model):
    """One source at most; none at all means an emptyDir, as in Kubernetes."""

    name: DnsLabel
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    downward_api: Annotated[DownwardAPIVolumeSource | None, Field(alias="downwardAPI")] = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None


class VolumeMount(Model):
    name: str
    mount_path: str
    sub_path: str = ""
    sub_path_expr: str = ""
    read_only: Bool = False
    mount_propagation: Literal["None", "HostToContainer", "Bidirectional"] = "None"


# --- containers ----------------------------------------------------------------------------------------------------


class ContainerPort(Model):
    container_port: Port
    name: PortName | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    host_port: Annotated[Port | None, BeforeValidator(lambda value: value or None if type(value) is int else value)] = (
        None
    )
    host_ip: Annotated[str, Field(alias="hostIP")] = ""


class ResourceRequirements(Model):
    requests: dict[ResourceName, Quantity] = Field(default_factory=dict)
    limits: dict[ResourceName, Quantity] = Field(default_factory=dict)

    def request(self, resource: ResourceName) -> str | None:
        """What is asked for; where that is unset, the limit; else None."""
        return self.requests.get(resource, self.limits.get(resource))


def _pull_policy_of(fields: dict[str, Any]) -> PullPolicy:
    return default_pull_policy(fields.get("image", ""))


class Container(Model):
    name: DnsLabel
    image: Image
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    stdin: Bool = False
    tty: Bool = False
    ports: tuple[ContainerPort, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    env: tuple[EnvVar, ...] = ()
    resources: ResourceRequirements = ResourceRequirements()
    volume_mounts: tuple[VolumeMount, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle = Lifecycle()
    security_context: SecurityContext = SecurityContext()
    image_pull_policy: PullPolicy = Field(default_factory=_pull_policy_of)
    termination_message_path: Annotated[str, _empty_means("/dev/termination-log")] = "/dev/termination-log"
    termination_message_policy: Literal["File", "FallbackToLogsOnError"] = "File"
    restart_policy: Literal["Always"] | None = None  # init containers only: Always makes one a sidecar

    def requested(self, resource: ResourceName) -> int:
        """Millicores of cpu, bytes of anything else; 0 when nothing is asked for."""
        amount = self.resources.request(resource) or 0
        return cpu_millicores(amount) if resource == "cpu" else memory_bytes(amount)


# --- pod -----------------------------------------------------------------------------------------------------------


class Toleration(Model):
    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] | None = None  # None: for ever


class HostAlias(Model):
    ip: str
    hostnames: tuple[DnsSubdomain, ...] = ()


class LocalObjectReference(Model):
    name: DnsSubdomain


class PodSchedulingGate(Model):
    name: LabelKey


class PodDNSConfigOption(Model):
    name: str
    value: str | None = None


class PodDNSConfig(Model):
    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class PodSpec(Model):
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_period_seconds: Seconds = 30
    active_deadline_seconds: Annotated[Seconds, Field(ge=1)] | None = None  # None: for ever
    node_selector: Labels = Field(default_factory=dict)
    node_name: str = ""
    tolerations: tuple[Toleration, ...] = ()
    affinity: Affinity | None = None
    topology_spread_constraints: tuple[TopologySpreadConstraint, ...] = ()
    scheduling_gates: tuple[PodSchedulingGate, ...] = ()  # while there is one, no node is looked for
    priority_class_name: str = ""
    preemption_policy: PreemptionPolicy | None = None  # None: the class's
    host_network: Bool = False
    host_pid: Annotated[Bool, Field(alias="hostPID")] = False
    host_ipc: Annotated[Bool, Field(alias="hostIPC")] = False
    share_process_namespace: Bool = False
    hostname: DnsLabel | None = None
    subdomain: DnsLabel | None = None
    set_hostname_as_fqdn: Annotated[Bool, Field(alias="setHostnameAsFQDN")] = False
    host_aliases: tuple[HostAlias, ...] = ()
    dns_policy: Literal["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"] = "ClusterFirst"
    dns_config: PodDNSConfig = PodDNSConfig()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    security_context: PodSecurityContext = PodSecurityContext()
    enable_service_links: Bool = True

    def requested(self, resource: ResourceName) -> int:
        """What the pod needs at once: millicores of cpu, bytes of memory. Semantics: KEP-753.

        Containers and sidecars run together; an init container runs beside the sidecars before it, then ends. Two
        containers of 100m, a sidecar of 50m and after it an init container of 300m: max(100+100+50, 50+300) = 350.
        """
        sidecars = peak = 0
        for container in self.init_containers:
            amount = container.requested(resource)
            peak = max(peak, sidecars + amount)
            sidecars += amount if container.restart_policy == "Always" else 0
        return max(peak, sidecars + sum(container.requested(resource) for container in self.containers))

    def host_ports(self) -> tuple[tuple[str, str, int], ...]:
        """(host address or "", protocol, port) of each port taken on the node; with hostNetwork every port is."""
        return tuple(
            (port.host_ip, port.protocol, port.host_port or port.container_port)
            for container in (*self.init_containers, *self.containers)
            for port in container.ports
            if port.host_port or self.host_network
        )


class PodTemplateSpec(Model):
    metadata: TemplateMeta = TemplateMeta()
    spec: PodSpec


class Pod(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["Pod"] = "Pod"
    metadata: ObjectMeta
    spec: PodSpec
