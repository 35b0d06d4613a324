"""A real OpenSSH server on loopback, one per test: own configuration, own keys, own port. Needs root and /usr/sbin/sshd."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.act.hostkeys import HostKey, KnownHosts
from controller.model.inventory import Host

SSHD = "/usr/sbin/sshd"


@dataclass
class Sshd:
    """Started by `start`; `stop` ends it with all its connections."""

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    connection: str = "ssh"  # what its inventory entries say: which SSH library is to be used
    etc: Mapping[str, str] = field(default_factory=dict)  # files of /etc that only this server and its logins see
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Sshd:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.home.mkdir()
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for name in ("host_ed25519", "client_ed25519", "stranger_ed25519"):
            make_key(self.directory / name)
        self.authorize("client_ed25519")
        self.port = self.port or free_port()
        config = self.directory / "sshd_config"
        defaults = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "HostKey": str(self.directory / "host_ed25519"),
            "AuthorizedKeysFile": str(self.directory / "authorized_keys"),
            "PidFile": str(self.directory / "pid"),
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "SetEnv": f"HOME={self.home}",  # rc files of the test, not of this machine's root
        }
        config.write_text("".join(f"{name} {value}\n" for name, value in {**defaults, **self.settings}.items()))
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(
            [*self._private_etc(), SSHD, "-D", "-e", "-f", config],
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        log.close()
        self._wait_for_banner()
        return self

    @property
    def home(self) -> Path:
        return self.directory / "home"

    def authorize(self, key: str, options: str = "") -> None:
        public = (self.directory / f"{key}.pub").read_text()
        (self.directory / "authorized_keys").write_text(f"{options} {public}" if options else public)

    def stop(self) -> None:
        if self.process is None:
            return
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):  # connections end by themselves meanwhile
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=10)
        self.process = None

    def processes(self) -> list[int]:
        """The server and the processes of its connections (each leads a session of its own)."""
        assert self.process is not None
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                queue += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    @property
    def host_key(self) -> HostKey:
        return read_public_key(self.directory / "host_ed25519.pub")

    def known_hosts(self, name: str = "known_hosts") -> KnownHosts:
        """A known_hosts file that trusts this server."""
        known = KnownHosts(self.directory / name)
        known.trust("127.0.0.1", self.port, [self.host_key])
        return known

    def host(self, name: str = "web1", **variables: Any) -> Host:
        """This server as an inventory entry."""
        defaults = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_connection": self.connection,
            "ansible_ssh_private_key_file": str(self.directory / "client_ed25519"),
        }
        return Host(name, (), {**defaults, **variables}, "test:1")

    def _private_etc(self) -> list[str]:
        if not self.etc:
            return []
        directory = self.directory / "etc"
        directory.mkdir(exist_ok=True)
        for name, text in self.etc.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o440 if name == "sudoers" else 0o644)
        bind = 'for file in "$1"/*; do mount --bind "$file" "/etc/${file##*/}" || exit 1; done; shift; exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", bind, "sh", str(directory)]

    def _wait_for_banner(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                    if client.recv(8).startswith(b"SSH-"):
                        return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"sshd did not start: {(self.directory / 'log').read_text()}")


def make_key(path: Path, type_: str = "ed25519") -> None:
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", type_, "-N", "", "-f", path], check=True, timeout=10)


def read_public_key(path: Path) -> HostKey:
    type_, blob = path.read_text().split()[:2]
    return HostKey(type_, blob)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
