"""The runtime contract, held by the agent's own code inside the machine, against its Podman."""

from __future__ import annotations

import importlib.metadata
import io
import re
import tarfile
from pathlib import Path

import pytest

from lab.base import lower_dir
from tests.vm.node import VmNode

PROJECT = Path(__file__).parents[2]
# What the suite is made of. The libraries of the agent are those of the bundle that runs there.
SOURCES = (
    "nodeagent",
    "lab",
    "controller/__init__.py",
    "controller/model",
    "tests/__init__.py",
    "tests/simloop.py",
    "tests/fakes",
    "tests/contract",
)
SUITE = (
    "tests/contract/test_runtime.py",  # test_podman.py, and pulls, have deadlines that an emulated processor cannot keep
    "tests/contract/test_images.py::test_layers_that_podman_has_need_not_be_in_the_archive",
    "tests/contract/test_images.py::test_a_layer_that_is_nowhere_is_named_and_nothing_is_loaded",
    "tests/contract/test_images.py::test_podman_too_refuses_a_layer_with_one_bit_flipped",
    "tests/contract/test_images.py::test_an_image_gets_further_names_and_a_name_moves_on",
)
# pytest and what it needs: pure Python, the same files for every version of it
TOOLS = ("pytest", "pluggy", "iniconfig", "packaging", "pygments", "pytest-timeout")
# Without the fixtures that want the controller.
CONFTEST = "from tests.contract.podman_fixtures import private_podman, shared_podman\n"
SETTINGS = """\
[pytest]
addopts = --strict-markers
filterwarnings = error
timeout = 300
markers =
    podman: needs a real Podman on this machine
"""
RUN = """cd /root/suite && export PYTHONDONTWRITEBYTECODE=1 SSHOAL_LAB_CACHE=/root/suite/cache
export PYTHONPATH=tools:.:/var/lib/sshoal/agent/current
python3 -m pytest -q -m podman --tb=short -c pytest.ini --rootdir . -p no:cacheprovider --durations=10"""


@pytest.mark.timeout(1800)
def test_the_runtime_contract_holds_here_too(node: VmNode, tmp_path: Path) -> None:
    archive = tmp_path / "suite.tgz"
    _pack(archive)
    node.vm.copy_in(archive, "/root/suite.tgz", timeout_s=120)
    unpack = "rm -rf /root/suite && mkdir /root/suite && tar -C /root/suite -xzf /root/suite.tgz"
    node.vm.run(f"{unpack} && install /root/suite/busybox /bin/busybox", timeout_s=120)

    said = node.vm.run(f"{RUN} {' '.join(SUITE)} 2>&1", timeout_s=1500, check=False)

    outcome = said.strip().splitlines()[-1]
    assert re.fullmatch(r"(\d+) passed, \d+ deselected in .*", outcome), said
    assert node.vm.run("ls -d /var/tmp/sshoal-podman-*", check=False) == ""


def _pack(archive: Path) -> None:
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name in SOURCES:
            tar.add(PROJECT / name, name, filter=_no_bytecode)
        for tool in TOOLS:
            for file in importlib.metadata.files(tool) or ():
                if ".." not in file.parts and "__pycache__" not in file.parts:
                    tar.add(str(file.locate()), f"tools/{file}")
        tar.add(lower_dir("debian", lambda _: None) / "bin/busybox", "busybox")
        for name, text in (("pytest.ini", SETTINGS), ("tests/contract/conftest.py", CONFTEST)):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))


def _no_bytecode(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in member.name else member
