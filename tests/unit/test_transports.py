"""Which SSH library a host gets, and when it is loaded."""

import subprocess
import sys

LOADED = "; print(*sorted({name.split('.')[0] for name in sys.modules} & {'asyncssh', 'paramiko'}))"
SETUP = """
import asyncio, sys
from pathlib import Path
import controller.cli.wiring
from controller.act.hostkeys import KnownHosts
from controller.act.transports import TransportByHost
from controller.model.errors import HostUnreachable
from controller.model.inventory import Host
transport = TransportByHost(KnownHosts(Path("/nonexistent")))
def connect(**variables):
    try:
        asyncio.run(transport.connect(Host("web1", (), {"ansible_host": "127.0.0.1", "ansible_port": 1, **variables}, "test:1")))
    except HostUnreachable:
        pass
"""


def loaded_by(statement: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{SETUP}\n{statement}{LOADED}"], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.split()


def test_no_ssh_library_is_loaded_before_a_host_asks_for_it() -> None:
    assert loaded_by("pass") == []


def test_a_host_gets_asyncssh_unless_it_asks_for_paramiko() -> None:
    assert loaded_by("connect()") == ["asyncssh"]
    assert loaded_by("connect(ansible_connection='smart')") == ["asyncssh"]
    assert loaded_by("connect(ansible_connection='paramiko')") == ["paramiko"]
