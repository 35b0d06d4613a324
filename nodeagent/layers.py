"""Layers on their way to this host, on its disk. In: pieces of layers. Out: whole, verified ones. Does file I/O.

A layer is one file, named by its digest: `<hex>.part` while it comes, `<hex>` once its SHA-256 is right. Nothing unverified is ever read
back. An upload that broke off stays, so that the next one goes on from there; what nobody fetched again is removed after a day, and the
oldest first when leftovers are large.
"""

import hashlib
import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from nodeagent.protocol import ImageLayer
from nodeagent.storage import own_directory

LEFTOVER_AGE_S = 24 * 3600.0
LEFTOVER_BYTES_MAX = 4 * 2**30
READ_BYTES = 1024 * 1024
_PART = ".part"


class LayerDamaged(OSError):
    """What arrived is not what its digest says. The file is gone."""


class LayerStore:
    """One directory of mode 0700 that belongs to this user; it is made when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def clean(self, keep: Collection[str] = ()) -> None:
        """Removes leftovers: those of more than a day, and the oldest while there are more than LEFTOVER_BYTES_MAX. Raises OSError."""
        own_directory(self.directory)
        kept = {self._name(digest) for digest in keep}
        found = [(path.stat(), path) for path in self.directory.iterdir()]
        left_bytes = 0
        for stat, path in sorted(found, key=lambda item: -item[0].st_mtime):
            if path.name.partition(".")[0] in kept:
                continue
            left_bytes += stat.st_size
            if left_bytes > LEFTOVER_BYTES_MAX or abs(time.time() - stat.st_mtime) > LEFTOVER_AGE_S:
                path.unlink()

    def missing(self, layers: Iterable[ImageLayer]) -> dict[ImageLayer, int]:
        """Those that are not here whole, each with how many of its bytes are."""
        found = {}
        for layer in layers:
            if not self._path(layer.digest).exists():
                part = self._part(layer.digest)
                have = part.stat().st_size if part.exists() else 0
                if have > layer.size_bytes:  # whoever began it said another size
                    part.unlink()
                    have = 0
                found[layer] = have
        return found

    def receive(self, layer: ImageLayer) -> "Incoming":
        """Goes on where the last attempt ended. Raises OSError."""
        return Incoming(layer, self._part(layer.digest), self._path(layer.digest))

    def read(self, digest: str) -> Iterator[bytes]:
        """A whole layer. Raises OSError."""
        with self._path(digest).open("rb") as file:
            while piece := file.read(READ_BYTES):
                yield piece

    def drop(self, layers: Iterable[ImageLayer]) -> None:
        for layer in layers:
            self._path(layer.digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self.directory / self._name(digest)

    def _part(self, digest: str) -> Path:
        return self.directory / (self._name(digest) + _PART)

    @staticmethod
    def _name(digest: str) -> str:
        return digest.partition(":")[2]


class Incoming:
    """One layer that comes. Close it however it ends: what has come stays."""

    def __init__(self, layer: ImageLayer, part: Path, whole: Path) -> None:
        self._layer, self._part, self._whole = layer, part, whole
        self._hash = hashlib.sha256()
        self._file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+b")
        self.size_bytes = 0
        while piece := self._file.read(READ_BYTES):
            self._hash.update(piece)
            self.size_bytes += len(piece)

    def write(self, pieces: Iterable[bytes]) -> None:
        """Raises OSError: the disk is full, or else."""
        for piece in pieces:
            self._file.write(piece)
            self._hash.update(piece)
            self.size_bytes += len(piece)

    def finish(self) -> None:
        """To be called when all of it is here. Raises LayerDamaged, OSError."""
        self._file.close()
        if f"sha256:{self._hash.hexdigest()}" != self._layer.digest:
            self._part.unlink()
            raise LayerDamaged(
                f"layer {self._layer.digest[:19]} arrived damaged: its SHA-256 is another; nothing of it was used"
            )
        self._part.replace(self._whole)

    def close(self) -> None:
        self._file.close()
