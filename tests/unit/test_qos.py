"""The quality of service of a pod, as Kubernetes counts it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.decide.qos import qos_class
from controller.model.kinds.pod import PodSpec

FULL = {"limits": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("containers", "init", "expected"),
    [
        ([{}], [], "BestEffort"),
        ([{"requests": {"cpu": "0"}}], [], "BestEffort"),
        ([{"requests": {"ephemeral-storage": "1Gi"}}], [], "BestEffort"),
        ([{"requests": {"cpu": "1m"}}], [], "Burstable"),
        ([FULL], [], "Guaranteed"),
        ([{**FULL, "requests": {"cpu": "1000m", "memory": "1024Mi"}}], [], "Guaranteed"),
        ([{**FULL, "requests": {"cpu": "500m"}}], [], "Burstable"),
        ([{"limits": {"cpu": "1"}}], [], "Burstable"),
        ([FULL, {}], [], "Burstable"),
        ([FULL], [{}], "Burstable"),
        ([FULL], [FULL], "Guaranteed"),
    ],
)
def test_qos_class(containers: list[dict[str, Any]], init: list[dict[str, Any]], expected: str) -> None:
    def of(resources: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
        return [{"name": f"{name}{n}", "image": "i:1", "resources": item} for n, item in enumerate(resources)]

    spec = PodSpec.model_validate({"containers": of(containers, "c"), "initContainers": of(init, "i")})
    assert qos_class(spec) == expected
