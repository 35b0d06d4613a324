"""Checks of what protects a host and may stand in our way: SELinux, AppArmor, firewalls, sshd's settings. Pure.

None of them is changed by sshoal: they are somebody else's. What they do to us is told, with what their owner can do.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.fitness.facts import HostFacts
from controller.model.fitness.finding import Check, Finding, Need, Severity

MAX_SESSIONS_MIN = 10  # sshd's default; sshoal uses eight at a time
# From where SELinux lets a systemd unit run a program; elsewhere the file's type forbids it.
_RUNNABLE = ("/usr/bin/", "/usr/local/bin/", "/bin/", "/usr/libexec/", "/usr/sbin/")

# What ran pods with Debian's policy once it was permissive: services of root, mount, Podman, conmon. Containers stay confined.
_FREE = ("initrc_t", "mount_t", "podman_t", "podman_conmon_t")


def selinux(facts: HostFacts) -> Iterator[Finding]:
    if not facts.selinux:
        return
    enforcing = facts.selinux == "enforcing"
    if not facts.selinux_policy:
        yield Finding(
            "selinux",
            Severity.FAILS if enforcing else Severity.WARNING,
            f"SELinux is {facts.selinux}, and the policy for containers is missing (container-selinux)",
            "sshoal node prepare installs it; by hand: dnf install container-selinux",
            Need.SELINUX_POLICY,
        )
    if enforcing and facts.selinux_podman:
        yield Finding(
            "selinux",
            Severity.WARNING,
            "its SELinux policy confines Podman itself (podman_t, as Debian's does), which then cannot run all of its parts",
            "leave Podman, and the agent as the service that it is, free: semanage permissive -a TYPE for each of "
            + ", ".join(_FREE),
        )
    if not facts.python_path.startswith(_RUNNABLE):
        yield Finding(
            "selinux",
            Severity.WARNING,
            f"SELinux is {facts.selinux}: systemd may not be allowed to run {facts.python_path}",
            "take a Python under /usr/bin for ansible_python_interpreter",
        )
    yield Finding(
        "selinux",
        Severity.NOTE,
        f"SELinux is {facts.selinux}: each pod gets a label of its own, and its volumes are labelled for it",
        "hostPath volumes are never relabelled: give them the type container_file_t yourself (semanage fcontext, restorecon)",
    )


def apparmor(facts: HostFacts) -> Iterator[Finding]:
    if facts.apparmor and facts.programs and "apparmor_parser" not in facts.programs:
        yield Finding(
            "apparmor",
            Severity.NOTE,
            "AppArmor is on, but apparmor_parser is missing: containers run without its profile",
            "the package apparmor brings it, and profiles for other services of the host with it",
        )


def firewall(facts: HostFacts) -> Iterator[Finding]:
    if "firewalld" in facts.active_units:
        yield Finding(
            "firewall",
            Severity.WARNING,
            "firewalld is active: its reload drops the rules of hostPorts until their pods are started anew",
            "after `firewall-cmd --reload`: podman network reload --all",
        )
    if facts.ufw and not facts.ufw_forwards:
        yield Finding(
            "firewall",
            Severity.WARNING,
            "ufw is active and forwards nothing: hostPorts and pods of other hosts may not be reached",
            'DEFAULT_FORWARD_POLICY="ACCEPT" in /etc/default/ufw, or rules of your own: ufw route allow …',
        )
    if facts.forward_policy == "drop" and not facts.ufw:
        who = "Docker sets" if "docker" in facts.active_units else "Something set"
        yield Finding(
            "firewall",
            Severity.WARNING,
            f"{who} the policy of the FORWARD chain to DROP: what pods send over other hosts may be dropped",
            "allow the subnet of the pods in the chain DOCKER-USER (or FORWARD); sshoal changes no rules of others",
        )


def sshd(facts: HostFacts) -> Iterator[Finding]:
    options = facts.sshd
    off = [name for name in ("allowstreamlocalforwarding",) if options.get(name) in ("no", "remote")]
    if off or options.get("disableforwarding") == "yes":
        yield Finding(
            "sshd",
            Severity.NOTE,
            "sshd does not forward sockets: the agent is reached by a program instead (dial), which takes a session each time",
            "AllowStreamLocalForwarding yes in sshd_config spares some milliseconds a command; nothing else depends on it",
        )
    sessions = options.get("maxsessions", "")
    if sessions.isdigit() and len(sessions) < 6 and int(sessions) < MAX_SESSIONS_MIN:
        yield Finding(
            "sshd",
            Severity.WARNING,
            f"sshd allows {int(sessions)} sessions on a connection (MaxSessions): logs, exec and passes may be refused",
            f"MaxSessions {MAX_SESSIONS_MIN} in sshd_config, which is sshd's default",
        )


CHECKS = (
    Check(
        "selinux",
        "whether it is on, with a policy that knows containers and leaves Podman free; a Python that systemd may run",
        Severity.FAILS,
        selinux,
    ),
    Check("apparmor", "whether its tool is there", Severity.NOTE, apparmor),
    Check("firewall", "firewalld, ufw, a FORWARD chain that drops (Docker)", Severity.WARNING, firewall),
    Check("sshd", "forwarding of sockets; MaxSessions", Severity.WARNING, sshd),
)
