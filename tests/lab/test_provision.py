"""The provisioning script of the Vagrant machines, run for real in a bare Debian."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.base import SUITE, cache_dir, make_root
from lab.system import require_root_and_programs

SCRIPT = Path(__file__).parents[2] / "lab" / "provision" / "host.sh"


@pytest.fixture(scope="module")
def bare_root() -> Iterator[Path]:
    """A Debian with nothing but its essential packages and apt."""
    require_root_and_programs()
    cache_dir().mkdir(parents=True, exist_ok=True)
    root = cache_dir() / f"{SUITE}-bare-for-tests"
    shutil.rmtree(root, ignore_errors=True)
    try:
        make_root(SUITE, ("apt",), root)
        shutil.copy(SCRIPT, root / "host.sh")
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def inside(root: Path, *argv: str) -> str:
    """Runs a command in `root` with this machine's network, nothing booted."""
    nspawn = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--pipe", "--resolv-conf=replace-host"]
    done = subprocess.run(
        [*nspawn, f"--directory={root}", "--machine=sshoal-bare", *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    return done.stdout


def test_the_script_makes_a_bare_debian_a_lab_host(bare_root: Path) -> None:
    inside(bare_root, "/bin/sh", "/host.sh", "ssh-ed25519 AAAAroot", "ssh-ed25519 AAAAuser")

    assert inside(bare_root, "/usr/bin/podman", "--version").startswith("podman version 4.")
    assert inside(bare_root, "/usr/bin/sudo", "-u", "ubuntu", "sudo", "-n", "id", "-un").strip() == "root"
    assert (bare_root / "root/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAAAroot\n"
    assert (bare_root / "home/ubuntu/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAAAuser\n"
    for unit in ("multi-user.target.wants/ssh.service", "sockets.target.wants/podman.socket"):
        assert (bare_root / "etc/systemd/system" / unit).is_symlink()


def test_the_script_can_be_run_again(bare_root: Path) -> None:
    for _ in range(2):
        inside(bare_root, "/bin/sh", "/host.sh", "ssh-ed25519 AAAAroot", "ssh-ed25519 AAAAuser")

    assert (bare_root / "root/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAAAroot\n"
