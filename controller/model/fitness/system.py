"""Checks of what every program needs: a login that may do it, systemd, Python, room on disk, control groups, the clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from controller.model.fitness.facts import Disk, HostFacts, dotted
from controller.model.fitness.finding import Check, Finding, Need, Severity

PYTHON_MIN = (3, 9)
DISK_FREE_BYTES_MIN = 200 * 1024 * 1024
DISK_FREE_BYTES_LOW = 1024 * 1024 * 1024
CLOCK_SKEW_S_MAX = 2.0  # FAULTS C14; a round trip counts too
STATE = "/var/lib/sshoal"
IMAGES = "/var/lib/containers"
USER_STATE, USER_IMAGES = ".local/share/sshoal", ".local/share/containers"  # of a rootless agent, in the home
# Kubernetes' requests and limits of cpu and memory, and the bound of processes.
CONTROLLERS = ("cpu", "memory", "pids")
_TIME_DAEMONS = {"chrony", "chronyd", "ntp", "ntpd", "ntpsec", "openntpd", "systemd-timesyncd"}


def login(facts: HostFacts) -> Iterator[Finding]:
    if facts.user is not None:
        if facts.is_root:
            yield Finding(
                "login",
                Severity.FAILS,
                "sshoal_rootless is set, and the login is root",
                "give ansible_user an ordinary user, or take sshoal_rootless out",
            )
        return
    if facts.user_id is not None and not facts.is_root:
        yield Finding(
            "login",
            Severity.FAILS,
            "sudo does not make us root",
            "leave ansible_become_user out, or set it to root",
        )
    if facts.is_root and facts.sudo_user and facts.sudo_password:
        yield Finding(
            "login",
            Severity.NOTE,
            f"sudo may ask for the password that the inventory has for {facts.sudo_user}",
            "NOPASSWD in a file of /etc/sudoers.d there needs none",
        )


def owner(facts: HostFacts) -> Iterator[Finding]:
    if facts.owner and facts.asked_by is not None and facts.owner != facts.asked_by:
        yield Finding(
            "owner",
            Severity.FAILS,
            f"its agent belongs to cluster {facts.owner}",
            "if it shall be this cluster's: sshoal node takeover HOST",
        )


def systemd(facts: HostFacts) -> Iterator[Finding]:
    if not facts.systemd:
        yield Finding(
            "systemd",
            Severity.FAILS,
            "systemd does not run there",
            "sshoal's agent is a systemd service; use a host with systemd",
        )


def python(facts: HostFacts) -> Iterator[Finding]:
    path, least = facts.python_path, dotted(PYTHON_MIN)
    ours = Need.PYTHON if path == "/usr/bin/python3" else None
    install = "sshoal node prepare installs it; by hand: apt-get install python3 (dnf install python3)"
    if not facts.python_found:
        problem, hint = f"no Python at {path}", f"{install}; another place goes into ansible_python_interpreter"
        yield Finding("python", Severity.FAILS, problem, hint, ours)
        return
    if facts.python < PYTHON_MIN:
        has = dotted(facts.python) or "a Python that does not start"
        yield Finding(
            "python",
            Severity.FAILS,
            f"{path} is {has}; the agent needs {least}",
            f"install a newer one beside it and name it in ansible_python_interpreter, e.g. /usr/bin/python{least}",
        )
        return
    if facts.modules_missing:
        yield Finding(
            "python",
            Severity.FAILS,
            f"{path} is incomplete: no {', '.join(facts.modules_missing)}",
            "sshoal node prepare completes it; by hand: apt-get install python3 (not only python3-minimal)",
            ours,
        )


def disk(facts: HostFacts) -> Iterator[Finding]:
    state, images = (STATE, IMAGES) if facts.user is None else (f"~/{USER_STATE}", f"~/{USER_IMAGES}")
    places = {state: facts.state_disk, images: facts.image_disk}
    seen: set[str] = set()
    for directory, found in places.items():
        if found is not None and found.mount not in seen:
            seen.add(found.mount)
            yield from _room(directory, found)
    for directory, found in places.items():
        if found is not None:
            yield from _mount(directory, found)


def _room(directory: str, found: Disk) -> Iterator[Finding]:
    free_mib, parent = found.free_bytes >> 20, directory.rpartition("/")[0]
    if found.free_bytes < DISK_FREE_BYTES_MIN:
        need = f"free at least {DISK_FREE_BYTES_MIN >> 20} MiB there"
        yield Finding("disk", Severity.FAILS, f"only {free_mib} MiB are free in {parent}", need)
    elif found.free_bytes < DISK_FREE_BYTES_LOW:
        yield Finding(
            "disk",
            Severity.WARNING,
            f"only {free_mib} MiB are free in {parent}",
            "images and volumes go there; make room, or mount a larger disk",
        )


def _mount(directory: str, found: Disk) -> Iterator[Finding]:
    if "ro" in found.options:
        yield Finding(
            "disk",
            Severity.FAILS,
            f"{directory} is on {found.mount}, which is mounted read-only",
            f"mount -o remount,rw {found.mount}; if it was not meant, the kernel's log says why (dmesg)",
        )
    if directory.endswith("/sshoal") and "noexec" in found.options:
        yield Finding(
            "disk",
            Severity.WARNING,
            f"{directory} is on {found.mount}, which is mounted noexec: programs in volumes of pods can't be run",
            f"mount -o remount,exec {found.mount}, and in /etc/fstab; sshoal and images run all the same",
        )


def cgroups(facts: HostFacts) -> Iterator[Finding]:
    if not facts.cgroups:
        yield Finding(
            "cgroups",
            Severity.FAILS,
            "no control groups are mounted at /sys/fs/cgroup",
            "systemd mounts them; in a container as host they must be handed in",
        )
        return
    lacking = [name for name in CONTROLLERS if name not in facts.controllers]
    if lacking:
        yield Finding(
            "cgroups",
            Severity.WARNING,
            f"control group controllers are missing: {', '.join(lacking)}; such requests and limits are not enforced",
            "boot the kernel with them, e.g. cgroup_enable=memory on the kernel's command line (Raspberry Pi OS leaves it out)",
        )
    if facts.cgroups == 1 and facts.user is None:
        yield Finding(
            "cgroups",
            Severity.NOTE,
            "control groups version 1",
            "Podman 5 and systemd 256 want version 2: boot with systemd.unified_cgroup_hierarchy=1",
        )


def clock(facts: HostFacts) -> Iterator[Finding]:
    has_daemon = bool(facts.active_units & _TIME_DAEMONS)
    if abs(facts.clock_skew_s) > CLOCK_SKEW_S_MAX:
        look = "look what it says (chronyc tracking, timedatectl)" if has_daemon else "install chrony there"
        yield Finding(
            "clock",
            Severity.WARNING,
            f"its clock differs by {facts.clock_skew_s:+.0f} s",
            f"{look}; ages, logs and CronJobs are wrong until then",
            None if has_daemon else Need.CLOCK,
        )


CHECKS = (
    Check("login", "root, or sudo to root: with -n, a password of the inventory, no requiretty", Severity.FAILS, login),
    Check("owner", "whether an agent of another cluster is there", Severity.FAILS, owner),
    Check("systemd", "whether it runs", Severity.FAILS, systemd),
    Check("python", f"{dotted(PYTHON_MIN)} or newer, with the modules that the agent imports", Severity.FAILS, python),
    Check("disk", f"{DISK_FREE_BYTES_MIN >> 20} MiB for {STATE} and {IMAGES}; not ro; noexec", Severity.FAILS, disk),
    Check("cgroups", f"version; controllers {', '.join(CONTROLLERS)}", Severity.FAILS, cgroups),
    Check("clock", f"at most {CLOCK_SKEW_S_MAX:g} s apart from the controller's", Severity.WARNING, clock),
)
