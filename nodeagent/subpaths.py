"""Parts of volumes (subPath): walked without ever following a symlink, then bound to a place that no container reaches.

In: a volume's directory, which hostile containers may change at any moment, and a relative path. Out: a bind mount. Steps as kubelet's:
symlinks are resolved once, the result must lie in the volume, and it is opened component by component; what was opened is what is
mounted, whatever its path leads to by then. Effects: directories, mounts.
"""

import ctypes
import errno
import os
import stat
from pathlib import Path

_MS_BIND = 4096
_libc = ctypes.CDLL(None, use_errno=True)


def bind(volume: Path, sub_path: str, target: Path, *, may_make: bool) -> None:
    """Mounts `volume`/`sub_path` at `target`, which is made a file or directory as needed.

    Args:
        may_make: missing directories are made, with the mode of the volume.
    Raises: OSError: it leads out of the volume (EACCES), is missing, or can't be mounted.
    """
    descriptor = _open_inside(volume, sub_path, may_make)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            target.mkdir(mode=0o700, exist_ok=True)
        else:
            target.touch(mode=0o600)
        # By descriptor: mount(8) would resolve this link to a path, and that path anew.
        source = f"/proc/self/fd/{descriptor}".encode()
        if _libc.mount(source, os.fsencode(target), None, ctypes.c_ulong(_MS_BIND), None) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"can't be mounted: {os.strerror(number)}", sub_path)
    finally:
        os.close(descriptor)


def _open_inside(volume: Path, sub_path: str, may_make: bool) -> int:
    root = os.path.realpath(volume)
    path = os.path.realpath(volume / sub_path)
    if os.path.commonpath([root, path]) != root:
        raise OSError(errno.EACCES, f"subPath {sub_path!r} leads out of its volume")
    descriptor = os.open(root, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        for part in Path(path).relative_to(root).parts:
            if may_make:
                _make(descriptor, part, mode)
            inner = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):  # it was put there just now
                raise OSError(errno.ELOOP, f"subPath {sub_path!r} changed while it was looked at")
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.ENOENT:
            raise OSError(errno.ENOENT, f"subPath {sub_path!r} is not in its volume") from None
        raise
    return descriptor


def _make(directory: int, name: str, mode: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        return
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fchmod(made, mode)
    finally:
        os.close(made)
