"""`cp`: names come from the command line alone, files appear whole or not at all, whatever a host sends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from controller.cli import transfer
from controller.cli.containers import exec_words
from controller.cli.transfer import Place, local_source, local_target, parse_place, receive, send, size_and_mode
from controller.model.errors import HostError, HostUnreachable, SshoalError, UsageError
from nodeagent.protocol import STDERR, STDOUT
from tests.shell import Shell


class Peer:
    """A host's end of an exec: says what it was told to, and ends as it was told to."""

    def __init__(
        self, pieces: Sequence[tuple[int, bytes]] = (), code: Any = 0, breaks: bool = False, eats: bool = True
    ) -> None:
        self.exit: dict[str, Any] | None = None
        self.got = b""
        self._pieces, self._code, self._breaks, self._eats = pieces, code, breaks, eats
        self._ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[tuple[int, bytes]]:
        if not self._pieces and self._eats:
            await self._ended.wait()
        for piece in self._pieces:
            await asyncio.sleep(0)
            yield piece
        if self._breaks:
            raise HostUnreachable("node1", "the connection was lost")
        self.exit = {"code": self._code}

    async def write(self, data: bytes) -> None:
        if not self._eats:
            raise HostUnreachable("node1", "the stream is over")
        self.got += data

    async def end_input(self) -> None:
        self._ended.set()


# ---- names ----


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("db-0:/var/x", Place("", "db-0", "/var/x")),
        ("shop/db-0:x", Place("shop", "db-0", "x")),
        ("db-0:a:b", Place("", "db-0", "a:b")),
        ("./a:b", None),
        ("/a:b", None),
        ("plain", None),
    ],
)
def test_what_has_a_pod_in_front_is_in_a_container(word: str, place: Place | None) -> None:
    assert parse_place(word) == place


def test_a_download_into_a_directory_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    assert local_target(str(tmp_path), "/etc/hosts") == tmp_path / "hosts"
    assert local_target(str(tmp_path / "new"), "/etc/hosts") == tmp_path / "new"
    for remote in ("/", "..", "/etc/.."):
        with pytest.raises(UsageError, match="names no file"):
            local_target(str(tmp_path), remote)
    with pytest.raises(UsageError, match="no directory"):
        local_target(str(tmp_path / "a" / "b"), "/etc/hosts")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is no file"):
        local_target(str(tmp_path / "pipe"), "/etc/hosts")


def test_only_files_are_sent(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="directory") as refused:
        local_source(str(tmp_path))
    assert "tar" in refused.value.hint
    with pytest.raises(UsageError, match="no file"):
        local_source(str(tmp_path / "nothere"))


# ---- out of a container ----


def fetch(path: Path, peer: Peer, bytes_max: int = 1000) -> int:
    return asyncio.run(receive(peer, "node1", path, bytes_max))


def test_what_comes_is_the_file_with_the_mode_of_the_one_it_replaces(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")
    path.chmod(0o640)
    peer = Peer([(STDOUT, b"one\0"), (STDERR, b"a warning"), (STDOUT, b"\xff\n")])
    assert fetch(path, peer) == 6
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one\0\xff\n", 0o640)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ({"pieces": [(STDERR, b"cat: no such \x1b[31mfile\n")], "code": 1}, "cat: no such file"),
        ({"pieces": [(STDOUT, b"half")], "breaks": True}, "connection was lost"),
        ({"pieces": [(STDOUT, b"x" * 600)] * 2}, "more than 1000 bytes"),
        ({"pieces": [(STDOUT, b"half")], "code": "0"}, "exit code 0"),
        ({"pieces": [(STDOUT, b"half")], "code": None}, "how it ended is not known"),
    ],
    ids=["no such file", "broken", "endless", "nonsense for a code", "no code"],
)
def test_a_download_that_fails_leaves_what_was_there(tmp_path: Path, peer: dict[str, Any], message: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")
    with pytest.raises(HostError, match=message) as failed:
        fetch(path, Peer(**peer))
    assert "\x1b" not in failed.value.message
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_a_peer_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "IDLE_S", 0.05)
    with pytest.raises(HostUnreachable, match=r"nothing came or went"):
        fetch(tmp_path / "f", Peer())
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_cannot_be_written_here_is_no_fault_of_the_host(tmp_path: Path) -> None:
    with pytest.raises(SshoalError, match="can't be written: No such file or directory") as caught:
        asyncio.run(receive(Peer([(STDOUT, b"x")]), "node1", tmp_path / "gone" / "f", 9))
    assert not isinstance(caught.value, HostError)


def test_a_name_as_long_as_a_file_can_have_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / ("\u6570" * 84)
    assert fetch(path, Peer([(STDOUT, b"ok")])) == 2
    assert list(tmp_path.iterdir()) == [path]


# ---- into a container ----


def test_all_bytes_go_and_are_counted_there(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(os.urandom(600_000))
    peer = Peer()
    assert asyncio.run(send(peer, "node1", path, 600_000)) == 600_000
    assert peer.got == path.read_bytes()


def test_of_a_file_that_grows_meanwhile_goes_what_was_there_at_first(tmp_path: Path) -> None:
    """A log: the container counts."""
    path = tmp_path / "f"
    path.write_bytes(b"12345 and more")
    peer = Peer()
    assert asyncio.run(send(peer, "node1", path, 5)) == 5
    assert peer.got == b"12345"


@pytest.mark.parametrize(
    ("path", "said"),
    [("short", "has become shorter"), ("/proc/self/mem", "Input/output error"), ("gone", "No such file")],
)
def test_a_file_that_cannot_be_read_to_its_end_is_told_at_once(tmp_path: Path, path: str, said: str) -> None:
    (tmp_path / "short").write_bytes(b"12")
    with pytest.raises(SshoalError, match=said) as caught:
        asyncio.run(send(Peer(code=1), "node1", tmp_path / path, 5))
    assert not isinstance(caught.value, HostError)


@pytest.mark.parametrize(
    ("path", "said"), [("/proc/self/status", "does not say how long"), ("/proc/self/mem", "can't be read")]
)
def test_a_file_that_cannot_be_sent_is_refused_before_anything_is_run(path: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        size_and_mode(Path(path))


def test_a_container_that_ends_early_is_told_with_its_words(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 10)
    with pytest.raises(HostError, match="read-only file system"):
        asyncio.run(send(Peer([(STDERR, b"read-only file system")], 1, eats=False), "node1", path, 10))


async def taking(arguments: Sequence[str], cwd: Path | None = None, token: str = "1") -> asyncio.subprocess.Process:
    """What the container's shell would do with the upload's script."""
    words = ("sh", "-c", transfer._TAKE_IN, "sshoal", *arguments, token)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*words, stdin=pipe, stderr=pipe, cwd=cwd)


def run_script(arguments: Sequence[str], data: bytes, cwd: Path | None = None) -> tuple[int, str]:
    """Its exit code and what it says."""

    async def go() -> tuple[int, str]:
        process = await taking(arguments, cwd)
        _, told = await process.communicate(data)
        return process.returncode or 0, told.decode()

    return asyncio.run(go())


def test_the_shell_in_the_container_takes_a_whole_file_only(tmp_path: Path) -> None:
    target = tmp_path / 'it\'s a "name" $HOME'
    assert run_script([str(target), "f", "5", "750"], b"12345") == (0, "")
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"12345", 0o750)
    assert run_script([str(target), "f", "5", "600"], b"123")[0] != 0
    assert target.read_bytes() == b"12345", "a broken connection looks like the end of the input"
    assert run_script([str(tmp_path), "f", "0", "600"], b"") == (0, "")
    assert sorted(tmp_path.iterdir()) == sorted([target, tmp_path / "f"])


def test_a_directory_in_the_place_of_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "etc" / "conf").mkdir(parents=True)
    code, told = run_script([str(tmp_path / "etc"), "conf", "2", "600"], b"12")
    assert code != 0 and told == f"{tmp_path}/etc/conf is a directory\n"
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "etc", tmp_path / "etc" / "conf"]


@pytest.mark.parametrize("name", ["-x", "-", "sub/-n", "x" * 255, "a b"])
def test_a_relative_name_is_from_where_the_container_works(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    assert run_script([name, "f", "2", "600"], b"12", tmp_path) == (0, "")
    assert (tmp_path / name).read_bytes() == b"12"
    assert len([*(tmp_path / name).parent.iterdir()]) == (1 if "/" in name else 2)


def test_of_two_uploads_at_once_each_is_whole(tmp_path: Path) -> None:
    async def go() -> None:
        first, second = [await taking([str(tmp_path / "f"), "f", "2", "600"], token=token) for token in ("1", "2")]
        assert first.stdin is not None
        first.stdin.write(b"1")
        await second.communicate(b"22")
        assert (second.returncode, (tmp_path / "f").read_bytes()) == (0, b"22")
        await first.communicate(b"1")
        assert (first.returncode, (tmp_path / "f").read_bytes()) == (0, b"11")

    asyncio.run(go())
    assert list(tmp_path.iterdir()) == [tmp_path / "f"]


# ---- as typed ----


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b"], "POD:PATH"),
        (["pod:/a", "pod:/b"], "POD:PATH"),
        (["lonely:", "b"], "names no file"),
        (["lonely:/a", "b"], "on no node yet"),
        (["nothere:/a", "b"], "not found"),
        (["lonely:/a", "b", "--max-size", "big"], "--max-size"),
    ],
)
def test_wrong_requests_are_refused(full: Shell, words: list[str], message: str) -> None:
    code, out, err = full("cp", *words)
    assert (code, out) == (2, "") and message in err


def test_a_container_is_told_text_only() -> None:
    assert exec_words(["cat", "--", "/tmp/\u00fc"]) == ("cat", "--", "/tmp/\u00fc")
    with pytest.raises(UsageError, match="is not UTF-8"):
        exec_words(["cat", "--", "/tmp/\udcfc"])
