"""Which pods `logs -f` follows: those that have begun, and others once they have."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from controller.cli.logs import Wanted, _Reading
from controller.model.cluster import Pod
from nodeagent.protocol import ContainerReport
from tests import builders


class Reading(_Reading):
    """Remembers whose log was asked for; a log ends when `over` is set."""

    def __init__(self, pods: dict[str, Pod]) -> None:
        self.asked: list[str] = []
        self.over = asyncio.Event()
        self._wiring: Any = self
        self._wanted = Wanted("", True, False, -1, 0.0, False)
        self._pods = pods

    def world(self) -> Any:
        return builders.world(*self._pods.values())

    async def read(self, pod: Pod) -> bool:
        self.asked.append(pod.meta.name)
        await self.over.wait()
        return True


def pod(name: str, state: str) -> Pod:
    bare = builders.bare_pod(name)
    container = ContainerReport(name="c", state=state)
    return replace(bare, report=replace(builders.report(bare, "Pending"), containers=(container,)))


def test_a_pod_is_followed_once_its_container_has_begun() -> None:
    """Its host refuses before that, and the pod would be given up on."""

    async def scenario() -> None:
        first, early = pod("first", "running"), pod("second", "waiting")
        shown = {"first": first, "second": early}
        reading = Reading(shown)
        looks = 0

        def pods_now() -> list[Pod]:
            nonlocal looks
            looks += 1
            if looks == 2:
                shown["second"] = pod("second", "running")
            if reading.asked == ["first", "second"]:
                reading.over.set()
            return list(shown.values())

        assert not await reading.follow([first, early], pods_now)
        assert reading.asked == ["first", "second"]
        assert looks >= 2

    asyncio.run(asyncio.wait_for(scenario(), 20))
