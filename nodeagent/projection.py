"""Volumes made of config maps, secrets and pod fields: what files they hold, and how these are swapped in whole. `project` is pure.

Layout and order of steps are those of Kubernetes' atomic writer, since programs watch for it: visible names are symlinks through `..data`,
which is a symlink to a directory with a time in its name; an update writes a new directory and renames `..data`.
"""

import errno
import os
import shutil
import tempfile
import time
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from nodeagent import downward
from nodeagent.protocol import Capacity, Item, Pod, Source, Volume
from nodeagent.runtime import Content, MissingContent

DATA = "..data"


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int

    def __repr__(self) -> str:
        return f"File({len(self.content)} bytes, {self.mode:o})"  # the content may be a secret


def project(pod: Pod, volume: Volume, content: Content) -> dict[str, File]:
    """Relative path → file. Raises MissingContent for what is required and not there, OSError for an impossible path or value."""
    files: dict[str, File] = {}
    for source in volume.sources:
        try:
            files.update(_files_of(source, pod, volume, content))
        except ValueError:  # base64 or text that can't be; its words could hold a part of a secret
            raise OSError(errno.EINVAL, f"volume {volume.name}: a value of {source.name} can't be decoded") from None
    for path in files:
        _check_path(volume.name, path)
    return files


def _files_of(source: Source, pod: Pod, volume: Volume, content: Content) -> dict[str, File]:
    if source.kind != "downward":
        return _keyed(source, volume, content)
    return {item.path: File(_field_text(pod, item).encode(), _mode(item, volume)) for item in source.items}


def _keyed(source: Source, volume: Volume, content: Content) -> dict[str, File]:
    what = f"{'secret' if source.kind == 'secret' else 'config map'} {source.name}"
    values = _secret_values(source, content) if source.kind == "secret" else _config_values(source, content)
    if values is None:
        if source.optional:
            return {}
        raise MissingContent(f"{what} does not exist")
    if not source.items:
        return {key: File(value, volume.mode) for key, value in values.items()}
    files = {}
    for item in source.items:
        if item.key in values:
            files[item.path] = File(values[item.key], _mode(item, volume))
        elif not source.optional:
            raise MissingContent(f"{what} has no key {item.key!r}")
    return files


def _config_values(source: Source, content: Content) -> Optional[dict[str, bytes]]:
    config = content.configs.get(source.name)
    if config is None:
        return None
    values = {key: text.encode() for key, text in config.data.items()}
    values.update({key: b64decode(text) for key, text in config.binary.items()})
    return values


def _secret_values(source: Source, content: Content) -> Optional[dict[str, bytes]]:
    """A secret exists when the wanted set names it; until its value of that hash has come, pods wait, optional or not."""
    wanted = content.wanted_secrets.get(source.name)
    if wanted is None:
        return None
    secret = content.secrets.get(source.name)
    if secret is None or secret.hash != wanted:
        raise MissingContent(f"the value of secret {source.name} has not arrived yet")
    return {key: b64decode(text) for key, text in secret.data.items()}


def _mode(item: Item, volume: Volume) -> int:
    return volume.mode if item.mode is None else item.mode


def _check_path(volume: str, path: str) -> None:
    parts = path.split("/")
    if path.startswith("..") or not all(parts) or ".." in parts or "." in parts or "\0" in path:
        raise OSError(errno.EINVAL, f"volume {volume}: not usable as a path in it: {path[:128]!r}")


def _field_text(pod: Pod, item: Item) -> str:
    """Raises MissingContent for what volumes don't offer."""
    if item.resource:
        here = Capacity((os.cpu_count() or 1) * 1000, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        try:
            return downward.resource(pod, item.container, item.resource, item.divisor, here)
        except LookupError as error:
            raise MissingContent(f"pod field {item.resource!r}: {error.args[0]}") from None
    found = downward.field(pod, item.field)
    found = downward.listing(pod, item.field) if found is None else found
    if found is None:
        raise MissingContent(f"pod field {item.field!r} can't be had in a volume")
    return found


# ---- the atomic writer ------------------------------------------------------------------------------------------------------


def write(directory: Path, files: Mapping[str, File], fs_group: Optional[int]) -> None:
    """Makes `directory` show exactly `files`. Does nothing when it does already. Raises OSError; the old state is shown until the swap."""
    directory.mkdir(mode=0o755, exist_ok=True)
    _own(directory, 0o755, fs_group)
    current = directory / DATA
    if current.is_symlink() and _holds(current, files, fs_group):
        _link_names(directory, files)
        return
    fresh = Path(tempfile.mkdtemp(prefix=time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime()), dir=directory))
    try:
        _fill(fresh, files, fs_group)
        link = directory / "..data_tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(fresh.name)
        link.replace(current)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _link_names(directory, files)
    _drop_others(directory, fresh.name)


def _fill(directory: Path, files: Mapping[str, File], fs_group: Optional[int]) -> None:
    _own(directory, 0o755, fs_group)
    for path, file in files.items():
        target = directory
        for part in path.split("/")[:-1]:
            target = target / part
            target.mkdir(mode=0o755, exist_ok=True)
            _own(target, 0o755, fs_group)
        descriptor = os.open(directory / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(file.content)
        _own(directory / path, file.mode, fs_group)


def _own(path: Path, mode: int, fs_group: Optional[int]) -> None:
    """kubelet's fsGroup for read-only volumes: the group may read files and enter directories, which pass their group on."""
    if fs_group is not None:
        os.chown(path, -1, fs_group)
        mode |= 0o2550 if path.is_dir() else 0o440
    path.chmod(mode)


def _holds(current: Path, files: Mapping[str, File], fs_group: Optional[int]) -> bool:
    present = {str(path.relative_to(current)): path for path in current.rglob("*") if not path.is_dir()}
    if present.keys() != files.keys():
        return False
    wanted_bits = 0o440 if fs_group is not None else 0
    return all(
        path.stat().st_mode & 0o7777 == files[name].mode | wanted_bits and path.read_bytes() == files[name].content
        for name, path in present.items()
    )


def _link_names(directory: Path, files: Mapping[str, File]) -> None:
    names = {path.split("/")[0] for path in files}
    for name in names:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(f"{DATA}/{name}")
    for entry in directory.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()


def _drop_others(directory: Path, keep: str) -> None:
    for entry in directory.iterdir():
        if entry.name.startswith("..") and entry.name not in (keep, DATA):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink()
