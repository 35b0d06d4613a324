"""Volumes that outlive pods, in directories that the inventory declares. In: a directory and a name. Out: paths. Does file I/O.

    DIRECTORY/.sshoal        says that volumes of ours are there: without it, the disk behind the directory may not be mounted
    DIRECTORY/NAME/_data     the volume; NAME is 0700, so that nobody else on the host reaches what the pods' users may write

Nothing is ever looked for beyond NAME: what is in a volume belongs to its pods, which may be hostile.
"""

import errno
import os
import stat
from pathlib import Path
from typing import Optional

MARK = ".sshoal"
DATA = "_data"
NAMES_MAX = 10_000  # of one directory that are looked at


def found(directory: Path) -> dict[str, str]:
    """{name: path} of what may be volumes of ours."""
    try:
        entries = os.scandir(directory)
    except FileNotFoundError:
        return {}
    with entries:
        names = [entry.name for _, entry in zip(range(NAMES_MAX), entries) if entry.name.startswith("sshoal-")]
    paths = {name: directory / name / DATA for name in names}
    return {name: str(path) for name, path in paths.items() if _is_real(path.parent) and _is_real(path)}


def make(directory: Path, name: str) -> str:
    """→ its path. Raises OSError."""
    if not directory.is_dir():
        raise OSError(errno.ENOENT, "the directory that sshoal_volumes declares is not there", str(directory))
    whole = directory / name
    whole.mkdir(mode=0o700, exist_ok=True)
    if not _is_real(whole):
        raise OSError(errno.ENOTDIR, "is no directory of ours", str(whole))
    (whole / DATA).mkdir(mode=0o755, exist_ok=True)
    (directory / MARK).touch(mode=0o600)
    _sync(whole)
    _sync(directory)
    return str(whole / DATA)


def whole(directory: Path, name: str) -> Optional[Path]:
    """What is to be removed; None: nothing. Raises OSError when the disk may be elsewhere."""
    path = directory / name
    if _is_real(path):
        return path
    if os.path.lexists(path):
        raise OSError(errno.ENOTDIR, "is no directory of ours", str(path))
    if not (directory / MARK).exists():
        raise OSError(errno.ENOENT, "has no volumes of ours: is its disk mounted?", str(directory))
    return None


def open_empty(path: Path) -> None:
    """Whatever user a container has may write into a new volume. One with files keeps the mode that they gave it."""
    with os.scandir(path) as entries:
        is_empty = next(entries, None) is None
    if is_empty and not path.stat().st_mode & stat.S_ISGID:
        path.chmod(0o777)


def belongs_to(path: Path, group: int) -> bool:
    """Whether the volume was shared with this group before."""
    status = path.stat()
    return status.st_gid == group and bool(status.st_mode & stat.S_ISGID)


def share(path: Path, group: int) -> None:
    """New files belong to the group from now on."""
    os.chown(path, -1, group)
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o2770)


def _is_real(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
