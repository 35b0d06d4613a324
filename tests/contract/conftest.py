"""Real programs for the contract tests, private to this test run: Podman, OpenSSH's server, and something that answers as the agent."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from controller.act.transport import AgentPlaces
from tests.contract.podman_fixtures import private_podman, shared_podman  # noqa: F401  (fixtures)
from tests.contract.sshd import Sshd
from tests.contract.transports import StartSshd


@pytest.fixture(params=["ssh", "paramiko"])
def library(request: pytest.FixtureRequest) -> str:
    """What `ansible_connection` says."""
    return str(request.param)


@pytest.fixture
def start_sshd(tmp_path: Path, library: str) -> Iterator[StartSshd]:
    started: list[Sshd] = []

    def start(etc: Mapping[str, str] | None = None, **settings: str) -> Sshd:
        server = Sshd(tmp_path / f"sshd{len(started)}", settings, library, etc or {})
        started.append(server)
        return server.start()

    yield start
    left = threads_of_connections()
    for thread in left:
        thread.join(timeout=5)
    for server in started:
        server.stop()
    assert not [thread.name for thread in left if thread.is_alive()], "a closed connection left threads behind"


def threads_of_connections() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ssh ")]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentPlaces]:
    """A socket that answers in capitals, and a `current` whose `dial` relays to it."""
    places = AgentPlaces(str(tmp_path / "agent.sock"), str(tmp_path / "agent"))
    current = Path(places.current)
    current.mkdir(parents=True)
    (current / "__main__.py").write_text(RELAY.replace("SOCKET", places.socket))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(places.socket)
    listener.listen()
    thread = threading.Thread(target=_answer_in_capitals, args=(listener,))
    thread.start()
    yield places
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=10)


RELAY = """
import os, select, socket, sys
agent = socket.socket(socket.AF_UNIX)
agent.connect("SOCKET")
os.write(1, ("\\nsshoal-dial " + sys.argv[sys.argv.index("--nonce") + 1] + "\\n").encode())
while True:
    ready = select.select([0, agent], [], [])[0]
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            break
        agent.sendall(data)
    if agent in ready:
        data = agent.recv(65536)
        if not data:
            break
        os.write(1, data)
"""


def _answer_in_capitals(listener: socket.socket) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, contextlib.suppress(OSError):  # the other end may go in the middle of an answer
            while data := client.recv(65536):
                client.sendall(data.upper())
