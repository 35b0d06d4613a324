"""Writes what makes one host itself, into the upper layer of its overlay: identity, logins, units, Podman's settings.

In: a HostPlan and the lower layer. Out: files under `upper` and `homes`, and the host's public keys. No other effects.
A directory marked opaque hides what the lower layer has there: this machine's enabled units, homes and logs stay out of
the hosts when the base is `/`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.system import run

LOGIN_USER = "ubuntu"
HOST_KEY_TYPES = ("ed25519", "ecdsa")
PREPARE = "sshoal-lab-prepare.service"
ENABLED_UNITS = {
    "multi-user.target.wants": ("ssh.service", PREPARE),
    "sockets.target.wants": ("podman.socket",),
}
MASKED_UNITS = (
    "console-getty.service",
    "getty.target",
    "systemd-pstore.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
)
HIDDEN_DIRECTORIES = ("root", "home", "var/log", "var/lib/sshoal-lab", "var/cache/sshoal-lab", "etc/ssh/sshd_config.d")

SSHD_CONFIG = """\
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM yes
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
"""

PREPARE_UNIT = """\
[Unit]
Description=What a lab host needs before Podman runs
DefaultDependencies=no
After=local-fs.target
Before=podman.socket podman.service ssh.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /etc/sshoal-lab-prepare

[Install]
WantedBy=multi-user.target
"""

PREPARE_SCRIPT = """\
# Nodes of its own, which every user may open as on a real host (a bound node would be this machine's).
mkdir -p /dev/net
rm -f /dev/net/tun /dev/fuse
mknod -m 666 /dev/net/tun c 10 200
mknod -m 666 /dev/fuse c 10 229
# Control groups of version 1 come up read-only in a container of systemd-nspawn.
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -o remount,rw /sys/fs/cgroup
    for controller in cpu cpuacct freezer devices cpuset blkio pids memory; do
        if mountpoint -q /sys/fs/cgroup/$controller; then
            mount -o remount,rw,bind /sys/fs/cgroup/$controller
        fi
    done
fi
"""

CONTAINERS_CONF_CGROUP_1 = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What one host shall be. `neighbours`: name → address of all hosts, itself included; keys: public, one line each."""

    name: str
    neighbours: Mapping[str, str]
    root_key: str
    user_key: str
    cgroup_version: int


def write_host(plan: HostPlan, lower: Path, upper: Path, homes: Path) -> tuple[str, ...]:
    """Fills `upper` and `homes` (empty directories) for the host and returns its public host keys. `homes` becomes its /home."""
    _write_identity(plan, upper)
    _write_units(lower, upper)
    for name in HIDDEN_DIRECTORIES:
        _opaque(upper / name)
    _write_logins(plan, lower, upper, homes)
    if plan.cgroup_version == 1:
        _write(upper / "etc/containers/containers.conf", CONTAINERS_CONF_CGROUP_1)
    return _write_sshd(upper)


def _write_identity(plan: HostPlan, upper: Path) -> None:
    _write(upper / "etc/hostname", f"{plan.name}\n")
    _write(upper / "etc/machine-id", f"{secrets.token_hex(16)}\n", mode=0o444)
    names = "".join(f"{address} {name}\n" for name, address in plan.neighbours.items())
    _write(upper / "etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{names}")
    _write(upper / "etc/resolv.conf", "# The lab has no DNS: names are in /etc/hosts.\n")
    _write(upper / "etc/fstab", "")
    _write(upper / "etc/environment", "")


def _write_units(lower: Path, upper: Path) -> None:
    """Only named units boot: whatever the base enables, in directories or through generators, is hidden."""
    units = upper / "etc/systemd/system"
    units.mkdir(parents=True)
    for directory in (lower / "etc/systemd/system").glob("*.*.*"):
        if directory.is_dir() and directory.name.endswith((".wants", ".requires")):
            _opaque(units / directory.name)
    for directory_name, names in ENABLED_UNITS.items():
        _opaque(units / directory_name)
        for name in names:
            if (lower / "lib/systemd/system" / name).exists() or name == PREPARE:  # a bare base has no Podman
                (units / directory_name / name).symlink_to(f"/lib/systemd/system/{name}")
    prepare = units / "multi-user.target.wants" / PREPARE
    prepare.unlink()
    prepare.symlink_to(f"../{PREPARE}")
    for name in MASKED_UNITS:
        (units / name).symlink_to("/dev/null")
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    _opaque(upper / "etc/systemd/system-generators")
    for generator in (lower / "lib/systemd/system-generators").glob("*"):
        (upper / "etc/systemd/system-generators" / generator.name).symlink_to("/dev/null")
    _write(units / PREPARE, PREPARE_UNIT)
    _write(upper / "etc/sshoal-lab-prepare", PREPARE_SCRIPT)
    # A session that hangs, or a container that ignores SIGTERM, would hold up an orderly shutdown for 90 s each.
    _write(units / "user@.service.d/lab.conf", "[Service]\nTimeoutStopSec=3s\n")
    _write(upper / "etc/systemd/system.conf.d/lab.conf", "[Manager]\nDefaultTimeoutStopSec=10s\n")
    _write(upper / "etc/systemd/journald.conf.d/lab.conf", "[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\n")


def _write_logins(plan: HostPlan, lower: Path, upper: Path, homes: Path) -> None:
    """root by its key; an ordinary user by his, with sudo that asks nothing. Both with an empty shell start-up file."""
    _write_home(upper / "root", plan.root_key, owner=0)
    passwd = (lower / "etc/passwd").read_text()
    entries = [line.split(":") for line in passwd.splitlines() if line]
    existing = next((entry for entry in entries if entry[0] == LOGIN_USER), None)
    taken = {int(entry[2]) for entry in entries}
    user_id = int(existing[2]) if existing else next(number for number in range(1000, 60000) if number not in taken)
    if not existing:
        line = f"{LOGIN_USER}:x:{user_id}:{user_id}:Lab user:/home/{LOGIN_USER}:/bin/bash\n"
        _write(upper / "etc/passwd", passwd + line)
        _append(lower, upper, "etc/group", f"{LOGIN_USER}:x:{user_id}:\n")
        _append(lower, upper, "etc/shadow", f"{LOGIN_USER}:*:19700:0:99999:7:::\n", mode=0o640)
        _append(lower, upper, "etc/subuid", f"{LOGIN_USER}:500000:65536\n")
        _append(lower, upper, "etc/subgid", f"{LOGIN_USER}:500000:65536\n")
    # Podman 4.3 without fuse-overlayfs would copy every image for every container.
    _write(homes / LOGIN_USER / ".config/containers/storage.conf", '[storage]\ndriver = "overlay"\n')
    _write_home(homes / LOGIN_USER, plan.user_key, owner=user_id)
    _write(upper / "etc/sudoers.d/sshoal-lab", f"{LOGIN_USER} ALL=(ALL:ALL) NOPASSWD: ALL\n", mode=0o440)


def _write_sshd(upper: Path) -> tuple[str, ...]:
    config, public_keys = SSHD_CONFIG, []
    for key_type in HOST_KEY_TYPES:
        file = upper / f"etc/ssh/ssh_host_{key_type}_key"
        file.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", key_type, "-N", "", "-C", "", "-f", str(file)])
        public_keys.append(" ".join(file.with_suffix(".pub").read_text().split()[:2]))
        config += f"HostKey /etc/ssh/{file.name}\n"
    _write(upper / "etc/ssh/sshd_config", config)
    return tuple(public_keys)


def _write_home(home: Path, key: str, *, owner: int) -> None:
    _write(home / ".bashrc", "")  # sshd's shell reads it at every command
    _write(home / ".ssh/authorized_keys", key.strip() + "\n", mode=0o600)
    (home / ".ssh").chmod(0o700)
    home.chmod(0o700)
    for path in (home, *home.rglob("*")):
        os.chown(path, owner, owner)


def _append(lower: Path, upper: Path, name: str, line: str, *, mode: int = 0o644) -> None:
    before = (lower / name).read_text() if (lower / name).exists() else ""
    _write(upper / name, before + line, mode=mode)


def _write(path: Path, text: str, *, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _opaque(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    os.setxattr(directory, "trusted.overlay.opaque", b"y")
