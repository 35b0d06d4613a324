"""What all tests on the virtual machine share: the machine itself, booted once for the run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.model.errors import NotFound
from lab import image
from lab.vm import Vm, vm_down, vm_up
from tests.vm.node import VmNode


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this directory needs the machine, which is emulated: minutes, not seconds."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def vm() -> Iterator[Vm]:
    """A booted trixie machine under a name of this process; removed at the end whatever happened.

    With SSHOAL_VM=name it is the machine of that name, which stays: a boot takes minutes when one works on a single test.
    """
    if "SSHOAL_VM" in os.environ:
        yield vm_up(os.environ["SSHOAL_VM"])
        return
    name = f"test-{os.getpid()}"
    try:
        yield vm_up(name)
    finally:
        try:
            vm_down(name)
        except NotFound:
            pass


@pytest.fixture(scope="session")
def test_image(vm: Vm) -> str:
    """The tag of the test image, loaded on the machine."""
    archive = image.build()
    vm.copy_in(archive, "/tmp/image.tar", timeout_s=120)
    vm.run("podman load --quiet --input /tmp/image.tar && rm /tmp/image.tar", timeout_s=120)
    return f"{image.REPOSITORY}:v1"


@pytest.fixture(scope="session")
def _cluster(vm: Vm, test_image: str) -> VmNode:
    context = vm.directory / "context"  # it lives as long as the machine, whose agent obeys no other
    context.mkdir(exist_ok=True)
    return VmNode(vm, context)


@pytest.fixture
def node(_cluster: VmNode) -> VmNode:
    """The machine as a node, its agent in charge and its workloads Ready. A test that takes them away says so: `node.is_up = False`."""
    _cluster.bring_up()
    return _cluster
