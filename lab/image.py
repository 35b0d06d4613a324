"""Builds the small test image offline, as an archive that `podman load` takes. No container tool is needed.

In: a tag, a variant, a static busybox (from the lab's Debian base). Out: a docker-archive tar, the same bytes for the
same input. What the image can do stands at the top of testimage/server.sh.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from pathlib import Path

from controller.model.errors import UsageError
from lab.base import cache_dir, lower_dir

REPOSITORY = "localhost/sshoal-test"
VARIANTS = {"good": (), "bad": ("READY=no",)}
SOURCES = Path(__file__).with_name("testimage")
APPLETS = (
    *("sh", "cat", "dd", "echo", "env", "false", "hostname", "httpd", "id", "kill", "ls", "mkdir", "nc", "od"),
    *("printf", "ps", "rm", "sleep", "stat", "test", "touch", "true", "wc"),
)


def build(tag: str = f"{REPOSITORY}:v1", variant: str = "good", *, busybox: Path | None = None) -> Path:
    """The archive of the test image named `tag`; the part after the colon is the version its page shows.

    Variant "good", or "bad": serves, but never gets ready. `busybox`: a static one; default: the Debian base's.
    """
    if variant not in VARIANTS:
        raise UsageError(f'image variant "{variant}": there are {", ".join(VARIANTS)}')
    if not re.fullmatch(r"[a-z0-9./-]+:[A-Za-z0-9._-]+", tag):
        raise UsageError(f'image tag "{tag}": write it as {REPOSITORY}:v1')
    busybox = busybox or lower_dir("debian", lambda _: None) / "bin/busybox"
    archive = _archive(tag, VARIANTS[variant], busybox.read_bytes())
    directory = cache_dir() / "images"
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"{re.sub('[/:]', '_', tag)}-{variant}-{hashlib.sha256(archive).hexdigest()[:12]}.tar"
    unfinished = target.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(archive)
    unfinished.replace(target)
    return target


def _archive(tag: str, environment: tuple[str, ...], busybox: bytes) -> bytes:
    layer = _layer(busybox)
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "created": "2025-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/bin", f"VERSION={tag.rpartition(':')[2]}", *environment],
            "Cmd": ["/server.sh"],
            "WorkingDir": "/",
            "ExposedPorts": {"8080/tcp": {}},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
    }
    config_bytes = json.dumps(config, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config_bytes).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": [f"{layer_digest}.tar"]}]
    return _tar(
        [
            _file("manifest.json", json.dumps(manifest).encode()),
            _file(config_name, config_bytes),
            _file(f"{layer_digest}.tar", layer),
        ]
    )


def _layer(busybox: bytes) -> bytes:
    entries = [
        *(_directory(name) for name in ("bin", "run", "tmp", "www", "www/cgi-bin")),
        _file("bin/busybox", busybox, mode=0o755),
        *(_link(f"bin/{applet}", "busybox") for applet in APPLETS),
        _file("server.sh", (SOURCES / "server.sh").read_bytes(), mode=0o755),
        _file("grpc.sh", (SOURCES / "grpc.sh").read_bytes(), mode=0o755),
        _file("www/cgi-bin/index.cgi", (SOURCES / "index.sh").read_bytes(), mode=0o755),
        _file("www/cgi-bin/set", (SOURCES / "set.sh").read_bytes(), mode=0o755),
    ]
    return _tar(entries)


def _tar(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _file(name: str, content: bytes, *, mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    return info, content


def _directory(name: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, 0o777 if name in ("run", "tmp", "www") else 0o755
    return info, b""


def _link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    return info, b""
