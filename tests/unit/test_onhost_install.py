"""The script that installs agents on hosts, on a host that is made up: which version is in charge after which course of events.

Against real hosts: tests/lab/test_bootstrap.py. Here systemd and the agents are a few lines, so that courses that take minutes take none.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

UNIT = "sshoal-agent.service"
TARGET = "multi-user.target"


class Clock:
    """Time that passes only when the script waits."""

    def __init__(self) -> None:
        self.now_s = time.time()  # files bear the true time

    def monotonic(self) -> float:
        return self.now_s

    time = monotonic

    def sleep(self, for_s: float) -> None:
        self.now_s += for_s


class Machine:
    """systemd with one service, whose program is the version that `current` points at. `lives_s`: of versions that do not live for ever.

    `refuses`: a verb of systemctl that fails; `known`: the units as they were when it last read them.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.root, self.clock = directory / "agent", clock
        self.units = directory / "units"
        self.refuses = ""
        self.known: dict[str, str] = {}
        self.lives_s: dict[str, float] = {}
        self.begun_s = clock.now_s
        self.restarts_told = 0
        self.enabled_under: list[str] = []  # which version `current` pointed at, at each `systemctl enable`

    @property
    def version(self) -> str:
        return (self.root / "current").readlink().name if (self.root / "current").is_symlink() else ""

    def crashes(self) -> int:
        """A version that lives for so long is started again a second later."""
        lives_s = self.lives_s.get(self.version)
        return 0 if lives_s is None else int((self.clock.now_s - self.begun_s) / (lives_s + 1.0))

    def answers(self) -> bool:
        lives_s = self.lives_s.get(self.version)
        return bool(self.version) and (lives_s is None or (self.clock.now_s - self.begun_s) % (lives_s + 1.0) < lives_s)

    @property
    def is_enabled(self) -> bool:
        return (self.units / f"{TARGET}.wants" / UNIT).is_symlink()

    def ran(self, *words: str) -> tuple[int, str]:
        verbs = [word for word in words if not word.startswith("--")]
        if self.refuses in verbs:
            return 1, f"Failed to {self.refuses}: no\n"
        if verbs[:2] == ["systemctl", "show"]:
            return 0, f"{self.crashes()}\n"
        if verbs[:2] == ["systemctl", "daemon-reload"]:
            self.known = {unit.name: unit.read_text() for unit in self.units.glob("*.service")}
        if verbs[:2] == ["systemctl", "enable"]:
            self.enabled_under.append(self.version)
        if verbs[:2] == ["systemctl", "enable"] and not self.is_enabled:
            (self.units / f"{TARGET}.wants").mkdir(exist_ok=True)
            (self.units / f"{TARGET}.wants" / UNIT).symlink_to(self.units / UNIT)
        if verbs[0] == "systemctl" and words[-1] == UNIT and "restart" in words:
            self.begun_s = self.clock.now_s
            self.restarts_told += 1
        return 0, "the last words\n" if words[0] == "journalctl" else ""

    def hello(self, path: str) -> dict[str, Any]:
        return {"bundle": self.version, "instance": f"{self.restarts_told}-{self.crashes()}"} if self.answers() else {}


class Host:
    """`install` as the controller calls it."""

    def __init__(self, directory: Path) -> None:
        source = resources.files("controller.act").joinpath("onhost_install.py").read_text(encoding="utf-8")
        assert source.rstrip().endswith("\nmain()")
        self.clock = Clock()
        self.machine = Machine(directory, self.clock)
        self.script: dict[str, Any] = {"__name__": "onhost_install"}
        exec(compile(source.rstrip().removesuffix("main()"), "onhost_install.py", "exec"), self.script)
        units = directory / "units"
        units.mkdir()
        self.script |= {
            "UNIT_DIRECTORY": units,
            "IS_ROOT": True,
            "time": self.clock,
            "ran": self.machine.ran,
            "hello": self.machine.hello,
        }

    def push(self, content: str) -> dict[str, Any]:
        """A version whose one file holds `content`."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("__main__.py")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
        packed = zlib.compress(buffer.getvalue())
        request = {
            "digest": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "size": len(packed),
            "units": {UNIT: f"ExecStart=/usr/bin/python3 x\n[Install]\nWantedBy={TARGET}\n"},
            "service": UNIT,
            "directory": str(self.machine.root),
            "socket": "/nowhere",
            "wait_s": 45,
        }
        answer: dict[str, Any] = self.script["install"](request, packed)
        return answer | {"digest": request["digest"]}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "host").mkdir(mode=0o700)
    return Host(tmp_path / "host")


def test_a_version_that_comes_up_is_in_charge_and_a_second_push_changes_nothing(host: Host) -> None:
    first = host.push("1")
    assert (first["changed"], host.machine.version) == (True, first["digest"])
    assert host.push("1")["changed"] is False


def test_a_version_that_crashes_at_once_gives_way_to_the_former_one(host: Host) -> None:
    first = host.push("1")
    original = host.machine.answers
    host.machine.answers = lambda: original() and host.machine.version == first["digest"]  # type: ignore[method-assign]
    host.machine.crashes = lambda: 0 if host.machine.version == first["digest"] else 3  # type: ignore[method-assign]
    answer = host.push("2")
    assert (answer["error"], answer["returned"]) == ("the new agent does not come up", True)
    assert host.machine.version == first["digest"]


def test_a_version_that_crashes_later_and_again_gives_way_once_a_poll_finds_nobody(host: Host) -> None:
    first = host.push("1")
    second = host.push("2")
    assert second["changed"] is True
    host.machine.lives_s[second["digest"]] = 3.0
    host.machine.begun_s = host.clock.now_s
    host.clock.sleep(4 * 5 - 0.5)  # four crashes, and the next start is still to come
    answer = host.push("2")
    assert (answer["error"], answer["returned"]) == ("the agent crashes again and again", True)
    assert "last words" in answer["journal"]
    assert host.machine.version == first["digest"]
    told = host.machine.restarts_told
    for _ in range(3):
        again = host.push("2")
        assert again["returned"] is True
        assert "tried anew" in again["error"]
    assert host.machine.restarts_told == told, "the former one is left in peace"


@pytest.mark.parametrize("what", ["the same an hour later", "another at once"])
def test_what_is_tried_after_that(host: Host, what: str) -> None:
    host.push("1")
    second = host.push("2")
    host.machine.lives_s[second["digest"]] = 3.0
    host.machine.begun_s = host.clock.now_s
    host.clock.sleep(4 * 5 - 0.5)
    assert host.push("2")["returned"] is True
    host.machine.lives_s.clear()
    long_ago_s = host.clock.now_s - 3601
    os.utime(host.machine.root / "versions" / second["digest"] / ".refused", (long_ago_s, long_ago_s))
    tried = host.push("2" if what == "the same an hour later" else "3")
    assert (tried["changed"], host.machine.version) == (True, tried["digest"])


def crashing_second(host: Host) -> tuple[str, str]:
    """Two versions, the second of which crashes again and again."""
    first, second = host.push("1")["digest"], host.push("2")["digest"]
    host.machine.lives_s[second] = 3.0
    host.machine.begun_s = host.clock.now_s
    host.clock.sleep(4 * 5 - 0.5)
    return first, second


def test_a_way_back_that_fails_is_gone_by_the_next_push(host: Host) -> None:
    first, _ = crashing_second(host)
    host.machine.refuses = "enable"
    with pytest.raises(Exception, match="systemctl enable"):
        host.push("2")
    host.machine.refuses = ""
    while host.machine.answers():
        host.clock.sleep(0.5)
    assert host.push("2")["error"] == "the agent crashes again and again"
    assert host.machine.version == first


def test_units_of_the_former_version_that_a_power_cut_emptied_lead_nowhere(host: Host) -> None:
    first, _ = crashing_second(host)
    (host.machine.root / "versions" / first / ".units.json").write_text("")
    assert host.push("2")["returned"] is False


def test_a_refusal_of_the_future_is_none(host: Host) -> None:
    _, second = crashing_second(host)
    assert host.push("2")["returned"] is True
    host.machine.lives_s.clear()
    later_s = host.clock.now_s + 1e8
    os.utime(host.machine.root / "versions" / second / ".refused", (later_s, later_s))
    assert host.push("2")["changed"] is True


def test_an_agent_that_was_killed_several_times_over_the_months_is_only_started_again(host: Host) -> None:
    host.push("1")
    second = host.push("2")
    count = host.machine.crashes
    host.machine.crashes = lambda: 5 + count()  # type: ignore[method-assign]
    answers = iter([False])
    healthy = host.machine.answers
    host.machine.answers = lambda: next(answers, True) and healthy()  # type: ignore[method-assign]
    assert host.push("2").get("changed") is True
    assert host.machine.version == second["digest"]


def test_starting_a_version_again_keeps_the_former_one_to_fall_back_to(host: Host) -> None:
    first = host.push("1")
    host.push("2")
    answers = iter([False])
    healthy = host.machine.answers
    host.machine.answers = lambda: next(answers, True) and healthy()  # type: ignore[method-assign]
    host.push("2")
    assert (host.machine.root / "versions" / first["digest"]).is_dir()


@pytest.mark.parametrize("is_root", [True, False], ids=["root", "rootless"])
@pytest.mark.parametrize("cut_before", ["daemon-reload", "enable"])
def test_a_push_that_was_cut_after_its_units_were_written_is_finished_by_the_next(
    cut_before: str, is_root: bool, host: Host
) -> None:
    """The next finds them written. Never enabled, the agent would be gone after a reboot."""
    original = host.machine.ran

    def cut(*words: str) -> tuple[int, str]:
        if cut_before in words:
            raise KeyboardInterrupt
        return original(*words)

    host.script |= {"IS_ROOT": is_root, "ran": cut}
    with pytest.raises(KeyboardInterrupt):
        host.push("1")
    host.script["ran"] = original
    assert host.push("1")["changed"] is True
    assert host.machine.is_enabled
    assert UNIT in host.machine.known


def test_an_agent_that_runs_but_is_not_enabled_is_not_in_place(host: Host) -> None:
    host.push("1")
    (host.machine.units / f"{TARGET}.wants" / UNIT).unlink()
    assert host.push("1")["changed"] is True
    assert host.machine.is_enabled
    assert host.push("1")["changed"] is False


def test_a_version_is_switched_to_once_all_that_takes_time_is_done(host: Host) -> None:
    """Else systemd, which starts a crashing agent again by itself, starts it in between: it answers, and is then restarted."""
    first = host.push("first")["digest"]
    second = host.push("second")["digest"]
    assert host.machine.version == second
    assert host.machine.enabled_under == ["", first]


def test_units_that_cannot_be_enabled_are_told(host: Host) -> None:
    host.machine.refuses = "enable"
    with pytest.raises(Exception, match="systemctl enable: Failed to enable: no"):
        host.push("1")
    host.machine.refuses = ""
    assert host.push("1")["changed"] is True


def test_an_archive_with_a_bit_flipped_is_not_unpacked(host: Host) -> None:
    buffer = zlib.compress(b"x" * 10_240)
    request = {
        "digest": "0" * 64,
        "size": len(buffer),
        "units": {UNIT: "x"},
        "service": UNIT,
        "directory": str(host.machine.root),
    }
    with pytest.raises(Exception, match="nothing of it was run"):
        host.script["install"](request | {"socket": "/nowhere", "wait_s": 1}, buffer)
    assert not (host.machine.root / "versions").exists()
