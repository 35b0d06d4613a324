"""Files and directories that pods mount. In: a pod and the config maps and secrets held. Out: host paths. Does file I/O and mounts.

    ROOT/pods/<uid>/volumes/<name>   emptyDir and volumes made of config maps and pod fields; on disk, gone with the pod
    ROOT/pods/<uid>/etc/             resolv.conf and hosts
    ROOT/pods/<uid>/messages/        termination messages, <container>/<attempt>
    RUN/pods/<uid>/volumes/<name>    memory-backed emptyDir (a tmpfs each), and every volume with a secret in it: never on a disk
    RUN/pods/<uid>/parts/            parts of volumes (subPath), <container>/<number of the mount>, bound there

The pods directories are 0700: containers reach their volumes by bind mount, nobody else on the host does. Modes, fsGroup, items and the
atomic swap of files are kubelet's (its emptydir, configmap, secret, projected and hostpath volumes, and its atomic writer).
All work is done in a thread: a slow disk delays one pod, not the agent. What may take minutes, or for ever (directories of a file server
that is gone), has threads of its own: all others go on.
"""

import asyncio
import errno
import os
import re
import stat
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from nodeagent import lasting, netfiles, projection, subpaths
from nodeagent.protocol import Container, Pod, Volume
from nodeagent.runtime import Content, MissingContent
from nodeagent.spec import TERMINATION_KEY, sub_path_key
from nodeagent.storage import own_directory

TOOL_TIMEOUT_S = 30.0
REMOVE_TIMEOUT_S = 300.0
MESSAGE_BYTES_MAX = 4096  # of a termination message, as kubelet reads it: its end
MESSAGES_KEPT = 3  # of the newest attempts
_OUTSIDE = ThreadPoolExecutor(4, thread_name_prefix="outside")  # for what lies in directories of the host
_REMOVALS = ThreadPoolExecutor(2, thread_name_prefix="removal")
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}\Z")
_MEMORY_TYPES = ("tmpfs", "ramfs")

T = TypeVar("T")


class HostFiles:
    """Implements runtime.Files below two directories of this user: `root` on disk, `run` on tmpfs."""

    def __init__(self, root: str, run: str) -> None:
        self._root = Path(os.path.realpath(root)) / "pods"  # real paths: they are compared with mount points
        self._run = Path(os.path.realpath(run)) / "pods"

    async def prepare(self, pod: Pod, content: Content) -> dict[str, str]:
        return await _in_thread(_threads_for(pod), self._prepare, pod, content)

    async def prepare_container(
        self, pod: Pod, container: Container, attempt: int, paths: Mapping[str, str]
    ) -> dict[str, str]:
        return await _in_thread(_threads_for(pod), self._prepare_container, pod, container, attempt, paths)

    async def termination_message(self, uid: str, container: str, attempt: int) -> str:
        return await asyncio.to_thread(self._termination_message, uid, container, attempt)

    async def refresh(self, pod: Pod, content: Content) -> None:
        await asyncio.to_thread(self._refresh, pod, content)

    async def set_address(self, pod: Pod, ip: str) -> None:
        await asyncio.to_thread(self._set_address, pod, ip)

    async def volumes(self, directory: str) -> dict[str, str]:
        return await _in_thread(_OUTSIDE, lasting.found, Path(directory))

    async def make_volume(self, directory: str, name: str) -> str:
        return await _in_thread(_OUTSIDE, lasting.make, Path(directory), _component(name))

    async def open_volume(self, path: str) -> None:
        await _in_thread(_OUTSIDE, lasting.open_empty, Path(path))

    async def remove_volume(self, directory: str, name: str) -> None:
        await _in_thread(_OUTSIDE, self._remove_volume, Path(directory), _component(name))

    async def remove(self, uid: str) -> None:
        await _in_thread(_REMOVALS, self._remove, uid)

    async def uids(self) -> tuple[str, ...]:
        return await asyncio.to_thread(self._uids)

    # ---- prepare, refresh ----

    def _prepare(self, pod: Pod, content: Content) -> dict[str, str]:
        # Everything that can be missing is looked up first: nothing is made for a pod that can't start yet.
        projected = {
            volume.name: projection.project(pod, volume, content) for volume in pod.volumes if volume.kind == "files"
        }
        paths = {}
        for volume in pod.volumes:
            if volume.kind == "host":
                paths[volume.name] = host_path(volume, content.host_paths)
                continue
            if volume.kind == "claim":
                paths[volume.name] = _claimed(volume, content, pod.fs_group)
                continue
            path = self._volume_dir(pod, volume)
            paths[volume.name] = str(path)
            if volume.kind == "files":
                projection.write(path, projected[volume.name], pod.fs_group)
            elif volume.kind == "memory":
                self._mount_memory(path, volume.size_bytes)
                _open_to_all(path, pod.fs_group)
            elif volume.kind == "empty":
                _make_directory(path)
                _open_to_all(path, pod.fs_group)
            else:
                raise OSError(errno.EINVAL, f"volume {volume.name}: unknown kind {volume.kind!r}")
        return {**paths, **self._prepare_etc(pod)}

    def _prepare_etc(self, pod: Pod) -> dict[str, str]:
        directory = self._etc_dir(pod.uid)
        resolv, hosts = directory / "resolv.conf", directory / "hosts"
        _write_in_place(resolv, netfiles.resolv_conf(pod))
        if not hosts.exists() or not hosts.stat().st_size:
            _write_in_place(hosts, netfiles.hosts(pod, ""))
        return {"/etc/resolv.conf": str(resolv), "/etc/hosts": str(hosts)}

    # ---- one attempt of a container ----

    def _prepare_container(
        self, pod: Pod, container: Container, attempt: int, paths: Mapping[str, str]
    ) -> dict[str, str]:
        own = {TERMINATION_KEY: str(self._new_message(pod.uid, container.name, attempt))}
        for number, mount in enumerate(container.mounts):
            if not mount.sub_path or mount.volume not in paths:
                continue
            directory = self._pod_dir(self._run, pod.uid) / "parts" / _component(container.name)
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            target = directory / str(number)
            self._drop_part(target)  # of the attempt before, which has its own view of it
            may_make = all(volume.kind != "files" for volume in pod.volumes if volume.name == mount.volume)
            try:
                subpaths.bind(Path(paths[mount.volume]), mount.sub_path, target, may_make=may_make)
            except OSError as error:
                why = f"volume {mount.volume}: {error.strerror or error}"
                raise OSError(error.errno, why, error.filename) from None
            own[sub_path_key(mount.volume, mount.sub_path)] = str(target)
        return own

    def _drop_part(self, target: Path) -> None:
        if any(point == str(target) for point, _ in _mounts()):
            _run_tool("umount", "--lazy", str(target))
        if target.is_dir():
            target.rmdir()
        target.unlink(missing_ok=True)

    def _new_message(self, uid: str, container: str, attempt: int) -> Path:
        directory = self._pod_dir(self._root, uid) / "messages"
        _make_directory(directory)
        directory = directory / _component(container)
        _make_directory(directory)
        for old in directory.iterdir():
            if old.name.isdigit() and int(old.name) <= attempt - MESSAGES_KEPT:
                old.unlink()
        path = directory / str(attempt)
        _write_in_place(path, "")
        path.chmod(0o666)  # whoever the container runs as
        return path

    def _termination_message(self, uid: str, container: str, attempt: int) -> str:
        path = self._root / _component(uid) / "messages" / _component(container) / str(attempt)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        with os.fdopen(descriptor, "rb") as file:
            file.seek(max(0, os.fstat(descriptor).st_size - MESSAGE_BYTES_MAX))
            return file.read(MESSAGE_BYTES_MAX).decode("utf-8", "replace")

    # ---- later ----

    def _refresh(self, pod: Pod, content: Content) -> None:
        for volume in pod.volumes:
            if volume.kind == "files":
                path = self._volume_dir(pod, volume)
                projection.write(path, projection.project(pod, volume, content), pod.fs_group)

    def _set_address(self, pod: Pod, ip: str) -> None:
        _write_in_place(self._etc_dir(pod.uid) / "hosts", netfiles.hosts(pod, ip))

    def _etc_dir(self, uid: str) -> Path:
        directory = self._pod_dir(self._root, uid) / "etc"
        _make_directory(directory)
        return directory

    def _volume_dir(self, pod: Pod, volume: Volume) -> Path:
        in_memory = volume.kind == "memory" or any(source.kind == "secret" for source in volume.sources)
        base = self._run if in_memory else self._root
        if in_memory:
            self._require_memory()
        parent = self._pod_dir(base, pod.uid) / "volumes"
        _make_directory(parent)
        return parent / _component(volume.name)

    def _pod_dir(self, base: Path, uid: str) -> Path:
        own_directory(base)
        directory = base / _component(uid)
        own_directory(directory)
        return directory

    def _require_memory(self) -> None:
        """Secrets must not reach a disk: where `run` is no tmpfs (unusual), one is mounted."""
        own_directory(self._run)
        if _filesystem_of(self._run) not in _MEMORY_TYPES:
            _run_tool("mount", "-t", "tmpfs", "-o", "mode=0700,nosuid,nodev", "sshoal", str(self._run))

    def _mount_memory(self, path: Path, size_bytes: int) -> None:
        _make_directory(path)
        if path.is_mount():
            return
        size = f",size={size_bytes}" if size_bytes else ""
        _run_tool("mount", "-t", "tmpfs", "-o", f"mode=0777,nosuid,nodev{size}", "sshoal", str(path))

    # ---- remove ----

    def _remove_volume(self, directory: Path, name: str) -> None:
        whole = lasting.whole(directory, name)
        if whole is None:
            return
        if mounts := _mounts_below(whole):
            raise OSError(errno.EBUSY, "something is mounted in it; unmount it, then it can be removed", mounts[0][0])
        _remove_tree(whole)

    def _remove(self, uid: str) -> None:
        for base in (self._root, self._run):
            directory = base / _component(uid)
            if not directory.is_dir() or directory.is_symlink():
                continue
            self._unmount_below(directory)
            _remove_tree(directory)

    def _unmount_below(self, directory: Path) -> None:
        """Unmounts our tmpfs volumes and parts. Raises OSError for any other mount: what is behind it is not ours to remove."""
        volumes, parts = directory / "volumes", directory / "parts"
        for point, kind in reversed(_mounts_below(directory)):
            is_volume = kind == "tmpfs" and Path(point).parent == volumes
            if self._run not in volumes.parents or not (is_volume or Path(point).parent.parent == parts):
                raise OSError(
                    errno.EBUSY, f"something is mounted there ({kind}); unmount it, then the pod can be removed", point
                )
            _run_tool("umount", "--lazy", point)

    def _uids(self) -> tuple[str, ...]:
        found = set()
        for base in (self._root, self._run):
            if base.is_dir():
                found |= {entry.name for entry in os.scandir(base) if entry.is_dir(follow_symlinks=False)}
        return tuple(sorted(found))


# ---- threads --------------------------------------------------------------------------------------------------------------


def _threads_for(pod: Pod) -> Optional[ThreadPoolExecutor]:
    return _OUTSIDE if any(volume.kind in ("host", "claim") for volume in pod.volumes) else None


async def _in_thread(threads: Optional[ThreadPoolExecutor], work: Callable[..., T], *arguments: Any) -> T:
    """`threads`: None stands for the loop's own."""
    return await asyncio.get_running_loop().run_in_executor(threads, work, *arguments)


# ---- claims ---------------------------------------------------------------------------------------------------------------


def _claimed(volume: Volume, content: Content, fs_group: Optional[int]) -> str:
    """The path of a claim's volume, with its group set once. Raises MissingContent while the volume is not there."""
    path = content.volumes.get(volume.claim, "")
    if not path or not Path(path).is_dir():
        raise MissingContent(
            f"volume {volume.name}: the volume of its claim is not on this node (sshoal get pvc -o wide)"
        )
    if fs_group is not None and not lasting.belongs_to(Path(path), fs_group):
        # -h and no -L: a symlink that a pod has planted leads nowhere. The directory itself is last: it says that all is done.
        _run_tool("chgrp", "-hR", str(fs_group), "--", path, timeout_s=REMOVE_TIMEOUT_S)
        _run_tool("chmod", "-R", "g+rwX", "--", path, timeout_s=REMOVE_TIMEOUT_S)
        lasting.share(Path(path), fs_group)
    return path


# ---- hostPath -------------------------------------------------------------------------------------------------------------

_TYPE_CHECKS = {
    "Directory": stat.S_ISDIR,
    "DirectoryOrCreate": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "FileOrCreate": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}


def host_path(volume: Volume, allowed: tuple[str, ...]) -> str:
    """The path to mount, symlinks resolved, checked (and made) by its type as kubelet does.

    Symlinks are resolved before the allow-list is asked: one inside an allowed directory can't lead out of it. The type "" makes a
    directory where nothing is, as container runtimes do for kubelet. Raises OSError with the volume's name.
    """
    path = os.path.realpath(volume.path)
    if not volume.path.startswith("/") or ".." in volume.path.split("/"):
        raise OSError(errno.EINVAL, f"volume {volume.name}: a host path is absolute and has no '..'", volume.path)
    if not any(_is_within(path, os.path.realpath(prefix)) for prefix in allowed):
        raise OSError(
            errno.EACCES, f"volume {volume.name}: not within the host paths that this node allows", volume.path
        )
    if volume.path_type not in ("", *_TYPE_CHECKS):
        raise OSError(errno.EINVAL, f"volume {volume.name}: unknown type {volume.path_type!r}", volume.path)
    if volume.path_type in ("", "DirectoryOrCreate") and not os.path.lexists(path):
        _make_open_directories(Path(path))
    elif volume.path_type == "FileOrCreate" and not os.path.lexists(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.fchmod(descriptor, 0o644)  # whatever this process's umask
        os.close(descriptor)
    if volume.path_type and not _TYPE_CHECKS[volume.path_type](Path(path).stat().st_mode):
        raise OSError(errno.EINVAL, f"volume {volume.name}: is not of type {volume.path_type}", volume.path)
    return path


def _make_open_directories(path: Path) -> None:
    """With what lacks above it, 0755 as kubelet makes them: pods run as other users, and the agent's umask leaves those nothing."""
    if not path.parent.is_dir():
        _make_open_directories(path.parent)
    path.mkdir()
    path.chmod(0o755)


def _is_within(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


# ---- below ------------------------------------------------------------------------------------------------------------------


def _component(name: str) -> str:
    """A name that is safe as one part of a path: it came over the wire."""
    if not _COMPONENT.match(name):
        raise OSError(errno.EINVAL, f"not usable as a file name: {name[:64]!r}")
    return name


def _make_directory(path: Path) -> None:
    path.mkdir(mode=0o755, exist_ok=True)


def _open_to_all(path: Path, fs_group: Optional[int]) -> None:
    """Mode of an emptyDir: every user of the pod may write; with fsGroup, new files belong to that group."""
    if fs_group is None:
        path.chmod(0o777)
        return
    os.chown(path, -1, fs_group)
    path.chmod(0o2777)


def _write_in_place(path: Path, text: str) -> None:
    """Same inode, since a running container has this very file mounted. One write, then the cut: no reader finds it empty."""
    content = text.encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
    finally:
        os.close(descriptor)


def _remove_tree(path: Path) -> None:
    """rm rather than shutil: it follows no symlink either, stops at mounts, and a million nested directories don't exhaust it."""
    _run_tool("rm", "-rf", "--one-file-system", "--", str(path), timeout_s=REMOVE_TIMEOUT_S)


def _mounts_below(directory: Path) -> list[tuple[str, str]]:
    """(mount point, file system type) of all mounts at or below a directory, parents first."""
    return [(point, kind) for point, kind in _mounts() if _is_within(point, str(directory))]


def _filesystem_of(directory: Path) -> str:
    """Type of the file system that holds a directory: the last mount on the longest mount point above it."""
    holding = [item for item in _mounts() if _is_within(str(directory), item[0])]
    return max(enumerate(holding), key=lambda item: (len(item[1][0]), item[0]))[1][1] if holding else ""


def _mounts() -> list[tuple[str, str]]:
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), before.split(" ")[4])
        mounts.append((point, after.split(" ")[0]))
    return mounts


def _run_tool(*argv: str, timeout_s: float = TOOL_TIMEOUT_S) -> None:
    """Raises OSError with what the tool said."""
    try:
        done = subprocess.run(argv, capture_output=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{argv[0]} did not end within {timeout_s:g} s", argv[-1]) from None
    if done.returncode != 0:
        raise OSError(errno.EIO, f"{argv[0]} failed: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}", argv[-1])
