"""The last log lines of pods whose revision was given up, read while they are there. In: Deployments with an incident. Out: events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from controller.act.fleet import Fleet
from controller.act.store import Event
from controller.model.cluster import Deployment, Pod, World
from controller.model.errors import HostError
from controller.model.inventory import Host
from controller.model.text import printable
from nodeagent import protocol
from nodeagent.protocol import LogsRequest

_PODS_MAX = 2  # of each Deployment
_LINES = 8
_BYTES_MAX = 4096
_TEXT_MAX = 350
_TIMEOUT_S = 3.0  # for all of a pass: an incident must not hold up the others' rollouts


async def last_words(
    fleet: Fleet, hosts: Mapping[str, Host], world: World, given_up: Sequence[Deployment], wall_s: float
) -> list[Event]:
    """An event of the Deployment for each container; none for a log that cannot be had in time."""
    asked = [
        (deployment, pod, container.name)
        for deployment in given_up
        for pod in _pods(world, deployment)
        for container in (pod.report.containers if pod.report is not None else ())
        if pod.node in hosts
    ]

    async def ask(deployment: Deployment, pod: Pod, container: str) -> Event | None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                lines = await _tail(fleet, hosts[pod.node], pod, container)
        except (HostError, TimeoutError):
            return None
        if not lines:
            return None
        message = f"{pod.meta.name}, {container}: {' | '.join(lines)}"[-_TEXT_MAX:]
        meta = deployment.meta
        return Event(wall_s, "LastLogLines", message, meta.kind, meta.namespace, meta.name, pod.node, True, wall_s)

    found = await asyncio.gather(*(ask(*one) for one in asked))
    return [event for event in found if event is not None]


def _pods(world: World, deployment: Deployment) -> list[Pod]:
    """Those of the revision that was given up."""
    revision = deployment.incidents[-1].revision if deployment.incidents else 0
    sets = {
        item.meta.uid
        for item in world.replica_sets.values()
        if item.meta.owner is not None and item.meta.owner.uid == deployment.meta.uid and item.revision == revision
    }
    pods = [pod for pod in world.pods.values() if pod.meta.owner is not None and pod.meta.owner.uid in sets]
    return sorted(pods, key=lambda pod: pod.meta.name)[:_PODS_MAX]


async def _tail(fleet: Fleet, host: Host, pod: Pod, container: str) -> list[str]:
    request = LogsRequest(pod.meta.uid, container, tail=_LINES, limit_bytes=_BYTES_MAX)
    stream = await fleet.stream(host, protocol.LOGS, request)
    data = b""
    try:
        async for _, piece in stream:
            data += piece
            if len(data) > _BYTES_MAX:
                break
    finally:
        stream.close()
    return [printable(line, 200) for line in data.decode(errors="replace").splitlines()[-_LINES:]]
