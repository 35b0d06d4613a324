"""Many hosts on one machine, for counting SSH: a real sshd and the real agent in namespaces of their own, over an engine in memory.

What they cost the controller is real; what runs on them is not. See crowd_host.sh and onhost_crowd.py.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from bench.cluster import until
from controller.act import bundle
from lab import network
from lab.inventory import inventory_text, known_hosts_text

FIRST_HOST = 11
SWITCH = "sshoal-crowd"
START_TIMEOUT_S = 180.0
SSHD = """\
ListenAddress {address}
HostKey {directory}/host_key
AuthorizedKeysFile {root}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
AllowStreamLocalForwarding {forwarding}
"""


class Crowd:
    """`count` hosts; the first `count` of them are what `inventory` names. Ended by `crowd`."""

    def __init__(self, root: Path, subnet: IPv4Network, count: int) -> None:
        self.root = root
        self.addresses = {f"host{number}": subnet[FIRST_HOST + number] for number in range(count)}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._bundle = unpacked_bundle(root)
        _keygen(root / "key")

    def start(self, *, forwarding: bool) -> None:
        """All hosts up, with agents that answer. `forwarding`: whether their sshds forward unix sockets, else the agent is dialled."""
        keys = {}
        for name, address in self.addresses.items():
            directory = self.root / name
            directory.mkdir(exist_ok=True)
            (directory / "ask").unlink(missing_ok=True)
            (directory / "rounds").unlink(missing_ok=True)
            _keygen(directory / "host_key")
            keys[str(address)] = (" ".join((directory / "host_key.pub").read_text().split()[:2]),)
            text = SSHD.format(
                address=address, directory=directory, root=self.root, forwarding="yes" if forwarding else "no"
            )
            (directory / "sshd_config").write_text(text)
            self._processes.append(self._host(name, address, directory))
        (self.root / "known_hosts").write_text(known_hosts_text(keys))
        until(lambda: all((self.root / name / "ask").exists() for name in self.addresses), START_TIMEOUT_S)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()  # its namespaces' first process dies with it, and then all others
            process.wait(30)
        self._processes.clear()

    def inventory(self, count: int, *, name: str = "hosts.ini") -> Path:
        """An inventory of the first `count` hosts."""
        path = self.root / name
        addresses: Mapping[str, str] = {name: str(self.addresses[name]) for name in list(self.addresses)[:count]}
        text = inventory_text(
            addresses, user="root", key=self.root / "key", known_hosts=self.root / "known_hosts", become=False
        )
        path.write_text(text)
        return path

    def change_pods(self, count: int) -> None:
        """Five containers on each of the first `count` hosts are killed; returns when all run again."""
        names = list(self.addresses)[:count]
        before = {name: self._rounds(name) for name in names}
        for name in names:
            (self.root / name / "ask").write_bytes(b"!")
        until(lambda: all(self._rounds(name) > before[name] for name in names))

    def _rounds(self, name: str) -> int:
        path = self.root / name / "rounds"
        return int(path.read_text() or 0) if path.exists() else 0

    def _host(self, name: str, address: IPv4Address, directory: Path) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("crowd_host.sh")
        return subprocess.Popen(
            ["/bin/sh", script, SWITCH, name, str(address), directory, self._bundle, sys.executable],
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


@contextlib.contextmanager
def crowd(count: int) -> Iterator[Crowd]:
    """A crowd of `count` hosts that is not started yet; nothing of it is left afterwards."""
    subnet = network.choose_subnet(network.routed_subnets())
    with tempfile.TemporaryDirectory() as directory:
        network.create_switch(SWITCH, subnet)
        made = Crowd(Path(directory), subnet, count)
        try:
            yield made
        finally:
            made.stop()
            network.remove_switch(SWITCH)


def unpacked_bundle(root: Path) -> Path:
    """The agent as a host has it, in a directory named by its digest: `dial` runs from there."""
    made = bundle.build()
    target = root / made.digest
    with tarfile.open(fileobj=BytesIO(zlib.decompress(made.packed))) as archive:
        archive.extractall(target)  # our own archive, just made
    return target


def _keygen(path: Path) -> None:
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True, timeout=30)
