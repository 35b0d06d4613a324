"""docs/compatibility.md says what the models say, and each test that it names is there."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


@cache
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compatibility", ROOT / "tools" / "compatibility.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "compatibility.md").read_text() == tool().page(), "run tools/compatibility.py"


def test_each_field_that_is_said_to_be_observed_is_a_field_of_the_models() -> None:
    kinds = tool().KINDS
    known = {
        f"{model.__name__}.{field}"
        for kind in kinds
        for _, model in tool().types_below(kinds[kind], kind)
        for field in tool().fields_of(model)
    }
    assert {*tool().load_observed()["fields"], *tool().load_observed()["no_effect"]} <= known


def test_each_test_that_is_named_is_there_and_its_manifest_has_the_field() -> None:
    for field, name in tool().load_observed()["fields"].items():
        if name.endswith(".yaml"):
            text = (ROOT / "tests" / "cases" / "manifests" / "kubernetes" / name).read_text()
            assert f"{field.partition('.')[2]}:" in text.replace('"', ""), (field, name)
        else:
            file, _, function = name.partition("::")
            assert function in functions_in(file), name


@cache
def functions_in(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / "lab" / file).read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_deviations_are_told_of_kinds_that_there_are() -> None:
    assert set(tool().load_observed()["deviations"]) <= set(tool().KINDS)
