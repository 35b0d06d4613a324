"""Pod Security Standards: every control with values that are allowed and forbidden, and what levels, versions and labels mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.decide.admission.security import Level, Policy, policy_of, violations
from controller.model.kinds.check_policy import label_problems
from controller.model.kinds.pod import PodSpec

CASES = yaml.safe_load((Path(__file__).parents[1] / "cases" / "security" / "controls.yaml").read_text())
PREFIX = "pod-security.kubernetes.io/"
LATEST = 1_000_000


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over the base, mapping by mapping; null takes a field away."""
    both = {
        key: merged(base[key], item) if isinstance(item, dict) and isinstance(base.get(key), dict) else item
        for key, item in over.items()
    }
    return {key: item for key, item in {**base, **both}.items() if item is not None}


def container(name: str, over: Mapping[str, Any]) -> dict[str, Any]:
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    given = dict(over)
    if "capabilities" in given.get("securityContext", {}):
        secure.pop("capabilities")  # a case says all of them
    return merged({"name": name, "image": "i:1", "securityContext": secure}, given)


def found(case: Mapping[str, Any], level: str, minor: int = LATEST) -> tuple[str, ...]:
    spec = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        **case.get("pod", {}),
    }
    spec["containers"] = [container("app", case.get("container", {}))]
    if "init" in case:
        spec["initContainers"] = [container("prepare", case["init"])]
    return violations(Level(level, minor), PodSpec.model_validate(spec), case.get("annotations", {}))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_control_finds_what_the_published_tables_forbid_and_nothing_else(case: Mapping[str, Any]) -> None:
    expected = [case[level] for level in ("baseline", "restricted") if level in case]
    assert found(case, "privileged") == ()
    assert len(found(case, "baseline")) == ("baseline" in case)
    assert len(found(case, "restricted")) == len(expected), "what the baseline forbids, restricted forbids too"
    for text, wanted in zip(found(case, "restricted"), expected, strict=True):
        assert text.startswith(wanted)


@pytest.mark.parametrize("case", [case for case in CASES if "since" in case], ids=lambda case: case["name"])
def test_a_control_counts_from_its_version_on(case: Mapping[str, Any]) -> None:
    level = "baseline" if "baseline" in case else "restricted"
    since, wanted = case["since"], case[level]
    assert any(text.startswith(wanted) for text in found(case, level, since))
    assert not any(text.startswith(wanted) for text in found(case, level, since - 1))


@pytest.mark.parametrize(("minor", "forbidden"), [(26, 3), (27, 2), (29, 1), (32, 0)])
def test_sysctls_came_one_by_one(minor: int, forbidden: int) -> None:
    (case,) = [case for case in CASES if case["name"] == "a sysctl that came later"]
    assert sum(text.count("net.") for text in found(case, "baseline", minor)) == forbidden


@pytest.mark.parametrize(
    ("labels", "policy"),
    [
        ({}, Policy()),
        ({"enforce": "restricted"}, Policy(Level("restricted"), Level(), Level("restricted"))),
        ({"enforce": "restricted", "warn": "baseline"}, Policy(Level("restricted"), Level(), Level("baseline"))),
        ({"audit": "baseline", "audit-version": "v1.30"}, Policy(Level(), Level("baseline", 30), Level())),
        ({"warn": "restricted", "warn-version": "latest"}, Policy(Level(), Level(), Level("restricted"))),
        ({"enforce-version": "v1.30"}, Policy()),
    ],
)
def test_labels_say_level_and_version_of_each_mode(labels: Mapping[str, str], policy: Policy) -> None:
    assert policy_of({PREFIX + key: value for key, value in labels.items()}) == policy


@pytest.mark.parametrize(
    ("label", "value", "problem"),
    [
        ("enforce", "strict", "must be privileged, baseline or restricted, not 'strict'"),
        ("warn-version", "1.30", "must be latest or a version such as v1.31, not '1.30'"),
        ("audit-version", "v1.030", "must be latest or a version such as v1.31, not 'v1.030'"),
        ("enforce", "restricted", ""),
        ("enforce-version", "v1.0", ""),
    ],
)
def test_a_label_that_says_nothing_known_is_refused(label: str, value: str, problem: str) -> None:
    assert "".join(text for _, text in label_problems({PREFIX + label: value})) == problem


def test_a_level_is_named_with_its_version() -> None:
    assert (str(Level("restricted")), str(Level("baseline", 30))) == ("restricted:latest", "baseline:v1.30")
