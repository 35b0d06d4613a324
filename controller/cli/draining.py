"""`node drain`: what it asks for, and waiting until the node is empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from controller.cli.carry import carrying, commit
from controller.cli.output import Progress
from controller.decide.drain import leaving, order_drain
from controller.model.cluster import Drain, Node, Pod, World
from controller.model.errors import NotSettled

if TYPE_CHECKING:
    from controller.cli.wiring import Wiring


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command. `timeout_s` 0: as long as it takes."""

    ignore_daemon_sets: bool = False
    empty_dirs: bool = False
    force: bool = False
    grace_s: int | None = None
    selector: str = ""
    timeout_s: float = 0.0
    dry_run: bool = False


async def drain(wiring: Wiring, node: Node, asked: Asked) -> None:
    """Records the intent, then runs passes until the node is empty. Raises UsageError, NotSettled."""
    intent = Drain(wiring.now(), asked.grace_s, asked.force, asked.empty_dirs, asked.selector)
    name = node.meta.name
    changes, pods = order_drain(wiring.world(), node, intent, ignore_daemon_sets=asked.ignore_daemon_sets)
    if asked.dry_run:
        print(f"node/{name} cordoned (dry run)")
        for pod in pods:
            print(f"pod/{pod.meta.name} evicted (dry run)")
        print(f"node/{name} drained (dry run)")
        return
    async with carrying(wiring) as carry:
        commit(wiring, changes)
        print(f"node/{name} cordoned", flush=True)
        watched = _Watched(name, {pod.meta.uid: pod for pod in pods})
        await carry.until(watched.reached, asked.timeout_s or _FOR_EVER_S, watched.show)
    watched.end()
    print(f"node/{name} drained")


_FOR_EVER_S = 10 * 365 * 86400.0


class _Watched:
    """A node that shall become empty."""

    def __init__(self, name: str, pods: dict[str, Pod]) -> None:
        self._name = name
        self._left = pods  # not yet known to be gone, by uid
        self._count = len(pods)
        self._standing: list[tuple[Pod, str]] = []
        self._done = False

    def reached(self, world: World) -> bool:
        node = world.nodes.get(self._name)
        self._standing = leaving(world, node) if node is not None else []
        self._done = node is None or node.drain is None
        return self._done

    def show(self, world: World, line: Progress) -> None:
        for uid in [uid for uid in self._left if uid not in world.pods]:
            line.clear()
            print(f"pod/{self._left.pop(uid).meta.name} evicted", flush=True)
        waiting = self._standing[0] if self._standing else None
        told = f": {waiting[0].meta.key} {waiting[1]}" if waiting else ""
        line.show(f"{self._count - len(self._left)} of {self._count} pods have left {self._name}{told}")

    def end(self) -> None:
        if self._done:
            return
        lines = [f"  {pod.meta.key}: {why}" for pod, why in self._standing]
        raise NotSettled(
            "\n".join([f"node {self._name} is not empty yet:", *lines]),
            hint=f"passes go on with it; `sshoal node uncordon {self._name}` ends it",
        )
