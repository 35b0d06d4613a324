"""docs/faults.md is held to what it claims: every row is there, every test that it names exists, and what has none is a stated limit."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = (
    *(f"A{number}" for number in (*range(1, 11), 14, 15)),
    *(f"B{number}" for number in range(1, 16)),
    *(f"C{number}" for number in (*range(1, 7), *range(8, 13), *range(14, 20))),
    *(f"D{number}" for number in (*range(1, 6), *range(7, 12), *range(13, 17))),
    *(f"F{number}" for number in range(1, 11)),
)
WITHOUT_TEST_MAX = 5
MUST_HAVE_A_TEST = {"B1", "B5", "C1", "C2", "C3", "C17", "D1", "D2", "D3", "D4"}


@cache
def page() -> str:
    return (ROOT / "docs/faults.md").read_text()


def rows() -> dict[str, list[str]]:
    """Row → the tests that it names."""
    found = re.findall(r"^\| ([A-F]\d+) \|[^|]*\|[^|]*\|([^|]*)\|$", page(), re.MULTILINE)
    assert len(found) == len(dict(found)), "a row stands there twice"
    return {row: re.findall(r"`([^`]+)`", tests) for row, tests in found}


@cache
def functions(file: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def test_every_row_is_there() -> None:
    assert set(rows()) == set(ROWS)


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`([a-z]+/[a-z_/]+\.py)::(test_\w+)`", page())
    assert len(named) > 100
    missing = {
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / "tests" / file).is_file() or name not in functions(ROOT / "tests" / file)
    }
    assert not missing
    assert len(named) == len(re.findall("`[^`]*::[^`]*`", page())), "a name that is not read as one"


def test_what_has_no_test_is_a_stated_limit() -> None:
    without = {row for row, tests in rows().items() if not tests}
    limits = (ROOT / "docs/limits.md").read_text()
    assert len(without) <= WITHOUT_TEST_MAX
    assert not without & MUST_HAVE_A_TEST
    assert not {row for row in without if not re.search(rf"\b{row}\b", limits)}


@pytest.mark.parametrize(
    ("library", "floor", "why"),
    [
        ("asyncssh", (2, 23, 1), "names of files chosen by servers; strict key exchange since 2.14.2"),
        ("paramiko", (3, 4, 0), "strict key exchange (Terrapin)"),
        ("PyYAML", (6, 0, 0), "full_load ran code"),
    ],
)
def test_the_floors_of_versions_are_kept(library: str, floor: tuple[int, ...], why: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [one for one in project["dependencies"] if re.match(rf"{library}\b", one, re.IGNORECASE)]
    least = re.search(r">=\s*([\d.]+)", wanted)
    assert least is not None, wanted
    assert tuple(int(part) for part in least[1].split(".")) >= floor, why
