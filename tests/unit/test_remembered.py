"""A host that left the inventory is reached as it was before."""

from __future__ import annotations

from dataclasses import replace

from controller.model.inventory import Host
from controller.model.remembered import entry_of, is_remembered, remembered_host
from tests import builders

VARIABLES = {
    "ansible_host": "192.0.2.7",
    "ansible_port": 2222,
    "ansible_user": "ops",
    "ansible_become": True,
    "ansible_ssh_private_key_file": "keys/{{ ansible_user }}",
    "ansible_timeout": 30,
    "sshoal_rootless": True,
    "ansible_password": "hunter2",
    "ansible_become_password": "hunter3",
    "password_of_the_shop": "hunter4",
}


def test_a_host_that_left_the_inventory_is_reached_as_before_but_for_its_passwords() -> None:
    host = Host("n1", (), VARIABLES, "hosts.ini:3", "/etc/sshoal")
    entry = entry_of(host)
    again = remembered_host(builders.node("n1", address=entry.address, connection=entry.connection))
    expected = replace(host.connection, password=None, become_password=None)
    assert (again.name, again.directory, again.connection) == ("n1", "/etc/sshoal", expected)
    assert is_remembered(again) and not is_remembered(host)


def test_a_record_keeps_no_password() -> None:
    assert "hunter" not in repr(entry_of(Host("n1", (), VARIABLES, "hosts.ini:3")))
