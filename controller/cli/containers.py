"""Which container of a pod a stream goes to, and how its host is reached. Shared by logs, exec and port-forward."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controller.cli.scene import host_of
from controller.decide.owners import template_of
from controller.model.cluster import Pod, World
from controller.model.errors import NotFound, UsageError

if TYPE_CHECKING:
    from controller.cli.wiring import Wiring
    from controller.model.inventory import Host

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


def host_of_pod(wiring: Wiring, world: World, pod: Pod) -> Host:
    """Raises NotFound when its node was forgotten."""
    if pod.node not in world.nodes:
        raise NotFound(f"node {pod.node}, where pod {pod.meta.name} was, is forgotten")
    return host_of(wiring, world.nodes[pod.node])


def spec_of_pod(world: World, pod: Pod) -> Mapping[str, Any]:
    """The pod's spec as written; empty when its owner is gone."""
    return (template_of(world, pod) or {}).get("spec") or {}


def containers_of(world: World, pod: Pod, *, init: bool = True) -> list[str]:
    """Names in the order in which they start; empty when its owner is gone."""
    spec = spec_of_pod(world, pod)
    groups = ("initContainers", "containers") if init else ("containers",)
    return [str(item["name"]) for group in groups for item in spec.get(group) or ()]


def choose_container(world: World, pod: Pod, name: str) -> str:
    """The container named, or the default one. Raises NotFound with those that there are."""
    regular = containers_of(world, pod, init=False)
    if name:
        everything = containers_of(world, pod)
        if everything and name not in everything:
            raise NotFound(
                f"pod {pod.meta.name} has no container {name!r}", hint=f"its containers: {', '.join(everything)}"
            )
        return name
    if not regular:
        raise NotFound(f"nothing says which containers pod {pod.meta.name} has", hint="-c NAME")
    chosen = pod.meta.annotations.get(DEFAULT_CONTAINER, "")
    return chosen if chosen in regular else regular[0]


def exec_words(words: Sequence[str]) -> tuple[str, ...]:
    """A command for a container. Raises UsageError for what is not UTF-8: its way there is JSON, and then Podman's."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{word!r} is not UTF-8", hint="a name of other bytes can be made in a shell there: sh -c"
            ) from None
    return tuple(words)


def tell_choice(world: World, pod: Pod, name: str) -> None:
    """Says which container was chosen where there was a choice."""
    regular = containers_of(world, pod, init=False)
    if not name and len(regular) > 1:
        chosen = choose_container(world, pod, "")
        print(f"note: container {chosen} of {', '.join(regular)}; others by -c", file=sys.stderr)
