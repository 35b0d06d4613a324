"""Fixtures of unit tests. What needs the controller is imported inside: the agent's tests run on Pythons that are too old for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.shell import Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Types commands in a home directory of its own."""
    from tests.shell import at_home

    return at_home(tmp_path, monkeypatch, capsys)


@pytest.fixture
def full(shell: Shell) -> Shell:
    """As `shell`, with a deployment, a pod, a node, a config map and an event in its store."""
    from tests.shell import fill

    fill(shell)
    return shell
