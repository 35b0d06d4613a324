"""Real hosts become nodes and stop being nodes: push, upgrade, return to the old agent, cut pushes, sudo, forget."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import io
import tarfile
import zlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.act import bootstrap, bundle
from controller.act.agents import AgentClient, Picture
from controller.act.bootstrap import AgentNotUp, Pushed, preflight, push, push_all
from controller.act.bundle import Bundle
from controller.act.hostkeys import KnownHosts
from controller.act.ssh import AsyncsshTransport
from controller.act.transport import Channel, Completed, Session
from controller.model.errors import HostError, HostNotReady
from controller.model.inventory import Host
from lab.host import LabHost
from lab.lab import Lab
from nodeagent.protocol import Container, Epoch, ForgetRequest, Hello, NodeConfig, Pod, WantedSet

CLUSTER = "5f3c1d9e-0000-4000-8000-000000000001"
EPOCH = Epoch(1, "first")


@pytest.fixture(scope="module")
def built() -> Bundle:
    return bundle.build()


@pytest.fixture
def bare(lab3: Lab) -> Iterator[Lab]:
    """The lab with nothing of ours on its hosts, before and after."""
    asyncio.run(on_all(lab3, wipe))
    yield lab3
    asyncio.run(on_all(lab3, wipe))


async def on_all(lab: Lab, work: Callable[[Session, Host], Coroutine[Any, Any, None]]) -> None:
    transport = transport_of(lab)
    for lab_host in lab.hosts:
        host = entry(lab, lab_host)
        session = await transport.connect(host)
        await work(session, host)
        await session.close()


async def wipe(session: Session, _: Host) -> None:
    await bootstrap.forget(session, None, timeout_s=60)


def transport_of(lab: Lab) -> AsyncsshTransport:
    return AsyncsshTransport(KnownHosts(lab.directory / "known_hosts.ours", [lab.known_hosts]))


def entry(lab: Lab, host: LabHost, user: str = "root", **variables: Any) -> Host:
    """The host as an inventory has it: for root, or for an ordinary user with sudo."""
    login: dict[str, Any] = {
        "ansible_host": str(host.address),
        "ansible_user": user,
        "ansible_ssh_private_key_file": str(lab.root_key if user == "root" else lab.user_key),
        "ansible_become": user != "root",
    }
    return Host(host.name, (), {**login, **variables}, "test:1")


def run_with(lab: Lab, work: Callable[[Session, Host], Coroutine[Any, Any, None]], user: str = "root") -> None:
    """Runs `work` with a session to the lab's first host."""

    async def main() -> None:
        host = entry(lab, lab.hosts[0], user)
        session = await transport_of(lab).connect(host)
        try:
            await work(session, host)
        finally:
            await session.close()

    asyncio.run(main())


class CountingSession:
    """A session that counts the scripts it runs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.host_name = session.host_name
        self.is_closed = False
        self.scripts = 0

    async def run(self, script: str, *, stdin: bytes = b"", become: bool, timeout_s: float) -> Completed:
        self.scripts += 1
        return await self._session.run(script, stdin=stdin, become=become, timeout_s=timeout_s)

    async def open_channel(self, timeout_s: float) -> Channel:
        return await self._session.open_channel(timeout_s)

    async def close(self) -> None:
        await self._session.close()


def variant(built: Bundle, name: str, text: str) -> Bundle:
    """Another version of the agent: `built` with the file `name` replaced."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(zlib.decompress(built.packed))) as old,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for member in old.getmembers():
            file = old.extractfile(member)
            content = text.encode() if member.name == name else file.read() if file else b""
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    archive = buffer.getvalue()
    return dataclasses.replace(built, digest=hashlib.sha256(archive).hexdigest(), packed=zlib.compress(archive, 1))


def newer(built: Bundle, number: int = 0) -> Bundle:
    return variant(built, "nodeagent/__init__.py", f'"""Version {number}."""\n')


async def hello(session: Session) -> Hello:
    client = AgentClient(session.host_name, await session.open_channel(10))
    try:
        return await client.hello(10)
    finally:
        client.close()


def one_pod(image: str) -> WantedSet:
    pod = Pod(
        "11111111-1111-4111-8111-111111111111", "default", "web-1", "h1", (Container("web", image, pull="Never"),)
    )
    node = NodeConfig("node1", "10.86.1.0/24", "10.86.0.0/16")
    return WantedSet(CLUSTER, EPOCH, 1, "digest-1", node, (dataclasses.replace(pod, grace_s=1),))


async def run_pod(session: Session, image: str) -> None:
    """Has the agent run one pod, and returns when it says that it is running."""
    client = AgentClient(session.host_name, await session.open_channel(10))
    picture = Picture(session.host_name)
    try:
        await client.want(one_pod(image), 20)
        async with asyncio.timeout(40):
            while [pod.phase for pod in picture.pods.values()] != ["Running"]:
                picture.update(await client.report(picture.cursor, wait_s=5, timeout_s=15))
    finally:
        client.close()


async def containers(session: Session) -> bytes:
    """Name and process of each running container of ours."""
    script = "podman ps --filter label=sshoal.dev/cluster --format '{{.Names}} {{.Pid}} {{.StartedAt}}' | sort"
    return (await session.run(script, become=True, timeout_s=30)).stdout


# ---- push -----------------------------------------------------------------------------------------------------------


def test_three_fresh_hosts_get_the_agent_and_a_second_push_is_one_round_trip_each(bare: Lab, built: Bundle) -> None:
    async def check() -> None:
        transport = transport_of(bare)
        hosts = [entry(bare, host) for host in bare.hosts]
        sessions = [CountingSession(await transport.connect(host)) for host in hosts]
        assert await push_all(list(zip(sessions, hosts, strict=True)), built) == {
            host.name: Pushed(changed=True) for host in hosts
        }
        assert {(await hello(session)).bundle for session in sessions} == {built.digest}
        for session, host in zip(sessions, hosts, strict=True):
            session.scripts = 0
            assert await push(session, built, host) == Pushed(changed=False)
            assert session.scripts == 1
            await session.close()

    asyncio.run(check())


def test_an_ordinary_user_with_sudo_pushes_and_talks_to_the_agent(bare: Lab, built: Bundle) -> None:
    async def work(session: Session, host: Host) -> None:
        facts = await preflight(session, host)
        assert facts.python >= (3, 9)
        assert facts.version("podman") >= (4, 0)
        assert await push(session, built, host) == Pushed(changed=True)
        assert (await hello(session)).bundle == built.digest

    run_with(bare, work, "ubuntu")


def test_an_archive_with_one_bit_flipped_is_never_unpacked(bare: Lab, built: Bundle) -> None:
    async def work(session: Session, host: Host) -> None:
        for position in (0, 100, len(built.packed) // 2, len(built.packed) - 1):
            packed = bytearray(built.packed)
            packed[position] ^= 1
            with pytest.raises(HostNotReady, match="nothing of it was run"):
                await push(session, dataclasses.replace(built, packed=bytes(packed)), host)
        left = await session.run(
            "find /var/lib/sshoal -type f; ls /etc/systemd/system | grep -E 'sshoal-(agent|podman)'",
            become=True,
            timeout_s=10,
        )
        assert left.stdout == b"/var/lib/sshoal/agent/push.lock\n"

    run_with(bare, work)


def test_a_directory_that_others_may_write_to_is_refused(bare: Lab, built: Bundle) -> None:
    async def work(session: Session, host: Host) -> None:
        await session.run("mkdir -m 777 /var/lib/sshoal", become=True, timeout_s=10)
        with pytest.raises(HostNotReady, match="of root that nobody else may write to"):
            await push(session, built, host)

    run_with(bare, work)


def test_an_upgrade_and_a_failed_one_touch_no_pod(bare: Lab, built: Bundle, test_images: dict[str, str]) -> None:
    async def work(session: Session, host: Host) -> None:
        await push(session, built, host)
        await run_pod(session, test_images["v1"])
        before = await containers(session)
        assert before

        assert await push(session, newer(built), host) == Pushed(changed=True)
        upgraded = await hello(session)
        assert upgraded.bundle == newer(built).digest

        broken = variant(built, "nodeagent/main.py", "raise SystemExit('this version is broken')\n")
        with pytest.raises(AgentNotUp, match="the former agent is in charge again") as caught:
            await push(session, broken, host)
        assert "this version is broken" in str(caught.value)
        assert (await hello(session)).bundle == newer(built).digest
        assert (await hello(session)).agent == upgraded.agent

        assert await containers(session) == before

    run_with(bare, work)


def test_a_broken_agent_stops_at_the_canary(bare: Lab, built: Bundle) -> None:
    async def check() -> None:
        transport = transport_of(bare)
        hosts = [entry(bare, host) for host in bare.hosts]
        sessions = [CountingSession(await transport.connect(host)) for host in hosts]
        broken = variant(built, "nodeagent/main.py", "raise SystemExit('this version is broken')\n")
        results = await push_all(list(zip(sessions, hosts, strict=True)), broken)
        assert isinstance(results["node1"], AgentNotUp)
        assert "no agent is in charge" in str(results["node1"])
        assert [str(results[name]) for name in ("node2", "node3")] == [
            f"{name}: not tried, since the agent did not come up on node1" for name in ("node2", "node3")
        ]
        assert [session.scripts for session in sessions[1:]] == [0, 0]
        for session in sessions:
            await session.close()

    asyncio.run(check())


@pytest.mark.parametrize("after_s", [0.02, 0.08, 0.2, 0.5, 1.0])
def test_a_push_cut_anywhere_leaves_an_agent_in_charge_and_the_next_completes(
    bare: Lab, built: Bundle, after_s: float
) -> None:
    """The connection is cut under the push, as a lost network does; the host's own script may go on or not."""

    async def check() -> None:
        transport, host = transport_of(bare), entry(bare, bare.hosts[0])
        session = await transport.connect(host)
        await push(session, built, host)
        doomed = await transport.connect(host)
        pushing = asyncio.ensure_future(push(doomed, newer(built), host))
        await asyncio.wait([pushing], timeout=after_s)
        pushing.cancel()
        await doomed.close()
        await asyncio.gather(pushing, return_exceptions=True)
        await push(session, newer(built), host)
        assert (await hello(session)).bundle == newer(built).digest
        left = await session.run("ls -A /var/lib/sshoal/agent", become=True, timeout_s=10)
        assert left.stdout.split() == [b"current", b"push.lock", b"versions"]
        await session.close()

    asyncio.run(check())


def test_a_host_whose_power_is_cut_under_a_push_comes_back_with_an_agent(whole_lab3: Lab, built: Bundle) -> None:
    async def start() -> None:
        transport, host = transport_of(whole_lab3), entry(whole_lab3, whole_lab3.hosts[0])
        session = await transport.connect(host)
        await wipe(session, host)
        await push(session, built, host)
        pushing = asyncio.ensure_future(push(session, newer(built), host))
        await asyncio.wait([pushing], timeout=0.3)
        await asyncio.to_thread(whole_lab3.kill, "node1")
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)
        await session.close()

    async def finish() -> None:
        transport, host = transport_of(whole_lab3), entry(whole_lab3, whole_lab3.hosts[0])
        session = await transport.connect(host)
        assert (await hello_within(session, 30)).bundle in (built.digest, newer(built).digest)
        await push(session, newer(built), host)
        assert (await hello(session)).bundle == newer(built).digest
        await wipe(session, host)
        await session.close()

    asyncio.run(start())
    whole_lab3.start("node1")
    asyncio.run(finish())


async def hello_within(session: Session, timeout_s: float) -> Hello:
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await hello(session)
            except HostError:
                await asyncio.sleep(0.2)


# ---- what a host may lack -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "spoil", "mend", "message"),
    [
        ({"ansible_python_interpreter": "/opt/none/python3"}, "true", "true", "no Python at /opt/none/python3"),
        ({"ansible_python_interpreter": "/bin/false"}, "true", "true", "a Python that does not start"),
        (
            {"ansible_python_interpreter": "/usr/local/bin/oldpython"},
            "printf '#!/bin/sh\\necho 3.7.3\\n' >/usr/local/bin/oldpython; chmod 755 /usr/local/bin/oldpython",
            "rm /usr/local/bin/oldpython",
            "is 3.7.3; the agent needs 3.9",
        ),
        (
            {},
            "mv /usr/bin/podman /usr/bin/podman.away",
            "mv /usr/bin/podman.away /usr/bin/podman",
            "Podman is not installed",
        ),
        (
            {},
            "printf '#!/bin/sh\\necho podman version 3.4.4\\n' >/usr/local/bin/podman; chmod 755 /usr/local/bin/podman",
            "rm /usr/local/bin/podman",
            "its Podman is 3.4.4; 4.0 is needed",
        ),
        (
            {},
            "mount -t tmpfs -o size=1m tmpfs /var/lib/",
            "umount /var/lib",
            "only 1 MiB are free",
        ),
    ],
    ids=["no python", "broken python", "old python", "no podman", "old podman", "full disk"],
)
def test_preflight_says_what_is_missing(
    lab3: Lab, variables: dict[str, Any], spoil: str, mend: str, message: str
) -> None:
    async def check() -> None:
        host = entry(lab3, lab3.hosts[0], **variables)
        session = await transport_of(lab3).connect(host)
        await session.run(spoil, become=True, timeout_s=10)
        try:
            with pytest.raises(HostNotReady) as caught:
                await preflight(session, host)
            assert message in str(caught.value)
            assert caught.value.hint
        finally:
            await session.run(mend, become=True, timeout_s=10)
            await session.close()

    asyncio.run(check())


SUDO_RULES = Path("/etc/sudoers.d/zz-test")


@pytest.mark.parametrize(
    ("rule", "password", "message"),
    [
        ("ubuntu ALL=(ALL) ALL", None, "sudo wants a password"),
        ("ubuntu ALL=(ALL) ALL", "wrong", "sudo does not accept the password"),
        ("Defaults:ubuntu requiretty", None, "sudo wants a terminal (requiretty)"),
        ("ubuntu ALL=(ALL) !ALL", "opensesame", "sudo does not let this user become root"),
    ],
    ids=["password", "wrong password", "requiretty", "not allowed"],
)
def test_each_refusal_of_sudo_is_told_apart(lab3: Lab, rule: str, password: str | None, message: str) -> None:
    with sudo_rule(lab3.hosts[0], rule):
        error = asyncio.run(sudo_error(lab3, password))
    assert message in str(error)
    assert error.hint


def test_the_become_password_is_fed_and_never_shown(lab3: Lab) -> None:
    async def check() -> None:
        host = entry(lab3, lab3.hosts[0], "ubuntu", ansible_become_password="opensesame")
        session = await transport_of(lab3).connect(host)
        done = await session.run("id -un; cat; ps axww -o args", stdin=b"input\n", become=True, timeout_s=20)
        assert done.stdout.startswith(b"root\ninput\n")
        assert b"opensesame" not in done.stdout + done.stderr
        await session.close()

    with sudo_rule(lab3.hosts[0], "ubuntu ALL=(ALL) ALL"):
        asyncio.run(check())
    asyncio.run(check())  # and where sudo asks for none, the password does not end up in the script's input


class sudo_rule:
    """A line of sudoers that comes after all others, and a password for ubuntu, for a while."""

    def __init__(self, host: LabHost, rule: str) -> None:
        self._host = host
        self._rule = rule

    def __enter__(self) -> None:
        self._host.run(f"echo '{self._rule}' >{SUDO_RULES}; echo ubuntu:opensesame | chpasswd")

    def __exit__(self, *_: object) -> None:
        self._host.run(f"rm {SUDO_RULES}")


async def sudo_error(lab: Lab, password: str | None) -> HostNotReady:
    variables = {} if password is None else {"ansible_become_password": password}
    session = await transport_of(lab).connect(entry(lab, lab.hosts[0], "ubuntu", **variables))
    try:
        with pytest.raises(HostNotReady) as caught:
            await session.run("true", become=True, timeout_s=20)
        return caught.value
    finally:
        await session.close()


# ---- forget ---------------------------------------------------------------------------------------------------------

LEFT_BEHIND = """ls -d /var/lib/sshoal /run/sshoal /etc/systemd/system/sshoal-[ap]* /etc/systemd/system/*/sshoal-[ap]* 2>/dev/null
podman ps --all --external --noheading; podman pod ps --noheading; podman network ls --quiet | grep sshoal
systemctl list-units --all --no-legend 'sshoal-[ap]*'; awk '$2 ~ /sshoal/' /proc/mounts; pgrep -fl /var/lib/sshoal"""


@pytest.mark.parametrize("user", ["root", "ubuntu"])
def test_a_forgotten_host_has_nothing_of_ours_left(
    bare: Lab, built: Bundle, test_images: dict[str, str], user: str
) -> None:
    async def work(session: Session, host: Host) -> None:
        await push(session, built, host)
        await run_pod(session, test_images["v1"])
        assert await containers(session)
        await bootstrap.forget(session, ForgetRequest(CLUSTER, EPOCH), timeout_s=60)
        assert (await session.run(LEFT_BEHIND, become=True, timeout_s=30)).stdout == b""

    run_with(bare, work, user)


def test_a_host_whose_agent_is_dead_can_be_forgotten_too(bare: Lab, built: Bundle, test_images: dict[str, str]) -> None:
    async def work(session: Session, host: Host) -> None:
        await push(session, built, host)
        await run_pod(session, test_images["v1"])
        await session.run("systemctl disable --now sshoal-agent", become=True, timeout_s=40)
        await bootstrap.forget(session, None, timeout_s=60)
        assert (await session.run(LEFT_BEHIND, become=True, timeout_s=30)).stdout == b""

    run_with(bare, work)


def test_forgetting_leaves_containers_of_others_alone(bare: Lab, built: Bundle, test_images: dict[str, str]) -> None:
    async def work(session: Session, host: Host) -> None:
        await push(session, built, host)
        image = test_images["v1"]
        await session.run(f"podman run -d --name stranger --network none {image}", become=True, timeout_s=30)
        await bootstrap.forget(session, None, timeout_s=60)
        names = await session.run(
            "podman ps --format '{{.Names}}'; podman rm -f -t 0 stranger", become=True, timeout_s=30
        )
        assert names.stdout.split()[0] == b"stranger"

    run_with(bare, work)
