"""Commands on a host of the lab, or on its virtual machine, over real SSH with OpenSSH's own client."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from lab import system
from lab.rootfs import LOGIN_USER
from lab.system import LabError

BOOT_TIMEOUT_S = 120
_BANNER_PATIENCE_S = 30.0
# A bare host has no podman.socket that is switched on.
READY_COMMAND = (
    "if [ ! -L /etc/systemd/system/sockets.target.wants/podman.socket ]; then echo ready;"
    " else systemctl is-active --quiet podman.socket && podman info --format ready; fi"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SshHost:
    """Where and how to log in. `directory` is the host's on this machine; the keys are files for the two logins."""

    name: str
    address: IPv4Address
    port: int = 22
    directory: Path
    root_key: Path
    user_key: Path
    known_hosts: Path

    @property
    def console(self) -> Path:
        """What the host said on its console, over all boots."""
        return self.directory / "console.log"

    def ssh_argv(self, *, user: str = "root") -> list[str]:
        """The ssh command up to and including the address. `user`: root or ubuntu."""
        key = {"root": self.root_key, LOGIN_USER: self.user_key}[user]
        options = (
            f"UserKnownHostsFile={self.known_hosts}",
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "ConnectTimeout=5",
            "ServerAliveInterval=10",
            "LogLevel=ERROR",
            # The default one costs a tenth of a second of processor time on each side, for each command.
            "KexAlgorithms=curve25519-sha256",
        )
        flags = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "/dev/null", "-p", str(self.port), "-i", str(key), *flags, f"{user}@{self.address}"]

    def run(self, command: str, *, user: str = "root", timeout_s: float = 60, check: bool = True) -> str:
        """Runs a shell command on the host over SSH, returns its standard output. LabError as system.run."""
        return system.run([*self.ssh_argv(user=user), "--", command], timeout_s=timeout_s, check=check)

    def copy_in(self, file: Path, target: str, *, timeout_s: float = 60) -> None:
        """Copies a local file to the path `target` on the host, over SSH."""
        system.run([*self.ssh_argv(), "--", f"cat > {target}"], timeout_s=timeout_s, stdin=file)

    def answers(self, patience_s: float = 1.0) -> bool:
        """Whether sshd says its banner, within `patience_s` once it is connected to."""
        try:
            with socket.create_connection((str(self.address), self.port), timeout=1) as connection:
                connection.settimeout(patience_s)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def wait_ready(self, *, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Returns when sshd answers and Podman works. LabError with the end of the console when it does not."""
        end = time.monotonic() + timeout_s
        answers = False
        while True:
            # Connections that are given up too soon are queued on a slow host; its sshd then takes us for an attacker (PerSourcePenalties).
            answers = answers or self.answers(patience_s=_BANNER_PATIENCE_S)
            if answers:
                try:
                    if "ready" in self.run(READY_COMMAND, timeout_s=30):
                        return
                except LabError:
                    pass
            if time.monotonic() > end:
                tail = self.console.read_text(errors="replace").splitlines()[-5:] if self.console.exists() else []
                raise LabError(f"{self.name} is not ready after {timeout_s:g} s", hint="\n".join(tail))
            time.sleep(0.1)
