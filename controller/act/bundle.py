"""The agent's bundle: one archive of the agent and the libraries it needs, named by its SHA-256.

In: the nodeagent package and podman, requests, urllib3, idna, tomli as they are installed beside this controller. Out: a Bundle. Reads
files; writes its cache. The same inputs give the same bytes, whatever Python or zlib built it: the name is taken over the plain archive,
which travels compressed.

What is left out or replaced was found to be unneeded by the agent: certifi (the host's own authorities serve), charset_normalizer (the
agent reads UTF-8 only), idna's UTS 46 tables, urllib3's back ends for other platforms.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.model.errors import SshoalError

LIBRARIES = ("podman", "requests", "urllib3", "idna", "tomli")
LEFT_OUT = (
    "idna/uts46data.py",
    "urllib3/contrib/emscripten/",
    "urllib3/contrib/pyopenssl.py",
    "urllib3/contrib/socks.py",
)

STUBS: Mapping[str, str] = {
    "podman/domain/__init__.py": "",
    "certifi/__init__.py": "import ssl\n\n\ndef where():\n"
    '    return ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"\n',
    "charset_normalizer/__init__.py": '__version__ = "3.0.0"\n\n\ndef detect(data):\n    return {"encoding": "utf-8"}\n',
}


@dataclass(frozen=True, slots=True)
class Bundle:
    """`digest`: hex SHA-256 of the archive (a tar). `packed`: the archive, zlib-compressed. `units`: file name → template text."""

    digest: str
    packed: bytes
    units: Mapping[str, str]


def build(cache: Path | None = None) -> Bundle:
    """The bundle of this installation.

    Args:
        cache: directory of finished archives; entries are named by what their inputs' files look like and checked when read.
    Raises: SshoalError when a library is not installed; OSError.
    """
    files = dict(_inputs())
    cached = cache / f"agent-{_fingerprint(files)}.tar.z" if cache else None
    packed = _read_cache(cached)
    if packed is None:
        packed = zlib.compress(_archive({name: _content(source) for name, source in files.items()}), 9)
        if cached:
            with contextlib.suppress(OSError):  # a full disk: it is made anew each time
                _write_cache(cached, packed)
    units = {
        Path(name).name: str(_content(source), "utf-8") for name, source in files.items() if name.endswith(".service")
    }
    return Bundle(hashlib.sha256(zlib.decompress(packed)).hexdigest(), packed, units)


def _inputs() -> Iterator[tuple[str, Path | str]]:
    """(name in the archive, file or literal text), sorted by name."""
    found: dict[str, Path | str] = dict(STUBS)
    for package in ("nodeagent", *LIBRARIES):
        root = _package_directory(package)
        for path in root.rglob("*"):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            if path.suffix in (".py", ".service") and not name.startswith(LEFT_OUT):
                found.setdefault(name, path)
    found["__main__.py"] = found["nodeagent/__main__.py"]
    yield from sorted(found.items())


def _package_directory(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SshoalError(
            f"the Python package {package!r} is not installed here; it is part of the agent",
            hint="reinstall sshoal with its dependencies: pip install --force-reinstall sshoal",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _fingerprint(files: Mapping[str, Path | str]) -> str:
    summary = hashlib.sha256()
    for name, source in files.items():
        if isinstance(source, Path):
            status = source.stat()
            source = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
        summary.update(f"{name}\0{source}\0".encode())
    return summary.hexdigest()[:32]


def _content(source: Path | str) -> bytes:
    return source.encode() if isinstance(source, str) else source.read_bytes()


def _archive(contents: Mapping[str, bytes]) -> bytes:
    """A tar with nothing of this machine in it: no times, owners or modes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _read_cache(path: Path | None) -> bytes | None:
    if path is None or not path.is_file():
        return None
    packed = path.read_bytes()
    try:
        zlib.decompress(packed)
    except zlib.error:
        return None  # damaged: built anew
    return packed


def _write_cache(path: Path, packed: bytes) -> None:
    """Others' entries of older builds are removed: one installation needs one. Raises OSError; then nothing is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".agent-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(packed)
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink()
        raise
    for other in path.parent.glob("agent-*.tar.z"):
        if other != path:
            other.unlink(missing_ok=True)
