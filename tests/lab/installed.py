"""sshoal installed on a lab host, as on a machine of its own: a virtual environment with what this one has, run by the host's own Python.

In: a host with a Python of this one's minor version. Out: /opt/sshoal on it, and nothing else.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from lab.host import LabHost

PLACE = "/opt/sshoal"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"  # compiled packages fit no other
OURS = ("controller", "nodeagent", "lab")
PROJECT = Path(__file__).parents[2]


def install(host: LabHost, scratch: Path) -> str:
    """Returns the path of `sshoal` on the host."""
    packages = f"{PLACE}/lib/{PYTHON}/site-packages"
    archive = scratch / "installed.tar"
    archive.write_bytes(_archive())
    host.run(f"{PYTHON} -m venv --without-pip {PLACE}")
    host.copy_in(archive, f"{PLACE}/installed.tar")
    start = f"#!{PLACE}/bin/python\\nfrom controller.cli.start import main\\nmain()\\n"
    host.run(
        f"tar -xf {PLACE}/installed.tar -C {packages} && rm {PLACE}/installed.tar && "
        f"printf '{start}' >{PLACE}/bin/sshoal && chmod 755 {PLACE}/bin/sshoal"
    )
    return f"{PLACE}/bin/sshoal"


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in OURS:
            tar.add(PROJECT / name, name, filter=_without_caches)
        for found in _needed():
            for file in found.files or ():
                path = Path(str(file.locate()))
                if ".." not in file.parts and "__pycache__" not in file.parts and path.is_file():
                    tar.add(path, str(file), filter=_without_caches)
    return buffer.getvalue()


def _needed() -> Iterator[Distribution]:
    """What sshoal needs to run, and what that needs; not what its tests need."""
    seen: set[str] = set()
    waiting = [Requirement(text) for text in distribution("sshoal").requires or ()]
    while waiting:
        wanted = waiting.pop()
        name = wanted.name.lower().replace("_", "-")
        if name in seen or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        found = distribution(wanted.name)
        waiting += [Requirement(text) for text in found.requires or ()]
        yield found


def _without_caches(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in info.name else info
