"""DirStorage and HostClock on real files: what survives, what is found broken, what is never in the open."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.clock import HostClock, boot_identity
from nodeagent.runtime import StorageCorrupt
from nodeagent.storage import CORRUPT_KEPT_MAX, DirStorage

CANARY = "correct-horse-battery"


@pytest.fixture
def storage(tmp_path: Path) -> DirStorage:
    return DirStorage(str(tmp_path / "state"))


def tool(path: Path, script: str) -> str:
    """An executable that stands where systemd-creds is looked for."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_what_was_saved_is_loaded_by_another_instance(tmp_path: Path) -> None:
    DirStorage(str(tmp_path)).save("wanted", {"serial": 7, "pods": ["ü"]})
    assert DirStorage(str(tmp_path)).load("wanted") == {"serial": 7, "pods": ["ü"]}


def test_a_document_that_was_never_saved_is_none(storage: DirStorage) -> None:
    assert storage.load("wanted") is None


def test_delete_removes_and_may_be_repeated(storage: DirStorage) -> None:
    storage.save("a", {})
    storage.delete("a")
    storage.delete("a")
    assert storage.load("a") is None


def test_directory_and_files_are_for_their_owner_only(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    DirStorage(str(tmp_path / "state")).save("a", {"x": 1})
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".hidden", "A", "a" * 80])
def test_a_name_that_could_leave_the_directory_is_refused(storage: DirStorage, name: str) -> None:
    with pytest.raises(ValueError, match="document name"):
        storage.save(name, {})


def _truncate(content: bytes) -> bytes:
    return content[:-3]


def _flip(content: bytes) -> bytes:
    return content[:-4] + bytes((content[-4] ^ 1,)) + content[-3:]


@pytest.mark.parametrize(
    "damage", [lambda _: b"", _truncate, _flip, lambda _: b"\0" * 40, lambda c: c.replace(b"1", b"9", 1)]
)
def test_damage_is_found_and_the_file_kept_aside(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Zero bytes and torn ends are what a power cut leaves; a flipped bit what a bad disk does."""
    storage = DirStorage(str(tmp_path))
    storage.save("wanted", {"serial": 7, "name": "web"})
    damaged = damage((tmp_path / "wanted").read_bytes())
    (tmp_path / "wanted").write_bytes(damaged)
    with pytest.raises(StorageCorrupt, match=r"wanted.*corrupt-1"):
        storage.load("wanted")
    assert (tmp_path / "wanted.corrupt-1").read_bytes() == damaged
    assert storage.load("wanted") is None


@pytest.mark.parametrize(("payload", "sealed"), [(b"[1]", False), (b"{'a'", False), (b"\xff", False), (b"!!!", True)])
def test_a_file_with_a_right_checksum_and_wrong_content_is_corrupt_too(
    tmp_path: Path, payload: bytes, sealed: bool
) -> None:
    storage = DirStorage(str(tmp_path), seal_tool=tool(tmp_path / "creds", "cat"))
    header = {"format": 1, "sealed": sealed, "sha256": hashlib.sha256(payload).hexdigest()}
    (tmp_path / "wanted").write_bytes(json.dumps(header).encode() + b"\n" + payload)
    with pytest.raises(StorageCorrupt):
        storage.load("wanted")


def test_a_file_that_the_disk_does_not_give_is_corrupt_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sector must not keep the agent, and with it all pods of the host, from starting."""
    storage = DirStorage(str(tmp_path))
    storage.save("pod-1", {"a": 1})

    def broken(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", broken)
        with pytest.raises(StorageCorrupt, match="Input/output error"):
            storage.load("pod-1")
    assert storage.load("pod-1") == {"a": 1}


def test_a_lack_of_the_moment_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    storage = DirStorage(str(tmp_path))
    monkeypatch.setattr(Path, "open", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        storage.load("pod-1")


def test_only_so_many_broken_files_are_kept(tmp_path: Path) -> None:
    storage = DirStorage(str(tmp_path))
    for _ in range(CORRUPT_KEPT_MAX + 3):
        (tmp_path / "a").write_bytes(b"rubbish")
        with pytest.raises(StorageCorrupt):
            storage.load("a")
    assert len(list(tmp_path.glob("a.corrupt-*"))) == CORRUPT_KEPT_MAX


@settings(max_examples=60)
@given(content=st.binary(max_size=200))
def test_any_bytes_on_disk_are_corrupt_or_a_document_never_another_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    storage = DirStorage(str(folder))
    (folder / "a").write_bytes(content)
    with pytest.raises(StorageCorrupt):
        storage.load("a")


def test_a_leftover_of_a_crashed_save_is_no_hindrance(tmp_path: Path) -> None:
    storage = DirStorage(str(tmp_path))
    storage.save("a", {"x": 1})
    (tmp_path / ".a.new").write_bytes(b"half")
    assert storage.load("a") == {"x": 1}
    storage.save("a", {"x": 2})
    assert storage.load("a") == {"x": 2}
    assert not (tmp_path / ".a.new").exists()


KILLED_WHILE_SAVING = """
import sys
from nodeagent.storage import DirStorage
storage = DirStorage(sys.argv[1])
number = 0
while True:
    number += 1
    storage.save("a", {"number": number, "filler": "x" * 50_000})
    print(number, flush=True)
"""


def test_a_save_that_returned_survives_sigkill_at_any_moment(tmp_path: Path) -> None:
    storage = DirStorage(str(tmp_path))
    for acknowledged in (1, 3, 8):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(acknowledged):
            writer.stdout.readline()
        writer.kill()
        writer.wait()
        writer.stdout.close()
        document = storage.load("a")
        assert document is not None and document["number"] >= acknowledged
        assert len(document["filler"]) == 50_000


# ---- a full disk ---------------------------------------------------------------------------------------------------------

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs: run as root")


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "sshoal-test", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def fill(disk: Path) -> None:
    with pytest.raises(OSError) as full, (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    assert full.value.errno == errno.ENOSPC


@needs_mounts
def test_on_a_full_disk_a_save_fails_and_the_old_document_stays(small_disk: Path) -> None:
    storage = DirStorage(str(small_disk / "state"))
    storage.save("a", {"x": 1})
    fill(small_disk)
    with pytest.raises(OSError) as error:
        storage.save("a", {"x": "y" * 20_000})
    assert error.value.errno == errno.ENOSPC
    assert storage.load("a") == {"x": 1}
    assert sorted(path.name for path in (small_disk / "state").iterdir()) == ["a"]


@needs_mounts
def test_the_ballast_lets_a_save_succeed_on_a_full_disk_and_comes_back_with_room(small_disk: Path) -> None:
    storage = DirStorage(str(small_disk / "state"), ballast_bytes=64 * 1024)
    fill(small_disk)
    storage.save("a", {"x": "y" * 20_000})
    assert storage.load("a") == {"x": "y" * 20_000}
    assert not (small_disk / "state" / ".ballast").exists()
    (small_disk / "filler").unlink()
    storage.save("a", {"x": 1})
    assert (small_disk / "state" / ".ballast").stat().st_blocks * 512 == 64 * 1024


# ---- secrets -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealer(tmp_path: Path) -> str:
    """As systemd-creds: seals what comes in under a name, unseals only under the same name. Logs how it was called."""
    return tool(
        tmp_path / "creds",
        f'echo "$@" >> {tmp_path}/calls; [ "$2" = encrypt ] && {{ echo "$1"; rev; }} || {{ read -r name; [ "$name" = "$1" ] && rev; }}',
    )


def test_a_secret_is_sealed_and_read_back(tmp_path: Path, sealer: str) -> None:
    storage = DirStorage(str(tmp_path / "state"), seal_tool=sealer)
    storage.save("secrets", {"password": CANARY}, secret=True)
    assert CANARY.encode() not in (tmp_path / "state" / "secrets").read_bytes()
    assert CANARY not in (tmp_path / "calls").read_text()
    assert storage.sealing is True
    assert DirStorage(str(tmp_path / "state"), seal_tool=sealer).load("secrets") == {"password": CANARY}


def test_a_secret_larger_than_the_tool_takes_is_sealed_in_pieces(tmp_path: Path, sealer: str) -> None:
    storage = DirStorage(str(tmp_path / "state"), seal_tool=sealer)
    document = {"blob": "z" * 1_300_000}
    storage.save("secrets", document, secret=True)
    assert storage.load("secrets") == document
    assert len((tmp_path / "calls").read_text().splitlines()) == 6


@pytest.mark.parametrize("script", [None, "exit 1", "exec sleep 60"])
def test_without_a_working_tool_a_secret_is_plain_and_that_is_said(
    tmp_path: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodeagent.storage.SEAL_TIMEOUT_S", 0.2)
    broken = tool(tmp_path / "creds", script) if script else str(tmp_path / "nothing")
    storage = DirStorage(str(tmp_path / "state"), seal_tool=broken)
    storage.save("secrets", {"password": CANARY}, secret=True)
    assert storage.sealing is False
    assert storage.sealing_trouble and CANARY not in storage.sealing_trouble
    assert storage.load("secrets") == {"password": CANARY}
    assert stat.S_IMODE((tmp_path / "state" / "secrets").stat().st_mode) == 0o600


def test_a_secret_that_cannot_be_unsealed_is_corrupt_but_stays_where_it_is(tmp_path: Path, sealer: str) -> None:
    DirStorage(str(tmp_path / "state"), seal_tool=sealer).save("secrets", {"password": CANARY}, secret=True)
    lost = DirStorage(str(tmp_path / "state"), seal_tool=tool(tmp_path / "other", "exit 1"))
    with pytest.raises(StorageCorrupt, match="unsealed"):
        lost.load("secrets")
    assert DirStorage(str(tmp_path / "state"), seal_tool=sealer).load("secrets") == {"password": CANARY}


def test_a_document_that_is_no_secret_is_never_sealed(tmp_path: Path) -> None:
    storage = DirStorage(str(tmp_path / "state"), seal_tool=str(tmp_path / "nothing"))
    storage.save("wanted", {"serial": 1})
    assert storage.sealing is None
    assert json.loads((tmp_path / "state" / "wanted").read_bytes().split(b"\n")[1]) == {"serial": 1}


# ---- the clock -----------------------------------------------------------------------------------------------------------


def proc(path: Path, boot_id: str, stat_line: str) -> Path:
    (path / "sys/kernel/random").mkdir(parents=True)
    (path / "sys/kernel/random/boot_id").write_text(boot_id + "\n")
    (path / "1").mkdir()
    (path / "1/stat").write_text(stat_line)
    return path


def stat_line(command: str, start_ticks: int) -> str:
    return f"1 ({command}) S " + " ".join(["0"] * 18) + f" {start_ticks} 0 0\n"


def test_a_container_of_one_machine_has_another_boot_identity_after_its_reboot(tmp_path: Path) -> None:
    first = boot_identity(proc(tmp_path / "a", "5a-1", stat_line("systemd", 100)))
    again = boot_identity(proc(tmp_path / "b", "5a-1", stat_line("systemd", 900)))
    assert first == "5a-1-100"
    assert again == "5a-1-900"


def test_a_command_name_with_spaces_and_brackets_does_not_confuse_it(tmp_path: Path) -> None:
    assert boot_identity(proc(tmp_path, "5a-1", stat_line("a) S 1 (b", 42))) == "5a-1-42"


def test_where_process_one_is_hidden_the_boot_id_must_do(tmp_path: Path) -> None:
    (proc(tmp_path, "5a-1", "") / "1/stat").unlink()
    assert boot_identity(tmp_path) == "5a-1"


def test_the_hosts_clock_reads_this_host() -> None:
    clock = HostClock()
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    assert clock.boottime_s() >= uptime_s - 1
    assert clock.boot_id() == HostClock().boot_id()
    assert clock.wall_s() > 1_600_000_000
