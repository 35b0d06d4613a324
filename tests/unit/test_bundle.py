"""The bundle: the same bytes each time, nothing superfluous in it, and it starts on every Python that hosts may have."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest

from controller.act import bundle
from controller.act.bootstrap import unit_text
from controller.act.bundle import Bundle

PYTHONS = ("3.9", "3.11", "3.13")


@pytest.fixture(scope="module")
def built() -> Bundle:
    return bundle.build()


def members(built: Bundle) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(zlib.decompress(built.packed))) as archive:
        return archive.getmembers()


def unpack(built: Bundle, directory: Path) -> Path:
    unpacked = directory / built.digest
    unpacked.mkdir(parents=True)
    subprocess.run(
        ["tar", "-C", str(unpacked), "-xf", "-"], input=zlib.decompress(built.packed), timeout=60, check=True
    )
    return unpacked


def test_the_same_inputs_give_the_same_bytes(built: Bundle) -> None:
    assert bundle.build().packed == built.packed


def test_the_digest_is_that_of_the_plain_archive(built: Bundle) -> None:
    assert built.digest == hashlib.sha256(zlib.decompress(built.packed)).hexdigest()


def test_nothing_of_this_machine_is_in_the_archive(built: Bundle) -> None:
    assert {(one.mtime, one.uid, one.gid, one.uname, one.mode, one.type) for one in members(built)} == {
        (0, 0, 0, "", 0o644, tarfile.REGTYPE)
    }
    names = [one.name for one in members(built)]
    assert names == sorted(names)


def test_it_holds_the_agent_and_its_libraries_and_nothing_else(built: Bundle) -> None:
    names = {one.name for one in members(built)}
    assert {name.split("/")[0] for name in names} == {
        "__main__.py", "nodeagent", "podman", "requests", "urllib3", "idna", "tomli", "certifi", "charset_normalizer",
    }  # fmt: skip
    assert not [name for name in names if not name.endswith((".py", ".service"))]
    assert len(built.packed) < 512 * 1024


def test_a_cached_build_is_the_same_and_a_damaged_one_is_built_anew(built: Bundle, tmp_path: Path) -> None:
    assert bundle.build(tmp_path) == built
    (cached,) = tmp_path.iterdir()
    assert bundle.build(tmp_path) == built
    cached.write_bytes(cached.read_bytes()[:1000])
    assert bundle.build(tmp_path) == built


def test_units_are_templates_for_the_hosts_own_paths(built: Bundle) -> None:
    assert set(built.units) == {"sshoal-agent.service", "sshoal-podman.service"}
    assert "ExecStart={python} -I {directory}/agent/current run" in built.units["sshoal-agent.service"]
    assert "{podman}" in built.units["sshoal-podman.service"]


@pytest.mark.parametrize(
    ("rootless", "directory", "target"),
    [(False, "/var/lib/sshoal", "multi-user.target"), (True, "%h/.local/share/sshoal", "default.target")],
)
def test_units_are_filled_in_for_the_system_and_for_a_users_own_manager(
    built: Bundle, rootless: bool, directory: str, target: str
) -> None:
    units = {name: unit_text(text, "/usr/bin/python3", rootless=rootless) for name, text in built.units.items()}
    assert f"ExecStart=/usr/bin/python3 -I {directory}/agent/current run\n" in units["sshoal-agent.service"]
    for text in units.values():
        settings = [line for line in text.splitlines() if not line.startswith("#")]
        assert f"WantedBy={target}" in settings
        assert {word for line in settings for word in re.findall("{[a-z]+}", line)} <= {"{podman}"}


@pytest.mark.parametrize("version", PYTHONS)
def test_it_imports_without_a_warning_on_this_python(built: Bundle, tmp_path: Path, version: str) -> None:
    directory = unpack(built, tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(directory)!r})\n"
        "import podman, requests, urllib3, idna, tomli, nodeagent.main, nodeagent.podman_runtime, nodeagent.server\n"
        "client = podman.PodmanClient(base_url='unix:///nowhere/sock')\n"
        "for module in (podman, requests, urllib3, idna, tomli, nodeagent):\n"
        f"    assert module.__file__.startswith({str(directory)!r}), module\n"
    )
    subprocess.run([python(version), "-I", "-B", "-W", "error", "-c", program], check=True, timeout=50)


@pytest.mark.parametrize("version", PYTHONS)
def test_it_starts_as_a_directory_and_knows_its_own_digest(built: Bundle, tmp_path: Path, version: str) -> None:
    directory = unpack(built, tmp_path)
    done = subprocess.run(
        [python(version), "-I", "-B", directory, "version"], check=True, timeout=50, capture_output=True
    )
    assert json.loads(done.stdout)["bundle"] == built.digest


def test_the_program_that_installs_it_is_written_for_the_oldest_python() -> None:
    source = Path(bundle.__file__).with_name("onhost_install.py")
    check = f"import ast; ast.parse(open({str(source)!r}).read())"
    subprocess.run([python("3.9"), "-I", "-c", check], check=True, timeout=20)


def python(version: str) -> str:
    """An interpreter of this version: pythonX.Y on PATH, or one of pyenv's. Skips where there is none."""
    roots = [Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"]
    for root in roots:
        for candidate in sorted(root.glob(f"{version}.*/bin/python")):
            return str(candidate)
    found = shutil.which(f"python{version}")
    if found is None or not re.match(
        rf"Python {re.escape(version)}\.",
        subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout,
    ):
        pytest.skip(f"no Python {version} on this machine")
    return found
