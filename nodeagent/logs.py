"""Logs of one container, from the k8s-file that conmon writes. In: a LogsRequest. Out: STDOUT and STDERR frames. Reads files.

A line of the file is "<RFC 3339 time> <stdout|stderr> <F|P> <text>"; P is a piece of a line that goes on. Pieces are sent as they come,
with no newline between, so that nothing has to be held. Following goes on over rotation (another file at the path, or a shorter one) and
ends with the container, as `kubectl logs -f` does.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

from nodeagent import protocol
from nodeagent.agent import Refused
from nodeagent.logfiles import LINE
from nodeagent.protocol import LogsRequest
from nodeagent.streams import Channel

BLOCK_BYTES = 64 * 1024
LINE_BYTES_MAX = 1024 * 1024  # conmon cuts lines at some KiB; more is no log of its
POLL_S = 0.25


async def logs(agent: Any, request: LogsRequest, channel: Channel) -> dict[str, Any]:
    """Sends what the request asks for → {} as exit. Raises Refused (not-found) when the container has no log."""
    container_id, path = agent.find_container(request.uid, request.container, request.previous)
    if path is None:
        which = "previous container" if request.previous else "container"
        raise Refused(protocol.NOT_FOUND, f"{which} {request.container!r} has no log")
    file = _LogFile(path)
    try:
        file.open()
    except FileNotFoundError:
        raise Refused(protocol.NOT_FOUND, f"the log of container {request.container!r} is gone") from None
    try:
        await channel.open()
        sender = _Sender(request, channel)
        if request.tail >= 0:
            await asyncio.to_thread(file.seek_tail, request.tail)
        await _send_rest(file, sender)
        if request.follow and not request.previous:
            await _follow(lambda: agent.has_ended(request.uid, request.container, container_id), file, sender)
        return {}
    finally:
        file.close()


async def _send_rest(file: "_LogFile", sender: "_Sender") -> None:
    while not sender.full:
        lines = await asyncio.to_thread(file.read_lines)
        if not lines:
            return
        await sender.send(lines)


async def _follow(has_ended: Callable[[], bool], file: "_LogFile", sender: "_Sender") -> None:
    while not sender.full:
        lines = await asyncio.to_thread(file.read_lines)
        if lines:
            await sender.send(lines)
            continue
        if await asyncio.to_thread(file.is_replaced):
            await _send_rest(file, sender)  # nothing is written to the old one any more: this is its end
            await asyncio.to_thread(file.open_next)
            continue
        if has_ended():
            await _send_rest(file, sender)  # what was written between the last read and the end
            return
        await asyncio.sleep(POLL_S)


class _LogFile:
    """Whole lines of a file that grows and is rotated."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._begun = b""  # a line whose end was not written yet

    def open(self) -> None:
        self.close()
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self._begun = b""

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read_lines(self) -> list[bytes]:
        """Those that are there; empty at the end of the file."""
        while True:
            block = os.read(self._descriptor, BLOCK_BYTES)
            if not block:
                return []
            *lines, self._begun = (self._begun + block).split(b"\n")
            if len(self._begun) > LINE_BYTES_MAX:
                self._begun = b""
            if lines:
                return lines

    def seek_tail(self, count: int) -> None:
        """Goes to where the last `count` lines begin; pieces (P) belong to the line that they are part of."""
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        start, kept, found = end, b"", 0
        cut = end  # where the lines found so far begin
        while start > 0 and found <= count:
            size = min(BLOCK_BYTES, start)
            start -= size
            kept = os.pread(self._descriptor, size, start) + kept
            # Before it is the end of a line whose start is still to be read
            first = kept.find(b"\n") + 1 if start else 0
            if start and not first:
                continue
            for offset, line in _backwards(kept, first, start):
                if _is_full(line):
                    found += 1
                    if found > count:
                        break
                cut = offset
            kept = kept[:first]
        os.lseek(self._descriptor, cut, os.SEEK_SET)

    def is_replaced(self) -> bool:
        """Whether another file is at the path by now, as conmon does it when the log has reached its cap, or this one was cut."""
        here = os.fstat(self._descriptor)
        try:
            there = Path(self._path).lstat()
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) or self._is_cut(here.st_size)

    def _is_cut(self, size: int) -> bool:
        return size < os.lseek(self._descriptor, 0, os.SEEK_CUR)

    def open_next(self) -> None:
        """Goes to the start of the file that is at the path; stays with the old one while there is none."""
        old = self._descriptor
        try:
            self._descriptor = -1
            self.open()
            os.close(old)
        except FileNotFoundError:
            self._descriptor = old


def _backwards(block: bytes, first: int, base: int) -> Iterator[tuple[int, bytes]]:
    """(offset in the file, line) of the lines in block[first:], last one first; without an unfinished one at the end."""
    end = block.rfind(b"\n")
    while end >= first:
        begin = block.rfind(b"\n", first, end) + 1 or first
        yield base + begin, block[begin:end]
        end = begin - 1


def _is_full(line: bytes) -> bool:
    match = LINE.match(line)
    return match is not None and match.group(3) == b"F"


@dataclass(frozen=True)
class _Piece:
    kind: int
    content: bytes


class _Sender:
    """Turns lines of the file into frames, as far as the request wants them."""

    def __init__(self, request: LogsRequest, channel: Channel) -> None:
        self.full = False
        self._channel = channel
        self._timestamps = request.timestamps
        self._since_s = time.time() - request.since_s if request.since_s > 0 else None
        self._left_bytes = request.limit_bytes or None
        self._within: dict[bytes, bool] = {b"stdout": False, b"stderr": False}  # a line is begun there

    async def send(self, lines: list[bytes]) -> None:
        pieces = [piece for piece in map(self._piece, lines) if piece is not None]
        start = 0
        while start < len(pieces) and not self.full:
            end = start
            while end < len(pieces) and pieces[end].kind == pieces[start].kind:
                end += 1
            await self._send(pieces[start].kind, b"".join(piece.content for piece in pieces[start:end]))
            start = end

    async def _send(self, kind: int, content: bytes) -> None:
        if self._left_bytes is not None:
            content = content[: self._left_bytes]
            self._left_bytes -= len(content)
            self.full = self._left_bytes == 0
        await self._channel.send(kind, content)

    def _piece(self, line: bytes) -> Optional[_Piece]:
        match = LINE.match(line)
        if match is None:
            return None  # torn by a crash
        stamp, stream, tag, text = match.groups()
        if self._since_s is not None:
            if _wall_s(stamp) < self._since_s:
                return None
            self._since_s = None  # lines are in order: later ones are younger
        begins, self._within[stream] = not self._within[stream], tag == b"P"
        prefix = stamp + b" " if self._timestamps and begins else b""
        kind = protocol.STDOUT if stream == b"stdout" else protocol.STDERR
        return _Piece(kind, prefix + text + (b"\n" if tag == b"F" else b""))


def _wall_s(stamp: bytes) -> float:
    """Seconds since 1970; 0 of what is no time. Digits past microseconds are cut, Python 3.9 reads no more."""
    match = re.match(
        r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)\Z", stamp.decode("ascii", "replace")
    )
    if match is None:
        return 0.0
    moment, fraction, zone = match.groups()
    try:
        whole = datetime.fromisoformat(moment + ("+00:00" if zone == "Z" else zone)).timestamp()
    except ValueError:
        return 0.0
    return whole + float(f"0.{fraction or 0}")
