"""`exec`: this side's standard input and output, whatever they are."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from controller.cli import terminal
from controller.model.errors import SshoalError


class Far:
    """The command's end."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.got += data

    async def end_input(self) -> None:
        self.ended.set()


def what_arrives(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> bytes:
    """Of a standard input, until its end was told."""

    async def go() -> bytes:
        far: Any = Far()
        monkeypatch.setattr(terminal, "_STDIN", descriptor)
        terminal._start_reading(far)
        async with asyncio.timeout(4):
            await far.ended.wait()
        assert isinstance(far.got, bytes)
        return far.got

    return asyncio.run(go())


def test_an_input_that_cannot_be_read_is_one_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    assert what_arrives(monkeypatch, directory) == b""
    os.close(directory)
    assert capsys.readouterr().err == "note: standard input can't be read: Is a directory\n"


def test_an_input_that_does_not_block_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)

    def write() -> None:
        os.write(writing, b"one")
        os.close(writing)

    threading.Timer(0.1, write).start()
    assert what_arrives(monkeypatch, reading) == b"one"
    os.close(reading)


def test_an_output_that_does_not_block_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    os.set_blocking(reading, True)
    got = bytearray()

    def read() -> None:
        while data := os.read(reading, 65536):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    terminal._write_all(writing, b"x" * 1_000_000)
    os.close(writing)
    reader.join()
    os.close(reading)
    assert len(got) == 1_000_000


def test_a_full_disk_here_is_said_in_one_line() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(SshoalError, match="can't be written here: No space left on device"):
        terminal._write_all(descriptor, b"x")
    os.close(descriptor)
