"""What the lab writes for Ansible and OpenSSH reads as they read it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.inventory import inventory_text, known_hosts_text

ADDRESSES = {"node1": "10.213.0.11", "node2": "10.213.0.12"}


@pytest.mark.parametrize(("user", "become", "port"), [("root", False, 22), ("ubuntu", True, 22), ("root", False, 2222)])
def test_ansible_finds_the_hosts_and_how_to_log_in(tmp_path: Path, user: str, become: bool, port: int) -> None:
    key, known_hosts, file = tmp_path / "id", tmp_path / "known_hosts", tmp_path / "inventory.ini"
    file.write_text(inventory_text(ADDRESSES, user=user, key=key, known_hosts=known_hosts, become=become, port=port))
    tool = Path(sys.executable).with_name("ansible-inventory")
    done = subprocess.run([tool, "-i", file, "--list"], capture_output=True, text=True, timeout=50, check=True)
    listed = json.loads(done.stdout)

    assert listed["lab"]["hosts"] == ["node1", "node2"]
    expected: dict[str, object] = {
        "ansible_host": "10.213.0.12",
        "ansible_user": user,
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={known_hosts}",
    }
    expected |= {"ansible_become": "true"} if become else {}
    expected |= {"ansible_port": port} if port != 22 else {}
    assert listed["_meta"]["hostvars"]["node2"] == expected


def test_known_hosts_has_a_line_for_each_key_of_each_host() -> None:
    keys = {"10.0.0.1": ("ssh-ed25519 A", "ecdsa-sha2-nistp256 B"), "[127.0.0.1]:2222": ("ssh-ed25519 C",)}

    assert known_hosts_text(keys) == (
        "10.0.0.1 ssh-ed25519 A\n10.0.0.1 ecdsa-sha2-nistp256 B\n[127.0.0.1]:2222 ssh-ed25519 C\n"
    )
