"""An image as it comes here, layer by layer, and the archive that is made of it for the engine. Pure.

In: an ImageLoad of a peer, checked in every part. Out: the image's id, and an OCI archive in pieces. In that archive blobs of layers that
the engine has may be missing: it looks a layer up by digest before it opens its blob (docs/decisions/0006-images-by-layers.md).
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Callable

from nodeagent.protocol import ImageLayer, ImageLoad, ProtocolError

LAYERS_MAX = 500
NAMES_MAX = 50
LAYER_BYTES_MAX = 2**40
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_NAME = re.compile(r"[a-z0-9][a-zA-Z0-9._:/-]{0,254}:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")  # REPOSITORY:TAG

# Docker's media types: a configuration of either form keeps all its fields under them.
_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar"

ReadLayer = Callable[[str], Iterable[bytes]]  # digest → its bytes


@dataclass(frozen=True)
class LayeredImage:
    """`id` is "sha256:…" of the configuration. `layers` is what its root file system is made of, lowest first."""

    id: str
    config: bytes
    names: tuple[str, ...]
    layers: tuple[ImageLayer, ...]

    def archive(self, enclosed: Collection[str], read: ReadLayer) -> Iterator[bytes]:
        """An OCI archive with the blobs of the layers `enclosed` only."""
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST_TYPE,
                "config": _descriptor(_CONFIG_TYPE, self.id, len(self.config)),
                "layers": [_descriptor(_LAYER_TYPE, layer.digest, layer.size_bytes) for layer in self.layers],
            }
        )
        entry = _descriptor(_MANIFEST_TYPE, digest_of(manifest), len(manifest))
        if self.names:
            entry["annotations"] = {"org.opencontainers.image.ref.name": self.names[0]}
        yield from _file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        yield from _file("index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        yield from _file(_blob(digest_of(manifest)), manifest)
        yield from _file(_blob(self.id), self.config)
        sizes = {layer.digest: layer.size_bytes for layer in self.layers}
        for digest in sorted(enclosed):
            yield _header(_blob(digest), sizes[digest])
            yield from read(digest)
            yield _padding(sizes[digest])
        yield bytes(2 * tarfile.BLOCKSIZE)


def layered(request: ImageLoad) -> LayeredImage:
    """Raises ProtocolError unless the configuration names exactly these layers, and all else is of the form it must have."""
    if len(request.layers) > LAYERS_MAX or len(request.names) > NAMES_MAX:
        raise ProtocolError(f"an image has at most {LAYERS_MAX} layers and {NAMES_MAX} names")
    for name in request.names:
        if not _NAME.match(name):
            raise ProtocolError(f"no name for an image: {name[:200]!r}")
    for layer in request.layers:
        if not _DIGEST.match(layer.digest) or not 0 <= layer.size_bytes <= LAYER_BYTES_MAX:
            raise ProtocolError("a layer has a SHA-256 and a size")
    if len({layer.digest for layer in request.layers}) != len(set(request.layers)):
        raise ProtocolError("one layer has two sizes")
    try:
        config = request.config.encode()
        named = json.loads(config)["rootfs"]["diff_ids"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProtocolError("not the configuration of an image") from None
    if named != [layer.digest for layer in request.layers]:
        raise ProtocolError("the image's configuration names other layers")
    return LayeredImage(digest_of(config), config, request.names, request.layers)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(kind: str, digest: str, size_bytes: int) -> dict[str, object]:
    return {"mediaType": kind, "digest": digest, "size": size_bytes}


def _json(value: object) -> bytes:
    """The same bytes on every host, so that the manifest has the same digest everywhere."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _file(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, len(content)) + content + _padding(len(content))


def _header(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)
