"""A rootless agent beside its Podman: whether both are in the same namespaces, and what an earlier Podman left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.rootless import NamespaceWatch, end_leftovers

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="making a mount namespace wants root")
SERVE = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('up', flush=True); sys.stdin.read()"


@contextmanager
def process(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that says a line once it is ready and ends with its input."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == b"up\n"
            yield running
        finally:
            running.kill()


@contextmanager
def podman(run: Path) -> Iterator[Path]:
    """Something that listens at the agent's socket of Podman, in a runtime directory."""
    (run / "sshoal").mkdir(parents=True, exist_ok=True)
    (run / "libpod/tmp").mkdir(parents=True, exist_ok=True)
    path = run / "sshoal/podman.sock"
    path.unlink(missing_ok=True)
    with process(sys.executable, "-c", SERVE, str(path)):
        yield path


def pause(run: Path, pid: int) -> None:
    (run / "libpod/tmp/pause.pid").write_text(str(pid))


def test_a_podman_in_the_same_namespaces_has_not_moved(tmp_path: Path) -> None:
    with podman(tmp_path) as path:
        pause(tmp_path, os.getpid())
        watch = NamespaceWatch(path)
        assert [watch.has_moved() for _ in range(2)] == [False, False]


@as_root
def test_a_podman_that_starts_anew_in_other_namespaces_has_moved(tmp_path: Path) -> None:
    with podman(tmp_path) as path:
        pause(tmp_path, os.getpid())
        watch = NamespaceWatch(path)
        assert not watch.has_moved()
    with podman(tmp_path), process("unshare", "--mount", "sh", "-c", "echo up; read end") as holder:
        pause(tmp_path, holder.pid)
        assert watch.has_moved()


def test_of_a_podman_that_is_away_nothing_is_told(tmp_path: Path) -> None:
    assert not NamespaceWatch(tmp_path / "sshoal/podman.sock").has_moved()


def test_another_service_without_a_pause_process_counts_as_moved_but_the_first_does_not(tmp_path: Path) -> None:
    """Else an agent that has just followed would start anew for ever."""
    with podman(tmp_path) as path:
        watch = NamespaceWatch(path)
        assert not watch.has_moved()
    with podman(tmp_path):
        assert watch.has_moved()


def test_a_service_that_was_left_over_is_ended_and_no_other_process(tmp_path: Path) -> None:
    path = tmp_path / "podman.sock"
    wait = "import sys; print('up', flush=True); sys.stdin.read()"
    with (
        process(sys.executable, "-c", wait, "system", "service", f"unix://{path}") as left,
        process(sys.executable, "-c", wait, "system", "service", f"unix://{path}.other") as other,
        process(sys.executable, "-c", wait, f"unix://{path}") as reader,
    ):
        end_leftovers(path)
        assert left.wait(10) != 0
        assert (other.poll(), reader.poll()) == (None, None)
