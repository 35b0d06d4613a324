"""`node forget`: everything of ours off a host, then its records in one transaction. Holds the pass lock meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from controller.model.cluster import Node
from controller.model.errors import AgentRefused, HostError, HostNotReady, NotFound

if TYPE_CHECKING:
    from controller.act.transport import Session
    from controller.cli.wiring import Wiring
    from controller.model.inventory import Host

_FORGET_TIMEOUT_S = 120.0  # its pods end with their grace first
_OF_ANOTHER = "forget it with the store that its agent obeys; --force drops only the records here, and only where nothing would run twice"


async def forget(wiring: Wiring, node: Node, *, force: bool) -> list[str]:
    """Returns what was done, a line each. Raises HostError when the host cannot be cleaned and `force` is not given;
    AnotherController, NotFound."""
    from controller.act.lock import pass_lock

    with pass_lock(wiring.context.lock):
        node = _as_it_is_now(wiring, node)
        # No pod shall come to it meanwhile, whoever runs passes once this is interrupted.
        if not node.cordoned:
            wiring.store.edit([replace(node, cordoned=True)])
        done = await _clean(wiring, node, force=force)
        world = wiring.world()
        pods = [pod for pod in world.pods.values() if pod.node == node.meta.name]
        wiring.store.edit(remove=[world.nodes[node.meta.name], *pods])
    done.append(f"node/{node.meta.name} forgotten")
    held = sorted(claim.meta.key for claim in world.claims.values() if claim.node == node.meta.name)
    if held:
        done.append(
            f"volumes are left on it, with their data; these claims wait for it or for their deletion: {', '.join(held)}"
        )
    if pods:
        done.append("the next pass replaces what was there: sshoal reconcile --settle")
    source = _source(wiring, node.meta.name)
    if source:
        done.append(
            f"it is still in the inventory ({source}): take it out there, or the next pass makes it a node again"
        )
    return done


def _as_it_is_now(wiring: Wiring, node: Node) -> Node:
    """Passes went on while a person was asked: one may have heard a node that was confirmed dead. Raises NotFound."""
    present = wiring.world().nodes.get(node.meta.name)
    if present is None:
        raise NotFound(f"there is no node {node.meta.name!r} any more")
    return present


async def _clean(wiring: Wiring, node: Node, *, force: bool) -> list[str]:
    from controller.act.store import named
    from controller.cli.scene import host_of

    name = node.meta.name
    try:
        host = host_of(wiring, node)
        async with wiring.fleet(deploy=False) as fleet:
            session = await fleet.session(host)
            with wiring.noted(named(node), node=name):
                await _ask_agent_then_remove(wiring, session, host)
        return [f"{name}: pods, agent and network are removed"]
    except HostError as error:
        claims = _claims(wiring, node)
        if claims and not node.confirmed_dead:
            raise HostError(
                name,
                f"not forgotten (it is cordoned): {error.problem}; it may still run {', '.join(claims)}, which would then run twice",
                hint=error.hint
                if isinstance(error, AgentRefused)  # it answers, so it is not off
                else f"if that host is off for sure: sshoal node confirm-dead {name}",
            ) from None
        if not force:
            raise HostError(
                name,
                f"not forgotten (it is cordoned): {error.problem}",
                hint=error.hint
                or "--force drops its records all the same; what runs there then runs on, unknown to sshoal",
            ) from None
        return [f"{name} was not cleaned: {error.problem}", "what runs there runs on, unknown to sshoal"]


def _claims(wiring: Wiring, node: Node) -> list[str]:
    """Pods there that may not run twice."""
    pods = wiring.world().pods.values()
    mine = [
        pod for pod in pods if pod.node == node.meta.name and pod.meta.owner and pod.meta.owner.kind == "StatefulSet"
    ]
    return sorted(f"pod {pod.meta.key}" for pod in mine)


async def _ask_agent_then_remove(wiring: Wiring, session: Session, host: Host) -> None:
    from controller.act import bootstrap
    from nodeagent import protocol
    from nodeagent.protocol import ForgetRequest

    rootless, cluster = host.connection.rootless, wiring.store.cluster_id
    request = ForgetRequest(cluster, wiring.store.take_epoch())
    try:
        await bootstrap.forget(session, request, cluster=cluster, rootless=rootless, timeout_s=_FORGET_TIMEOUT_S)
    except AgentRefused as error:
        if error.code not in (protocol.FAILED_CODE, protocol.UNKNOWN_VERB):
            # It may, but does not obey this store: another cluster's, an older one, a copy. Going round it would go round the epoch.
            raise AgentRefused(error.host, error.code, error.problem, hint=error.hint or _OF_ANOTHER) from None
        await bootstrap.forget(session, None, cluster=cluster, rootless=rootless, timeout_s=_FORGET_TIMEOUT_S)
    except HostNotReady:  # no agent answers: its things are removed without it
        await _require_ours(session, host, cluster)
        await bootstrap.forget(session, None, cluster=cluster, rootless=rootless, timeout_s=_FORGET_TIMEOUT_S)


async def _require_ours(session: Session, host: Host, cluster: str) -> None:
    """An agent that is down cannot say whom it obeys; what it has kept on the host can. Raises HostNotReady."""
    from controller.act.examine import examine

    owner = (await examine(session, host)).facts.owner
    if owner not in ("", cluster):
        problem = f"its agent does not answer, and has kept there that it obeys cluster {owner}"
        raise HostNotReady(host.name, problem, hint=_OF_ANOTHER)


def _source(wiring: Wiring, name: str) -> str:
    if not wiring.context.inventory:
        return ""
    host = wiring.inventory().hosts.get(name)
    return host.source if host is not None and host.is_node else ""
