"""Commands as they are typed: what they print, where, and with which exit code. A real store in tmp_path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from controller.act.store import Event, Store
from controller.cli import main as door
from controller.model.cluster import Record
from tests import builders


class Shell:
    """Types commands."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    @property
    def context(self) -> Path:
        return self.home / "context"

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._monkeypatch.setattr(sys, "argv", ["sshoal", *words])
        code = 0
        try:
            door.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def store(self) -> Store:
        return Store(self.context / "store.db", create=True)


def at_home(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A shell in a home directory of its own, with no variable of ours set but the context's."""
    for name in ("SSHOAL_INVENTORY", "SSHOAL_NAMESPACE", "SSHOAL_VAULT_ID", "SSHOAL_ALLOW_EXECUTABLE_INVENTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSHOAL_CONTEXT", str(home / "context"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    return Shell(home, monkeypatch, capsys)


def fill(shell: Shell) -> None:
    """A store with a deployment, a pod, a node, a config map and an event."""
    store = shell.store()
    records: list[Record] = [
        builders.deployment("web"),
        builders.bare_pod("lonely"),
        builders.node("node1"),
        builders.config_map("settings", {"a": "1"}),
        builders.secret("keys", "digest"),
        builders.namespace("staging"),
    ]
    told = Event(builders.START_S, "Scaled", "deployment default/web is scaled to 3", "Deployment", "default", "web")
    store.edit(records, events=[told])
    store.close()
