"""Connection variables, labels and taints: what Ansible's words mean to us, and what is refused by name."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from controller.act.inventory import load_inventory
from controller.model.errors import InventoryError
from controller.model.inventory import Connection, Host, Secret, Taint, Unsafe, VaultText, label_safe


def host(**variables: Any) -> Host:
    return Host("web1.example.org", ("web",), variables, "hosts.ini:7", "/srv/inventory")


def test_a_host_without_variables_is_reached_by_its_name_with_defaults() -> None:
    assert host().connection == Connection(address="web1.example.org")


READ: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "address": ({"ansible_host": "10.0.0.1"}, {"address": "10.0.0.1"}),
    "IPv6 address with zone": ({"ansible_host": "fe80::1%eth0"}, {"address": "fe80::1%eth0"}),
    "short IPv6 address": ({"ansible_host": "::1"}, {"address": "::1"}),
    "the later spelling wins": ({"ansible_host": "a", "ansible_ssh_host": "b"}, {"address": "b"}),
    "port from INI": ({"ansible_port": 2222}, {"port": 2222}),
    "port as text": ({"ansible_port": "2222"}, {"port": 2222}),
    "user": ({"ansible_user": "deploy"}, {"user": "deploy"}),
    "old spelling of user": ({"ansible_ssh_user": "deploy"}, {"user": "deploy"}),
    "domain user": ({"ansible_user": "CORP\\joe"}, {"user": "CORP\\joe"}),
    "key file": ({"ansible_ssh_private_key_file": "~/.ssh/id"}, {"private_key_file": "~/.ssh/id"}),
    "become by word": ({"ansible_become": "yes"}, {"become": True}),
    "become by INI literal": ({"ansible_become": True, "ansible_become_user": "ops"}, {"become": True, "become_user": "ops"}),
    "become off": ({"ansible_become": "False"}, {"become": False}),
    "python": ({"ansible_python_interpreter": "/opt/py/bin/python3"}, {"python": "/opt/py/bin/python3"}),
    "python discovery": ({"ansible_python_interpreter": "auto_silent"}, {"python": "/usr/bin/python3"}),
    "smart": ({"ansible_connection": "smart"}, {"kind": "ssh"}),
    "paramiko": ({"ansible_connection": "paramiko"}, {"kind": "paramiko"}),
    "old name of paramiko": ({"ansible_connection": "paramiko_ssh"}, {"kind": "paramiko"}),
    "timeout": ({"ansible_timeout": 30}, {"connect_timeout_s": 30.0}),
    "own timeout wins": ({"ansible_timeout": 30, "ansible_ssh_timeout": 5}, {"connect_timeout_s": 5.0}),
    "rootless": ({"sshoal_rootless": "yes", "ansible_user": "ops"}, {"rootless": True, "user": "ops"}),
    "-J": ({"ansible_ssh_common_args": "-J ops@bastion:2222,[2001:db8::1]:22"},
           {"proxy_jump": ("ops@bastion:2222", "[2001:db8::1]:22")}),
    "-Jhost": ({"ansible_ssh_common_args": "-Jbastion"}, {"proxy_jump": ("bastion",)}),
    "ProxyJump": ({"ansible_ssh_common_args": "-o ProxyJump=bastion"}, {"proxy_jump": ("bastion",)}),
    "quoted ProxyJump": ({"ansible_ssh_common_args": "-o 'proxyjump bastion'"}, {"proxy_jump": ("bastion",)}),
    "known hosts": ({"ansible_ssh_common_args": "-o UserKnownHostsFile=/lab/known_hosts"},
                    {"known_hosts_files": ("/lab/known_hosts",)}),
    "no jump": ({"ansible_ssh_common_args": "-o ProxyJump=none"}, {"proxy_jump": ()}),
    "other ssh options": ({"ansible_ssh_extra_args": "-oHostKeyAlias=web -o ConnectTimeout=7 -i k -o StrictHostKeyChecking=yes",
                           "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=60s"},
                          {"host_key_alias": "web", "connect_timeout_s": 7.0, "private_key_file": "k"}),
    "template of a variable": ({"ansible_host": "{{ ip }}", "ip": "{{net}}.5", "net": "10.0.0"}, {"address": "10.0.0.5"}),
    "template keeps the type": ({"ansible_port": "{{ p }}", "p": 99}, {"port": 99}),
    "template of the name": ({"ansible_host": "{{ inventory_hostname_short }}.lan"}, {"address": "web1.lan"}),
    "template of the directory": ({"ansible_private_key_file": "{{ inventory_dir }}/keys/{{ inventory_hostname }}"},
                                  {"private_key_file": "/srv/inventory/keys/web1.example.org"}),
}  # fmt: skip


@pytest.mark.parametrize(("variables", "expected"), READ.values(), ids=READ)
def test_connection_variables_mean_what_they_mean_to_ansible(
    variables: dict[str, Any], expected: dict[str, Any]
) -> None:
    connection = host(**variables).connection
    assert {name: getattr(connection, name) for name in expected} == expected


REFUSED: dict[str, tuple[str, Any, str]] = {
    "local": ("ansible_connection", "local", "'local' is not supported"),
    "docker": ("ansible_connection", "docker", "'docker' is not supported"),
    "winrm": ("ansible_connection", "winrm", "'winrm' is not supported"),
    "port 0": ("ansible_port", 0, "from 1 to 65535"),
    "port text": ("ansible_port", "ssh", "from 1 to 65535"),
    "port in other digits": ("ansible_port", "２２", "from 1 to 65535"),
    "port list": ("ansible_port", [22], "must be a string"),
    "address with a space": ("ansible_host", "a b", "not an address"),
    "address as an option": ("ansible_host", "-oProxyCommand=x", "not an address"),
    "address of shell text": ("ansible_host", "$(reboot)", "not an address"),
    "address with bidi": ("ansible_host", "a\u202eb", "text direction"),
    "user as an option": ("ansible_user", "-l", "not a user name"),
    "user with newline": ("ansible_user", "a\nb", "control"),
    "key file with NUL": ("ansible_private_key_file", "a\0b", "control"),
    "become word": ("ansible_become", "perhaps", "neither yes nor no"),
    "become method": ("ansible_become_method", "doas", "'doas' is not supported"),
    "python relative": ("ansible_python_interpreter", "python3", "not an absolute path"),
    "python with arguments": ("ansible_python_interpreter", "/usr/bin/env python3", "not an absolute path"),
    "proxy command": ("ansible_ssh_common_args", "-o ProxyCommand='ssh -W %h:%p b'", "proxycommand 'ssh -W %h:%p b' is not supported"),
    "unchecked host keys": ("ansible_ssh_common_args", "-o StrictHostKeyChecking=no", "host keys are always checked"),
    "no known hosts": ("ansible_ssh_common_args", "-o UserKnownHostsFile=/dev/null", "host keys are always checked"),
    "endless timeout": ("ansible_ssh_common_args", "-o ConnectTimeout=9999", "connecttimeout '9999' is not supported"),
    "agent forwarding": ("ansible_ssh_extra_args", "-A", "-A is not supported"),
    "option without value": ("ansible_ssh_common_args", "-J", "lacks its value"),
    "open quote": ("ansible_ssh_common_args", "-J 'a", "split into words"),
    "jump of shell text": ("ansible_ssh_common_args", "-J '$(x)'", "not a jump host"),
    "timeout 0": ("ansible_timeout", 0, "from 1 to 600"),
    "filter": ("ansible_host", "{{ ip | default('x') }}", "not supported in a connection variable"),
    "lookup": ("ansible_user", "{{ lookup('env', 'USER') }}", "not supported in a connection variable"),
    "statement": ("ansible_user", "{% if x %}a{% endif %}", "not supported in a connection variable"),
    "unknown variable": ("ansible_host", "{{ nobody }}", "refers to nobody"),
    "circle": ("ansible_host", "{{ ansible_host }}", "8 deep"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_supported_is_refused_with_place_and_variable(name: str, value: Any, words: str) -> None:
    with pytest.raises(InventoryError) as caught:
        _ = host(**{name: value}).connection
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"hosts.ini:7: web1.example.org.{name}: ")


def test_templates_that_multiply_are_stopped() -> None:
    variables = {f"v{n}": f"{{{{ v{n + 1} }}}}" * 20 for n in range(7)} | {"v7": "x"}
    with pytest.raises(InventoryError, match="more than 200 templates"):
        _ = host(ansible_host="{{ v0 }}a", **variables).connection


def test_an_unsafe_string_is_no_template() -> None:
    with pytest.raises(InventoryError, match="not an address"):
        _ = host(ansible_host=Unsafe("{{ ip }}"), ip="10.0.0.1").connection


CANARY = "c4nary-p4ssword"


def test_passwords_are_never_in_a_repr_and_never_pickled() -> None:
    subject = host(ansible_password=CANARY, ansible_become_pass=CANARY, ansible_private_key_passphrase=CANARY)
    connection = subject.connection
    assert connection.password is not None
    assert connection.become_password is not None
    assert connection.private_key_passphrase is not None
    assert connection.password.reveal() == connection.become_password.reveal() == CANARY
    assert CANARY not in repr(subject) + str(connection) + repr(connection) + f"{connection.password}"
    for secret in (connection.password, VaultText("x", lambda _: CANARY)):
        with pytest.raises(TypeError):
            pickle.dumps(secret)


def test_a_vaulted_password_is_opened_only_when_it_is_used() -> None:
    opened: list[str] = []

    def open_(ciphertext: str) -> str:
        opened.append(ciphertext)
        return CANARY

    connection = host(
        ansible_password=VaultText("sealed", open_), ansible_become_password="{{ ansible_password }}"
    ).connection
    assert opened == []
    assert isinstance(connection.become_password, Secret)
    assert connection.become_password.reveal() == CANARY
    assert opened == ["sealed"]


@pytest.mark.parametrize("name", ["ansible_host", "ansible_port", "ansible_user", "ansible_become"])
@pytest.mark.parametrize(
    "value", ["{{ secret }}", "{{ secret }} {{ secret }}", VaultText("x", lambda _: CANARY + " x")]
)
def test_an_error_never_shows_what_a_template_or_a_vault_gave(name: str, value: object) -> None:
    with pytest.raises(InventoryError) as caught:
        _ = host(**{name: value}, secret=VaultText("x", lambda _: CANARY + " !")).connection
    assert CANARY not in str(caught.value)


def test_groups_become_labels_and_node_labels_join_them() -> None:
    subject = Host(
        "h", ("eu.west", "web servers"), {"node_labels": {"disk": "ssd", "gpu": True, "example.org/rack": 7}}, "f:1"
    )
    assert subject.labels == {
        "sshoal.dev/group-eu.west": "true",
        "sshoal.dev/group-web-servers": "true",
        "disk": "ssd",
        "gpu": "true",
        "example.org/rack": "7",
    }


def test_a_rootless_host_has_a_label_that_nobody_else_may_set() -> None:
    assert host(sshoal_rootless=True).labels == {"sshoal.dev/group-web": "true", "sshoal.dev/rootless": "true"}
    assert host(sshoal_rootless=False).labels == {"sshoal.dev/group-web": "true"}
    with pytest.raises(InventoryError, match="reserved: sshoal sets it where sshoal_rootless is set"):
        _ = host(node_labels={"sshoal.dev/rootless": "true"}).labels


def test_a_rootless_agent_does_not_live_with_root() -> None:
    with pytest.raises(InventoryError, match=r"sshoal_rootless: is set, and the login is root"):
        _ = host(sshoal_rootless=True, ansible_user="root").connection


@pytest.mark.parametrize(("group", "label"), [
    ("web", "web"), ("größe", "gr--e"), ("a@b", "a-b"), ("x" * 80, "x" * 57), ("a-", "a"), ("+", "x"),
])  # fmt: skip
def test_a_group_name_is_made_fit_for_a_label(group: str, label: str) -> None:
    assert label_safe(group) == label


@pytest.mark.parametrize(("labels", "words"), [
    ("disk=ssd", "must be a mapping"),
    ({"a b": "x"}, "not a valid key"),
    ({"-a": "x"}, "not a valid key"),
    ({"UPPER.org/a": "x"}, "not a valid key"),
    ({5: "x"}, "not a string"),
    ({"a": "x y"}, "not valid"),
    ({"a": 1.10}, "not a string"),
    ({"a": None}, "not a string"),
    ({"a": "x" * 64}, "not valid"),
    ({"sshoal.dev/group-db": "true"}, "reserved"),
])  # fmt: skip
def test_a_bad_label_is_refused_with_its_place(labels: object, words: str) -> None:
    with pytest.raises(InventoryError, match=words) as caught:
        _ = host(node_labels=labels).labels
    assert (caught.value.file, caught.value.line, caught.value.field) == (
        "hosts.ini",
        7,
        "web1.example.org.node_labels",
    )


def test_taints_are_read_with_and_without_a_value() -> None:
    subject = host(node_taints=["dedicated=db:NoSchedule", "example.org/slow:PreferNoSchedule", "x=:NoExecute"])
    assert subject.taints == (
        Taint("dedicated", "db", "NoSchedule"),
        Taint("example.org/slow", "", "PreferNoSchedule"),
        Taint("x", "", "NoExecute"),
    )
    assert host().taints == ()


@pytest.mark.parametrize("taints", ["a=b:NoSchedule", ["a=b"], ["a=b:Never"], [":NoSchedule"], [5], [{"key": "a"}]])
def test_a_bad_taint_is_refused(taints: object) -> None:
    with pytest.raises(InventoryError, match="node_taints"):
        _ = host(node_taints=taints).taints


@pytest.mark.parametrize(
    ("variables", "is_node"),
    [
        ({}, True),
        ({"ansible_connection": "ssh"}, True),
        ({"ansible_connection": "ansible.builtin.paramiko_ssh"}, True),
        ({"ansible_connection": "shh"}, True),  # an error once it is used: it must not take a node out
        ({"ansible_connection": "local"}, False),
        ({"ansible_connection": "ansible.netcommon.network_cli"}, False),
        ({"ansible_connection": "{{ how }}", "how": "winrm"}, False),
        ({"ansible_connection": "local", "sshoal_node": True}, True),
        ({"sshoal_node": "no"}, False),
        ({"sshoal_node": None}, True),
        ({"sshoal_node": "", "ansible_connection": "local"}, False),
        ({"sshoal_node": "{{ yes }}", "yes": "yes"}, True),
    ],
)
def test_a_host_is_a_node_unless_it_says_no_or_ssh_does_not_lead_there(
    variables: dict[str, Any], is_node: bool
) -> None:
    assert host(**variables).is_node == is_node


def test_a_host_says_yes_or_no_to_being_a_node() -> None:
    with pytest.raises(
        InventoryError, match=r"hosts\.ini:7: web1\.example\.org\.sshoal_node: 'maybe' is neither yes nor no"
    ):
        _ = host(sshoal_node="maybe").is_node


def test_a_host_that_cannot_be_reached_by_ssh_is_no_node_and_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "hosts.ini"
    path.write_text("localhost ansible_connection=local\nweb1\n[jump]\nbastion\n[jump:vars]\nsshoal_node=no\n")
    inventory = load_inventory([str(path)])
    assert inventory.hosts["web1"].connection.address == "web1"
    assert list(inventory.nodes) == ["web1"]
    with pytest.raises(InventoryError, match=r"hosts\.ini:1: localhost\.ansible_connection"):
        _ = inventory.hosts["localhost"].connection
