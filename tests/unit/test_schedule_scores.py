"""Each score by itself, against examples worked by hand in tests/cases/schedule/scores.yaml, and that its weight decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.decide.schedule.scores import Scale, balanced_allocation, image_locality, least_allocated
from controller.decide.schedule.usage import Room
from controller.decide.shapes import shape_of
from controller.model.imagename import canonical
from controller.model.plan import NodeView
from nodeagent.protocol import Capacity
from tests.builders import node, template

CASES: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    (Path(__file__).parents[1] / "cases" / "schedule" / "scores.yaml").read_text()
)
MIB = 2**20


def _room(has: list[int], taken: list[int]) -> Room:
    capacity = Capacity(cpu_m=has[0], memory_bytes=has[1] * MIB)
    room = Room(node("n1"), NodeView("n1", "Ready"), capacity, "n1", 0)
    room.cpu_m = room.scored_cpu_m = taken[0]
    room.memory_bytes = room.scored_memory_bytes = taken[1] * MIB
    return room


def _shape(asks: list[int]) -> Any:
    amounts = {"cpu": f"{asks[0]}m", "memory": f"{asks[1]}Mi"}
    return shape_of(template(requests={key: text for key, text in amounts.items() if text[0] != "0"}), "default")


@pytest.mark.parametrize("case", CASES["least_allocated"], ids=str)
def test_least_allocated(case: dict[str, Any]) -> None:
    assert least_allocated(_shape(case["asks"]), _room(case["has"], case["taken"])) == case["score"]


@pytest.mark.parametrize("case", CASES["balanced_allocation"], ids=str)
def test_balanced_allocation(case: dict[str, Any]) -> None:
    assert balanced_allocation(_shape(case["asks"]), _room(case["has"], case["taken"])) == case["score"]


@pytest.mark.parametrize("case", CASES["image_locality"], ids=str)
def test_image_locality(case: dict[str, Any]) -> None:
    size_bytes = sum(int(size * MIB * case["share"]) for size in case["images"])
    assert image_locality(size_bytes, case["containers"]) == case["score"]


SCALED = [(name, case) for name in ("taints", "node", "pods", "spread") for case in CASES[name]]


@pytest.mark.parametrize(("name", "case"), SCALED, ids=[f"{name} {case['raw']}" for name, case in SCALED])
def test_raw_sums_are_scaled_over_the_nodes_that_fit(name: str, case: dict[str, Any]) -> None:
    scale = Scale()
    for raw in case["raw"]:
        values: dict[str, Any] = {"taints": 0, "node": 0, "pods": 0, "spread": 0, name: raw}
        scale.add(values["taints"], values["node"], values["pods"], values["spread"])
    assert [getattr(scale, name)(raw) for raw in case["raw"]] == case["score"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("localhost/web:v1", "localhost/web:v1"),
        ("registry:5000/web", "registry:5000/web:latest"),
        ("quay.io/a/b@sha256:0", "quay.io/a/b@sha256:0"),
    ],
)
def test_short_names_of_images_mean_what_they_mean_to_docker(written: str, meant: str) -> None:
    assert canonical(written) == meant
