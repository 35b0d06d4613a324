"""Archives of images with given layers, made offline: for tests and figures of `image push`. In: layers, a tag. Out: tar files."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def layer(name: str, size: int, seed: int) -> bytes:
    """The tar of a layer that holds one file of `size` random bytes: no two seeds share a block."""
    content = random.Random(seed).randbytes(size)
    return tar({name: content})


def tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def configuration(layers: Sequence[bytes], architecture: str = "", **more: object) -> bytes:
    """What an image of these layers is known by: its SHA-256 is the image's id."""
    machine = os.uname().machine
    document = {
        "architecture": architecture or {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "os": "linux",
        "config": {"Cmd": ["/none"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]},
        **more,
    }
    return json.dumps(document, sort_keys=True).encode()


def docker_files(tag: str, layers: Sequence[bytes]) -> dict[str, bytes]:
    """The members of a docker-archive."""
    config = configuration(layers)
    names = [f"{digest(one)[7:]}.tar" for one in layers]
    manifest = [{"Config": f"{digest(config)[7:]}.json", "RepoTags": [tag], "Layers": names}]
    return {
        "manifest.json": json.dumps(manifest).encode(),
        f"{digest(config)[7:]}.json": config,
        **dict(zip(names, layers)),  # noqa: B905 - Python 3.9 has no strict=
    }


def oci_files(tag: str, layers: Sequence[bytes], *, packed: bool = False, architecture: str = "") -> dict[str, bytes]:
    """The members of an oci-archive; `packed`: its layers are compressed by gzip."""
    config = configuration(layers, architecture)
    blobs = [gzip.compress(one, 1, mtime=0) if packed else one for one in layers]
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "config": {"digest": digest(config), "size": len(config)},
            "layers": [{"digest": digest(blob), "size": len(blob)} for blob in blobs],
        }
    ).encode()
    entry = {"digest": digest(manifest), "size": len(manifest)}
    named = entry | {"annotations": {"org.opencontainers.image.ref.name": tag}}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [named]}).encode(),
        **{f"blobs/sha256/{digest(one)[7:]}": one for one in (manifest, config, *blobs)},
    }


def docker_archive(path: Path, tag: str, layers: Sequence[bytes]) -> Path:
    path.write_bytes(tar(docker_files(tag, layers)))
    return path
