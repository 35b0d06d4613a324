"""The lock of passes: one holder, told who it is, gone with its process however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from controller.act.lock import pass_lock
from controller.model.errors import AnotherController, StoreError

HOLDER = """
import sys, time
from pathlib import Path
from controller.act.lock import pass_lock
with pass_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path) -> subprocess.Popen[bytes]:
    """Another process that has the lock."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    return holder


def end(holder: subprocess.Popen[bytes], how: int) -> None:
    holder.send_signal(how)
    holder.communicate()


def test_the_lock_is_refused_at_once_and_its_holder_is_named(tmp_path: Path) -> None:
    holder = hold(tmp_path / "pass.lock")
    try:
        with (
            pytest.raises(AnotherController, match=rf"pid {holder.pid}, since \d\d:\d\d:\d\d"),
            pass_lock(tmp_path / "pass.lock"),
        ):
            pass
    finally:
        end(holder, signal.SIGTERM)


def test_the_lock_dies_with_a_killed_holder(tmp_path: Path) -> None:
    end(hold(tmp_path / "pass.lock"), signal.SIGKILL)
    with pass_lock(tmp_path / "pass.lock"):
        assert f"pid {os.getpid()}" in (tmp_path / "pass.lock").read_text()


def test_the_lock_is_free_again_after_use_and_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), pass_lock(tmp_path / "pass.lock"):
        raise KeyError
    with pass_lock(tmp_path / "pass.lock"):
        pass


def test_a_stale_file_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "new" / "pass.lock"
    path.parent.mkdir()
    path.write_text("pid 1, since 00:00:00 of an older and longer text")
    with pass_lock(path):
        assert path.read_text().startswith(f"pid {os.getpid()}, since")
        assert "longer" not in path.read_text()


def test_where_there_can_be_no_lock_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "pass.lock").mkdir()
    for path in (tmp_path / "file" / "pass.lock", tmp_path / "pass.lock"):
        with pytest.raises(StoreError, match=f"{path} cannot be opened: "), pass_lock(path):
            pass
