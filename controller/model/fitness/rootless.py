"""Checks of what an ordinary user needs to run pods (`sshoal_rootless`), and of the two modes on one host. Pure.

Why each matters: podman(1) "Rootless mode", subuid(5), loginctl(1), user_namespaces(7), and the agent's nodeagent/rootless.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.fitness.facts import HostFacts
from controller.model.fitness.finding import Check, Finding, Need, Severity

SUBORDINATE_IDS_MIN = 65536  # what images count on: ids up to 65535
PASTA_SINCE = (5, 0)  # before, Podman's networks of ordinary users go through slirp4netns


def modes(facts: HostFacts) -> Iterator[Finding]:
    """Two agents on a host would count its CPUs twice, and neither would know of the other's pods."""
    if facts.user is None and facts.rootless_agent:
        yield Finding(
            "modes",
            Severity.FAILS,
            f"a rootless agent runs there ({facts.rootless_agent}): the host would be two nodes",
            "set sshoal_rootless again; or, while it is set: sshoal node forget NODE, and after that take it out",
        )
    if facts.user is not None and facts.rootful_agent:
        yield Finding(
            "modes",
            Severity.FAILS,
            "an agent of root is installed there: the host would be two nodes",
            "take sshoal_rootless out, then: sshoal node forget NODE; after that it can become a rootless node",
        )


def ids(facts: HostFacts) -> Iterator[Finding]:
    user = facts.user
    if user is None:
        return
    for file, option, count in (("subuid", "--add-subuids", user.subuids), ("subgid", "--add-subgids", user.subgids)):
        if count < SUBORDINATE_IDS_MIN:
            has = f"only {count} subordinate ids" if count else "no subordinate ids"
            yield Finding(
                "ids",
                Severity.FAILS,
                f"{user.name} has {has} in /etc/{file}; {SUBORDINATE_IDS_MIN} are needed",
                f"as root, with a range that nobody else has: usermod {option} 100000-165535 {user.name}; "
                f"then, as {user.name}: podman system migrate",
            )
    if not {"newuidmap", "newgidmap"} <= user.tools:
        yield Finding(
            "ids",
            Severity.FAILS,
            "newuidmap and newgidmap are missing",
            "apt-get install uidmap (dnf install shadow-utils)",
            Need.ID_MAPS,
        )
    if not user.namespaces:
        yield Finding(
            "ids",
            Severity.FAILS,
            "the kernel gives ordinary users no user namespaces",
            "as root, and in a file of /etc/sysctl.d: sysctl user.max_user_namespaces=28633 kernel.unprivileged_userns_clone=1",
        )


def network(facts: HostFacts) -> Iterator[Finding]:
    user = facts.user
    if user is None:
        return
    tool, need = ("pasta", Need.PASTA) if facts.version("podman") >= PASTA_SINCE else ("slirp4netns", Need.SLIRP)
    if tool not in user.tools:
        yield Finding(
            "user-network",
            Severity.FAILS,
            f"{tool} is missing, through which pods of an ordinary user reach the network",
            f"apt-get install {'passt' if tool == 'pasta' else tool}",
            need,
        )
    if not user.tun:
        yield Finding(
            "user-network",
            Severity.FAILS,
            f"{user.name} may not open /dev/net/tun, through which the pods' network goes",
            "as root: modprobe tun; its mode must be 0666",
        )
    if user.ports_from > 1:
        yield Finding(
            "user-network",
            Severity.NOTE,
            f"hostPort below {user.ports_from} is not allowed",
            "use higher ports, or as root, and in a file of /etc/sysctl.d: sysctl net.ipv4.ip_unprivileged_port_start=80",
        )


def linger(facts: HostFacts) -> Iterator[Finding]:
    user = facts.user
    if user is None or user.linger:
        return
    by = "by sudo" if user.may_become else "where the host lets users do that"
    yield Finding(
        "linger",
        Severity.NOTE if user.may_become else Severity.WARNING,
        f"linger is off for {user.name}: agent and pods would end with the last logout",
        f"the first pass switches it on {by}; by hand, as root: loginctl enable-linger {user.name}",
    )


def limits(facts: HostFacts) -> Iterator[Finding]:
    user = facts.user
    if user is None:
        return
    if facts.cgroups == 1:
        yield Finding(
            "limits",
            Severity.WARNING,
            "control groups version 1: requests and limits of cpu and memory are not enforced for an ordinary user",
            "boot with systemd.unified_cgroup_hierarchy=1, or let the agent run as root",
        )
    if facts.cgroups != 2 or not user.runtime_directory:
        return  # no systemd of the user's runs yet, so that nothing can be told of it
    lacking = [name for name in ("cpu", "memory") if name not in user.controllers]
    if lacking:
        yield Finding(
            "limits",
            Severity.WARNING,
            f"systemd does not delegate the controllers {', '.join(lacking)} to {user.name}: such limits are not enforced",
            "as root, in /etc/systemd/system/user@.service.d/delegate.conf: [Service] Delegate=cpu cpuset io memory pids; then log in anew",
        )
    if not user.session_bus:
        yield Finding(
            "limits",
            Severity.WARNING,
            f"{user.name} has no session bus: Podman can't ask systemd for control groups",
            "apt-get install dbus-user-session, then log in anew",
            Need.SESSION_BUS,
        )


def storage(facts: HostFacts) -> Iterator[Finding]:
    if facts.user is not None and not facts.user.overlay and facts.version("podman") < PASTA_SINCE:
        yield Finding(
            "storage",
            Severity.WARNING,
            "Podman will copy images for each container (its driver vfs): slow, and much disk",
            'put [storage] driver="overlay" into ~/.config/containers/storage.conf before its first use, or install fuse-overlayfs',
        )


CHECKS = (
    Check("modes", "an agent of the other mode (root's, or an ordinary user's)", Severity.FAILS, modes),
    Check("ids", f"rootless: {SUBORDINATE_IDS_MIN} subordinate ids, newuidmap, user namespaces", Severity.FAILS, ids),
    Check("user-network", "rootless: slirp4netns, or pasta from Podman 5 on; /dev/net/tun; low ports", Severity.FAILS, network),
    Check("linger", "rootless: whether services live without a login", Severity.WARNING, linger),
    Check("limits", "rootless: control groups that an ordinary user may use, session bus", Severity.WARNING, limits),
    Check("storage", "rootless: whether Podman would copy images", Severity.WARNING, storage),
)  # fmt: skip
