"""What `node confirm-dead` shows before a person vouches: what is started elsewhere, and what the host itself would start. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from controller.decide.pods import is_active
from controller.model.cluster import Node, Pod, World

_NAMES_MAX = 10


def shown(world: World, node: Node, how: str) -> list[str]:
    """Lines for a person. `how`: powered-off or wiped. The node's own agent knows the pods that it was last told to run."""
    name = node.meta.name
    pods = sorted((pod for pod in world.pods.values() if pod.node == name), key=lambda pod: pod.meta.key)
    silent = node.missing
    lines = [f"{name} was last heard before {silent.polls} missed polls: {silent.why}"] if silent else []
    lines += _volumes(world, name, how)
    if not pods:
        return [*lines, "it has no pods"]
    ours = [pod for pod in pods if is_active(pod)]
    lines += _line("started elsewhere, without waiting", [pod for pod in ours if _has_replacement(pod)])
    lines += _line("left to this node: nothing replaces them", [pod for pod in ours if not _has_replacement(pod)])
    if how == "wiped":
        lines.append("a host that was wiped starts none of them: its agent and its orders are gone")
        return lines
    lines += _line(f"if {name} is switched on it starts by itself, before anybody can stop it", pods)
    exclusive = [pod for pod in ours if pod.meta.owner is not None and pod.meta.owner.kind == "StatefulSet"]
    lines += _line("these would then run twice, which they must never", exclusive)
    lines.append(f"the first pass that hears {name} again tells it to stop what was started elsewhere")
    return lines


def _volumes(world: World, name: str, how: str) -> list[str]:
    """What it means for data."""
    claims = sorted(claim.meta.key for claim in world.claims.values() if claim.node == name)
    if not claims:
        return []
    if how == "wiped":
        return [f"THE DATA of these volume claims is lost, they are bound anew, empty: {', '.join(claims)}"]
    return [f"these volume claims stay with it, and pods that use them wait for its return: {', '.join(claims)}"]


def _has_replacement(pod: Pod) -> bool:
    """A Pod of its own and a DaemonSet's belong to their node."""
    return pod.meta.owner is not None and pod.meta.owner.kind != "DaemonSet"


def _line(what: str, pods: Iterable[Pod]) -> list[str]:
    names = [pod.meta.key for pod in pods]
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return [f"{what}: {', '.join(names[:_NAMES_MAX])}{more}"] if names else []
