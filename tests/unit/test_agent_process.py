"""The agent as a process: started from an unpacked bundle as its unit does it, told apart from a second one, ended without a trace."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nodeagent import main, protocol
from nodeagent.main import Paths, host_capacity, take_lock

PACKAGE = Path(main.__file__).parent
START = """
import sys
from pathlib import Path
for folder in {path!r}:
    sys.path.append(folder)
from nodeagent import main
sys.exit(main.main(["{command}"], main.Paths(state=Path("{root}/state"), run=Path("{root}/run"))))
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """As pushed: versions/<digest> with the package and its __main__, and a link `current`."""
    unpacked = tmp_path / "agent" / "versions" / "ab12cd"
    unpacked.mkdir(parents=True)
    (unpacked / "nodeagent").symlink_to(PACKAGE)
    (unpacked / "__main__.py").write_text((PACKAGE / "__main__.py").read_text())
    (tmp_path / "agent" / "current").symlink_to("versions/ab12cd")
    return tmp_path / "agent" / "current"


def start(command: str, root: Path, **options: Any) -> subprocess.Popen[bytes]:
    script = START.format(command=command, root=root, path=[str(PACKAGE.parent), *sys.path[1:]])
    return subprocess.Popen(
        [sys.executable, "-I", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_a_bundle_directory_runs_under_isolated_python(bundle: Path) -> None:
    done = subprocess.run([sys.executable, "-I", str(bundle), "version"], capture_output=True, check=True, cwd="/")
    assert json.loads(done.stdout)["protocol"] == list(protocol.VERSION)


def test_dial_loads_nothing_of_the_agent_but_itself(bundle: Path) -> None:
    """It is started for every connection."""
    argv = [sys.executable, "-I", "-X", "importtime", str(bundle), "dial", "--socket", "/nonexistent", "--nonce", "n"]
    done = subprocess.run(argv, capture_output=True, check=False, cwd="/")
    assert done.returncode == 69
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines() if "|" in line}
    assert {name for name in loaded if name.startswith("nodeagent")} == {"nodeagent", "nodeagent.dial"}
    assert not loaded & {"asyncio", "json", "logging", "ssl", "dataclasses"}


@pytest.mark.parametrize("arguments", [[], ["what"], ["run", "more"]])
def test_anything_else_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == 2
    assert "usage: run | dial" in capsys.readouterr().err


def test_hello_without_an_agent_fails_and_says_where_it_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["hello"], Paths(tmp_path, tmp_path)) == 1
    assert str(tmp_path / "agent.sock") in capsys.readouterr().err


def test_the_lock_is_held_by_one_and_freed_by_its_end(tmp_path: Path) -> None:
    held = take_lock(tmp_path / "lock", 0)
    assert held is not None
    assert take_lock(tmp_path / "lock", 0.2) is None
    os.close(held)
    again = take_lock(tmp_path / "lock", 0)
    assert again is not None
    os.close(again)


def test_the_hosts_capacity_is_what_the_kernel_says() -> None:
    capacity = host_capacity(is_rootless=False)
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert abs(capacity.memory_bytes - total_kib * 1024) < 1 << 20
    assert capacity.cpu_m == 1000 * len(os.sched_getaffinity(0))
    assert capacity.python.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    assert capacity.os and capacity.kernel and capacity.arch


class Manager:
    """systemd's end of the notifications."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(30)
        self.environment = {
            "NOTIFY_SOCKET": str(path),
            "WATCHDOG_USEC": "6000000",
        }  # each 2 s: a queue holds ten, and nobody reads for long

    def next(self) -> str:
        return self.socket.recv(200).decode()


@pytest.mark.timeout(60)
def test_an_agent_starts_without_its_engine_pings_hands_over_and_ends(tmp_path: Path) -> None:
    """Its whole life: READY once the socket answers, the watchdog fed, a second one waiting for the lock, SIGTERM."""
    manager = Manager(tmp_path / "notify")
    first = start("run", tmp_path, env=manager.environment)
    second = None
    try:
        assert manager.next() == "READY=1"
        assert (
            stat.S_IMODE((tmp_path / "state").stat().st_mode)
            == stat.S_IMODE((tmp_path / "run").stat().st_mode)
            == 0o700
        )
        asked = start("hello", tmp_path)
        said, errors = asked.communicate(timeout=20)
        assert asked.returncode == 0, errors
        hello = protocol.decode(protocol.Hello, json.loads(said), strict=True)
        assert hello.version == protocol.VERSION and hello.capacity is not None and hello.capacity.cpu_m
        assert [manager.next(), manager.next()] == ["WATCHDOG=1", "WATCHDOG=1"]
        second = start("run", tmp_path, env=manager.environment)
        first.send_signal(signal.SIGTERM)
        assert first.wait(20) == 0, first.stderr and first.stderr.read()
        heard = set()
        while "READY=1" not in heard:
            heard.add(manager.next())
        asked = start("hello", tmp_path)
        again = protocol.decode(protocol.Hello, json.loads(asked.communicate(timeout=20)[0]), strict=True)
        assert again.agent == hello.agent and again.instance != hello.instance
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0
    finally:
        manager.socket.close()
        for child in (first, second):
            if child is not None:
                child.kill()
                child.communicate()


def test_without_systemd_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    main.notify("READY=1")
    asyncio.run(main._feed_watchdog())


@pytest.mark.parametrize("name", ["sshoal-agent", "sshoal-podman"])
def test_the_units_keep_what_pods_depend_on(name: str) -> None:
    """Stopping a unit must not stop pods; a unit must never give up."""
    text = (PACKAGE / "units" / f"{name}.service").read_text()
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert settings["KillMode"] == "process"
    assert settings["Restart"] == "always"
    assert settings["StartLimitIntervalSec"] == "0"
    assert settings["OOMPolicy"] == "continue"
    assert settings["RuntimeDirectoryPreserve"] == "yes"
    assert not {"PrivateMounts", "PrivateTmp", "ProtectSystem", "ProtectHome", "MountFlags"} & settings.keys()


def test_whether_oom_scores_may_be_lowered_is_tried_and_leaves_ones_own_as_it_was() -> None:
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    has_the_right = bool(int(status["CapEff"], 16) >> 24 & 1)  # CAP_SYS_RESOURCE
    asked = "from nodeagent.process import may_lower_oom_scores; print(may_lower_oom_scores())"
    code = f"own = '/proc/self/oom_score_adj'; open(own, 'w').write('100'); {asked}; print(open(own).read())"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(has_the_right), "100"]


@pytest.mark.parametrize(("may", "score"), [(True, -997), (False, 0)])
def test_guaranteed_pods_get_kubernetes_oom_score_where_the_host_lets_us(
    may: bool, score: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nodeagent.process.may_lower_oom_scores", lambda: may)
    assert main._oom_score_min(Paths(state=tmp_path, run=tmp_path)) == score
