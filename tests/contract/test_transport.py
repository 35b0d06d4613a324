"""What every Transport must do, shown against OpenSSH's own server on loopback, for each SSH library. What differs is in docs/limits.md."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.act.hostkeys import KnownHosts
from controller.act.transport import OUTPUT_BYTES_MAX, AgentPlaces, Session
from controller.act.transports import TransportByHost
from controller.model.errors import (
    HostAuthFailed,
    HostError,
    HostKeyChanged,
    HostKeyUnknown,
    HostNotReady,
    HostUnreachable,
)
from controller.model.inventory import Host
from tests.agent_peer import until
from tests.contract.sshd import SSHD, free_port, make_key, read_public_key
from tests.contract.transports import ONLY_ASYNCSSH, StartSshd, connected, refusal

if os.geteuid() != 0 or not Path(SSHD).exists():
    pytest.skip("needs root and openssh-server (apt-get install openssh-server)", allow_module_level=True)

SYN_SENT = "02"  # in /proc/net/tcp

# ---- scripts --------------------------------------------------------------------------------------------------------


def test_a_script_gets_its_input_and_returns_output_errors_and_exit_code(start_sshd: StartSshd) -> None:
    async def check() -> None:
        async with connected(start_sshd()) as session:
            done = await session.run("cat; echo it failed >&2; exit 3", stdin=b"a\0b\n", become=True, timeout_s=10)
            assert (done.exit_code, done.stdout, done.stderr) == (3, b"a\0b\n", b"it failed\n")

    asyncio.run(check())


def test_a_script_with_quotes_newlines_and_unicode_arrives_as_written(start_sshd: StartSshd) -> None:
    async def check() -> None:
        async with connected(start_sshd()) as session:
            script = "x='it''s'\nprintf '%s|%s' \"$x\" '$(touch /nope) `é` \"'\n"
            done = await session.run(script, become=False, timeout_s=10)
            assert done.stdout.decode() == 'its|$(touch /nope) `é` "'

    asyncio.run(check())


def test_nothing_of_a_script_or_its_input_is_in_an_argument_list(start_sshd: StartSshd) -> None:
    async def check() -> None:
        async with connected(start_sshd()) as session:
            done = await session.run(
                "cat /proc/$$/cmdline /proc/$PPID/cmdline #canary-1", stdin=b"canary-2", become=False, timeout_s=10
            )
            assert b"/bin/sh" in done.stdout
            assert b"canary" not in done.stdout

    asyncio.run(check())


def test_what_the_login_shell_prints_before_is_dropped(start_sshd: StartSshd) -> None:
    """sshd makes bash read .bashrc for every command (FAULTS B8)."""
    server = start_sshd()
    (server.home / ".bashrc").write_text('echo "Welcome, sshoal-000!"; echo warning >&2\n')

    async def check() -> None:
        async with connected(server) as session:
            assert (await session.run("echo clean; echo bad >&2", become=True, timeout_s=10)).stdout == b"clean\n"
            done = await session.run("echo bad >&2", become=True, timeout_s=10)
            assert (done.stdout, done.stderr) == (b"", b"bad\n")

    asyncio.run(check())


def test_a_key_bound_to_another_command_is_said_so_with_what_it_printed(start_sshd: StartSshd) -> None:
    server = start_sshd()
    server.authorize("client_ed25519", "command=\"printf '\\033[31mThis account is not available\\n'\"")

    async def check() -> None:
        async with connected(server) as session:
            with pytest.raises(HostNotReady, match=r"runs no commands for this user: This account is not available$"):
                await session.run("true", become=True, timeout_s=10)

    asyncio.run(check())


def test_endless_output_is_cut_and_flagged_and_the_connection_stays_usable(start_sshd: StartSshd) -> None:
    async def check() -> None:
        async with connected(start_sshd()) as session:
            with pytest.raises(HostError, match=f"more than {OUTPUT_BYTES_MAX >> 20} MiB"):
                await session.run("cat /dev/zero", become=True, timeout_s=30)
            assert (await session.run("echo still here", become=True, timeout_s=10)).stdout == b"still here\n"

    asyncio.run(check())


def test_a_script_that_does_not_end_is_given_up_at_its_deadline(start_sshd: StartSshd) -> None:
    async def check() -> None:
        async with connected(start_sshd()) as session:
            with pytest.raises(HostUnreachable, match=r"no answer within 0.2 s"):
                await session.run("sleep 60", become=True, timeout_s=0.2)

    asyncio.run(check())


def test_a_script_ended_by_a_signal_says_which(start_sshd: StartSshd) -> None:
    async def check() -> None:
        async with connected(start_sshd()) as session:
            assert (await session.run("kill -9 $$", become=True, timeout_s=10)).exit_code == 128 + 9

    asyncio.run(check())


def test_thirty_scripts_at_once_stay_within_the_servers_session_limit(start_sshd: StartSshd) -> None:
    async def check() -> None:
        async with connected(start_sshd(MaxSessions="8")) as session:
            done = await asyncio.gather(
                *(session.run(f"echo {number}", become=True, timeout_s=50) for number in range(30))
            )
            assert [int(one.stdout) for one in done] == list(range(30))

    asyncio.run(check())


# ---- channels to the agent ------------------------------------------------------------------------------------------


async def ask(session: Session, question: bytes) -> bytes:
    channel = await session.open_channel(timeout_s=10)
    try:
        await channel.write(question)
        answer = b""
        while len(answer) < len(question):
            part = await channel.read()
            assert part, "the channel ended early"
            answer += part
        return answer
    finally:
        channel.close()


@pytest.mark.parametrize("forwarding", ["yes", "no"])
def test_a_channel_reaches_the_agent_with_and_without_socket_forwarding(
    start_sshd: StartSshd, agent: AgentPlaces, forwarding: str
) -> None:
    async def check() -> None:
        async with connected(start_sshd(AllowStreamLocalForwarding=forwarding), agent) as session:
            assert await ask(session, b"hello") == b"HELLO"
            assert await ask(session, b"x" * 3_000_000) == b"X" * 3_000_000

    asyncio.run(check())


def test_dialling_survives_a_noisy_login_shell(start_sshd: StartSshd, agent: AgentPlaces) -> None:
    server = start_sshd(AllowStreamLocalForwarding="no")
    (server.home / ".bashrc").write_text("echo sshoal-dial 1\n")

    async def check() -> None:
        async with connected(server, agent) as session:
            assert await ask(session, b"hello") == b"HELLO"

    asyncio.run(check())


@ONLY_ASYNCSSH
def test_forty_forwarded_channels_need_no_session_each(start_sshd: StartSshd, agent: AgentPlaces) -> None:
    """FIELD-NOTES §5: forwarded sockets are not counted in MaxSessions."""

    async def check() -> None:
        async with connected(start_sshd(MaxSessions="1"), agent) as session:
            channels = [await session.open_channel(timeout_s=10) for _ in range(40)]
            for channel in channels:
                channel.close()

    asyncio.run(check())


def test_an_absent_agent_is_no_network_failure(start_sshd: StartSshd, tmp_path: Path) -> None:
    nowhere = AgentPlaces(str(tmp_path / "none.sock"), str(tmp_path / "none"))

    async def check() -> None:
        async with connected(start_sshd(), nowhere) as session:
            with pytest.raises(HostNotReady, match=r"no agent answers: .*No such file"):
                await session.open_channel(timeout_s=10)

    asyncio.run(check())


def test_reading_from_a_broken_connection_says_unreachable_and_not_the_end(
    start_sshd: StartSshd, agent: AgentPlaces
) -> None:
    server = start_sshd()

    async def check() -> None:
        async with connected(server, agent) as session:
            channel = await session.open_channel(timeout_s=10)
            reading = asyncio.ensure_future(channel.read())
            await asyncio.sleep(0)
            server.stop()
            with pytest.raises(HostUnreachable):
                await reading
            with pytest.raises(HostUnreachable):
                await channel.write(b"x")

    asyncio.run(check())


def test_a_reader_that_does_not_read_makes_the_host_wait(start_sshd: StartSshd, agent: AgentPlaces) -> None:
    """64 MiB cannot be written towards an agent that echoes while nobody reads: the writer is held, memory does not grow."""

    async def check() -> None:
        async with connected(start_sshd(), agent) as session:
            channel = await session.open_channel(timeout_s=10)
            sent = 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    while sent < 64 << 20:
                        await channel.write(b"x" * (1 << 20))
                        sent += 1 << 20
            channel.close()
            assert sent < 32 << 20

    asyncio.run(check())


# ---- whom we talk to ------------------------------------------------------------------------------------------------


def test_an_unknown_host_key_is_refused_with_its_fingerprint_and_what_to_do(
    start_sshd: StartSshd, tmp_path: Path
) -> None:
    server = start_sshd()

    async def check() -> None:
        error = await refusal(TransportByHost(KnownHosts(tmp_path / "empty")), server.host())
        assert isinstance(error, HostKeyUnknown)
        assert server.host_key.fingerprint in str(error)
        assert "sshoal node trust web1" in error.hint

    asyncio.run(check())


def test_a_session_tells_the_key_that_its_host_has_proved_to_have(start_sshd: StartSshd) -> None:
    server = start_sshd()

    async def check() -> None:
        session = await TransportByHost(server.known_hosts()).connect(server.host())
        assert session.host_key == server.host_key.fingerprint
        await session.close()
        assert session.host_key == server.host_key.fingerprint, "it may have ended before anybody asks"

    asyncio.run(check())


def test_a_changed_host_key_shows_both_fingerprints(start_sshd: StartSshd) -> None:
    server = start_sshd()
    known = server.known_hosts()
    old = read_public_key(server.directory / "stranger_ed25519.pub")
    known.trust("127.0.0.1", server.port, [old])

    async def check() -> None:
        error = await refusal(TransportByHost(known), server.host())
        assert isinstance(error, HostKeyChanged)
        assert old.fingerprint in str(error)
        assert server.host_key.fingerprint in str(error)

    asyncio.run(check())


def test_a_host_that_no_longer_has_a_key_of_the_trusted_type_has_changed(start_sshd: StartSshd) -> None:
    server = start_sshd(HostKeyAlgorithms="ssh-ed25519")
    known = server.known_hosts()
    path = server.directory / "old_ecdsa"
    make_key(path, "ecdsa")
    known.trust("127.0.0.1", server.port, [read_public_key(path.with_suffix(".pub"))])

    async def check() -> None:
        assert isinstance(await refusal(TransportByHost(known), server.host()), HostKeyChanged)

    asyncio.run(check())


def test_a_known_hosts_file_that_the_inventory_names_is_read(start_sshd: StartSshd, tmp_path: Path) -> None:
    server = start_sshd()
    server.known_hosts("named")
    args = f"-o UserKnownHostsFile={server.directory / 'named'}"

    async def check() -> None:
        transport = TransportByHost(KnownHosts(tmp_path / "empty"))
        await (await transport.connect(server.host(ansible_ssh_common_args=args))).close()

    asyncio.run(check())


def test_lines_of_known_hosts_that_are_damaged_do_not_matter(start_sshd: StartSshd, tmp_path: Path) -> None:
    server = start_sshd()
    name = f"[127.0.0.1]:{server.port}"
    damaged = [
        f"{mark}{name} {type_} AAAA\n"
        for mark in ("", "@cert-authority ", "@revoked ")
        for type_ in ("ssh-ed25519", "ssh-new")
    ]
    known = tmp_path / "known"
    known.write_text("".join(damaged) + f"{name} {server.host_key.type} {server.host_key.base64}\n")

    async def check() -> None:
        await (await TransportByHost(KnownHosts(known)).connect(server.host())).close()

    asyncio.run(check())


def test_a_known_hosts_file_that_cannot_be_read_is_named_and_is_no_fault_of_the_network(
    start_sshd: StartSshd, tmp_path: Path
) -> None:
    server = start_sshd()
    args = f"-o UserKnownHostsFile={tmp_path}"

    async def check() -> None:
        transport = TransportByHost(KnownHosts(tmp_path / "empty"))
        for ask in (transport.connect, transport.scan_host_key):
            with pytest.raises(HostError) as caught:
                await ask(server.host(ansible_ssh_common_args=args))
            assert not isinstance(caught.value, HostUnreachable)
            assert caught.value.problem == f"{tmp_path}, on this machine: Is a directory"

    asyncio.run(check())


def test_a_host_key_alias_is_the_name_that_keys_are_known_by(start_sshd: StartSshd, tmp_path: Path) -> None:
    server = start_sshd()
    known = KnownHosts(tmp_path / "own")
    host = server.host(ansible_ssh_common_args="-o HostKeyAlias=the-web")

    async def check() -> None:
        transport = TransportByHost(known)
        scanned = await transport.scan_host_key(host)
        assert (scanned.host, scanned.port) == ("the-web", 22)
        known.trust(scanned.host, scanned.port, [scanned.key])
        await (await transport.connect(host)).close()

    asyncio.run(check())


def test_a_jump_host_that_is_not_trusted_is_scanned_before_the_host(start_sshd: StartSshd, tmp_path: Path) -> None:
    bastion, server = start_sshd(), start_sshd()
    known = KnownHosts(tmp_path / "own")
    (bastion.directory / "authorized_keys").write_text((server.directory / "client_ed25519.pub").read_text())
    host = server.host(ansible_ssh_common_args=f"-J root@127.0.0.1:{bastion.port}")

    async def check() -> None:
        transport = TransportByHost(known)
        assert "jump host" in str(await refusal(transport, host))
        for expected in (bastion.host_key, server.host_key):
            scanned = await transport.scan_host_key(host)
            assert (scanned.key, scanned.is_trusted) == (expected, False)
            known.trust(scanned.host, scanned.port, [scanned.key])
        assert (await transport.scan_host_key(host)).is_trusted
        await (await transport.connect(host)).close()
        await transport.close()

    asyncio.run(check())


def test_a_revoked_host_key_is_refused(start_sshd: StartSshd, tmp_path: Path) -> None:
    server = start_sshd()
    also = tmp_path / "also"
    also.write_text(f"@revoked * {server.host_key.type} {server.host_key.base64}\n")
    known = KnownHosts(server.directory / "known_hosts", [also])
    known.trust("127.0.0.1", server.port, [server.host_key])

    async def check() -> None:
        assert "revoked" in str(await refusal(TransportByHost(known), server.host()))

    asyncio.run(check())


def test_a_scan_shows_the_key_with_one_connection_and_trusting_it_opens_the_door(
    start_sshd: StartSshd, tmp_path: Path
) -> None:
    server = start_sshd()
    known = KnownHosts(tmp_path / "own")

    async def check() -> None:
        transport = TransportByHost(known)
        scanned = await transport.scan_host_key(server.host())
        assert scanned.key == server.host_key
        assert not scanned.is_trusted
        known.trust(scanned.host, scanned.port, [scanned.key])
        session = await transport.connect(server.host())
        await session.close()
        assert (await transport.scan_host_key(server.host())).is_trusted

    asyncio.run(check())
    log = (server.directory / "log").read_text()
    assert log.count("Connection closed by 127.0.0.1") + log.count("Received disconnect") >= 1


# ---- who we are -----------------------------------------------------------------------------------------------------


def test_a_refused_key_is_tried_exactly_once(start_sshd: StartSshd) -> None:
    server = start_sshd(LogLevel="VERBOSE")

    async def check() -> None:
        host = server.host(ansible_ssh_private_key_file=str(server.directory / "stranger_ed25519"))
        error = await refusal(TransportByHost(server.known_hosts()), host)
        assert isinstance(error, HostAuthFailed)
        assert "as root" in str(error)

    asyncio.run(check())
    assert (server.directory / "log").read_text().count("Failed publickey") == 1


def test_default_keys_are_offered_and_too_many_wrong_ones_are_a_refused_login(
    start_sshd: StartSshd, tmp_path: Path
) -> None:
    server = start_sshd(MaxAuthTries="2")
    home = tmp_path / "ssh"
    home.mkdir()
    for name in ("id_ed25519", "id_ecdsa", "id_rsa"):
        make_key(home / name, name.removeprefix("id_"))
    host = server.host(ansible_ssh_private_key_file="")

    async def check() -> None:
        error = await refusal(TransportByHost(server.known_hosts(), ssh_directory=home), host)
        assert isinstance(error, HostAuthFailed)
        (server.directory / "authorized_keys").write_text((home / "id_ed25519.pub").read_text())
        await (await TransportByHost(server.known_hosts(), ssh_directory=home).connect(host)).close()

    asyncio.run(check())


def test_a_missing_key_file_is_named(start_sshd: StartSshd) -> None:
    server = start_sshd()

    async def check() -> None:
        error = await refusal(
            TransportByHost(server.known_hosts()), server.host(ansible_ssh_private_key_file="/nowhere/key")
        )
        assert isinstance(error, HostAuthFailed)
        assert "/nowhere/key: No such file" in str(error)

    asyncio.run(check())


def test_the_ssh_config_of_the_user_gives_the_address_but_never_forwards_the_agent(
    start_sshd: StartSshd, tmp_path: Path
) -> None:
    server = start_sshd()
    home = tmp_path / "ssh"
    home.mkdir()
    (home / "config").write_text(
        f"Host nick\n HostName 127.0.0.1\n Port {server.port}\n User root\n ForwardAgent yes\n"
        f" IdentityFile {server.directory / 'client_ed25519'}\n"
    )

    async def check() -> None:
        transport = TransportByHost(server.known_hosts(), ssh_directory=home)
        session = await transport.connect(Host("nick", (), {"ansible_connection": server.connection}, "test:1"))
        done = await session.run('echo "agent=$SSH_AUTH_SOCK display=$DISPLAY"', become=False, timeout_s=10)
        await session.close()
        assert done.stdout == b"agent= display=\n"

    asyncio.run(check())


@ONLY_ASYNCSSH
@pytest.mark.parametrize(
    ("config", "cipher"),
    [
        ("", "aes128-gcm@openssh.com"),
        ("Host *\n Ciphers chacha20-poly1305@openssh.com\n", "chacha20-poly1305@openssh.com"),
    ],
    ids=["nothing said", "said by the user"],
)
def test_the_cheapest_cipher_is_taken_unless_the_ssh_config_of_the_user_names_another(
    start_sshd: StartSshd, tmp_path: Path, config: str, cipher: str
) -> None:
    server = start_sshd(LogLevel="DEBUG1")
    home = tmp_path / "ssh"
    home.mkdir()
    (home / "config").write_text(config)

    async def check() -> None:
        await (await TransportByHost(server.known_hosts(), ssh_directory=home).connect(server.host())).close()

    asyncio.run(check())
    assert f"kex: client->server cipher: {cipher} " in (server.directory / "log").read_text()


# ---- the way there --------------------------------------------------------------------------------------------------


def test_twenty_connects_at_once_all_succeed_on_a_server_that_limits_them(start_sshd: StartSshd) -> None:
    """Debian's MaxStartups is 10:30:100; this server refuses every connection above two: the retries must get all through."""
    server = start_sshd(MaxStartups="2:100:2")

    async def check() -> None:
        transport = TransportByHost(server.known_hosts())
        sessions = await asyncio.gather(*(transport.connect(server.host(f"web{number}")) for number in range(20)))
        for session in sessions:
            await session.close()

    asyncio.run(check())


def test_forty_connects_at_once_stay_below_debians_limit_for_unauthenticated_ones(start_sshd: StartSshd) -> None:
    """Every eleventh at once would be refused here, and the refusals counted in the log."""
    server = start_sshd(MaxStartups="10:100:10", LogLevel="VERBOSE")

    async def check() -> None:
        transport = TransportByHost(server.known_hosts())
        sessions = await asyncio.gather(*(transport.connect(server.host(f"web{number}")) for number in range(40)))
        for session in sessions:
            await session.close()
        await until(lambda: (server.directory / "log").read_text().count("Accepted publickey") >= 40)

    asyncio.run(check())
    log = (server.directory / "log").read_text()
    assert log.count("Accepted publickey") == 40
    assert "drop connection" not in log


def test_a_jump_host_is_used_and_shared(start_sshd: StartSshd) -> None:
    bastion, server = start_sshd(LogLevel="VERBOSE"), start_sshd()
    known = server.known_hosts()
    known.trust("127.0.0.1", bastion.port, [bastion.host_key])
    (bastion.directory / "authorized_keys").write_text((server.directory / "client_ed25519.pub").read_text())
    args = f"-J root@127.0.0.1:{bastion.port}"

    async def check() -> None:
        transport = TransportByHost(known)
        hosts = [server.host(f"web{number}", ansible_ssh_common_args=args) for number in range(5)]
        sessions = await asyncio.gather(*map(transport.connect, hosts))
        done = await sessions[0].run("echo $SSH_CONNECTION", become=False, timeout_s=10)
        assert done.stdout.split()[3] == str(server.port).encode()
        for session in sessions:
            await session.close()
        await transport.close()

    asyncio.run(check())
    assert (bastion.directory / "log").read_text().count("Accepted publickey") == 1


def test_a_dead_jump_host_fails_each_host_behind_it_by_its_own_name(start_sshd: StartSshd) -> None:
    server = start_sshd()
    args = f"-J root@127.0.0.1:{free_port()}"

    async def check() -> None:
        transport = TransportByHost(server.known_hosts())
        hosts = [server.host(name, ansible_ssh_common_args=args) for name in ("web1", "web2")]
        errors = await asyncio.gather(*map(transport.connect, hosts), return_exceptions=True)
        assert [type(error) for error in errors] == [HostUnreachable, HostUnreachable]
        assert [error.host for error in errors if isinstance(error, HostError)] == ["web1", "web2"]
        assert "jump host 127.0.0.1" in str(errors[1])

    asyncio.run(check())


def test_dead_hosts_behind_a_jump_host_keep_nobody_from_the_others(start_sshd: StartSshd) -> None:
    bastion, server = start_sshd(), start_sshd()
    known = server.known_hosts()
    known.trust("127.0.0.1", bastion.port, [bastion.host_key])
    (bastion.directory / "authorized_keys").write_text((server.directory / "client_ed25519.pub").read_text())
    jump = {"ansible_ssh_common_args": f"-J root@127.0.0.1:{bastion.port}"}

    async def check(silent_port: int) -> None:
        async with contextlib.AsyncExitStack() as at_the_end:
            transport = TransportByHost(known)
            at_the_end.push_async_callback(transport.close)
            session = await transport.connect(server.host("web0", **jump))
            at_the_end.push_async_callback(session.close)
            for number in range(1, 61):
                place = {"ansible_host": f"127.0.1.{number}", "ansible_port": silent_port}
                waiting = asyncio.create_task(transport.connect(server.host(f"dead{number}", **place, **jump)))
                at_the_end.callback(waiting.cancel)
            async with asyncio.timeout(8):
                while connecting_to(silent_port) < 60:
                    await asyncio.sleep(0.02)
            healthy = await transport.connect(server.host("web1", ansible_timeout=5, **jump))
            await healthy.close()

    with silent() as port:
        asyncio.run(check(port))


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port of every address of loopback at which connections neither open nor fail: its queue is full."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("0.0.0.0", 0), backlog=0))
        port = int(listener.getsockname()[1])
        opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        yield port


def connecting_to(port: int) -> int:
    """How many sockets of this machine wait for their connection to this port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(f":{port:04X}") and line[3] == SYN_SENT for line in lines)


def test_a_frozen_server_is_given_up_at_the_connect_timeout(start_sshd: StartSshd) -> None:
    server = start_sshd()
    for pid in server.processes():
        with contextlib.suppress(ProcessLookupError):  # the connection that saw the banner ends by itself
            os.kill(pid, signal.SIGSTOP)

    async def check() -> None:
        error = await refusal(TransportByHost(server.known_hosts()), server.host(ansible_timeout=1))
        assert isinstance(error, HostUnreachable)
        assert "no answer within 1 s" in str(error)

    asyncio.run(check())


def test_a_server_that_freezes_after_the_login_is_given_up_at_the_deadline_of_the_call(start_sshd: StartSshd) -> None:
    server = start_sshd()

    async def check() -> None:
        async with connected(server) as session:
            for pid in server.processes():
                with contextlib.suppress(ProcessLookupError):  # what the login began may just have ended
                    os.kill(pid, signal.SIGSTOP)
            with pytest.raises(HostUnreachable, match=r"no answer within 0.5 s"):
                await session.run("true", become=True, timeout_s=0.5)

    asyncio.run(check())


def test_a_server_that_freezes_in_a_conversation_is_noticed_by_its_missing_signs_of_life(
    start_sshd: StartSshd, agent: AgentPlaces, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-open connection: nothing arrives any more, and nobody says so. Nothing is asked but a read without a deadline."""
    module = {"ssh": "controller.act.ssh", "paramiko": "controller.act.paramiko_session"}[library]
    monkeypatch.setattr(f"{module}.KEEPALIVE_INTERVAL_S", 0.2)
    server = start_sshd()

    async def check() -> None:
        async with connected(server, agent) as session:
            channel = await session.open_channel(timeout_s=10)
            for pid in server.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            with pytest.raises(HostUnreachable):
                await channel.read()

    asyncio.run(check())


def test_nobody_listening_is_unreachable_at_once(start_sshd: StartSshd) -> None:
    server = start_sshd()

    async def check() -> None:
        error = await refusal(TransportByHost(server.known_hosts()), server.host(ansible_port=free_port()))
        assert isinstance(error, HostUnreachable)

    asyncio.run(check())
