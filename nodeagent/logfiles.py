"""Where containers' log files are, how a line of them is written, their end, and their removal. Does I/O on the log directory only."""

import os
import re
import shutil
from pathlib import Path
from typing import Protocol

LINE = re.compile(rb"(\S+) (stdout|stderr) ([FP])(?:[:\S]*) ?(.*)\Z", re.DOTALL)  # as conmon's k8s-file has them
END_BYTES_MAX, END_LINES_MAX = 2048, 80  # of a log that stands for a termination message: kubelet's numbers


class Logs(Protocol):
    def path(self, uid: str, container: str, attempt: int) -> str:
        """The log file of one attempt; its directory exists afterwards. Raises OSError."""

    def end(self, uid: str, container: str, attempt: int) -> str:
        """The last of what one attempt wrote: 80 lines, 2048 bytes at most. "" when there is no log. Raises OSError."""

    def remove(self, uid: str, container: str, attempt: int) -> None:
        """Removes one attempt's log, rotated parts included; no error when there is none."""

    def remove_pod(self, uid: str) -> None: ...


class LogFiles:
    """Implements Logs below one directory: <uid>/<container>/<attempt>.log. The names were checked when the wanted set was accepted."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def path(self, uid: str, container: str, attempt: int) -> str:
        directory = self._root / uid / container
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(directory / f"{attempt}.log")

    def end(self, uid: str, container: str, attempt: int) -> str:
        path = self._root / uid / container / f"{attempt}.log"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        with os.fdopen(descriptor, "rb") as file:
            # A line of the file is longer than its text; a short text in each gives fewer than 80 of them, which does.
            file.seek(max(0, os.fstat(descriptor).st_size - 8 * END_BYTES_MAX))
            found = [match for line in file.read().split(b"\n") if (match := LINE.match(line)) is not None]
        text = b"".join(match.group(4) + (b"\n" if match.group(3) == b"F" else b"") for match in found)
        lines = text[-END_BYTES_MAX:].splitlines(keepends=True)[-END_LINES_MAX:]
        return b"".join(lines).decode("utf-8", "replace").strip()

    def remove(self, uid: str, container: str, attempt: int) -> None:
        for file in (self._root / uid / container).glob(f"{attempt}.log*"):
            file.unlink(missing_ok=True)

    def remove_pod(self, uid: str) -> None:
        shutil.rmtree(self._root / uid, ignore_errors=True)


class NoLogFiles:
    """Implements Logs where the engine keeps no files: in simulation."""

    def __init__(self, root: str) -> None:
        self._root = root

    def path(self, uid: str, container: str, attempt: int) -> str:
        return f"{self._root}/{uid}/{container}/{attempt}.log"

    def end(self, uid: str, container: str, attempt: int) -> str:
        return ""

    def remove(self, uid: str, container: str, attempt: int) -> None:
        """There is none."""

    def remove_pod(self, uid: str) -> None:
        """There is none."""
