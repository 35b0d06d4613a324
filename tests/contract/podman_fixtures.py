"""A private Podman for tests. Apart from conftest.py, since the suite also runs where only the agent's code is (tests/vm)."""

from collections.abc import Iterator

import pytest

from tests.contract.private_podman import PrivatePodman


@pytest.fixture(scope="session")
def shared_podman() -> Iterator[PrivatePodman]:
    podman = PrivatePodman()
    try:
        yield podman.start()
    finally:
        podman.close()


@pytest.fixture
def private_podman(shared_podman: PrivatePodman) -> Iterator[PrivatePodman]:
    """One service for all tests, and no volume of another test in it."""
    yield shared_podman
    shared_podman.remove_volumes()
