"""Images on this machine: archives of them, and images of the local Podman. In: a file or a reference. Out: SourceImages, verified. Reads
files, writes temporary ones.

Every layer ends up as a plain tar somewhere in a file: where an archive or a layer in it is compressed, a temporary copy is made that is
not. So a layer has one digest wherever it came from, the one by which hosts know it too.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import json
import lzma
import posixpath
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from controller.act.userpath import user_path
from controller.model.errors import SshoalError, UsageError
from controller.model.imagename import canonical
from controller.model.text import printable

_SAVE_TIMEOUT_S = 1800.0
_DOCUMENT_BYTES_MAX = 3 * 1024 * 1024  # of a manifest or configuration; it travels in one frame
_BLOCK_BYTES = 1024 * 1024
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"
_HINT = "podman save -o FILE IMAGE makes one"


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """`size_bytes` bytes of a file, from `offset` on: the plain tar of a layer, whose SHA-256 is its digest."""

    digest: str
    path: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SourceImage:
    """`id` is "sha256:…" of the configuration, by which engines know it. `names` are canonical: registry, repository, tag."""

    id: str
    names: tuple[str, ...]
    config: str
    architecture: str
    layers: tuple[SourceLayer, ...]

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in set(self.layers))


def choose(images: Sequence[SourceImage], architecture: str) -> list[SourceImage]:
    """Those for a host: where a name stands for several architectures, only the host's. Empty when there is none for it."""
    shared = {name for image in images for name in image.names if sum(name in other.names for other in images) > 1}
    return [image for image in images if image.architecture == architecture or not shared.intersection(image.names)]


@contextlib.contextmanager
def opened(image: str) -> Iterator[tuple[SourceImage, ...]]:
    """The images of an archive, or one of the local Podman. Temporary files live as long as the context.

    Raises UsageError when there is neither, or what is there is torn or of a form that cannot be read.
    """
    try:
        scratch = tempfile.TemporaryDirectory(prefix="sshoal-image-")
    except OSError as error:
        raise SshoalError(
            f"no directory for temporary files: {error.strerror}", hint="TMPDIR=DIRECTORY names one"
        ) from None
    with scratch as directory:
        path = user_path(image)
        if not path.is_file():
            if path.is_dir() or image.endswith((".tar", ".tar.gz", ".tgz")):
                raise UsageError(f"there is no archive {image}", hint=_HINT)
            path = Path(directory) / "image.tar"
            _save(image, path)
        yield read_archive(path, image, Path(directory))


def read_archive(path: Path, shown: str, scratch: Path) -> tuple[SourceImage, ...]:
    """The images of an archive (docker-archive or OCI, plain or compressed), each layer verified.

    Args:
        shown: as the user named it.
        scratch: a directory for what has to be unpacked.
    Raises UsageError.
    """
    try:
        with tarfile.open(_plain(path, scratch), "r:") as tar:
            images = _Archive(tar, scratch).images()
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError):
        raise UsageError(f"{shown} is not an archive of images: no tar file, or a torn one", hint=_HINT) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise SshoalError(
                f"no space left in {scratch.parent} to unpack {shown}", hint="TMPDIR=DIRECTORY names another place"
            ) from None
        raise UsageError(f"{shown} cannot be read: {error.strerror or error}") from None
    except _Broken as error:
        raise UsageError(f"{shown} is not an archive of images: {error}", hint=_HINT) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IndexError):
        raise UsageError(f"{shown} is not an archive of images: its manifest is broken", hint=_HINT) from None
    if not images:
        raise UsageError(f"{shown} is an archive without an image", hint=_HINT)
    return images


class _Broken(Exception):
    """What is wrong with an archive."""


class _Archive:
    def __init__(self, tar: tarfile.TarFile, scratch: Path) -> None:
        self._tar = tar
        self._scratch = scratch
        self._layers: dict[str, SourceLayer] = {}  # by member: images share them

    def images(self) -> tuple[SourceImage, ...]:
        if (manifest := self._document("manifest.json")) is not None:
            return tuple(
                self._image(self._bytes(str(entry["Config"])), entry["Layers"], entry.get("RepoTags") or ())
                for entry in json.loads(manifest)
            )
        if (index := self._document("index.json")) is not None:
            return tuple(self._indexed(json.loads(index), ()))
        raise _Broken("it holds no manifest.json and no index.json (podman export makes no image)")

    def _indexed(self, index: Any, names: tuple[str, ...]) -> Iterator[SourceImage]:
        """Of an OCI index. An entry that is an index again stands for one image of several architectures."""
        for entry in index["manifests"]:
            if (entry.get("annotations") or {}).get("vnd.docker.reference.type"):
                continue  # says something about an image, and is none
            annotations = entry.get("annotations") or {}
            name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name")
            own = (str(name),) if name else names
            manifest = json.loads(self._bytes(_blob(entry["digest"])))
            if "manifests" in manifest:
                yield from self._indexed(manifest, own)
            else:
                layers = [_blob(layer["digest"]) for layer in manifest["layers"]]
                yield self._image(self._bytes(_blob(manifest["config"]["digest"])), layers, own)

    def _image(self, config: bytes, members: Sequence[str], names: Sequence[str]) -> SourceImage:
        document = json.loads(config)
        digests = document["rootfs"]["diff_ids"]
        layers = tuple(self._layer(str(member)) for member in members)
        if [layer.digest for layer in layers] != digests:
            raise _Broken("a layer is not what the image's configuration says (torn, or changed)")
        image_id = f"sha256:{hashlib.sha256(config).hexdigest()}"
        tags = tuple(dict.fromkeys(canonical(str(name)) for name in names))
        return SourceImage(image_id, tags, config.decode(), str(document.get("architecture", "")), layers)

    def _layer(self, member: str) -> SourceLayer:
        if member not in self._layers:
            self._layers[member] = self._read_layer(self._member(member))
        return self._layers[member]

    def _read_layer(self, member: tarfile.TarInfo) -> SourceLayer:
        file = self._tar.extractfile(member)
        assert file is not None  # of a regular file
        start = file.read(len(_ZSTD))
        file.seek(0)
        if start == _ZSTD:
            raise _Broken("a layer is compressed with zstd, which is not supported; podman save writes them plain")
        if start.startswith(_GZIP):
            target = self._scratch / f"layer-{len(self._layers)}.tar"
            with gzip.open(file) as packed, target.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, _BLOCK_BYTES)
            with target.open("rb") as plain:
                return SourceLayer(_digest(plain), target, 0, target.stat().st_size)
        assert self._tar.name is not None
        return SourceLayer(_digest(file), Path(str(self._tar.name)), member.offset_data, member.size)

    def _member(self, name: str) -> tarfile.TarInfo:
        """A regular file. Old archives name a layer that was there before by a link."""
        for _ in range(8):
            member = self._tar.getmember(name)
            if member.isfile():
                return member
            if not (member.issym() or member.islnk()):
                break
            name = posixpath.normpath(
                posixpath.join(posixpath.dirname(name) if member.issym() else "", member.linkname)
            )
        raise _Broken("a layer in it is no file")

    def _document(self, name: str) -> bytes | None:
        return self._bytes(name) if name in self._tar.getnames() else None

    def _bytes(self, name: str) -> bytes:
        member = self._member(name)
        if member.size > _DOCUMENT_BYTES_MAX:
            raise _Broken(f"{printable(name)} is larger than {_DOCUMENT_BYTES_MAX >> 20} MiB")
        file = self._tar.extractfile(member)
        assert file is not None  # of a regular file
        return file.read()


def _plain(path: Path, scratch: Path) -> Path:
    """The file, or a copy of it that is not compressed."""
    with path.open("rb") as file:
        start = file.read(8)
    openers = ((_GZIP, gzip.open), (_BZIP2, bz2.open), (_XZ, lzma.open))
    opener: Any = next((opener for magic, opener in openers if start.startswith(magic)), None)
    if opener is None:
        return path
    target = scratch / "archive.tar"
    with opener(path) as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, _BLOCK_BYTES)
    return target


def _digest(file: Any) -> str:
    stream: BinaryIO = file
    state = hashlib.sha256()
    while block := stream.read(_BLOCK_BYTES):
        state.update(block)
    return f"sha256:{state.hexdigest()}"


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _save(image: str, target: Path) -> None:
    """Raises UsageError when Podman is not here or does not have the image."""
    try:
        done = subprocess.run(
            ["podman", "save", "--quiet", "--format", "docker-archive", "--output", str(target), "--", image],
            capture_output=True,
            timeout=_SAVE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        raise UsageError(
            f"there is no file {image}, and no Podman on this machine to ask for an image of that name",
            hint="give an archive made elsewhere by podman save or docker save",
        ) from None
    except subprocess.TimeoutExpired:
        raise SshoalError(f"podman save {image} took longer than {_SAVE_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        said = printable(done.stderr.splitlines()[-1] if done.stderr.strip() else b"it does not say why")
        raise UsageError(f"podman save {image}: {said}", hint="`podman images` shows what is there")
