"""The agent on a real host with Podman's own ways: what people do by hand, parts of volumes, last words, and what probes leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.act.agents import AgentClient, Picture
from controller.act.bootstrap import push
from controller.act.bundle import Bundle
from controller.act.transport import Session
from controller.model.inventory import Host
from lab.lab import Lab
from nodeagent.protocol import Config, Container, Item, Mount, Pod, PodReport, Source, Volume, WantedSet
from tests.lab.test_bootstrap import bare, built, one_pod, run_with

__all__ = ["bare", "built"]  # fixtures

LISTED = "podman ps --no-trunc --filter label=sshoal.dev/container --format '{{.ID}}'"  # without the infra container
INFRA = "podman pod inspect --format '{{.InfraContainerID}}' $(podman pod ps --quiet --filter label=sshoal.dev/cluster)"
EXECS = "ps -eo args | grep -c '[c]onmon.*--exec'"


async def pod_when(
    session: Session, wanted: WantedSet, holds: Callable[[PodReport], bool], within_s: float
) -> PodReport:
    """Has the agent take the set, and returns the report of its one pod as soon as it is as asked."""
    client = AgentClient(session.host_name, await session.open_channel(10))
    picture = Picture(session.host_name)
    try:
        await client.want(wanted, 20)
        async with asyncio.timeout(within_s):
            while not any(holds(pod) for pod in picture.pods.values()):
                picture.update(await client.report(picture.cursor, wait_s=5, timeout_s=15))
    finally:
        client.close()
    return next(pod for pod in picture.pods.values() if holds(pod))


async def said(session: Session, script: str) -> str:
    done = await session.run(script, become=True, timeout_s=60)
    return done.stdout.decode().strip()


@pytest.mark.parametrize(
    "command",
    [
        f"podman rm --force --time 0 $({LISTED})",
        "podman pod rm --force --time 0 $(podman pod ps --quiet --filter label=sshoal.dev/cluster)",
        f"podman kill --signal KILL $({INFRA})",
    ],
    ids=["a container removed", "a pod removed", "an infra container killed"],
)
def test_what_a_person_takes_away_is_back_within_seconds(
    bare: Lab, built: Bundle, test_images: dict[str, str], command: str
) -> None:
    async def work(session: Session, host: Host) -> None:
        await push(session, built, host)
        wanted = one_pod(test_images["v1"])
        before = await pod_when(session, wanted, lambda pod: pod.ready, 60)
        await said(session, command)
        after = await pod_when(session, wanted, lambda pod: pod.ready and pod.ready_since_s > before.ready_since_s, 20)
        assert after.ready_since_s - before.ready_since_s < 30

    run_with(bare, work)


def test_parts_of_volumes_read_only_files_and_last_words(bare: Lab, built: Bundle, test_images: dict[str, str]) -> None:
    script = (
        "cat /one/key /keys/key > /data/seen; touch /part/made; (echo x > /keys/key) 2>/dev/null || echo -n refused >> /data/seen;"
        "ls /data >> /data/seen; cat /data/seen > /dev/termination-log; exit 3"
    )
    container = Container(
        "app",
        test_images["v1"],
        pull="Never",
        command=("sh", "-c", script),
        mounts=(
            Mount("conf", "/one/key", sub_path="renamed"),
            Mount("conf", "/keys"),
            Mount("data", "/data"),
            Mount("data", "/part", sub_path="inner"),
        ),
    )
    conf = Volume("conf", "files", sources=(Source("config", "default/c", (Item("k", "renamed"), Item("k", "key"))),))

    async def work(session: Session, host: Host) -> None:
        await push(session, built, host)
        base = one_pod(test_images["v1"])
        pod: Pod = replace(
            base.pods[0], containers=(container,), volumes=(conf, Volume("data", "memory")), restart="Never"
        )
        wanted = replace(base, pods=(pod,), configs={"default/c": Config("1", {"k": "value."})})
        ended = await pod_when(session, wanted, lambda pod: pod.phase == "Failed", 60)
        assert (ended.containers[0].exit_code, ended.containers[0].message) == (3, "value.value.refusedinner\nseen\n")

    run_with(bare, work)


RUN_EXECS = f"""python3 -I - $({LISTED}) <<'PROGRAM'
import asyncio, sys
sys.path.insert(0, "/var/lib/sshoal/agent/current")
from nodeagent.podman_runtime import PodmanRuntime
async def main():
    runtime = PodmanRuntime("/run/sshoal/podman.sock")
    print(*{{(await runtime.exec(sys.argv[1], ("true",), 10)).code for _ in range(100)}})
asyncio.run(main())
PROGRAM"""


def test_a_hundred_execs_leave_no_process_behind(bare: Lab, built: Bundle, test_images: dict[str, str]) -> None:
    """As exec probes make them. The host's own settings of Podman hold all the same."""

    async def work(session: Session, host: Host) -> None:
        await push(session, built, host)
        await pod_when(session, one_pod(test_images["v1"]), lambda pod: pod.ready, 60)
        assert await said(session, RUN_EXECS) == "0"
        async with asyncio.timeout(60):  # Podman alone would keep them for 300 s
            while await said(session, EXECS) != "0":
                await asyncio.sleep(0.5)
        settings = await said(session, "grep ^CONTAINERS_CONF /run/sshoal/podman.env; cat /run/sshoal/containers.conf")
        assert "CONTAINERS_CONF=" in settings
        if "cgroupfs" in await said(session, "cat /etc/containers/containers.conf"):
            assert 'cgroup_manager = "cgroupfs"' in settings

    run_with(bare, work)
