"""What all lab tests share: one lab of three real hosts for the whole run, and the test image on it."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import image
from lab.host import LabHost
from lab.lab import Lab
from lab.system import require_root_and_programs
from tests.lab.cluster import Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this directory is a lab test, and hosts take their time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.lab)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def lab3() -> Iterator[Lab]:
    """Three hosts, ready, under a name of this process; removed at the end whatever happened."""
    require_root_and_programs()
    name = f"test-{os.getpid()}"
    try:
        yield Lab.up(name, hosts=3)
    finally:
        if name in Lab.names():
            Lab.load(name).down()


@pytest.fixture
def whole_lab3(lab3: Lab) -> Iterator[Lab]:
    """The session's lab for a test that breaks hosts: all hosts on, connected and ready again afterwards."""
    yield lab3
    for host in lab3.hosts:
        host.thaw()
    Lab.up(lab3.name, hosts=3)


@pytest.fixture(scope="session")
def test_images(lab3: Lab) -> dict[str, str]:
    """The test image on every host: {"v1": tag, "v2": tag, "bad": tag of one that never gets ready}."""
    tags = {version: f"{image.REPOSITORY}:{version}" for version in ("v1", "v2", "bad")}
    for version, tag in tags.items():
        lab3.load_image(image.build(tag, "bad" if version == "bad" else "good"))
    return tags


@pytest.fixture(scope="module")
def cluster(lab3: Lab, test_images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A context of its own over the session's hosts, which have nothing else of sshoal on them, before and after."""
    cluster = Cluster(lab3, tmp_path_factory.mktemp("context"))
    cluster.wipe()
    yield cluster
    cluster.wipe()


@pytest.fixture
def ns(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own, deleted with all in it at the end; what a failed test left is no burden to the next."""
    words = re.sub("[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    name = f"{words[:40].strip('-')}-{hashlib.sha256(request.node.name.encode()).hexdigest()[:6]}"
    yield name
    cluster.run("delete", f"namespace/{name}", "--ignore-not-found", "--grace-period", "0", "--timeout", "90s")


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Returns as soon as `condition()` holds; fails the test, saying `what` was awaited, after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.05)


def page(host: LabHost, port: int, path: str = "/") -> str:
    """What a web page of a container on `host` says, or "" when nothing serves it; fetched on the host itself."""
    return host.run(f"curl --silent --max-time 2 http://127.0.0.1:{port}{path}", check=False).strip()


def page_status(host: LabHost, port: int, path: str) -> int:
    """The HTTP status of a page of a container on `host`; 0 when nothing answers."""
    ask = "curl --silent --output /dev/null --max-time 2 --write-out '%{http_code}'"
    return int(host.run(f"{ask} http://127.0.0.1:{port}{path}", check=False) or 0)
