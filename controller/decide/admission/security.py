"""Pod Security Standards: what a pod asks for that the level of its namespace forbids. Pure.

In: the labels `pod-security.kubernetes.io/enforce|audit|warn[-version]` of a namespace; a pod's spec. Out: violations, a line per control.
Semantics: the profile tables of kubernetes.io/docs/concepts/security/pod-security-standards, with the versions in which a control came or
changed. A field that sshoal does not support cannot be set, so its control (HostProcess, SELinux, /proc mount type) has nothing to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controller.model.kinds.pod import Container, PodSpec
from controller.model.kinds.policy import BASELINE, LEVELS, MODES, PREFIX, PRIVILEGED, VERSION

_LATEST = 1_000_000  # of 1.x: what is true of the newest version


@dataclass(frozen=True, slots=True)
class Level:
    """One mode of a namespace: `restricted`, as of version 1.`minor`."""

    name: str = PRIVILEGED
    minor: int = _LATEST

    def __str__(self) -> str:
        return f"{self.name}:{'latest' if self.minor == _LATEST else f'v1.{self.minor}'}"


@dataclass(frozen=True, slots=True)
class Policy:
    enforce: Level = Level()
    audit: Level = Level()
    warn: Level = Level()


def policy_of(labels: Mapping[str, str]) -> Policy:
    """What a namespace's labels say; a label that says nothing known counts as none (check_policy refuses it).

    Where `warn` is not given it is as `enforce`, so that who applies a workload hears of what its pods will meet.
    """
    enforce, audit, warn = (_level(labels, mode) for mode in MODES)
    return Policy(enforce or Level(), audit or Level(), warn or enforce or Level())


def violations(level: Level, spec: PodSpec, annotations: Mapping[str, str]) -> tuple[str, ...]:
    """What the level forbids, a line per control; none: the pod is fine."""
    if level.name == PRIVILEGED:
        return ()
    pod = _Pod(spec, annotations, level.minor)
    checks = _BASELINE if level.name == BASELINE else (*_BASELINE, *_RESTRICTED)
    return tuple(line for since, check in checks if level.minor >= since and (line := check(pod)))


def _level(labels: Mapping[str, str], mode: str) -> Level | None:
    name = labels.get(PREFIX + mode)
    if name not in LEVELS:
        return None
    match = VERSION.fullmatch(labels.get(f"{PREFIX}{mode}-version", "latest"))
    return Level(name, int(match[1]) if match else _LATEST)


@dataclass(frozen=True, slots=True)
class _Pod:
    spec: PodSpec
    annotations: Mapping[str, str]
    minor: int

    @property
    def containers(self) -> tuple[Container, ...]:
        return (*self.spec.init_containers, *self.spec.containers)

    def naming(self, what: str, wrong: Callable[[Container], object], must: str) -> str:
        """A line that names the containers for which `wrong` holds; "" without any."""
        names = [item.name for item in self.containers if wrong(item)]
        plural = "containers" if len(names) > 1 else "container"
        return f"{what} ({plural} {', '.join(names)}: {must})" if names else ""


# ---- baseline ---------------------------------------------------------------------------------------------------------

# Their names, without CAP_.
_CAPABILITIES = frozenset(
    (
        *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
        *("NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
    )
)
# Name → since which version.
_SYSCTLS = {
    "kernel.shm_rmid_forced": 0,
    "net.ipv4.ip_local_port_range": 0,
    "net.ipv4.ip_unprivileged_port_start": 0,
    "net.ipv4.tcp_syncookies": 0,
    "net.ipv4.ping_group_range": 0,
    "net.ipv4.ip_local_reserved_ports": 27,
    "net.ipv4.tcp_keepalive_time": 29,
    "net.ipv4.tcp_fin_timeout": 29,
    "net.ipv4.tcp_keepalive_intvl": 29,
    "net.ipv4.tcp_keepalive_probes": 29,
    "net.ipv4.tcp_rmem": 32,
    "net.ipv4.tcp_wmem": 32,
}
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


def _host_namespaces(pod: _Pod) -> str:
    spec = pod.spec
    given = (("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc))
    names = [f"{name}=true" for name, value in given if value]
    return f"host namespaces ({', '.join(names)})" if names else ""


def _privileged(pod: _Pod) -> str:
    return pod.naming(
        "privileged", lambda item: item.security_context.privileged, "securityContext.privileged must not be true"
    )


def _added_capabilities(pod: _Pod) -> str:
    must = "securityContext.capabilities.add may only hold those of the baseline"
    return pod.naming("non-default capabilities", lambda item: _added(item) - _CAPABILITIES, must)


def _added(item: Container) -> set[str]:
    return {name.removeprefix("CAP_") for name in item.security_context.capabilities.add}


def _host_paths(pod: _Pod) -> str:
    names = [volume.name for volume in pod.spec.volumes if volume.host_path is not None]
    return f"hostPath volumes ({', '.join(names)})" if names else ""


def _host_ports(pod: _Pod) -> str:
    """With hostNetwork the API server makes every container port a host port; that violates another control anyway."""
    return pod.naming(
        "hostPort", lambda item: any(port.host_port for port in item.ports), "ports[].hostPort must not be set"
    )


def _host_in_probes(pod: _Pod) -> str:
    return pod.naming("probe or lifecycle host", _names_host, "host of httpGet and tcpSocket must not be set")


def _names_host(item: Container) -> bool:
    life = item.lifecycle
    handlers = (item.liveness_probe, item.readiness_probe, item.startup_probe, life.post_start, life.pre_stop)
    actions = [action for handler in handlers if handler for action in (handler.http_get, handler.tcp_socket)]
    return any(action is not None and action.host for action in actions)


def _apparmor(pod: _Pod) -> str:
    found = [
        f"{key}={value}"
        for key, value in pod.annotations.items()
        if key.startswith(_APPARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    ]
    return f"forbidden AppArmor profile ({', '.join(sorted(found))})" if found else ""


def _unconfined(pod: _Pod) -> str:
    profile = pod.spec.security_context.seccomp_profile
    if profile is not None and profile.type == "Unconfined":
        return "seccompProfile (pod must not have the type Unconfined)"
    return pod.naming(
        "seccompProfile", lambda item: _seccomp(item) == "Unconfined", "must not have the type Unconfined"
    )


def _seccomp(item: Container) -> str | None:
    profile = item.security_context.seccomp_profile
    return profile.type if profile is not None else None


def _sysctls(pod: _Pod) -> str:
    names = [item.name.replace("/", ".") for item in pod.spec.security_context.sysctls]
    found = [name for name in names if pod.minor < _SYSCTLS.get(name, _LATEST + 1)]
    return f"forbidden sysctls ({', '.join(found)})" if found else ""


# ---- restricted -------------------------------------------------------------------------------------------------------


def _escalation(pod: _Pod) -> str:
    return pod.naming(
        "allowPrivilegeEscalation != false",
        lambda item: item.security_context.allow_privilege_escalation is not False,
        "securityContext.allowPrivilegeEscalation must be false",
    )


def _volume_types(pod: _Pod) -> str:
    """hostPath is the only one that sshoal has and this level has not."""
    names = [volume.name for volume in pod.spec.volumes if volume.host_path is not None]
    return f"restricted volume types ({', '.join(names)}: hostPath)" if names else ""


def _root(pod: _Pod) -> str:
    """The pod's word counts for containers that say nothing; false it may not be, even where every container says true."""
    own = pod.spec.security_context.run_as_non_root
    if own is False:
        return "runAsNonRoot != true (pod must not set it to false)"
    return pod.naming(
        "runAsNonRoot != true",
        lambda item: (
            not (item.security_context.run_as_non_root if item.security_context.run_as_non_root is not None else own)
        ),
        "securityContext.runAsNonRoot must be true, here or for the pod",
    )


def _user_zero(pod: _Pod) -> str:
    if pod.spec.security_context.run_as_user == 0:
        return "runAsUser=0 (pod must not set it)"
    return pod.naming("runAsUser=0", lambda item: item.security_context.run_as_user == 0, "must not set it")


def _no_profile(pod: _Pod) -> str:
    own = pod.spec.security_context.seccomp_profile
    if own is not None and own.type == "Unconfined":
        return ""  # the baseline's control has told
    return pod.naming(
        "seccompProfile",
        lambda item: _seccomp(item) is None and own is None,
        "securityContext.seccompProfile.type must be RuntimeDefault or Localhost, here or for the pod",
    )


def _kept_capabilities(pod: _Pod) -> str:
    return pod.naming(
        "unrestricted capabilities",
        lambda item: "ALL" not in item.security_context.capabilities.drop or _added(item) - {"NET_BIND_SERVICE"},
        'securityContext.capabilities.drop must hold "ALL", add nothing but NET_BIND_SERVICE',
    )


_Checks = tuple[tuple[int, Callable[[_Pod], str]], ...]

# (since version 1.x, control)
_BASELINE: _Checks = (
    (0, _host_namespaces),
    (0, _privileged),
    (0, _added_capabilities),
    (0, _host_paths),
    (0, _host_ports),
    (34, _host_in_probes),
    (0, _apparmor),
    (19, _unconfined),
    (0, _sysctls),
)
_RESTRICTED: _Checks = (
    (0, _volume_types),
    (8, _escalation),
    (0, _root),
    (23, _user_zero),
    (19, _no_profile),
    (22, _kept_capabilities),
)
