"""What brings a host what it needs: package managers and the names of their packages, as data.

Only what a manager itself can do stands here. Kernels, control groups, sshd's settings and rules of firewalls are no packages: findings
without a Need, which a person mends. Names are those of the distributions' own repositories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.model.fitness.finding import Need

INSTALL_TIMEOUT_S = 900.0
QUICK_TIMEOUT_S = 180.0
LOCK_S = 120  # another installation that is under way is waited for


@dataclass(frozen=True, slots=True)
class Family:
    """One package manager. Each argv is complete but for the names of packages at its end."""

    name: str  # of the manager's program
    ids: tuple[str, ...]  # os-release's ID or ID_LIKE
    install: tuple[str, ...]
    refresh: tuple[str, ...]  # (): the manager refreshes its lists by itself
    repair: tuple[str, ...]  # after an interrupted installation
    exit_codes: tuple[int, ...]  # that mean done
    packages: Mapping[Need, tuple[str, ...]]
    clock_unit: str


@dataclass(frozen=True, slots=True)
class Step:
    """One command on the host and why. `ends`: whether its failure ends the work on that host."""

    title: str
    argv: tuple[str, ...]
    because: tuple[str, ...]
    exit_codes: tuple[int, ...] = (0,)
    ends: bool = True
    timeout_s: float = QUICK_TIMEOUT_S


# Debian starts and restarts services as it installs, but for what this file forbids (invoke-rc.d(8)). It loses its force with the process
# that wrote it, so that a power cut leaves nothing in the way; one that somebody else wrote stays.
WITHOUT_STARTS = """policy=/usr/sbin/policy-rc.d mark='# sshoal node prepare is installing'
if grep -qs "$mark" $policy; then sh $policy; [ $? = 101 ] || rm -f $policy; fi
if [ ! -e $policy ]; then
    printf '#!/bin/sh\\n%s\\nkill -0 %s 2>/dev/null && exit 101\\nexit 0\\n' "$mark" $$ >$policy.sshoal
    chmod 755 $policy.sshoal
    mv -n $policy.sshoal $policy
    trap 'rm -f $policy $policy.sshoal' EXIT
    trap 'exit 129' HUP INT TERM
fi
"$@"
"""
# What Podman's packages switch on for other uses of Podman. sshoal has a socket and a service of its own.
PODMAN_UNITS = (
    "podman.socket",
    "podman.service",
    "podman-auto-update.timer",
    "podman-auto-update.service",
    "podman-restart.service",
    "podman-clean-transient.service",
)
OFF_AGAIN = """for unit; do
    if systemctl is-enabled --quiet "$unit" 2>/dev/null || systemctl is-active --quiet "$unit"; then
        systemctl disable --now --quiet "$unit" && echo "$unit"
    fi
done
exit 0
"""

_APT = (
    "env",
    "DEBIAN_FRONTEND=noninteractive",
    "NEEDRESTART_SUSPEND=1",  # it would restart services of others
    "apt-get",
    "-y",
    "-q",
    "-o",
    f"DPkg::Lock::Timeout={LOCK_S}",
)
_COMMON: Mapping[Need, tuple[str, ...]] = {
    Need.PYTHON: ("python3",),
    Need.PODMAN: ("podman",),
    Need.RUNTIME: ("crun",),
    Need.CONMON: ("conmon",),
    Need.NETWORK: ("netavark",),
    Need.INIT: ("catatonit",),
    Need.FIREWALL_TOOL: ("iptables",),
    Need.CLOCK: ("chrony",),
    Need.SLIRP: ("slirp4netns",),
    Need.PASTA: ("passt",),
}

FAMILIES: tuple[Family, ...] = (
    Family(
        "apt-get",
        ("debian", "ubuntu"),
        # --no-remove: it must fail rather than take away what somebody else uses.
        (
            *("/bin/sh", "-c", WITHOUT_STARTS, "sh"),
            *_APT,
            *("-o", "Dpkg::Use-Pty=0", "-o", "Dpkg::Options::=--force-confold"),
            *("--no-install-recommends", "--no-remove", "install", "--"),
        ),
        (*_APT, "update"),
        ("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--configure", "--pending", "--force-confold"),
        (0,),
        {**_COMMON, Need.ID_MAPS: ("uidmap",), Need.SESSION_BUS: ("dbus-user-session",)},
        "chrony",
    ),
    Family(
        "dnf",
        ("fedora", "rhel", "centos"),
        ("dnf", "-y", "-q", "--setopt=install_weak_deps=False", "install"),
        (),
        (),
        (0,),
        # By path, because the package has another name in RHEL than in Fedora.
        {
            **_COMMON,
            Need.INIT: ("/usr/libexec/podman/catatonit",),
            Need.SELINUX_POLICY: ("container-selinux",),
            Need.ID_MAPS: ("/usr/bin/newuidmap",),
        },
        "chronyd",
    ),
    Family(
        "zypper",
        ("suse", "opensuse", "sles"),
        ("env", f"ZYPP_LOCK_TIMEOUT={LOCK_S}", "zypper", "--non-interactive", "install", "--no-recommends", "--"),
        ("env", f"ZYPP_LOCK_TIMEOUT={LOCK_S}", "zypper", "--non-interactive", "refresh"),
        (),
        (0, 102, 103),  # done; a reboot, or a restart of something, is recommended
        {**_COMMON, Need.SELINUX_POLICY: ("container-selinux",), Need.ID_MAPS: ("shadow",)},
        "chronyd",
    ),
    Family(
        "apk",
        ("alpine", "postmarketos"),
        ("apk", "--wait", str(LOCK_S), "--no-interactive", "add"),
        ("apk", "--wait", str(LOCK_S), "--no-interactive", "update"),
        (),
        (0,),
        {**_COMMON, Need.ID_MAPS: ("shadow-uidmap",)},
        "chronyd",
    ),
)
