"""Paths as people write them: on command lines, in inventories, in settings."""

from __future__ import annotations

import os
from pathlib import Path


def user_path(text: str) -> Path:
    """With `~` and `~ada` filled in. Of a user that there is not it stays: whoever opens that says which file is not there."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises RuntimeError for such a user


def is_there(path: Path) -> bool:
    """Whether there is something. A name that no file can have, such as a long list of hosts, is that of none."""
    try:
        return path.exists()
    except OSError:
        return False
