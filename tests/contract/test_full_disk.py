"""Commands on a controller whose disk is really full: a file system of their own. Needs root."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from controller.act.bootstrap import installation
from controller.act.store import Store
from tests.builders import deployment, node
from tests.contract.sshd import Sshd

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


def fill(directory: Path) -> Path:
    """The file that took all room."""
    filling = directory / "filling"
    with filling.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    return filling


def test_on_a_full_disk_commands_read_refuse_to_write_and_go_on_once_there_is_room(context: Path) -> None:
    filling = fill(context)
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


def test_a_pass_on_a_full_disk_leaves_no_half_of_a_key(context: Path, tmp_path: Path) -> None:
    """An empty key would be taken for a damaged one for ever."""
    filling = fill(context)
    words = ("reconcile", "-i", "127.0.0.1:1,")
    code, said = sshoal(context, *words)
    assert (code, "secrets.key: No space left on device" in said, "Traceback" in said) == (1, True, False), said
    assert not (context / "secrets.key").exists()
    filling.unlink()
    assert "127.0.0.1 gives no report" in sshoal(context, *words)[1]
    fill(context)
    code, said = sshoal(context, "plan", "-i", "127.0.0.1:1,")
    assert (code, "127.0.0.1 gives no report" in said) == (0, True), said
    assert sshoal(context, "version")[0] == 0, "where the agent's archive cannot be kept, it is made anew"


def test_a_backup_names_the_place_that_is_full_or_may_not_be_written(context: Path, tmp_path: Path) -> None:
    with closing(Store(tmp_path / "store.db", create=True)):
        filling = fill(context)
    code, said = sshoal(tmp_path, "backup", str(context / "backup.db"))
    assert (code, f"no space left in {context} for a copy of {tmp_path / 'store.db'}" in said) == (1, True), said
    assert {path.name for path in context.iterdir()} <= {"store.db", "store.db-wal", "store.db-shm", filling.name}
    subprocess.run(["mount", "-o", "remount,ro", context], check=True)
    code, said = sshoal(tmp_path, "backup", str(context / "backup.db"))
    assert (code, "cannot be written there: Read-only file system" in said, "Traceback" in said) == (1, True, False)


def test_an_inventory_that_did_not_fit_is_not_in_the_way_of_the_next_try(context: Path) -> None:
    filling = fill(context)
    words = ("init", "--yes", "--output", str(context / "hosts.ini"), "root@127.0.0.1:1")
    for _ in range(2):
        code, said = sshoal(context, *words)
        assert (code, "hosts.ini cannot be written: No space left" in said) == (2, True), said
    filling.unlink()
    assert "127.0.0.1 port 1" in sshoal(context, *words)[1]


def test_a_key_that_cannot_be_recorded_is_said_in_one_line(context: Path, tmp_path: Path) -> None:
    server = Sshd(tmp_path / "sshd").start()
    try:
        fill(context)
        code, said = sshoal(context, "node", "trust", "--yes", "-i", f"127.0.0.1:{server.port},")
    finally:
        server.stop()
    assert (code, said.splitlines()[-1]) == (
        1,
        f"error: {context / 'known_hosts'} cannot be written: No space left on device",
    )


def test_an_archive_that_finds_no_room_to_be_unpacked_is_not_said_to_be_unreadable(
    context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web.tar.gz").write_bytes(gzip.compress(bytes(8 << 20), 1))
    monkeypatch.setenv("TMPDIR", str(context))
    code, said = sshoal(context, "image", "push", str(tmp_path / "web.tar.gz"), "-i", "127.0.0.1:1,")
    assert (code, f"no space left in {context} to unpack {tmp_path}/web.tar.gz" in said) == (1, True), said
    assert "TMPDIR=" in said


@pytest.mark.parametrize("words", [("image", "push", "x.tar", "-i", "a,"), ("restore", "backup.db", "--yes")])
def test_without_a_place_for_temporary_files_there_is_one_line(context: Path, words: tuple[str, ...]) -> None:
    backup = context / "backup.db"
    assert sshoal(context, "backup", str(backup))[0] == 0
    nowhere = "import sys, tempfile; tempfile._candidate_tempdir_list = lambda: ['/proc']; from controller.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", nowhere, *words],
        env={**os.environ, "SSHOAL_CONTEXT": str(context), "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=context,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, "temporary files" in done.stderr, "TMPDIR" in done.stderr) == (1, True, True), done.stderr
    assert "Traceback" not in done.stderr


FULL_TMP = """mount -t tmpfs -o size=4k tmpfs /tmp && ! head -c 9999 /dev/zero >/tmp/filling 2>/dev/null && exec bash -c "$1" """


def test_an_agent_is_installed_on_a_host_whose_tmp_is_full() -> None:
    """bash before 5.1, which is /bin/sh on some hosts, keeps here-documents there; later ones do so when asked."""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", FULL_TMP, "sh", installation(sys.executable)],
        env={"PATH": os.environ["PATH"], "BASH_COMPAT": "5.0"},
        input=b"{}\n",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert b"KeyError: 'size'" in done.stderr, "it runs, and asks for more than {}"
