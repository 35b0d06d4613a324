"""The host variable sshoal_volumes: which storage classes a host has, and every mistake said with host and place."""

from __future__ import annotations

from typing import Any

import pytest

from controller.model.cluster import Storage
from controller.model.errors import InventoryError
from controller.model.inventory import Host
from controller.model.remembered import entry_of


def host(volumes: Any) -> Host:
    return Host("n1", (), {"ansible_host": "10.0.0.1", "sshoal_volumes": volumes}, "hosts.yml:7")


def test_a_class_is_a_path_or_a_path_with_a_size() -> None:
    written = {"fast": "/srv/fast/", "slow": {"path": "/srv/slow", "size": "200Gi"}, "podman": {"size": "50Gi"}}
    written["standard"] = "podman"
    assert entry_of(host(written)).storage == {
        "fast": Storage("/srv/fast"),
        "podman": Storage("", 50 * 2**30),
        "slow": Storage("/srv/slow", 200 * 2**30),
        "standard": Storage(""),
    }
    assert entry_of(host(None)).storage == {}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (["/srv"], "must be a mapping of storage class to place"),
        ({"Fast": "/srv"}, "'Fast' must be 1–253 lower-case letters"),
        ({"fast": 7}, "must be a path, or a mapping with path and size"),
        ({"fast": {"path": "/srv", "sice": 1}}, "must be a path, or a mapping with path and size"),
        ({"fast": "srv"}, "needs an absolute path"),
        ({"fast": "/srv/../etc"}, "needs an absolute path"),
        ({"fast": {"size": "1Gi"}}, "needs an absolute path"),
        ({"fast": "/"}, "/ belongs to the system"),
        ({"fast": "/proc/fs"}, "/proc/fs belongs to the system"),
        ({"podman": "/srv"}, "is Podman's own storage"),
        ({"fast": {"path": "/srv", "size": "much"}}, "size: "),
        ({"fast": {"path": "/srv", "size": 0}}, "size must be more than 0"),
    ],
)
def test_what_is_wrong_is_said_with_host_and_place(written: Any, words: str) -> None:
    with pytest.raises(InventoryError) as wrong:
        entry_of(host(written))
    assert words in str(wrong.value)
    assert "n1.sshoal_volumes" in str(wrong.value)
    assert (wrong.value.file, wrong.value.line) == ("hosts.yml", 7)
