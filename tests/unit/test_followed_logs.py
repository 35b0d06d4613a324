"""Which pods `logs -f` follows: those that have begun, and others once they have."""

from __future__ import annotations

import asyncio
import io
import sys
from dataclasses import replace
from typing import Any

import pytest

from controller.cli.logs import Log, Wanted, _Reading, _Shown
from controller.cli.output import Unwritten
from controller.model.cluster import Pod
from nodeagent.protocol import ContainerReport
from tests import builders


class Reading(_Reading):
    """Remembers whose log was asked for; a log ends when `over` is set."""

    def __init__(self, pods: dict[str, Pod], *, all_containers: bool = False) -> None:
        self.asked: list[str] = []
        self.over = asyncio.Event()
        self._wiring: Any = self
        self._wanted = Wanted("", True, False, -1, 0.0, False, all_containers)
        self._pods = pods

    def world(self) -> Any:
        return builders.world(*self._pods.values())

    async def read(self, log: Log) -> bool:
        self.asked.append(f"{log.pod.meta.name}/{log.container}".rstrip("/"))
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

        assert not await reading.follow([Log(first, ""), Log(early, "")], pods_now)
        assert reading.asked == ["first", "second"]
        assert looks >= 2

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_of_all_containers_each_is_followed_once_it_has_begun() -> None:
    def web(*begun: str) -> Pod:
        bare = builders.bare_pod("web", containers=[{"name": name, "image": "app:1"} for name in ("main", "side")])
        states = [
            ContainerReport(name=name, state="running" if name in begun else "waiting") for name in ("main", "side")
        ]
        return replace(bare, report=replace(builders.report(bare, "Pending"), containers=tuple(states)))

    async def scenario() -> None:
        shown = {"web": web("main")}
        reading = Reading(shown, all_containers=True)

        def pods_now() -> list[Pod]:
            if reading.asked == ["web/main"]:
                shown["web"] = web("main", "side")
            else:
                reading.over.set()
            return list(shown.values())

        assert not await reading.follow([Log(shown["web"], name) for name in ("main", "side")], pods_now)
        assert reading.asked == ["web/main", "web/side"]

    asyncio.run(asyncio.wait_for(scenario(), 20))


class Unwritable(Reading):
    """As with `| head -1`: the first pod writes, and nobody reads; the second is silent."""

    def __init__(self, pods: dict[str, Pod], error: Exception) -> None:
        super().__init__(pods)
        self._error = error

    async def read(self, log: Log) -> bool:
        if log.pod.meta.name == "first":
            raise self._error
        return await super().read(log)


@pytest.mark.parametrize("error", [BrokenPipeError(), Unwritten("full")])
def test_following_ends_once_nothing_can_be_written(error: Exception) -> None:
    pods = {name: pod(name, "running") for name in ("first", "second")}

    async def scenario() -> None:
        with pytest.raises(type(error)):
            logs = [Log(pod, "") for pod in pods.values()]
            await Unwritable(pods, error).follow(logs, lambda: [*pods.values()])

    asyncio.run(asyncio.wait_for(scenario(), 4))


def test_a_full_disk_here_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with io.TextIOWrapper(open("/dev/full", "wb", buffering=0)) as full:  # noqa: PTH123 - nothing is left to flush
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(Unwritten, match="No space left on device"):
            _Shown(False).lines(Log(builders.bare_pod("web"), ""), [b"hello"])
