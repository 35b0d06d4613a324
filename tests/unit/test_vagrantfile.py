"""The Vagrantfile is valid, and offers what the one-machine lab offers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lab.base import PACKAGES
from lab.inventory import inventory_text

PROJECT = Path(__file__).parents[2]
needs_vagrant = pytest.mark.skipif(shutil.which("vagrant") is None, reason="vagrant is not installed")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the Vagrantfile needs: it writes keys beside itself."""
    shutil.copy(PROJECT / "Vagrantfile", tmp_path)
    shutil.copytree(PROJECT / "lab" / "provision", tmp_path / "lab" / "provision")
    return tmp_path


def vagrant(project: Path, *arguments: str) -> str:
    environment = {**os.environ, "VAGRANT_HOME": str(project / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    done = subprocess.run(
        ["vagrant", *arguments], cwd=project, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_vagrant
def test_vagrant_finds_the_file_valid(project: Path) -> None:
    assert "validated successfully" in vagrant(project, "validate", "--ignore-provider")


@needs_vagrant
def test_its_inventories_are_those_of_the_lab(project: Path) -> None:
    """Evaluates the file's own function; the machines cannot be started here."""
    state = project / ".vagrant" / "sshoal"
    with (project / "Vagrantfile").open("a") as file:
        file.write("LOGINS.each { |user, name| File.write(File.join(STATE, name), inventory(user)) }\n")
    vagrant(project, "validate", "--ignore-provider")

    addresses = {f"node{number}": f"192.168.56.{10 + number}" for number in (1, 2, 3)}
    for user, written in (("root", "inventory.ini"), ("ubuntu", "inventory-sudo.ini")):
        expected = inventory_text(
            addresses, user=user, key=state / f"id_{user}", known_hosts=state / "known_hosts", become=user != "root"
        )
        assert (state / written).read_text() == expected


def test_a_provisioned_machine_gets_the_packages_of_a_lab_host() -> None:
    script = (PROJECT / "lab" / "provision" / "host.sh").read_text()
    packages = re.search(r"packages='(.*?)'", script, re.DOTALL)

    assert packages is not None
    assert sorted(packages[1].split()) == sorted(PACKAGES)
