"""One lab host: its power, its cable, its freezer, and commands on it over real SSH.

A host is the set of processes below its power supply (`boot.sh DIRECTORY`). They are found by looking for that argument
in /proc, never by a stored process id, so that what a crashed `up` left is found too.
"""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from lab import network, system
from lab.ssh import SshHost
from lab.system import LabError, Process

REBOOT_ORDERLY_S = 15
KILL_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LabHost(SshHost):
    """A host of a lab. `directory` holds its layers and console.log."""

    switch: str

    @property
    def machine(self) -> str:
        """The host's name among all labs of this machine: its control groups and its unit are called so."""
        return f"{self.switch}-{self.name}"

    @property
    def upper(self) -> Path:
        """What the host has written to its root file system (/var/lib/containers is `directory`/containers)."""
        return self.directory / "upper"

    # -- power ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Powers the host on and returns at once; `wait_ready` waits. LabError if it is on already."""
        if self.powered():
            raise LabError(f"{self.name} is already on")
        (self.directory / "root").mkdir(exist_ok=True)
        argv = ["/bin/sh", str(self.directory / "boot.sh"), str(self.directory)]
        if system.cgroup_version() == 2 and system.runs_systemd():
            unit = f"--unit={self.machine}"
            # Delegate: the host's systemd owns its part of the tree, and this machine's keeps off it.
            system.run(
                ["systemd-run", "--quiet", "--collect", unit, "-p", "Delegate=yes", "-p", "TasksMax=infinity", *argv]
            )
        else:
            system.start_detached(argv)

    def kill(self) -> None:
        """A power cut: every process of the host ends at once, nothing orderly. Returns when they are gone."""
        supplies = self._supplies()
        system.kill_groups(supplies)
        self.thaw()  # version 1: a frozen process dies only when thawed
        system.wait_until(lambda: system.gone(supplies), KILL_TIMEOUT_S, f"{self.name} to be without power")
        system.wait_until(self._without_cgroups, KILL_TIMEOUT_S, f"the control groups of {self.name} to be empty")

    def reboot(self) -> None:
        """Reboots and returns when the next boot is under way: orderly for 15 s, then by a power cut."""
        init = self.init()
        if init is None:
            raise LabError(f"{self.name} is off", hint=f"start it: sshoal lab start {self.name}")
        os.kill(init.pid, signal.SIGINT)  # to systemd: Ctrl-Alt-Del
        try:
            system.wait_until(lambda: self.init() != init, REBOOT_ORDERLY_S, f"{self.name} to reboot")
        except LabError:
            self.kill()
            self.start()

    def powered(self) -> bool:
        return bool(self._supplies())

    def init(self) -> Process | None:
        """The host's systemd, seen from this machine; None while it is off or has not come that far."""
        table = system.processes()
        supplies = {process.pid for process in self._supplies(table)}
        depth = len(table[os.getpid()].namespaced_pids) + 2  # one PID namespace for the boot, one by systemd-nspawn
        for process in table.values():
            if process.namespaced_pids[-1] == 1 and len(process.namespaced_pids) == depth:
                ancestor: Process | None = process
                while ancestor is not None and ancestor.pid not in supplies:
                    ancestor = table.get(ancestor.parent)
                if ancestor is not None:
                    return process
        return None

    def root(self) -> Path:
        """The running host's root directory as this machine can open it. LabError while it is off."""
        init = self.init()
        if init is None:
            raise LabError(f"{self.name} is off")
        return Path(f"/proc/{init.pid}/root")

    def _supplies(self, table: dict[int, Process] | None = None) -> list[Process]:
        table = system.processes() if table is None else table
        script = str(self.directory / "boot.sh")
        return [process for process in table.values() if script in process.argv]

    # -- network -------------------------------------------------------------------------------------------------

    def partition(self) -> None:
        """Cuts the host off in both directions, for this and later boots."""
        self._cut.touch()
        network.unplug(self.switch, self.name)

    def heal(self) -> None:
        self._cut.unlink(missing_ok=True)
        network.plug(self.switch, self.name)

    def partitioned(self) -> bool:
        return self._cut.exists()

    @property
    def _cut(self) -> Path:
        return self.directory / "cut"

    # -- freezer -------------------------------------------------------------------------------------------------

    def freeze(self) -> None:
        """Stops every process of the host where it is, as a hypervisor pauses a VM. Its clock runs on."""
        self._set_frozen(True)

    def thaw(self) -> None:
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        for hierarchy in system.cgroup_hierarchies():
            group = self._cgroup(hierarchy)
            try:
                if (group / "freezer.state").exists():
                    (group / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
                elif (group / "cgroup.freeze").exists() and system.cgroup_version() == 2:
                    (group / "cgroup.freeze").write_text("1" if frozen else "0")
            except FileNotFoundError:
                continue  # the host went off meanwhile

    def _cgroup(self, hierarchy: Path) -> Path:
        if system.cgroup_version() == 2 and system.runs_systemd():
            return hierarchy / "system.slice" / f"{self.machine}.service"
        return hierarchy / self.machine

    def _without_cgroups(self) -> bool:
        """Removes the control groups of a host that is off; False while one still holds a dying process."""
        for hierarchy in system.cgroup_hierarchies():
            for directory, _, _ in os.walk(hierarchy / self.machine, topdown=False):
                try:
                    Path(directory).rmdir()
                except FileNotFoundError:
                    continue
                except OSError:
                    return False
        return True

    def state(self) -> str:
        """One word for tables: ready-looking is "up"; else off, partitioned or booting."""
        if not self.powered():
            return "off"
        if self.partitioned():
            return "partitioned"
        return "up" if self.answers() else "booting"

    def delete(self) -> None:
        """Power cut, then removes all that is left of the host on this machine."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=False)
