"""Paths, and what may be one, as people write them: on command lines, in inventories, in settings."""

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


def is_host_list(source: str, directory: Path = Path()) -> bool:
    """Whether an inventory source is "host1,host2" or "host1,": it has a comma, and no file, seen from `directory`, has that name."""
    return "," in source and not is_there(directory / user_path(source))


def vault_id_parts(vault_id: str) -> tuple[str, str]:
    """`id@source` → both, `source` → "" and that. The first @ divides, as in Ansible: a path may have one, too."""
    label, at, source = vault_id.partition("@")
    return (label, source) if at else ("", vault_id)


def vault_id_of(label: str, source: str) -> str:
    """What vault_id_parts takes apart again."""
    return f"{label}@{source}" if label or "@" in source else source
