"""Secrets at rest: only this context's key opens them, only under their own name, and nothing of them is in the store's files."""

from __future__ import annotations

import base64
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from controller.act.secrets import Sealer
from controller.act.store import Store
from controller.model.errors import StoreError
from tests.builders import secret

CANARY = "canary-7f3a9c51-correct-horse"
DATA = {"password": base64.b64encode(CANARY.encode()).decode()}


def test_what_was_sealed_can_be_unsealed_with_the_same_key() -> None:
    digest, sealed = Sealer(b"k" * 32).seal("default/login", DATA)
    value = Sealer(b"k" * 32).unseal("default/login", digest, sealed)
    assert (value.hash, value.data) == (digest, DATA)


def test_another_key_opens_nothing() -> None:
    digest, sealed = Sealer(b"k" * 32).seal("default/login", DATA)
    with pytest.raises(StoreError, match="default/login cannot be unsealed") as caught:
        Sealer(b"x" * 32).unseal("default/login", digest, sealed)
    assert CANARY not in str(caught.value)


def test_a_sealed_value_is_of_no_use_under_another_name() -> None:
    sealer = Sealer(b"k" * 32)
    digest, sealed = sealer.seal("default/login", DATA)
    with pytest.raises(StoreError):
        sealer.unseal("default/other", digest, sealed)


@pytest.mark.parametrize("position", [0, 15, -1])
def test_a_changed_byte_is_noticed(position: int) -> None:
    sealer = Sealer(b"k" * 32)
    digest, sealed = sealer.seal("default/login", DATA)
    damaged = bytearray(sealed)
    damaged[position] ^= 1
    with pytest.raises(StoreError):
        sealer.unseal("default/login", digest, bytes(damaged))


def test_a_cut_value_is_noticed() -> None:
    sealer = Sealer(b"k" * 32)
    digest, _ = sealer.seal("default/login", DATA)
    for cut in (b"", b"short"):
        with pytest.raises(StoreError):
            sealer.unseal("default/login", digest, cut)


def test_the_hash_changes_with_the_content_only_and_with_the_key() -> None:
    sealer = Sealer(b"k" * 32)
    assert sealer.hash({"a": "1", "b": "2"}) == sealer.hash({"b": "2", "a": "1"})
    assert len({sealer.hash(DATA), sealer.hash({"password": ""}), Sealer(b"x" * 32).hash(DATA)}) == 3


def test_sealing_twice_gives_different_bytes_and_the_same_hash() -> None:
    sealer = Sealer(b"k" * 32)
    (first, sealed), (second, again) = sealer.seal("a", DATA), sealer.seal("a", DATA)
    assert first == second
    assert sealed != again


def test_the_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "context" / "secrets.key"
    made = Sealer.load(path, create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Sealer.load(path).hash(DATA) == made.hash(DATA) == Sealer.load(path, create=True).hash(DATA)


@pytest.mark.parametrize("content", [None, b"", b"c2hvcnQ=\n", b"\xff\xfe not base64"])
def test_a_missing_or_damaged_key_is_told_with_what_to_do(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "secrets.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StoreError, match="key of the secrets") as caught:
        Sealer.load(path)
    assert "restore it" in caught.value.hint


def test_no_value_is_ever_in_the_files_of_the_store(tmp_path: Path) -> None:
    """The write-ahead log counts as well."""
    sealer = Sealer(b"k" * 32)
    digest, sealed = sealer.seal("default/login", DATA)
    store = Store(tmp_path / "store.db", create=True)
    store.edit([secret("login", digest)], secrets={"default/login": (digest, sealed)})
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    written = b"".join(path.read_bytes() for path in files)
    store.close()
    assert {path.name for path in files} >= {"store.db", "store.db-wal"}
    assert b"login" in written
    assert CANARY.encode() not in written
    assert DATA["password"].encode() not in written


def test_no_command_writes_a_core_file_whatever_its_user_allows(tmp_path: Path) -> None:
    """Values pass through its memory."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2); "
        "import controller.cli.main; "
        "controller.cli.main.main = lambda: print(*resource.getrlimit(resource.RLIMIT_CORE)); "
        "from controller.cli.start import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split()[0] == "0"


def test_a_key_that_cannot_be_written_is_no_key_and_is_made_once_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty file would be taken for a damaged key ever after, and nothing would go on."""
    path = tmp_path / "context" / "secrets.key"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            Sealer.load(path, create=True)
    assert list(path.parent.iterdir()) == []
    Sealer.load(path, create=True)
    assert path.stat().st_mode & 0o777 == 0o600


def test_of_two_commands_that_make_the_key_both_use_the_first_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secrets.key"
    mkdir = Path.mkdir
    made: list[Any] = []

    def another_is_quicker(self: Path, *given: Any, **named: Any) -> None:
        mkdir(self, *given, **named)
        if not made:
            made.append("is under way")
            made.append(Sealer.load(path, create=True))

    monkeypatch.setattr(Path, "mkdir", another_is_quicker)
    sealer = Sealer.load(path, create=True)
    assert sealer.hash({}) == made[1].hash({})
    assert list(tmp_path.iterdir()) == [path]
