"""`sshoal run` against OpenSSH's own server: prefixes, exit codes, deadlines, how many at once."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.act.hostkeys import KnownHosts
from tests.contract.sshd import SSHD, Sshd, free_port
from tests.shell import Shell
from tests.unit.conftest import shell

__all__ = ["shell"]

if os.geteuid() != 0 or not Path(SSHD).exists():
    pytest.skip("needs root and openssh-server (apt-get install openssh-server)", allow_module_level=True)


@pytest.fixture(params=["ssh", "paramiko"])
def hosts(shell: Shell, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Shell]:
    """a and b are one server; dead has a closed port. Reached by each SSH library."""
    server = Sshd(tmp_path / "sshd").start()
    shell.context.mkdir()
    KnownHosts(shell.context / "known_hosts").trust("127.0.0.1", server.port, [server.host_key])
    key = server.directory / "client_ed25519"
    (shell.home / "hosts.ini").write_text(
        f"[up]\na\nb\n[up:vars]\nansible_port={server.port}\n[down]\ndead ansible_port={free_port()}\n"
        f"[all:vars]\nansible_host=127.0.0.1\nansible_user=root\nansible_connection={request.param}\nansible_ssh_private_key_file={key}\n"
    )
    yield shell
    server.stop()


def run(hosts: Shell, *words: str) -> tuple[int, list[str], str]:
    code, out, err = hosts("run", "-i", "hosts.ini", *words)
    return code, sorted(out.splitlines()), err


def test_each_line_has_its_host_in_front(hosts: Shell) -> None:
    code, out, err = run(hosts, "up", "--", "printf 'one\\ntwo'; echo three >&2")
    assert (code, out) == (0, ["a | one", "a | two", "b | one", "b | two"])
    assert sorted(err.splitlines()) == ["a | three", "b | three"]


def test_several_words_are_arguments_that_no_shell_reads(hosts: Shell) -> None:
    assert run(hosts, "a", "--", "printf", "%s,", "$HOME", "a  b", "*")[:2] == (0, ["a | $HOME,a  b,*,"])


def test_the_exit_code_is_the_highest_and_a_dead_host_stops_no_other(hosts: Shell) -> None:
    (hosts.home / "sshd" / "home" / "first").mkdir()
    code, out, err = run(hosts, "up", "--", "rmdir $HOME/first 2>/dev/null || exit 7")
    assert (code, out, err.count("exit code 7")) == (7, [], 1)
    code, out, err = run(hosts, "all", "--", "echo here")
    assert (code, out) == (4, ["a | here", "b | here"])
    assert "error: dead: " in err


def test_lines_come_as_they_are_written_and_time_is_bounded(hosts: Shell) -> None:
    code, out, err = run(hosts, "--timeout", "5s", "a", "--", "echo begun; exec sleep 30")
    assert (code, out) == (4, ["a | begun"])
    assert "error: a: " in err and "within 5 s" in err


def test_at_most_so_many_hosts_at_once(hosts: Shell) -> None:
    """Each looks for the other's mark: one after the other, nobody sees one."""
    script = "ls $HOME/mark 2>/dev/null; touch $HOME/mark; sleep 0.2; rm $HOME/mark"
    assert run(hosts, "--parallel", "1", "up", "--", script)[:2] == (0, [])


def test_more_than_a_script_may_print_is_streamed(hosts: Shell) -> None:
    code, out, _ = run(hosts, "a", "--", "head -c 9000000 /dev/zero | tr '\\0' x")
    assert code == 0
    assert sum(line.count("x") for line in out) == 9_000_000


def test_bytes_that_are_no_text_go_there_as_they_were_typed(hosts: Shell) -> None:
    latin_1 = os.fsdecode(b"caf\xe9")
    assert run(hosts, "a", "--", f"test {latin_1} = \"$(printf 'caf\\351')\"")[0] == 0


def test_nothing_is_run_anywhere_while_the_inventory_is_wrong_about_a_host(hosts: Shell) -> None:
    with (hosts.home / "hosts.ini").open("a") as file:
        file.write("[later]\nlast ansible_port=none\n")
    code, out, err = run(hosts, "--parallel", "1", "up:later", "--", "echo here")
    assert (code, out, "last.ansible_port" in err) == (2, [], True)


def test_a_host_that_is_no_node_runs_commands_where_ssh_leads_there(hosts: Shell) -> None:
    with (hosts.home / "hosts.ini").open("a") as file:
        file.write("[odd]\na sshoal_node=no\nhere ansible_connection=local\n")
    assert run(hosts, "odd", "--", "echo here")[:2] == (0, ["a | here"])
    code, _, err = run(hosts, "here", "--", "echo here")
    assert (code, "no host that 'here' matches is a node" in err) == (2, True)


def test_a_password_in_a_vault_that_does_not_open_stops_no_other_host(hosts: Shell) -> None:
    (hosts.home / "host_vars").mkdir()
    sealed = "ansible_private_key_passphrase: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  61620a63640a6566\n"
    (hosts.home / "host_vars" / "a.yml").write_text(sealed)
    code, out, err = run(hosts, "up", "--", "echo here")
    assert (code, out, "error: a: " in err, "vault" in err) == (4, ["b | here"], True, True)


@pytest.mark.parametrize("command", ["yes", "printf hello"], ids=["many lines", "a line without an end"])
def test_a_full_disk_here_is_no_fault_of_the_host(hosts: Shell, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    with io.TextIOWrapper(open("/dev/full", "wb", buffering=0)) as full:  # noqa: PTH123 - unbuffered: nothing is left to flush
        monkeypatch.setattr(sys, "stdout", full)
        code, _, err = run(hosts, "a", "--", command)
    assert (code, err) == (1, "error: what the hosts say can't be written here: No space left on device\n")


def test_a_reader_who_has_had_enough_ends_it_without_a_word(hosts: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with io.TextIOWrapper(os.fdopen(writing, "wb", buffering=0)) as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO()))  # the door closes it
        code, _, err = run(hosts, "up", "--", "yes")
    assert (code, err) == (1, "")


def test_a_login_that_prints_without_end_is_told_apart_from_the_command(hosts: Shell) -> None:
    (hosts.home / "sshd" / "home" / ".bashrc").write_text("head -c 400000 /dev/zero | tr '\\0' x\n")
    code, out, err = run(hosts, "a", "--", "echo here")
    assert (code, out) == (4, [])
    assert "prints more than 256 KiB before it runs a command" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nobody", "--", "true"], "nobody"), (["a"], "missing argument"), (["a", "--"], "which command")],
    ids=["no host", "no command", "nothing after the dashes"],
)
def test_wrong_requests_are_refused(hosts: Shell, words: list[str], message: str) -> None:
    code, out, err = run(hosts, *words)
    assert (code, out) == (2, []) and message in err.lower()
