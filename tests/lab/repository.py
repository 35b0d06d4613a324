"""A repository of Debian packages for hosts that reach nothing else: downloaded once by mmdebstrap, served over the lab's own network."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from lab import base
from lab.system import run

# What a bare host lacks; mmdebstrap downloads what these need too.
PACKAGES = ("python3", "podman", "crun", "conmon", "netavark", "catatonit", "iptables", "chrony")


def packages(wanted: Sequence[str] = PACKAGES) -> Path:
    """A directory with these packages and a list of them, as apt reads it. Made once, then kept in the lab's cache."""
    name = f"{base.SUITE}-packages-{base.digest(base.SUITE, *wanted)}"
    return base.cached(name, lambda target: _build(target, wanted))


@contextmanager
def served(directory: Path, address: str) -> Iterator[str]:
    """The directory by HTTP at one address of this machine → its URL."""
    server = ThreadingHTTPServer((address, 0), partial(_Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


def _build(target: Path, wanted: Sequence[str]) -> None:
    root = target.with_name(f"{target.name}.root.new")
    keep = ('--aptopt=APT::Keep-Downloaded-Packages "true"', "--skip=essential/unlink,cleanup/apt")
    try:
        base.make_root(base.SUITE, ("apt", *wanted), root, *keep)
        shutil.copytree(root / "var/cache/apt/archives", target, ignore=lambda _, names: _not_packages(names))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    (target / "Packages").write_text("\n".join(_entry(file) for file in sorted(target.glob("*.deb"))))


def _not_packages(names: list[str]) -> list[str]:
    return [name for name in names if not name.endswith(".deb")]


def _entry(file: Path) -> str:
    """A paragraph of apt's Packages file: the package's own fields, where it is, and how it is recognised."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    fields = run(["dpkg-deb", "--field", str(file)]).rstrip("\n")
    return f"{fields}\nFilename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n"
