"""A named set of lab hosts: made, found again, and taken away without a trace.

    with state on disk:  STATE/NAME/  lab.json  keys  known_hosts  inventory.ini  hosts/node1/…
    in the kernel:       one switch namespace, one uplink, and what the running hosts hold themselves

What a lab consists of follows from lab.json, which is written before anything is made. So a killed `up` can be taken
away by `down`, or by the next `up`. Several labs live side by side: every name carries a digest of the state directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from controller.model.errors import NotFound, UsageError
from lab import base as base_systems
from lab import network, system
from lab.host import LabHost
from lab.inventory import inventory_text, known_hosts_text
from lab.rootfs import LOGIN_USER, HostPlan, write_host
from lab.system import LabError, run

MAX_HOSTS = 99
FIRST_HOST = 11  # node1 is x.y.z.11
PARALLEL_BOOTS = 4
ALL_LABS = "-all"  # no lab is called so: the lock for what labs share
BOOT_SCRIPT = Path(__file__).with_name("boot.sh")
# Overlay's upper layer cannot lie on these.
UNFIT_FILE_SYSTEMS = {"overlay", "nfs", "nfs4", "fuse", "9p", "virtiofs"}

Progress = Callable[[str], None]


def state_root() -> Path:
    """Where labs keep their state: SSHOAL_LAB_DIR, else /var/lib/sshoal-lab."""
    return Path(os.environ.get("SSHOAL_LAB_DIR", "/var/lib/sshoal-lab"))


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab that exists, as lab.json says; its hosts may be on or off."""

    name: str
    directory: Path
    subnet: IPv4Network
    base: str
    host_count: int
    complete: bool

    @classmethod
    def names(cls) -> list[str]:
        return sorted(path.parent.name for path in state_root().glob("*/lab.json"))

    @classmethod
    def all(cls) -> list[Lab]:
        """Every lab of this machine (of this SSHOAL_LAB_DIR)."""
        labs = []
        for name in cls.names():
            try:
                labs.append(cls.load(name))
            except NotFound:
                continue  # it went down meanwhile
        return labs

    @classmethod
    def load(cls, name: str) -> Lab:
        """The lab called `name`. NotFound when there is none."""
        directory = state_root() / _checked(name)
        try:
            state = json.loads((directory / "lab.json").read_text())
        except FileNotFoundError:
            known = ", ".join(cls.names()) or "none"
            raise NotFound(f'no lab is called "{name}" (there are: {known})', hint="start one: sshoal lab up") from None
        subnet = IPv4Network(state["subnet"])
        return cls(name, directory, subnet, state["base"], state["hosts"], state["complete"])

    @classmethod
    def up(cls, name: str = "lab", *, hosts: int = 3, base: str = "debian", progress: Progress = lambda _: None) -> Lab:
        """Makes a lab of `hosts` hosts, or completes and powers on the one that is there; returns when all are ready.

        UsageError when the lab exists in another shape. LabError when a host does not come up; then the lab stays as it
        is, to be looked at. A lab that an earlier `up` did not finish is removed first.
        """
        system.require_root_and_programs()
        _checked(name)
        if not 1 <= hosts <= MAX_HOSTS:
            raise UsageError(f"--hosts {hosts}: give 1 to {MAX_HOSTS}")
        with _locked(name):
            lab = cls._existing(name, hosts, base, progress) or cls._make(name, hosts, base, progress)
            lab._power_on(progress)
        return lab

    @property
    def switch(self) -> str:
        return f"sl-{hashlib.sha256(str(self.directory).encode()).hexdigest()[:6]}"

    @property
    def hosts(self) -> tuple[LabHost, ...]:
        return tuple(
            LabHost(
                name=f"node{number}",
                address=self.subnet[FIRST_HOST + number - 1],
                directory=self.directory / "hosts" / f"node{number}",
                switch=self.switch,
                root_key=self.root_key,
                user_key=self.user_key,
                known_hosts=self.known_hosts,
            )
            for number in range(1, self.host_count + 1)
        )

    def host(self, name: str) -> LabHost:
        """The host called `name`. NotFound when there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise NotFound(f'lab {self.name} has no host "{name}"', hint=f"it has node1 to node{self.host_count}")

    @property
    def root_key(self) -> Path:
        return self.directory / "id_root"

    @property
    def user_key(self) -> Path:
        return self.directory / f"id_{LOGIN_USER}"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def inventory(self) -> Path:
        """Ansible inventory that logs in as root."""
        return self.directory / "inventory.ini"

    @property
    def inventory_sudo(self) -> Path:
        """Ansible inventory that logs in as an ordinary user and becomes root by sudo."""
        return self.directory / "inventory-sudo.ini"

    @property
    def inventory_rootless(self) -> Path:
        """Ansible inventory whose ordinary user runs agent and pods; sudo is there to switch linger on."""
        return self.directory / "inventory-rootless.ini"

    def kill(self, host: str) -> None:
        """Power cut of one host."""
        self.host(host).kill()

    def start(self, host: str, *, wait: bool = True) -> None:
        """Powers one host on again."""
        self.host(host).start()
        if wait:
            self.host(host).wait_ready()

    def reboot(self, host: str, *, wait: bool = True) -> None:
        self.host(host).reboot()
        if wait:
            self.host(host).wait_ready()

    def partition(self, host: str) -> None:
        self.host(host).partition()

    def heal(self, host: str) -> None:
        self.host(host).heal()

    def freeze(self, host: str) -> None:
        self.host(host).freeze()

    def thaw(self, host: str) -> None:
        self.host(host).thaw()

    def load_image(self, archive: Path, *, user: str = "root") -> None:
        """Puts an image archive (see lab.image) into a user's Podman on every host."""

        def load(host: LabHost) -> None:
            target = f"/tmp/{archive.name}"
            host.copy_in(archive, target)
            host.run(f"podman load --quiet --input {target}", user=user)
            host.run(f"rm {target}")

        with ThreadPoolExecutor(PARALLEL_BOOTS) as pool:
            list(pool.map(load, self.hosts))

    def down(self) -> None:
        """Power cut for all hosts, then removes everything of the lab: links, namespaces, groups, files."""
        with _locked(self.name):
            self._remove()

    # -- making --------------------------------------------------------------------------------------------------

    @classmethod
    def _existing(cls, name: str, hosts: int, base: str, progress: Progress) -> Lab | None:
        try:
            lab = cls.load(name)
        except NotFound:
            return None
        if not lab.complete:
            progress("removing what an interrupted `up` left")
            lab._remove()
            return None
        if (lab.host_count, lab.base) != (hosts, base):
            raise UsageError(
                f"lab {name} exists with {lab.host_count} hosts on base {lab.base}",
                hint=f"end it first: sshoal lab down --name {name}",
            )
        return lab

    @classmethod
    def _make(cls, name: str, hosts: int, base: str, progress: Progress) -> Lab:
        directory = state_root() / name
        _require_fit_file_system(state_root())
        lower = base_systems.lower_dir(base, progress)
        with _locked(ALL_LABS):  # two labs that come up at once must not choose the same
            others = [other.subnet for other in cls.all()]
            lab = cls(name, directory, network.choose_subnet([*network.routed_subnets(), *others]), base, hosts, False)
            lab._create_directory()
        progress(f"network {lab.subnet}, {hosts} hosts on base {base}")
        network.create_switch(lab.switch, lab.subnet)
        for key in (lab.root_key, lab.user_key):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"sshoal lab {name}", "-f", str(key)])
        lab._write_hosts(lower)
        lab = cls(name, directory, lab.subnet, base, hosts, True)
        lab._save()
        return lab

    def _write_hosts(self, lower: Path) -> None:
        addresses = {host.name: str(host.address) for host in self.hosts}
        host_keys: dict[str, tuple[str, ...]] = {}
        for host in self.hosts:
            for layer in ("upper", "work", "root", "containers", "homes"):
                (host.directory / layer).mkdir(parents=True)
            plan = HostPlan(
                name=host.name,
                neighbours=addresses,
                root_key=self.root_key.with_suffix(".pub").read_text(),
                user_key=self.user_key.with_suffix(".pub").read_text(),
                cgroup_version=system.cgroup_version(),
            )
            host_keys[str(host.address)] = write_host(plan, lower, host.upper, host.directory / "homes")
            shutil.copy(BOOT_SCRIPT, host.directory / "boot.sh")
            (host.directory / "boot.env").write_text(self._boot_settings(host, lower))
        self.known_hosts.write_text(known_hosts_text(host_keys))
        for file, user, key in (
            (self.inventory, "root", self.root_key),
            (self.inventory_sudo, LOGIN_USER, self.user_key),
            (self.inventory_rootless, LOGIN_USER, self.user_key),
        ):
            text = inventory_text(
                addresses,
                user=user,
                key=key,
                known_hosts=self.known_hosts,
                become=user != "root",
                rootless=file == self.inventory_rootless,
            )
            file.write_text(text)

    def _boot_settings(self, host: LabHost, lower: Path) -> str:
        """Variables of boot.sh. None of the values holds a space or a quote (names and paths are checked)."""
        own_groups = not (system.cgroup_version() == 2 and system.runs_systemd())
        hierarchies = " ".join(map(str, system.cgroup_hierarchies())) if own_groups else ""
        settings = {
            "LAB_HOST": host.name,
            "LAB_MACHINE": host.machine,
            "LAB_SWITCH": self.switch,
            "LAB_ADDRESS": f"{host.address}/{self.subnet.prefixlen}",
            "LAB_MAC": "02:00:" + ":".join(f"{octet:02x}" for octet in host.address.packed),
            "LAB_GATEWAY": str(self.subnet[1]),
            "LAB_BASE": str(lower),
            "LAB_CGROUP": str(system.cgroup_version()),
            "LAB_HIERARCHIES": hierarchies,
        }
        return "".join(f"{name}='{value}'\n" for name, value in settings.items())

    def _power_on(self, progress: Progress) -> None:
        """Boots the hosts that are off, a few at a time, and waits until all are ready."""
        if not (network.NETNS_DIR / self.switch).exists():
            network.create_switch(self.switch, self.subnet)  # this machine was rebooted
        with _locked(ALL_LABS):
            system.raise_inotify_limit(sum(lab.host_count for lab in Lab.all()), state_root() / ".inotify-limit")
        ready, said = 0, threading.Lock()

        def boot(host: LabHost) -> None:
            nonlocal ready
            if host.partitioned():
                host.heal()
            if not host.powered():
                host.start()
            host.wait_ready()
            with said:
                ready += 1
                progress(f"{host.name} ready at {host.address} ({ready}/{self.host_count})")

        with ThreadPoolExecutor(PARALLEL_BOOTS) as pool:
            for done in [pool.submit(boot, host) for host in self.hosts]:
                done.result()

    def _create_directory(self) -> None:
        """The directory appears together with its lab.json: there is never one that `down` does not know."""
        unfinished = self._unfinished_directory
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        (unfinished / "lab.json").write_text(self._state())
        unfinished.rename(self.directory)

    def _save(self) -> None:
        unfinished = self.directory / "lab.json.new"
        unfinished.write_text(self._state())
        unfinished.replace(self.directory / "lab.json")

    def _state(self) -> str:
        state = {"subnet": str(self.subnet), "base": self.base, "hosts": self.host_count, "complete": self.complete}
        return json.dumps(state, indent=2) + "\n"

    @property
    def _unfinished_directory(self) -> Path:
        return self.directory.with_name(f".{self.name}.new")

    # -- removing ------------------------------------------------------------------------------------------------

    def _remove(self) -> None:
        with ThreadPoolExecutor(PARALLEL_BOOTS) as pool:
            list(pool.map(lambda host: host.kill(), self.hosts))
        network.remove_switch(self.switch)
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lab.json":
                path.unlink()
        # lab.json goes last: until here an interrupted removal can be repeated
        shutil.rmtree(self._unfinished_directory, ignore_errors=True)
        self.directory.rename(self._unfinished_directory)
        shutil.rmtree(self._unfinished_directory)
        with _locked(ALL_LABS):
            if not Lab.names():
                system.restore_inotify_limit(state_root() / ".inotify-limit")


def _checked(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise UsageError(f'lab name "{name}": use lower-case letters, digits and dashes, at most 31')
    return name


def _require_fit_file_system(directory: Path) -> None:
    """LabError when overlayfs cannot put its upper layer into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    kind = run(["stat", "--file-system", "--format=%T", str(directory)]).strip()
    if kind in UNFIT_FILE_SYSTEMS or kind == "overlayfs":
        raise LabError(
            f"{directory} is on {kind}, where overlay hosts cannot write",
            hint="set SSHOAL_LAB_DIR to a directory on ext4, xfs, btrfs or tmpfs",
        )


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One command at a time for what is called `name`. The kernel drops the lock with its holder."""
    state_root().mkdir(parents=True, exist_ok=True)
    path = state_root() / f".{name}.lock"
    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                continue  # the holder before us removed it
            try:
                yield
            finally:
                path.unlink()
            return
