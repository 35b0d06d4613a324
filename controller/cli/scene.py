"""What reading commands look at: the records with what the agents say now, the nodes' states, and who could not be asked.

In: a pass that was only previewed, or the store alone. Out: a Scene. Everything but the two functions at the end is pure.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from controller.decide.nodes import is_replaced
from controller.decide.owners import template_of, with_own_names
from controller.decide.standing import status_word
from controller.decide.verbs import records_of
from controller.model.cluster import Moment, Node, Pod, Record, Seen, World
from controller.model.errors import HostError
from controller.model.plan import Change, NodeView, Unplaced, changed, is_policy
from controller.model.text import printable

if TYPE_CHECKING:
    from controller.act.store import Event
    from controller.cli.wiring import Wiring
    from controller.loop import Pass
    from controller.model.inventory import Host

POLL_S = 4.0  # a reader waits no longer for a host that does not answer
_POLLS_UNKNOWN = 2


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture of the cluster. `live`: of now, from the agents; else what the last pass stored."""

    world: World
    views: Mapping[str, NodeView]
    now: Moment
    live: bool = False
    unseen: Mapping[str, str] = field(default_factory=dict)  # hosts that gave no report, and why
    unplaced: Mapping[str, Unplaced] = field(default_factory=dict)  # by uid of the pod

    def is_unseen(self, pod: Pod) -> bool:
        """Whether nothing is known of this pod now: its node did not answer."""
        return bool(pod.node) and pod.node in self.unseen

    def word(self, pod: Pod) -> str:
        """The pod's status in one word, fit for a terminal."""
        return printable(status_word(self.world, pod, node_unseen=self.is_unseen(pod)), 60)

    def seen(self, node: str) -> Seen | None:
        sighting = self.world.sightings.get(node)
        return sighting if isinstance(sighting, Seen) else None

    def age_s(self, moment: Moment) -> float:
        return self.now.since(moment)

    def template(self, pod: Pod) -> Mapping[str, object]:
        """The pod template as written, with the pod's own names; empty when nothing says what the pod is."""
        template = template_of(self.world, pod) or {}
        owner = pod.meta.owner
        return with_own_names(template, pod) if owner and owner.kind == "StatefulSet" else template

    def records(self, kind: str) -> list[Record]:
        """All records of a kind, by namespace and name."""
        return records_of(self.world, kind)

    def owned(self, owner: Record) -> list[Pod]:
        """All pods of an owner that have a record, by name."""
        return sorted(self.world.owned.get(owner.meta.uid, ()), key=lambda pod: pod.meta.name)


def live_scene(done: Pass, now: Moment) -> Scene:
    """The records as they are, with what agents say now folded in; nothing of what a pass would do."""
    from controller.decide import pods, replicaset, status

    plan = done.plan
    world = changed(done.world, [change for change in plan.changes if _is_seen_already(change)])
    if plan.nodes:
        known = {change.record.meta.name: change.record for change in plan.changes if isinstance(change.record, Node)}
        world = replace(world, nodes={**world.nodes, **known})  # labels, agents and new nodes, as seen now
    tallies = replicaset.tallies(world, pods.ready_ages(world, plan.nodes))
    world = changed(world, status.judge_status(world, tallies, {}, now).changes)
    world = changed(world, [change for change in plan.changes if _is_count(change, done.world)])
    unseen = {name: sighting.why for name, sighting in done.unseen.items()}
    return Scene(world, plan.nodes, now, True, unseen, {item.pod: item for item in plan.unplaced})


def stored_scene(world: World, now: Moment) -> Scene:
    """What the store alone says."""
    return Scene(world, {name: _stored_view(node) for name, node in sorted(world.nodes.items())}, now)


def _stored_view(node: Node) -> NodeView:
    name = node.meta.name
    if node.quarantined and not is_replaced(node):
        return NodeView(name, "Quarantined", node.quarantined)
    if node.confirmed_dead:
        return NodeView(name, "Dead", f"confirmed {node.confirmed_dead}")
    if node.missing is not None:
        state = "Unknown" if node.missing.polls >= _POLLS_UNKNOWN else "Unseen"
        return NodeView(name, state, node.missing.why)
    return NodeView(name, "Orphaned" if node.orphaned else "Ready", "gone from the inventory" if node.orphaned else "")


def events_of(scene: Scene, stored: list[Event]) -> list[Event]:
    """Stored events and those that agents hold and no pass has taken over yet, oldest first."""
    from controller.act.store import Event

    fresh = []
    for name, sighting in scene.world.sightings.items():
        if not isinstance(sighting, Seen):
            continue
        for told in sighting.events:
            namespace, _, pod = told.pod.partition("/")
            kind, subject = ("Pod", pod) if pod else ("Node", name)
            fresh.append(
                Event(
                    told.wall_s,
                    told.reason,
                    told.message,
                    kind,
                    namespace if pod else "",
                    subject,
                    name,
                    told.type == "Warning",
                    told.wall_s,
                )
            )
    return sorted([*stored, *fresh], key=lambda event: event.wall_s)


def _is_seen_already(change: Change) -> bool:
    """What the next pass will only write down: a report, or that a pod is gone."""
    return change.verb == "report" or (change.verb == "remove" and isinstance(change.record, Pod))


def _is_count(change: Change, before: World) -> bool:
    """The status of a Job or the like, as long as no pods would be made with it: it only counts what is seen."""
    if is_policy(change.record):
        return change.verb == "update" and change.quiet
    known = before.workloads.get(change.record.meta.uid)
    if known is None or change.verb != "update" or change.record.meta != known.meta:
        return False
    return getattr(change.record, "pods_made", None) == getattr(known, "pods_made", None)


# ---- looking --------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def looking(wiring: Wiring, *, usage: bool = False) -> AsyncIterator[Callable[[float], Awaitable[Scene]]]:
    """A function that waits for news, at most so many seconds, and looks. Connections are kept between looks; nothing is installed."""
    from controller.act.fleet import Deadlines

    async with wiring.fleet(Deadlines(poll_s=POLL_S, silent_s=1.0, missed_s=0.5), deploy=False) as fleet:
        controller = wiring.observing(fleet)

        async def look(patience_s: float) -> Scene:
            if patience_s > 0:
                await fleet.changed(patience_s)
            done = await controller.preview(usage=usage)
            return live_scene(done, wiring.now())

        yield look


def host_of(wiring: Wiring, node: Node) -> Host:
    """How to reach a node: by the inventory, or as it was reached before it left the inventory. Raises HostError."""
    from controller.model.remembered import remembered_host

    name = node.meta.name
    if node.quarantined:
        raise HostError(name, f"it is quarantined: {node.quarantined}")
    if wiring.context.inventory:
        host = wiring.inventory().hosts.get(name)
        if host is not None and host.is_node:
            return host
    return remembered_host(node)
