"""Who we are to a host: keys, certificates, the ssh-agent, passwords, sudo. Against OpenSSH's own server, for each SSH library."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.act.hostkeys import KnownHosts
from controller.act.transport import AgentPlaces
from controller.act.transports import TransportByHost
from controller.model.errors import HostAuthFailed, HostKeyUnknown, HostNotReady
from tests.agent_peer import until
from tests.contract.sshd import SSHD, Sshd, make_key, read_public_key
from tests.contract.transports import ONLY_ASYNCSSH, ONLY_PARAMIKO, StartSshd, connected, refusal

if os.geteuid() != 0 or not Path(SSHD).exists():
    pytest.skip("needs root and openssh-server (apt-get install openssh-server)", allow_module_level=True)

PASSWORD = "fish-41"


def accounts(sudoers: str = "") -> dict[str, str]:
    """/etc with a user `deploy` whose password is PASSWORD."""
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()
    return {
        "passwd": Path("/etc/passwd").read_text() + "deploy:x:4242:4242::/tmp:/bin/sh\n",
        "group": Path("/etc/group").read_text() + "deploy:x:4242:\n",
        "shadow": Path("/etc/shadow").read_text() + f"deploy:{hashed}:19000:0:99999:7:::\n",
        "sudoers": f"root ALL=(ALL:ALL) ALL\n{sudoers}\n",
    }


AS_DEPLOY = {"ansible_user": "deploy", "ansible_password": PASSWORD, "ansible_ssh_private_key_file": ""}


def encrypt(key: Path, passphrase: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", key], check=True, timeout=10)


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_a_key_in_the_home_of_a_user_that_there_is_not_is_one_that_is_not_there(start_sshd: StartSshd) -> None:
    server = start_sshd()
    host = server.host(ansible_ssh_private_key_file="~nobody-here/key")
    error = asyncio.run(refusal(TransportByHost(server.known_hosts()), host))
    assert isinstance(error, HostAuthFailed)
    assert "/~nobody-here/key: No such file" in error.problem and "ansible_ssh_private_key_file" in error.hint


def test_an_encrypted_key_is_opened_by_its_passphrase(start_sshd: StartSshd) -> None:
    server = start_sshd()
    encrypt(server.directory / "client_ed25519", PASSWORD)

    async def check() -> None:
        async with connected(server, ansible_ssh_private_key_passphrase=PASSWORD) as session:
            assert (await session.run("id -un", become=False, timeout_s=10)).stdout == b"root\n"

    asyncio.run(check())


@pytest.mark.parametrize(
    ("passphrase", "says"), [("wrong", "the passphrase does not open it"), ("", "has a passphrase, and no ssh-agent")]
)
def test_an_encrypted_key_that_cannot_be_opened_is_said_so_before_anything_is_sent(
    start_sshd: StartSshd, passphrase: str, says: str
) -> None:
    server = start_sshd(LogLevel="VERBOSE")
    before = (server.directory / "log").read_text().count("Connection from")
    encrypt(server.directory / "client_ed25519", PASSWORD)
    variables = {"ansible_ssh_private_key_passphrase": passphrase} if passphrase else {}

    async def check() -> None:
        error = await refusal(TransportByHost(server.known_hosts()), server.host(**variables))
        assert isinstance(error, HostAuthFailed)
        assert says in str(error)
        assert str(server.directory / "client_ed25519") in str(error)

    asyncio.run(check())
    assert (server.directory / "log").read_text().count("Connection from") == before


@pytest.mark.parametrize("named", [False, True])
def test_a_host_with_the_passphrase_gets_in_after_one_without_it(
    start_sshd: StartSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    """`named`: by the inventory; else ~/.ssh/config names the key for the first host."""
    server = start_sshd()
    key = server.directory / "client_ed25519"
    encrypt(key, PASSWORD)
    (tmp_path / "ssh").mkdir()
    (tmp_path / "ssh" / "config").write_text(f"IdentityFile {key}\n")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nobody"))

    async def check() -> None:
        transport = TransportByHost(server.known_hosts(), ssh_directory=tmp_path / "ssh")
        without = server.host("web1", ansible_ssh_private_key_file=str(key) if named else "")
        assert isinstance(await refusal(transport, without), HostAuthFailed)
        await (await transport.connect(server.host("web2", ansible_ssh_private_key_passphrase=PASSWORD))).close()
        await transport.close()

    asyncio.run(check())


def test_a_file_that_is_no_key_is_said_so(start_sshd: StartSshd) -> None:
    server = start_sshd()
    (server.directory / "client_ed25519").write_text("hello\n")

    async def check() -> None:
        error = await refusal(TransportByHost(server.known_hosts()), server.host())
        assert "is not a private key" in str(error)

    asyncio.run(check())


@pytest.mark.parametrize("type_", ["rsa", "ecdsa"])
def test_other_types_of_keys_log_in_too(start_sshd: StartSshd, type_: str) -> None:
    server = start_sshd()
    make_key(server.directory / "other", type_)
    server.authorize("other")

    async def check() -> None:
        async with connected(server, ansible_ssh_private_key_file=str(server.directory / "other")) as session:
            assert (await session.run("id -un", become=False, timeout_s=10)).stdout == b"root\n"

    asyncio.run(check())


def test_a_certificate_beside_the_key_is_offered(start_sshd: StartSshd, tmp_path: Path) -> None:
    authority = tmp_path / "authority"
    make_key(authority)
    server = start_sshd(TrustedUserCAKeys=f"{authority}.pub")
    (server.directory / "authorized_keys").write_text("")
    sign(authority, server.directory / "client_ed25519.pub", "-n", "root")

    async def check() -> None:
        async with connected(server) as session:
            assert (await session.run("id -un", become=False, timeout_s=10)).stdout == b"root\n"

    asyncio.run(check())
    assert "CA ED25519" in (server.directory / "log").read_text()


def sign(authority: Path, public: Path, *options: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "test", *options, public], check=True, timeout=10)


def with_host_certificate(start_sshd: StartSshd, tmp_path: Path) -> tuple[Sshd, KnownHosts]:
    authority, key = tmp_path / "authority", tmp_path / "host"
    make_key(authority)
    make_key(key)
    sign(authority, key.with_suffix(".pub"), "-h", "-n", "127.0.0.1")
    server = start_sshd(HostKey=str(key), HostCertificate=f"{key}-cert.pub")
    also = tmp_path / "also"
    also.write_text(f"@cert-authority * {authority.with_suffix('.pub').read_text()}")
    return server, KnownHosts(tmp_path / "own", [also])


@ONLY_ASYNCSSH
def test_a_host_is_trusted_through_its_certificate_authority(start_sshd: StartSshd, tmp_path: Path) -> None:
    server, known = with_host_certificate(start_sshd, tmp_path)

    async def check() -> None:
        session = await TransportByHost(known).connect(server.host())
        assert session.host_key == read_public_key(tmp_path / "host.pub").fingerprint
        await session.close()

    asyncio.run(check())


@ONLY_PARAMIKO
def test_paramiko_trusts_no_certificate_of_a_host_and_says_that_its_key_is_unknown(
    start_sshd: StartSshd, tmp_path: Path
) -> None:
    server, known = with_host_certificate(start_sshd, tmp_path)

    async def check() -> None:
        assert isinstance(await refusal(TransportByHost(known), server.host()), HostKeyUnknown)

    asyncio.run(check())


# ---- the ssh-agent --------------------------------------------------------------------------------------------------


@pytest.fixture
def ssh_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = tmp_path / "ssh-agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()  # it says where it listens once it does
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield
        agent.terminate()


@pytest.mark.usefixtures("ssh_agent")
@pytest.mark.parametrize("named", [False, True])
def test_the_ssh_agent_opens_what_no_passphrase_is_given_for(
    start_sshd: StartSshd, tmp_path: Path, named: bool
) -> None:
    server = start_sshd()
    key = server.directory / "client_ed25519"
    subprocess.run(["ssh-add", "-q", key], check=True, timeout=10, stdin=subprocess.DEVNULL)
    encrypt(key, PASSWORD)

    async def check() -> None:
        transport = TransportByHost(server.known_hosts(), ssh_directory=tmp_path / "ssh")
        host = server.host(ansible_ssh_private_key_file=str(key) if named else "")
        session = await transport.connect(host)
        assert (await session.run('echo "$SSH_AUTH_SOCK"', become=False, timeout_s=10)).stdout == b"\n"
        await session.close()

    asyncio.run(check())


# ---- passwords ------------------------------------------------------------------------------------------------------

WAYS = {
    "password": {"PasswordAuthentication": "yes"},
    "keyboard-interactive": {"UsePAM": "yes", "KbdInteractiveAuthentication": "yes"},
}


@pytest.mark.parametrize("settings", [pytest.param(settings, id=name) for name, settings in WAYS.items()])
def test_a_password_logs_in(start_sshd: StartSshd, settings: dict[str, str]) -> None:
    server = start_sshd(accounts(), **settings)

    async def check() -> None:
        async with connected(server, **AS_DEPLOY) as session:
            assert (await session.run("id -un", become=False, timeout_s=10)).stdout == b"deploy\n"

    asyncio.run(check())


def test_a_wrong_password_is_sent_once_and_is_in_no_error(start_sshd: StartSshd) -> None:
    server = start_sshd(accounts(), PasswordAuthentication="yes", LogLevel="VERBOSE")

    async def check() -> None:
        host = server.host(**{**AS_DEPLOY, "ansible_password": "canary-7"})
        error = await refusal(TransportByHost(server.known_hosts()), host)
        assert isinstance(error, HostAuthFailed)
        assert "canary" not in str(error) + error.hint
        await until(lambda: "Failed password" in (server.directory / "log").read_text())  # after its answer

    asyncio.run(check())
    assert (server.directory / "log").read_text().count("Failed password") == 1


# ---- sudo -----------------------------------------------------------------------------------------------------------


def test_sudo_without_a_password_becomes_root(start_sshd: StartSshd, agent: AgentPlaces) -> None:
    server = start_sshd(accounts("deploy ALL=(ALL) NOPASSWD: ALL"), PasswordAuthentication="yes")

    async def check() -> None:
        async with connected(server, agent, **AS_DEPLOY) as session:
            assert (await session.run("id -un; cat", stdin=b"in", become=True, timeout_s=10)).stdout == b"root\nin"
            channel = await session.open_channel(timeout_s=10)
            await channel.write(b"hello")
            assert await channel.read() == b"HELLO"
            channel.close()

    asyncio.run(check())


def test_sudo_with_a_password_gets_it_only_when_it_asks(start_sshd: StartSshd, agent: AgentPlaces) -> None:
    """The script reads what is left of standard input: a password that nobody asked for would be in it."""
    for sudoers in ("deploy ALL=(ALL) ALL\nDefaults timestamp_timeout=0", "deploy ALL=(ALL) NOPASSWD: ALL"):
        server = start_sshd(accounts(sudoers), PasswordAuthentication="yes")

        async def check(server: Sshd = server) -> None:
            async with connected(server, agent, **AS_DEPLOY, ansible_become_password=PASSWORD) as session:
                done = await session.run("id -un; cat", stdin=b"in", become=True, timeout_s=20)
                assert (done.stdout, done.stderr) == (b"root\nin", b"")
                channel = await session.open_channel(timeout_s=20)
                await channel.write(b"hello")
                assert await channel.read() == b"HELLO"
                channel.close()

        asyncio.run(check())


def test_a_wrong_password_of_sudo_is_one_guess_and_no_line_of_the_script_another(
    start_sshd: StartSshd, tmp_path: Path
) -> None:
    log = tmp_path / "sudo.log"
    server = start_sshd(accounts(f"deploy ALL=(ALL) ALL\nDefaults logfile={log}"), PasswordAuthentication="yes")

    async def check() -> None:
        async with connected(server, **AS_DEPLOY, ansible_become_password="wrong") as session:
            with pytest.raises(HostNotReady, match="does not accept the password"):
                await session.run("true\ntrue\ntrue\n", become=True, timeout_s=30)
            await until(lambda: log.exists() and "incorrect password" in log.read_text())

    asyncio.run(check())
    assert "1 incorrect password attempt ;" in log.read_text()


@pytest.mark.parametrize(
    ("sudoers", "password", "says"),
    [
        pytest.param("deploy ALL=(ALL) ALL", "", "sudo wants a password", id="no password"),
        pytest.param("deploy ALL=(ALL) ALL", "wrong", "sudo does not accept the password", id="wrong password"),
        pytest.param("", PASSWORD, "sudo does not let this user become root", id="not in sudoers"),
    ],
)
def test_a_refusal_of_sudo_is_said_so_with_what_to_do(
    start_sshd: StartSshd, sudoers: str, password: str, says: str
) -> None:
    server = start_sshd(accounts(sudoers), PasswordAuthentication="yes")
    variables = {"ansible_become_password": password} if password else {}

    async def check() -> None:
        async with connected(server, **AS_DEPLOY, **variables) as session:
            with pytest.raises(HostNotReady, match=says) as caught:
                await session.run("true", become=True, timeout_s=20)
            assert caught.value.hint
            with pytest.raises(HostNotReady, match=says):
                await session.open_channel(timeout_s=20)

    asyncio.run(check())


def test_a_become_user_that_there_is_not_is_told_in_the_words_of_sudo(start_sshd: StartSshd) -> None:
    """The login shell has nothing to do with it."""
    server = start_sshd(accounts("deploy ALL=(ALL) NOPASSWD: ALL"), PasswordAuthentication="yes")

    async def check() -> None:
        async with connected(server, None, **AS_DEPLOY, ansible_become_user="nobody-here") as session:
            with pytest.raises(HostNotReady, match=r"sudo runs nothing there: .*unknown user.*nobody-here") as caught:
                await session.run("true", become=True, timeout_s=20)
            assert "sudo -u nobody-here true" in caught.value.hint

    asyncio.run(check())
