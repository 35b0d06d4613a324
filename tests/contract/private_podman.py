"""A Podman of its own: storage, mounts and network that nothing else on this machine sees. Needs root, podman, iptables or nft.

`start` makes a mount and a network namespace (held by a sleeping process), and a `podman system service` in it; `close` ends every process
that has its directory mounted and removes it. Process ids are the machine's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from lab import image
from nodeagent import podman_config

IMAGE = image.REPOSITORY + ":v1"
_SETTINGS = """\
[engine]
cgroup_manager = "{cgroup_manager}"
events_logger = "file"
"""
# A fresh /run, since netavark and Podman keep locks and network namespaces there; of systemd's only what Podman calls it by. crun refuses
# a hybrid of cgroup v1 and v2.
_NAMESPACE = """\
mkdir "$1.run" && mount --make-rprivate / && mount --rbind /run "$1.run" && mount -t tmpfs tmpfs /run && ip link set lo up || exit 1
for part in systemd dbus; do
    [ ! -d "$1.run/$part" ] || { mkdir "/run/$part" && mount --rbind "$1.run/$part" "/run/$part"; } || exit 1
done
umount -l "$1.run"
if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi
touch "$1" && exec sleep infinity
"""
# Where pid_max is above what this session may set, Podman would write limits into every pod that crun then can't set.
_LIMITS = ("prlimit", "--nproc=30000:30000")


class PrivatePodman:
    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sshoal-podman-", dir="/var/tmp"))
        self.socket = self.directory / "socket"
        self._holder: subprocess.Popen[bytes] | None = None
        self._service: subprocess.Popen[bytes] | None = None

    def start(self) -> PrivatePodman:
        for name in ("root", "runroot", "run", "networks"):
            (self.directory / name).mkdir()
        settings = self.directory / "host/etc/containers/containers.conf"
        settings.parent.mkdir(parents=True)
        settings.write_text(_SETTINGS.format(cgroup_manager="systemd" if _systemd_has_the_cgroups() else "cgroupfs"))
        podman_config.write(self.directory, "podman", root=self.directory / "host")
        ready = self.directory / "ready"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", _NAMESPACE, "sh", str(ready)], stdin=subprocess.DEVNULL
        )
        _wait(ready.exists, "the namespaces")
        self.start_service()
        self.cli("load", "--input", str(image.build(busybox=Path("/bin/busybox"))))
        return self

    def start_service(self) -> None:
        self.socket.unlink(missing_ok=True)
        command = [*self._command(), "system", "service", "--time", "0", f"unix://{self.socket}"]
        log = (self.directory / "service.log").open("ab")
        with log:
            self._service = subprocess.Popen(
                command, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        _wait(self.socket.exists, "Podman's service")

    def stop_service(self) -> None:
        assert self._service is not None
        self._service.terminate()
        self._service.wait(10)

    def restart_killed_service(self) -> None:
        """As systemd does for the real one."""
        assert self._service is not None
        self._service.wait(10)
        self.start_service()

    def signal_service(self, number: int) -> None:
        """`number` for the service itself (nsenter and prlimit became it by exec)."""
        assert self._service is not None
        self._service.send_signal(number)

    def cli(self, *arguments: str) -> str:
        """Podman's command line on the same storage, past the service."""
        done = subprocess.run(
            [*self._command(), *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()

    def pids(self, container: str) -> tuple[int, int]:
        """(conmon, payload)."""
        conmon, payload = self.cli("inspect", "--format", "{{.State.ConmonPid}} {{.State.Pid}}", container).split()
        return int(conmon), int(payload)

    def forget_record_of(self, container: str) -> None:
        """Leaves a container in storage only, as an interrupted create does: Podman's database is set back to before it was made."""
        database = next(
            path for path in (self.directory / "root").rglob("*") if path.name in ("bolt_state.db", "db.sql")
        )
        self.stop_service()
        before = database.with_suffix(".before")
        shutil.copy2(database, before)
        self.cli("create", "--name", container, IMAGE)
        shutil.move(before, database)
        self.start_service()

    def enter(self) -> tuple[str, ...]:
        """What to put before a command that shall run in these namespaces."""
        assert self._holder is not None
        return ("nsenter", "--target", str(self._holder.pid), "--mount", "--net")

    def remove_volumes(self) -> None:
        """All of them: unlike pods, which have uids of their own in each test, they have names that tests share."""
        self.cli("volume", "rm", "--all", "--force")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.cli("pod", "rm", "--all", "--force", "--time", "0")
            self.cli("rm", "--all", "--force", "--time", "0")
        for process in (self._service, self._holder):
            if process is not None:
                process.kill()
                process.wait(10)
        _wait(lambda: not self._kill_rest(), "the last processes' end")
        self._remove_cgroups()
        shutil.rmtree(self.directory)

    def _command(self) -> list[str]:
        options = {
            "--root": "root",
            "--runroot": "runroot",
            "--tmpdir": "run",
            "--network-config-dir": "networks",
        }
        paths = [word for option, name in options.items() for word in (option, str(self.directory / name))]
        return [*self.enter(), *_LIMITS, "podman", *paths, "--storage-driver", "overlay"]

    def _environment(self) -> dict[str, str]:
        registries = self.directory / "registries.conf"
        return {
            "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
            "HOME": str(self.directory),
            "CONTAINERS_CONF": str(self.directory / "host/etc/containers/containers.conf"),
            **dict(line.split("=", 1) for line in (self.directory / "podman.env").read_text().split()),
            **({"CONTAINERS_REGISTRIES_CONF": str(registries)} if registries.exists() else {}),
        }

    def _remove_cgroups(self) -> None:
        """Those of our pods (their ids are in the event log), which Podman leaves behind in cgroup v1's named hierarchy."""
        for log in (self.directory / "run").rglob("events.log"):
            events = [json.loads(line) for line in log.read_text().splitlines()]
            for pod_id in {event["ID"] for event in events if event.get("Type") == "pod"}:
                for group in Path("/sys/fs/cgroup").glob(f"*/libpod_parent/{pod_id}"):
                    for directory, _, _ in os.walk(group, topdown=False):
                        with contextlib.suppress(OSError):
                            Path(directory).rmdir()

    def _kill_rest(self) -> bool:
        """Kills whatever still has our storage mounted, or is a conmon of it. True when there was something."""
        found = False
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                known_by = (entry / "mountinfo").read_bytes() + (entry / "cmdline").read_bytes()
                if int(entry.name) != os.getpid() and os.fsencode(self.directory) in known_by:
                    os.kill(int(entry.name), signal.SIGKILL)
                    found = True
        return found


def _systemd_has_the_cgroups() -> bool:
    """As on current distributions, where its manager is Podman's default."""
    return Path("/run/systemd/system").is_dir() and Path("/sys/fs/cgroup/cgroup.controllers").exists()


def _wait(condition: object, what: str, timeout_s: float = 20.0) -> None:
    assert callable(condition)
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.02)
