"""Regular passes: a crontab through a program of that name, units as text; other people's lines stay."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from controller.act import schedule
from controller.act.settings import Context
from controller.model.errors import SshoalError, UsageError

CRONTAB = """#!/bin/sh
# Behaves as cron's: -l lists, - reads the new table from standard input.
case "$1" in
  -l) [ -e {table} ] || {{ echo "no crontab for root" >&2; exit 1; }}; cat {table} ;;
  -) cat > {table}.new && if grep -q refused {table}.new; then echo "bad minute" >&2; exit 1; fi; mv {table}.new {table} ;;
esac
"""
REFUSING = """#!/bin/sh
case "$1" in
  -l) echo "{words}" >&2; exit 1 ;;
  -) cat > {table} ;;
esac
"""
GERMAN = """#!/bin/sh
case "$1" in
  -l) [ "$LC_ALL" = C ] && echo "no crontab for root" >&2 || echo "keine Tabelle" >&2; exit 1 ;;
  -) cat > {table} ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
echo "$@" >> {log}
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that stands for the user's crontab; a `crontab` program that keeps it comes first on PATH."""
    table = tmp_path / "crontab.txt"
    program(tmp_path / "bin" / "crontab", CRONTAB.format(table=table))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return table


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for /etc/systemd/system, with a `systemctl` that notes what it is told."""
    program(tmp_path / "bin" / "systemctl", SYSTEMCTL.format(log=tmp_path / "systemctl.log"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    units = tmp_path / "units"
    units.mkdir()
    monkeypatch.setattr(schedule, "_UNITS", units)
    return units


def program(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def context(directory: str = "/home/me/.sshoal/default", *inventory: str) -> Context:
    return Context(Path(directory), inventory)


def test_one_line_is_added_and_others_stay(table: Path) -> None:
    table.write_text("MAILTO=me\n*/5 * * * * backup --all\n")
    schedule.install(context(), 60.0, systemd=False)
    lines = table.read_text().splitlines()
    assert lines[:2] == ["MAILTO=me", "*/5 * * * * backup --all"]
    assert len(lines) == 3
    assert lines[2].startswith("* * * * * ")


@pytest.mark.parametrize(
    ("every_s", "when", "budget", "period"),
    [
        (60.0, "* * * * *", "50s", "60s"),
        (300.0, "*/5 * * * *", "290s", "300s"),
        (3540.0, "*/59 * * * *", "3530s", "3540s"),
    ],
)
def test_a_run_ends_before_the_next_begins(every_s: float, when: str, budget: str, period: str, table: Path) -> None:
    schedule.install(context(), every_s, systemd=False)
    line = table.read_text().strip()
    assert line.startswith(when)
    words = shlex.split(line.removeprefix(when), comments=True)
    assert words[:4] == [sys.executable, "-m", "controller.cli", "reconcile"]
    assert words[words.index("--budget") + 1] == budget
    assert words[words.index("--period") + 1] == period
    assert {"--settle", "--scheduled"} <= set(words)


def test_the_entry_names_its_context_and_inventory_as_cron_will_read_them(table: Path) -> None:
    """A % would end the command in a crontab."""
    schedule.install(context("/srv/100% mine", "/srv/hosts file.ini"), 60.0, systemd=False)
    text = table.read_text()
    assert "%" not in text.replace("\\%", "")
    words = shlex.split(text.replace("\\%", "%").removeprefix("* * * * *"), comments=True)
    assert words[words.index("--context") + 1] == "/srv/100% mine"
    assert words[words.index("--inventory") + 1] == "/srv/hosts file.ini"


def test_what_passes_need_of_environment_and_settings_goes_along(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cron runs without them. Files are found from any directory."""
    monkeypatch.chdir("/tmp")
    needs = {"vault": ["vault.txt", "prod@/srv/home.txt"], "executables": True, "config": Path("/etc/sshoal.toml")}
    schedule.install(context(), 60.0, systemd=False, **needs)  # type: ignore[arg-type]
    words = shlex.split(table.read_text().removeprefix("* * * * *"), comments=True)
    ids = [words[index + 1] for index, word in enumerate(words) if word == "--vault-id"]
    assert ids == ["/tmp/vault.txt", "prod@/srv/home.txt"]
    assert "--allow-executable-inventory" in words
    assert words.index("--config") < words.index("/etc/sshoal.toml") < words.index("reconcile")


def test_a_vault_password_that_only_a_person_knows_is_refused(table: Path) -> None:
    with pytest.raises(UsageError, match="nobody is there"):
        schedule.install(context(), 60.0, systemd=False, vault=["prod@prompt"])
    assert not table.exists()


def test_installing_again_renews_the_line_of_this_context_only(table: Path) -> None:
    schedule.install(context("/a"), 60.0, systemd=False)
    schedule.install(context("/b"), 60.0, systemd=False)
    schedule.install(context("/a"), 120.0, systemd=False)
    lines = table.read_text().splitlines()
    assert len(lines) == 2
    assert [line.startswith("*/2") for line in lines if "/a " in line] == [True]


def test_removing_takes_only_the_line_of_this_context(table: Path) -> None:
    table.write_text("0 1 * * * theirs\n")
    schedule.install(context("/a"), 60.0, systemd=False)
    schedule.install(context("/b"), 60.0, systemd=False)
    assert "removed" in schedule.remove(context("/a"))
    assert len(table.read_text().splitlines()) == 2
    assert schedule.remove(context("/a")) == "there was no schedule"
    schedule.remove(context("/b"))
    assert table.read_text() == "0 1 * * * theirs\n"


@pytest.mark.parametrize("every_s", [0.0, 30.0, 59.0, 90.0, 3600.0])
def test_a_period_that_cron_cannot_have_is_refused(every_s: float, table: Path) -> None:
    with pytest.raises(UsageError, match="whole minutes"):
        schedule.install(context(), every_s, systemd=False)
    assert not table.exists()


def test_what_cron_says_against_it_is_told(table: Path) -> None:
    with pytest.raises(SshoalError, match="bad minute"):
        schedule.install(context("/refused"), 60.0, systemd=False)


@pytest.mark.parametrize("verb", ["install", "remove"])
def test_a_crontab_that_cannot_be_read_is_not_taken_for_an_empty_one(verb: str, table: Path) -> None:
    """It would be written over."""
    table.write_text("0 1 * * * theirs\n")
    program(
        table.parent / "bin" / "crontab",
        REFUSING.format(table=table, words="crontabs/root/: fopen: Input/output error"),
    )
    with pytest.raises(SshoalError, match=r"fopen: Input/output error.*nothing was changed"):
        if verb == "install":
            schedule.install(context(), 60.0, systemd=False)
        else:
            schedule.remove(context())
    assert table.read_text() == "0 1 * * * theirs\n"


NONE_YET = {
    "German": GERMAN,
    "BusyBox": REFUSING.replace("{words}", "crontab: can't open 'root': No such file or directory"),
}


@pytest.mark.parametrize("crontab", NONE_YET.values(), ids=NONE_YET)
def test_no_crontab_yet_is_understood(crontab: str, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(table.parent / "bin" / "crontab", crontab.format(table=table))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    schedule.install(context(), 60.0, systemd=False)
    assert table.read_text().startswith("* * * * * ")


@pytest.mark.parametrize(
    "text",
    [
        b"0 1 * * * printf 'a\x0cb\x0bc'\n",
        "0 1 * * * echo a\u2028b\x85c\n".encode(),
        b"0 1 * * * echo a\rb\r\n",
        b"0 1 * * * echo latin-1: \xe4\n",
        b"\n\n# blank lines\n\n",
    ],
    ids=["form feed", "separators of Unicode", "carriage returns", "not UTF-8", "blank lines"],
)
def test_other_peoples_lines_stay_as_they_are_to_the_byte(text: bytes, table: Path) -> None:
    table.write_bytes(text)
    schedule.install(context(), 60.0, systemd=False)
    assert table.read_bytes().startswith(text + b"* * * * * ")
    schedule.remove(context())
    assert table.read_bytes() == text


def test_no_crontab_program_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SshoalError, match="no crontab"):
        schedule.install(context(), 60.0, systemd=False)


def test_a_timer_and_its_service_are_written_and_started(units: Path, tmp_path: Path) -> None:
    schedule.install(context("/srv/50% $HOME", r"/srv/back\slash"), 120.0, systemd=True)
    (timer,) = units.glob("*.timer")
    service = timer.with_suffix(".service").read_text()
    assert "OnUnitActiveSec=2min" in timer.read_text()
    (command,) = [line for line in service.splitlines() if line.startswith("ExecStart=")]
    assert "/srv/50%% $$HOME" in command
    assert r"/srv/back\\slash" in command
    assert "Type=oneshot" in service
    assert (tmp_path / "systemctl.log").read_text().splitlines() == ["daemon-reload", f"enable --now {timer.name}"]


def test_a_timer_is_taken_away_whole(units: Path, tmp_path: Path) -> None:
    schedule.install(context(), 60.0, systemd=True)
    (timer,) = units.glob("*.timer")
    (tmp_path / "systemctl.log").unlink()
    assert schedule.remove(context()) == f"{timer.name} removed"
    assert list(units.iterdir()) == []
    assert (tmp_path / "systemctl.log").read_text().splitlines() == [f"disable --now {timer.name}", "daemon-reload"]
