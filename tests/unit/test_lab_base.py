"""Which mirrors the base is made from, and which directories may be a base."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.model.errors import UsageError
from lab.base import lower_dir, own_mirrors

BOOKWORM = "ID=debian\nVERSION_CODENAME=bookworm\n"
DEB822 = """\
Types: deb
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security

Types: deb
URIs: https://vendor.example/apt
Suites: nodistro

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
"""
ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb [signed-by=/a.gpg arch=amd64] http://mirror.example/debian bookworm main contrib
deb-src http://mirror.example/debian bookworm main
"""


@pytest.mark.parametrize(
    ("file", "text", "suite", "expected"),
    [
        (
            "sources.list.d/debian.sources",
            DEB822,
            "bookworm",
            [
                "deb http://mirror.example/debian bookworm main",
                "deb http://mirror.example/debian bookworm-updates main",
                "deb http://mirror.example/debian-security bookworm-security main",
            ],
        ),
        (
            "sources.list.d/debian.sources",
            DEB822,
            "trixie",
            [
                "deb http://mirror.example/debian trixie main",
                "deb http://mirror.example/debian trixie-updates main",
                "deb http://mirror.example/debian-security trixie-security main",
            ],
        ),
        ("sources.list", ONE_LINE, "bookworm", ["deb http://mirror.example/debian bookworm main"]),
        ("sources.list", "deb https://vendor.example/apt stable main\n", "bookworm", []),
    ],
    ids=["deb822", "another suite", "one-line", "foreign sources only"],
)
def test_the_machines_own_debian_mirrors_are_taken(
    tmp_path: Path, file: str, text: str, suite: str, expected: list[str]
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / file).write_text(text)
    (tmp_path / "os-release").write_text(BOOKWORM)

    assert own_mirrors(suite, tmp_path, tmp_path / "os-release") == expected


def test_another_distributions_mirrors_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "os-release").write_text("ID=ubuntu\nVERSION_CODENAME=bookworm\n")

    assert own_mirrors("bookworm", tmp_path, tmp_path / "os-release") == []


def test_a_directory_without_podman_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"lacks .*/usr/bin/podman"):
        lower_dir(str(tmp_path), lambda _: None)


@pytest.mark.parametrize("base", ["relative/path", "/no/such/directory", "ubuntu"])
def test_what_is_no_directory_is_refused(base: str) -> None:
    with pytest.raises(UsageError, match="not a directory"):
        lower_dir(base, lambda _: None)
