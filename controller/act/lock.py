"""The lock of passes: advice that keeps two controllers on one machine from working at the same time. The fence is the epoch.

flock, so that it dies with its holder; the file's content only says who holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from controller.model.errors import AnotherController, StoreError


@contextlib.contextmanager
def pass_lock(path: Path) -> Iterator[None]:
    """Holds the lock while inside. Raises AnotherController at once when another process has it, StoreError where there can be none."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened: {error.strerror}",
            hint="is this context another user's? See who owns the directory",
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnotherController(
                f"another run is active ({_holder(descriptor)})",
                hint="it also carries out what you change; nothing is lost",
            ) from None
        with contextlib.suppress(OSError):  # a full disk: it is held all the same
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()}, since {time.strftime('%H:%M:%S')}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 100, 0).decode(errors="replace") or "pid unknown"
