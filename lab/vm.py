"""One virtual machine with a current Debian (trixie: Podman 5, cgroup v2, systemd manager, Python 3.13) under QEMU.

It is what the one-machine lab cannot be on a machine of control groups version 1. Emulated, without KVM: good for a few
conformance tests, not for timing. With `selinux` it enforces that, as Fedora and its kin do. In: a name. Out: a Vm with
logins and inventory as in the lab. Effects: the cached image, a state directory STATE/NAME.vm, one QEMU process with a
port on the loopback address.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from controller.model.errors import NotFound
from lab import system
from lab.base import COMMON_PACKAGES, cached, digest, make_root
from lab.inventory import inventory_text, known_hosts_text
from lab.lab import state_root
from lab.rootfs import LOGIN_USER
from lab.ssh import SshHost
from lab.system import LabError, run

SUITE = "trixie"
PACKAGES = (*COMMON_PACKAGES, "passt", "dbus-user-session", "linux-image-cloud-amd64")
SELINUX_PACKAGES = ("selinux-policy-default", "policycoreutils")
# What Debian's policy forbids and Fedora's allows, so that the machine is like one of those: root's services are free, so
# are Podman and what runs it; containers are not. (systemd-tmpfiles brings this machine its logins.)
SELINUX_FREE = ("initrc_t", "mount_t", "podman_t", "podman_conmon_t", "systemd_tmpfiles_t")
NEEDED_PROGRAMS = {
    **system.NEEDED_PROGRAMS,
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mkfs.ext4": "e2fsprogs",
}
DISK_SIZE = "4G"  # sparse
MEMORY_MIB = 1536
BOOT_TIMEOUT_S = 600
REBOOT_TIMEOUT_S = 300
LOGIN_TIMEOUT_S = 60
LOOPBACK = IPv4Address("127.0.0.1")
MASKED_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "getty@tty1.service", "man-db.timer")
NETWORK_FILE = "[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vm(SshHost):
    """The virtual machine `name`: log in at `address`:`port` of this machine. `selinux`: it enforces that."""

    selinux: bool = False

    @property
    def inventory(self) -> Path:
        return self.directory / "inventory.ini"

    @property
    def inventory_sudo(self) -> Path:
        return self.directory / "inventory-sudo.ini"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.qcow2"

    @classmethod
    def load(cls, name: str) -> Vm:
        """The machine called `name`, on or off. NotFound when there is none."""
        directory = state_root() / f"{name}.vm"
        try:
            state = json.loads((directory / "vm.json").read_text())
        except FileNotFoundError:
            raise NotFound(f'no virtual machine is called "{name}"') from None
        return cls(
            name=name,
            address=LOOPBACK,
            port=state["port"],
            selinux=state["selinux"],
            directory=directory,
            root_key=directory / "id_root",
            user_key=directory / f"id_{LOGIN_USER}",
            known_hosts=directory / "known_hosts",
        )

    def ssh_argv(self, *, user: str = "root") -> list[str]:
        """As for any host, but over one kept connection for each user: on an emulated machine a login takes seconds."""
        ssh, *rest = SshHost.ssh_argv(self, user=user)  # super() without arguments knows no classes with slots
        kept = ("ControlMaster=auto", f"ControlPath={self._connection(user)}", "ControlPersist=yes")
        return [ssh, *(word for option in kept for word in ("-o", option)), *rest]

    def start(self) -> None:
        """Powers the machine on and returns at once; `wait_ready` waits."""
        if self.powered():
            raise LabError(f"{self.name} is already on")
        system.start_detached(self._qemu_argv(_image(lambda _: None, self.selinux)))

    def kill(self) -> None:
        """A power cut."""
        for user in ("root", LOGIN_USER):
            if self._connection(user).exists():
                run([*self.ssh_argv(user=user)[:-1], "-O", "exit", str(self.address)], check=False)
        processes = self._processes()
        system.kill_groups(processes)
        system.wait_until(lambda: system.gone(processes), 10, f"{self.name} to be without power")

    def reboot(self) -> None:
        """Reboots in order and returns when the machine is ready again."""
        before = self.boot_id()
        self.run("systemctl reboot", check=False)
        system.wait_until(lambda: self.boot_id() not in ("", before), REBOOT_TIMEOUT_S, f"{self.name} to reboot")
        self.wait_ready(timeout_s=BOOT_TIMEOUT_S)

    def boot_id(self) -> str:
        """Changes with every boot; empty while the machine does not answer."""
        return self.run("cat /proc/sys/kernel/random/boot_id", check=False).strip()

    def freeze(self) -> None:
        """Pauses the machine, clock and all."""
        for process in self._processes():
            os.kill(process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self._processes():
            os.kill(process.pid, signal.SIGCONT)

    def powered(self) -> bool:
        return bool(self._processes())

    def _connection(self, user: str) -> Path:
        """The socket of the kept connection."""
        return self.directory / f"ssh-{user}"

    def _processes(self) -> list[system.Process]:
        drive = self._drive()
        return [process for process in system.processes().values() if drive in process.argv]

    def _drive(self) -> str:
        return f"file={self.disk},if=virtio,format=qcow2,cache=unsafe"

    def _qemu_argv(self, image: Path) -> list[str]:
        # Always emulated: a /dev/kvm may be there that cannot boot a kernel (nested, or in a sandbox).
        # Debian's kernel panics on QEMU's default processor; this one it likes.
        # One of it: with two, the emulator now and then runs code that the kernel is just patching, which ends in a panic.
        processor = ["-accel", "tcg", "-cpu", "qemu64,-cx16", "-smp", "1"]
        machine_id = json.loads((self.directory / "vm.json").read_text())["machine_id"]
        command_line = f"root=/dev/vda rw console=ttyS0 systemd.hostname={self.name} systemd.machine_id={machine_id}"
        if self.selinux:
            command_line += " security=selinux selinux=1"
        return [
            *("qemu-system-x86_64", "-machine", "q35", *processor, "-m", str(MEMORY_MIB)),
            *("-nodefaults", "-display", "none", "-serial", f"file:{self.console}"),
            *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img"), "-append", command_line),
            *("-drive", self._drive(), "-device", "virtio-rng-pci"),
            # restrict: the machine reaches nothing outside, as an air-gapped host
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:{self.address}:{self.port}-:22"),
            *("-device", "virtio-net-pci,netdev=net"),
            *("-smbios", f"type=11,path={self.directory / 'credential'}"),
        ]


def vm_up(name: str = "vm", *, selinux: bool = False, progress: Callable[[str], None] = lambda _: None) -> Vm:
    """Makes the machine `name` if need be, powers it on and returns when sshd answers and Podman works."""
    system.require_root_and_programs(NEEDED_PROGRAMS)
    image = _image(progress, selinux)
    try:
        vm = Vm.load(name)
    except NotFound:
        vm = _make(name, image, selinux)
    if not vm.powered():
        progress(f"booting {name} (ssh at {vm.address}:{vm.port}, console in {vm.console})")
        vm.start()
    vm.wait_ready(timeout_s=BOOT_TIMEOUT_S)
    progress(f"{name} ready")
    return vm


def vm_down(name: str = "vm") -> None:
    """Cuts the power and removes everything of the machine but the cached image. NotFound when there is none."""
    vm = Vm.load(name)
    vm.kill()
    shutil.rmtree(vm.directory)


def _make(name: str, image: Path, selinux: bool) -> Vm:
    """Writes the machine's directory, under another name until it is complete."""
    unfinished = state_root() / f".{name}.vm.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    for file in ("id_root", f"id_{LOGIN_USER}", "host_key"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"sshoal vm {name}", "-f", str(unfinished / file)])
    port = _free_port()
    state = {"port": port, "machine_id": secrets.token_hex(16), "selinux": selinux}
    (unfinished / "vm.json").write_text(json.dumps(state) + "\n")
    (unfinished / "credential").write_text(_credential(unfinished))
    host_key = " ".join((unfinished / "host_key.pub").read_text().split()[:2])
    (unfinished / "known_hosts").write_text(known_hosts_text({f"[{LOOPBACK}]:{port}": (host_key,)}))
    backing = ["-b", str(image / "root.img"), "-F", "raw"]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(unfinished / "disk.qcow2")])
    unfinished.rename(state_root() / f"{name}.vm")
    vm = Vm.load(name)
    for inventory, user, key in ((vm.inventory, "root", vm.root_key), (vm.inventory_sudo, LOGIN_USER, vm.user_key)):
        text = inventory_text(
            {name: str(LOOPBACK)},
            user=user,
            key=key,
            known_hosts=vm.known_hosts,
            become=user != "root",
            port=port,
            timeout_s=LOGIN_TIMEOUT_S,
        )
        inventory.write_text(text)
    return vm


def _credential(directory: Path) -> str:
    """The machine's own host key and logins, as lines that systemd-tmpfiles carries out at boot (systemd ≥ 252)."""
    root_key = (directory / "id_root.pub").read_text()
    user_key = (directory / f"id_{LOGIN_USER}.pub").read_text()
    files = (
        ("/etc/ssh/ssh_host_ed25519_key", "0600", "root", (directory / "host_key").read_text()),
        ("/root/.ssh/authorized_keys", "0600", "root", root_key),
        (f"/home/{LOGIN_USER}/.ssh/authorized_keys", "0600", LOGIN_USER, user_key),
    )
    lines = "d /root/.ssh 0700 root root -\n" + f"d /home/{LOGIN_USER}/.ssh 0700 {LOGIN_USER} {LOGIN_USER} -\n"
    for path, mode, owner, text in files:
        lines += f"f~ {path} {mode} {owner} {owner} - {base64.b64encode(text.encode()).decode()}\n"
    return f"io.systemd.credential.binary:tmpfiles.extra={base64.b64encode(lines.encode()).decode()}"


def _image(progress: Callable[[str], None], selinux: bool) -> Path:
    """The cached directory with root.img, vmlinuz and initrd.img."""
    packages = (*PACKAGES, *SELINUX_PACKAGES) if selinux else PACKAGES

    def build(target: Path) -> None:
        minutes = "about three minutes" if selinux else "about a minute"
        progress(f"making the {SUITE} image once ({len(packages)} packages; {minutes})")
        target.mkdir()
        root = target / "root"
        make_root(SUITE, packages, root)
        _prepare(root)
        if selinux:
            _label(root)
        for name in ("vmlinuz", "initrd.img"):
            shutil.copy(root / (root / name).readlink().as_posix().lstrip("/"), target / name)  # a link inside root
        disk = str(target / "root.img")
        run(["mkfs.ext4", "-q", "-L", "root", "-d", str(root), disk, DISK_SIZE], timeout_s=300)
        shutil.rmtree(root)

    free = SELINUX_FREE if selinux else ()
    return cached(f"{SUITE}-vm-{digest(SUITE, *packages, *free, DISK_SIZE)}", build)


def _prepare(root: Path) -> None:
    """Logins without keys, the network, and nothing that runs by itself."""
    run(["chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", LOGIN_USER])
    sudoers = root / "etc/sudoers.d/sshoal-lab"
    sudoers.write_text(f"{LOGIN_USER} ALL=(ALL:ALL) NOPASSWD: ALL\n")
    sudoers.chmod(0o440)
    for home in (root / "root", root / "home" / LOGIN_USER):
        (home / ".bashrc").write_text("")
    for host_key in root.glob("etc/ssh/ssh_host_*"):
        host_key.unlink()
    (root / "etc/ssh/sshd_config.d/lab.conf").write_text("HostKey /etc/ssh/ssh_host_ed25519_key\n")
    (root / "etc/hostname").unlink(missing_ok=True)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (root / "etc/machine-id").write_text("")
    (root / "etc/fstab").write_text("")
    (root / "etc/systemd/network/lab.network").write_text(NETWORK_FILE)
    run(["chroot", str(root), "systemctl", "enable", "systemd-networkd.service", "ssh.service", "podman.socket"])
    run(["chroot", str(root), "systemctl", "mask", "systemd-networkd-wait-online.service", *MASKED_UNITS])


def _label(root: Path) -> None:
    """Enforces from the first boot on: each file has its label already, written to the disk with it."""
    config = root / "etc/selinux/config"
    config.write_text(config.read_text().replace("SELINUX=permissive", "SELINUX=enforcing"))
    rules = root / "root/lab.cil"
    rules.write_text("".join(f"(typepermissive {domain})\n" for domain in SELINUX_FREE))
    run(["chroot", str(root), "semodule", "--noreload", "--install", "/root/lab.cil"], timeout_s=300)
    rules.unlink()
    run(["chroot", str(root), "setfiles", "-F", "/etc/selinux/default/contexts/files/file_contexts", "/"])


def _free_port() -> int:
    """A port on the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((str(LOOPBACK), 0))
        port: int = probe.getsockname()[1]
        return port
