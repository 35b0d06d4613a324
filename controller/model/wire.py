"""Pod spec → what the agent is told: the dataclasses of nodeagent.protocol. Pure.

In: a PodSpec with its defaults and the pod's identity. Out: a wire pod in which everything that depends on several
fields is settled: named ports are numbers, the pod's security settings are merged into the containers', requests
default to limits. Values of config maps and secrets are named as "namespace/name", never held.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.model.kinds.pod import (
    Container,
    DownwardAPIVolumeFile,
    EnvFromSource,
    EnvVar,
    HTTPGetAction,
    KeyToPath,
    LifecycleHandler,
    PodSecurityContext,
    PodSpec,
    Probe,
    ResourceFieldSelector,
    SecurityContext,
    Volume,
    VolumeProjection,
)
from controller.model.quantity import cpu_millicores, memory_bytes
from nodeagent import protocol

SERVICE_ACCOUNT = "default"  # there are no others here, and this one has no rights


def wire_pod(
    spec: PodSpec,
    *,
    uid: str,
    namespace: str,
    name: str,
    hash: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    at_boot: str = "start",
    stop: bool = False,
    stop_grace_s: int | None = None,
) -> protocol.Pod:
    """The pod as the agent shall run it. `hash` is opaque to the agent: another one means another pod."""
    return protocol.Pod(
        uid=uid,
        namespace=namespace,
        name=name,
        hash=hash,
        containers=tuple(_container(container, spec, namespace) for container in spec.containers),
        init_containers=tuple(_container(container, spec, namespace) for container in spec.init_containers),
        labels=dict(labels),
        annotations=dict(annotations),
        volumes=tuple(_volume(volume, namespace) for volume in spec.volumes),
        restart=spec.restart_policy,
        grace_s=spec.termination_grace_period_seconds,
        deadline_s=spec.active_deadline_seconds or 0,
        host_network=spec.host_network,
        host_pid=spec.host_pid,
        host_ipc=spec.host_ipc,
        share_pid=spec.share_process_namespace,
        hostname=spec.hostname or name[:63].rstrip("-."),
        subdomain=spec.subdomain or "",
        fqdn=spec.set_hostname_as_fqdn,
        host_aliases=tuple(protocol.HostAlias(alias.ip, alias.hostnames) for alias in spec.host_aliases),
        dns=_dns(spec),
        fs_group=spec.security_context.fs_group,
        sysctls={sysctl.name: sysctl.value for sysctl in spec.security_context.sysctls},
        pull_secrets=tuple(f"{namespace}/{secret.name}" for secret in spec.image_pull_secrets),
        at_boot=at_boot,
        stop=stop,
        stop_grace_s=stop_grace_s,
    )


def referred_configs(pod: protocol.Pod) -> tuple[frozenset[str], frozenset[str]]:
    """The ("namespace/name") config maps and secrets that a wire pod needs."""
    configs: set[str] = set()
    secrets: set[str] = set(pod.pull_secrets)
    for container in (*pod.init_containers, *pod.containers):
        configs.update(source.config for source in container.env)
        configs.update(source.config for source in container.env_from)
        secrets.update(source.secret for source in container.env)
        secrets.update(source.secret for source in container.env_from)
    for volume in pod.volumes:
        configs.update(source.name for source in volume.sources if source.kind == "config")
        secrets.update(source.name for source in volume.sources if source.kind == "secret")
    return frozenset(configs - {""}), frozenset(secrets - {""})


def _container(container: Container, spec: PodSpec, namespace: str) -> protocol.Container:
    resources = container.resources
    ports = {port.name: port.container_port for port in container.ports if port.name}
    return protocol.Container(
        name=container.name,
        image=container.image,
        pull=container.image_pull_policy,
        # An empty list is no list, as in Kubernetes: the image's own command counts.
        command=container.command or None,
        args=container.args or None,
        working_dir=container.working_dir,
        env=tuple(_env(variable, namespace) for variable in container.env),
        env_from=tuple(_env_from(source, namespace) for source in container.env_from),
        ports=tuple(
            protocol.Port(port.container_port, port.name or "", port.host_port or 0, port.host_ip, port.protocol)
            for port in container.ports
        ),
        mounts=tuple(
            protocol.Mount(
                mount.name,
                mount.mount_path,
                mount.read_only,
                mount.sub_path,
                mount.sub_path_expr,
                "" if mount.mount_propagation == "None" else mount.mount_propagation,
            )
            for mount in container.volume_mounts
        ),
        cpu_request_m=container.requested("cpu"),
        cpu_limit_m=cpu_millicores(resources.limits.get("cpu", 0)),
        memory_request_bytes=container.requested("memory"),
        memory_limit_bytes=memory_bytes(resources.limits.get("memory", 0)),
        security=_security(container.security_context, spec.security_context),
        startup=_probe(container.startup_probe, ports),
        readiness=_probe(container.readiness_probe, ports),
        liveness=_probe(container.liveness_probe, ports),
        post_start=_handler(container.lifecycle.post_start, ports),
        pre_stop=_handler(container.lifecycle.pre_stop, ports),
        sidecar=container.restart_policy == "Always",
        stdin=container.stdin,
        tty=container.tty,
        stop_signal=container.lifecycle.stop_signal or "",
        termination_message_path=container.termination_message_path,
        termination_message_policy=container.termination_message_policy,
        disk_request_bytes=container.requested("ephemeral-storage"),
        disk_limit_bytes=memory_bytes(resources.limits.get("ephemeral-storage", 0)),
    )


# --- environment ---------------------------------------------------------------------------------------------------


def _env(variable: EnvVar, namespace: str) -> protocol.EnvVar:
    source = variable.value_from
    if source is None:
        return protocol.EnvVar(variable.name, value=variable.value)
    if ref := source.config_map_key_ref:
        return protocol.EnvVar(variable.name, config=f"{namespace}/{ref.name}", key=ref.key, optional=ref.optional)
    if secret := source.secret_key_ref:
        return protocol.EnvVar(
            variable.name, secret=f"{namespace}/{secret.name}", key=secret.key, optional=secret.optional
        )
    if source.resource_field_ref:
        resource, container, divisor = _resource(source.resource_field_ref)
        return protocol.EnvVar(variable.name, resource=resource, container=container, divisor=divisor)
    if source.field_ref and source.field_ref.field_path == "spec.serviceAccountName":
        return protocol.EnvVar(variable.name, value=SERVICE_ACCOUNT)
    return protocol.EnvVar(variable.name, field=source.field_ref.field_path if source.field_ref else "")


def _env_from(source: EnvFromSource, namespace: str) -> protocol.EnvFrom:
    if ref := source.config_map_ref:
        return protocol.EnvFrom(config=f"{namespace}/{ref.name}", prefix=source.prefix, optional=ref.optional)
    secret = source.secret_ref
    return protocol.EnvFrom(
        secret=f"{namespace}/{secret.name}" if secret else "",
        prefix=source.prefix,
        optional=secret.optional if secret else False,
    )


def _resource(selector: ResourceFieldSelector) -> tuple[str, str, str]:
    divisor = selector.canonical_divisor or ""
    return selector.resource, selector.container_name, divisor if divisor != "1" else ""


# --- probes and hooks ----------------------------------------------------------------------------------------------


def _probe(probe: Probe | None, ports: Mapping[str, int]) -> protocol.Probe | None:
    handler = _handler(probe, ports)
    if probe is None or handler is None:
        return None
    return protocol.Probe(
        handler=handler,
        initial_delay_s=probe.initial_delay_seconds,
        period_s=probe.period_seconds,
        timeout_s=probe.timeout_seconds,
        success_threshold=probe.success_threshold,
        failure_threshold=probe.failure_threshold,
        grace_s=probe.termination_grace_period_seconds,
    )


def _handler(source: Probe | LifecycleHandler | None, ports: Mapping[str, int]) -> protocol.Handler | None:
    if source is None:
        return None
    if source.exec:
        return protocol.Handler("exec", command=source.exec.command)
    if source.http_get:
        return _http(source.http_get, ports)
    if source.tcp_socket:
        return protocol.Handler("tcp", port=_port(source.tcp_socket.port, ports), host=source.tcp_socket.host)
    if isinstance(source, Probe):
        return protocol.Handler("grpc", port=source.grpc.port, service=source.grpc.service) if source.grpc else None
    return protocol.Handler("sleep", seconds=source.sleep.seconds) if source.sleep else None


def _http(action: HTTPGetAction, ports: Mapping[str, int]) -> protocol.Handler:
    return protocol.Handler(
        "http",
        port=_port(action.port, ports),
        host=action.host,
        path=action.path if action.path.startswith("/") else f"/{action.path}",
        scheme=action.scheme,
        headers=tuple((header.name, header.value) for header in action.http_headers),
    )


def _port(port: int | str, ports: Mapping[str, int]) -> int:
    return port if isinstance(port, int) else ports[port]


# --- security ------------------------------------------------------------------------------------------------------


def _security(own: SecurityContext, pod: PodSecurityContext) -> protocol.Security:
    """The container's setting where it has one, else the pod's.

    Where neither names a seccomp profile the runtime's default counts: stricter than Kubernetes, as its own
    SeccompDefault option. A privileged container has none, as in Kubernetes.
    """
    profile = own.seccomp_profile or pod.seccomp_profile
    groups = pod.supplemental_groups if pod.fs_group is None else (*pod.supplemental_groups, pod.fs_group)
    non_root = pod.run_as_non_root if own.run_as_non_root is None else own.run_as_non_root
    return protocol.Security(
        user=pod.run_as_user if own.run_as_user is None else own.run_as_user,
        group=pod.run_as_group if own.run_as_group is None else own.run_as_group,
        non_root=bool(non_root),
        groups=tuple(dict.fromkeys(groups)),
        privileged=own.privileged,
        read_only_root=own.read_only_root_filesystem,
        escalation=own.allow_privilege_escalation is not False,
        add=tuple(name.removeprefix("CAP_") for name in own.capabilities.add),
        drop=tuple(name.removeprefix("CAP_") for name in own.capabilities.drop),
        seccomp="Unconfined" if own.privileged else profile.type if profile else "RuntimeDefault",
    )


# --- volumes -------------------------------------------------------------------------------------------------------


def _volume(volume: Volume, namespace: str) -> protocol.Volume:
    name = volume.name
    if config := volume.config_map:
        source = protocol.Source("config", f"{namespace}/{config.name}", _keys(config.items), config.optional)
        return protocol.Volume(name, "files", sources=(source,), mode=config.default_mode)
    if secret := volume.secret:
        source = protocol.Source("secret", f"{namespace}/{secret.secret_name}", _keys(secret.items), secret.optional)
        return protocol.Volume(name, "files", sources=(source,), mode=secret.default_mode)
    if downward := volume.downward_api:
        source = protocol.Source("downward", items=_fields(downward.items))
        return protocol.Volume(name, "files", sources=(source,), mode=downward.default_mode)
    if projected := volume.projected:
        sources = tuple(_projection(source, namespace) for source in projected.sources)
        return protocol.Volume(name, "files", sources=sources, mode=projected.default_mode)
    if host := volume.host_path:
        return protocol.Volume(name, "host", path=host.path, path_type=host.type)
    if claim := volume.persistent_volume_claim:
        return protocol.Volume(name, "claim", claim=claim.claim_name, read_only=claim.read_only)
    empty = volume.empty_dir
    size_bytes = memory_bytes(empty.size_limit) if empty and empty.size_limit else 0
    return protocol.Volume(name, "memory" if empty and empty.medium else "empty", size_bytes=size_bytes)


def _projection(source: VolumeProjection, namespace: str) -> protocol.Source:
    if config := source.config_map:
        return protocol.Source("config", f"{namespace}/{config.name}", _keys(config.items), config.optional)
    if secret := source.secret:
        return protocol.Source("secret", f"{namespace}/{secret.name}", _keys(secret.items), secret.optional)
    return protocol.Source("downward", items=_fields(source.downward_api.items if source.downward_api else ()))


def _keys(items: tuple[KeyToPath, ...]) -> tuple[protocol.Item, ...]:
    return tuple(protocol.Item(key=item.key, path=item.path, mode=item.mode) for item in items)


def _fields(items: tuple[DownwardAPIVolumeFile, ...]) -> tuple[protocol.Item, ...]:
    return tuple(_field(item) for item in items)


def _field(item: DownwardAPIVolumeFile) -> protocol.Item:
    if item.resource_field_ref:
        resource, container, divisor = _resource(item.resource_field_ref)
        return protocol.Item(path=item.path, mode=item.mode, resource=resource, container=container, divisor=divisor)
    return protocol.Item(path=item.path, mode=item.mode, field=item.field_ref.field_path if item.field_ref else "")


# --- names ---------------------------------------------------------------------------------------------------------


def _dns(spec: PodSpec) -> protocol.Dns:
    """There is no DNS server of the cluster yet, so every policy but None means the host's, unless servers are named."""
    config = spec.dns_config
    options = tuple(f"{option.name}:{option.value}" if option.value else option.name for option in config.options)
    return protocol.Dns(servers=config.nameservers, searches=config.searches, options=options)
