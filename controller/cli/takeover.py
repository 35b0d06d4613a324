"""`node takeover`: a host whose agent obeys another cluster obeys this one from now on. Whose it is, is looked at and shown first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.model.cluster import Seen
from controller.model.errors import HostError
from controller.model.text import printable
from nodeagent.protocol import Owner, TakeoverRequest

if TYPE_CHECKING:
    from controller.act.fleet import Fleet
    from controller.model.inventory import Host

TIMEOUT_S = 10.0
_NAMES_MAX = 5


@dataclass(frozen=True, slots=True)
class Holding:
    """What an agent says of whom it obeys. `state_lost`: it can't tell any more, the labels of what runs there may."""

    owner: Owner | None
    state_lost: bool
    pods: tuple[str, ...]  # namespace/name


async def look(fleet: Fleet, host: Host) -> Holding:
    """Asks a host's agent. Raises HostError."""
    sighting = (await fleet.observe({host.name: host}, {}))[host.name]
    if not isinstance(sighting, Seen):
        raise HostError(host.name, sighting.why)
    pods = sorted(f"{pod.namespace}/{pod.name}" for pod in sighting.pods.values())
    lost = any(condition.kind == "StateLost" for condition in sighting.conditions)
    return Holding(sighting.owner, lost, tuple(printable(name, 80) for name in pods))


def needless(holding: Holding, host: str, cluster: str) -> str:
    """Why there is nothing to take over; "" when there is."""
    if holding.owner is not None and holding.owner.cluster == cluster:
        return f"node/{host} belongs to this cluster already"
    if holding.owner is None and not holding.state_lost:
        return f"node/{host} belongs to no cluster: the next pass makes it a node (sshoal reconcile)"
    return ""


def shown(holding: Holding, host: str, cluster: str, former: str) -> list[str]:
    """What a person should know before saying yes. `former`: whose pods become ours; "" when nobody's do."""
    owner, count = holding.owner, len(holding.pods)
    if owner is not None:
        lines = [f"{host} belongs to cluster {printable(owner.cluster, 64)}, epoch {owner.epoch.number}"]
    else:
        lines = [f"the agent on {host} has lost its records: it can't tell whose it is"]
    names = ", ".join(holding.pods[:_NAMES_MAX]) + (" …" if count > _NAMES_MAX else "")
    lines.append(f"pods there: {count}" + (f" ({names})" if names else ""))
    if former:
        lines.append(f"those of cluster {printable(former, 64)} run until this cluster's next pass, which stops them")
    else:
        lines.append("they run on, unknown to this cluster; --from CLUSTER takes them over too, by their label")
    lines.append(f"from then on only this cluster is obeyed there: {cluster}")
    return lines


async def take(fleet: Fleet, host: Host, request: TakeoverRequest) -> None:
    """Raises AgentRefused, e.g. when it has changed hands since it was looked at; HostError."""
    from controller.act.agents import AgentClient

    timeout_s = TIMEOUT_S * host.connection.patience
    session = await fleet.session(host)
    client = AgentClient(host.name, await session.open_channel(timeout_s))
    try:
        await client.takeover(request, timeout_s)
    finally:
        client.close()
