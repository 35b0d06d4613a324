"""Commands on a controller whose disk is really full: a file system of their own. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.act.store import Store
from tests.builders import deployment, node

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Path]:
    """A context on 4 MiB of its own, with something in its store."""
    directory = tmp_path / "context"
    directory.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", directory], check=True)
    try:
        with closing(Store(directory / "store.db", create=True)) as store:
            store.edit([deployment("web"), node("node1")])
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def sshoal(context: Path, *words: str) -> tuple[int, str]:
    """Exit code, and all that it said."""
    done = subprocess.run(
        [sys.executable, "-m", "controller.cli", *words],
        env={**os.environ, "SSHOAL_CONTEXT": str(context), "HOME": str(context.parent)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_on_a_full_disk_commands_read_refuse_to_write_and_go_on_once_there_is_room(context: Path) -> None:
    filling = context / "filling"
    with filling.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    code, said = sshoal(context, "get", "deployments", "--cached")
    assert (code, "web" in said) == (0, True), said
    code, said = sshoal(context, "node", "cordon", "node1")
    assert code == 1, said
    assert "no space left for the store" in said
    assert "free some disk space" in said
    assert "Traceback" not in said
    filling.unlink()
    with closing(Store(context / "store.db")) as store:
        assert not store.load().nodes["node1"].cordoned, "nothing of it was stored"
    assert sshoal(context, "node", "cordon", "node1") == (0, "node/node1 cordoned\n")
