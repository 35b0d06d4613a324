"""What a lab writes for its users: two Ansible inventories and a known_hosts file. Pure text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def inventory_text(
    addresses: Mapping[str, str],
    *,
    user: str,
    key: Path,
    known_hosts: Path,
    become: bool,
    rootless: bool = False,
    port: int = 22,
    timeout_s: int = 10,
) -> str:
    """An INI inventory with the group [lab]. `addresses`: host name → IP address, in order. `timeout_s`: how long a login may take."""
    lines = ["[lab]"]
    lines += [f"{name} ansible_host={address}" for name, address in addresses.items()]
    lines += ["", "[lab:vars]", f"ansible_user={user}", f"ansible_ssh_private_key_file={key}"]
    lines += [f"ansible_ssh_common_args='-o UserKnownHostsFile={known_hosts}'"]
    if port != 22:
        lines.append(f"ansible_port={port}")
    if timeout_s != 10:
        lines.append(f"ansible_timeout={timeout_s}")
    if become:
        lines.append("ansible_become=true")
    if rootless:
        lines.append("sshoal_rootless=true")
    return "\n".join(lines) + "\n"


def known_hosts_text(host_keys: Mapping[str, tuple[str, ...]]) -> str:
    """known_hosts lines. `host_keys`: address → public keys ("type base64")."""
    return "".join(f"{address} {key}\n" for address, keys in host_keys.items() for key in keys)
