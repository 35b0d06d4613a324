"""The lab's commands: light to import, and clear when they cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from controller.model.errors import NotFound, UsageError
from lab.cli import app
from lab.lab import Lab


def test_importing_the_commands_imports_nothing_heavy() -> None:
    code = "import sys, lab.cli; print([name for name in sys.modules if name in ('lab.lab', 'asyncssh', 'pydantic')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)

    assert done.stdout == "[]\n"


COMMANDS = ("up", "status", "ssh", "kill", "start", "reboot", "partition", "heal", "freeze", "thaw", "down")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])

    assert result.exit_code == 0


def test_another_user_than_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="needs root"):
        Lab.up("lab")


@pytest.mark.parametrize("name", ["", "Upper", "with space", "../escape", "-dash", "x" * 32])
def test_a_name_that_could_harm_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="lab name"):
        Lab.load(name)


def test_a_lab_that_is_not_there_is_named_with_those_that_are(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSHOAL_LAB_DIR", str(tmp_path))
    with pytest.raises(NotFound, match=r'no lab is called "other" \(there are: none\)'):
        Lab.load("other")
