"""What each node is, from its record and its sighting; and whether so many are silent that nothing may be given up. Pure.

In: the world. Out: changes of node records, a view per node, the brake and notes for people.
Unreachable is not dead: a missed poll only opens or lengthens a series; what follows from that is decided in evict.py.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from controller.decide.phases import is_finished
from controller.model.cluster import (
    AGENT_NEWER,
    HostEntry,
    Meta,
    Missing,
    Moment,
    Node,
    Pod,
    Seen,
    Settings,
    Taint,
    Unseen,
    World,
)
from controller.model.identity import child_uid
from controller.model.plan import Change, NodeView

SKEW_TOLD_S = 2.0
POLLS_UNKNOWN = 2  # missed polls that make a node Unknown

_NOT_READY = ("RuntimeUnhealthy", "DiskPressure", "StorageCorrupt")  # conditions that keep new pods away
_APART_S_MAX = 10.0  # the second missed poll counts a period after the first, or after so long where periods are longer
_REFRESH_S_MIN = 10.0  # how often at most a lasting series of misses is written
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class Judgement:
    changes: tuple[Change, ...]
    views: Mapping[str, NodeView]
    brake: str  # why nothing may be given up; "" when the brake is off
    notes: tuple[str, ...]


def judge(world: World, now: Moment) -> Judgement:
    """Node records brought up to date, and what may be done with each node in this pass."""
    barred = _barred(world)
    loss = _inventory_loss(world)
    changes: list[Change] = []
    nodes: dict[str, Node] = {}
    for name in sorted(world.nodes):
        found = _node_changes(world, world.nodes[name], barred.get(name, ""), bool(loss), now)
        changes += found
        record = found[-1].record if found else world.nodes[name]
        assert isinstance(record, Node)
        nodes[name] = record
    notes = []
    for change in _new_nodes(world, barred, now):
        if isinstance(change, str):
            notes.append(change)
        else:
            changes.append(change)
            assert isinstance(change.record, Node)
            nodes[change.record.meta.name] = change.record
    views = {name: _view(node, world.sightings.get(name)) for name, node in nodes.items()}
    views |= {name: _stranger(world, name, barred) for name in sorted(world.hosts) if name not in nodes}
    brake = _brake(world, nodes)
    changes += _held(nodes, now)
    notes += [f"node {name} is quarantined: {node.quarantined}" for name, node in nodes.items() if node.quarantined]
    notes += [f"node {name} is not ready: {view.why}" for name, view in views.items() if view.state == "NotReady"]
    notes += [f"host {name} is not used: {why}" for name, why in sorted(barred.items()) if name not in nodes]
    notes += [note for note in (loss, brake) if note]
    notes += _clocks(world)
    return Judgement(tuple(changes), dict(sorted(views.items())), brake, tuple(notes))


def _clocks(world: World) -> list[str]:
    """Durations are measured by boot clocks, so that nothing hangs on this; but times that hosts tell are off by it."""
    skews = {name: told.skew_s for name, told in sorted(world.sightings.items()) if isinstance(told, Seen)}
    return [
        f"the clock of {name} is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's: times that it tells are off"
        for name, skew_s in skews.items()
        if abs(skew_s) > SKEW_TOLD_S
    ]


def trusted(world: World, views: Mapping[str, NodeView], name: str) -> Seen | None:
    """What the node said in this pass, when its word counts."""
    sighting = world.sightings.get(name)
    view = views.get(name)
    if not isinstance(sighting, Seen) or view is None:
        return None
    return None if view.state in ("Quarantined", "Dead") else sighting


# ---- who must not be used --------------------------------------------------------------------------------------------


def _barred(world: World) -> dict[str, str]:
    """Names of hosts that must get no command, with the reason."""
    barred: dict[str, str] = {}
    by_agent: dict[str, set[str]] = defaultdict(set)
    for name, sighting in world.sightings.items():
        if isinstance(sighting, Seen):
            by_agent[sighting.agent].add(name)
            if sighting.owner is not None and sighting.owner.cluster != world.cluster.id:
                barred[name] = (
                    f"its agent is owned by cluster {sighting.owner.cluster}; to make it ours: sshoal node takeover {name}"
                )
        elif sighting.kind in ("key-changed", "refused"):
            barred[name] = sighting.why
    for name, node in world.nodes.items():
        seen = world.sightings.get(name)
        if isinstance(seen, Seen) and _is_another_machine(world, node, seen):
            barred.setdefault(name, f"{ANOTHER_MACHINE} as {name}: {_OF_ANOTHER_MACHINE.format(name)}")
        # Whatever answers by that name now: two machines may have changed places in the inventory.
        if node.agent in by_agent:
            by_agent[node.agent].add(name)
    for names in by_agent.values():
        if len(names) > 1:
            for name in names:
                if isinstance(world.sightings.get(name), Seen):
                    barred.setdefault(name, _two_names(world, sorted(names)))
    return barred


ANOTHER_MACHINE = "another machine answers"
_OF_ANOTHER_MACHINE = (
    "give the name its address again; if this one takes the place of one that is dead, or of an earlier installation:"
    " sshoal node confirm-dead {} --powered-off or --wiped"
)


def _is_another_machine(world: World, node: Node, seen: Seen) -> bool:
    """Neither the agent nor the host's key is the one that had the node's pods, which may run on where they were.

    An agent alone is another one once it has lost its state, and a key alone is another one once a person has trusted it. Of a node
    that is confirmed dead the next machine waits until its pods have been given up.
    """
    if not node.host_key or seen.host_key in ("", node.host_key) or seen.agent == node.agent:
        return False
    return not node.confirmed_dead or any(
        pod.node == node.meta.name and _is_to_be_given_up(pod) for pod in world.pods.values()
    )


def _is_to_be_given_up(pod: Pod) -> bool:
    """Those that have ended are not: a Job's stay for their logs."""
    return pod.meta.owner is not None and pod.lost is None and not is_finished(pod)


def is_replaced(node: Node) -> bool:
    """Whether a person said that it is dead while another machine answers by its name."""
    return bool(node.confirmed_dead) and is_taken_for_another(node)


def is_taken_for_another(node: Node) -> bool:
    return node.quarantined.startswith(ANOTHER_MACHINE)


def _two_names(world: World, names: list[str]) -> str:
    """What is wrong and how it is mended: a host that was renamed, two that were mixed up, one listed twice, or a cloned machine."""
    wrong = f"one agent answers as {' and '.join(names)}"
    former = [name for name in names if name not in world.hosts]
    if former and len(former) < len(names):
        return f"{wrong}; if it was renamed: sshoal node forget {former[0]} --force, then its pods are replaced"
    agents = {seen.agent for seen in map(world.sightings.get, names) if isinstance(seen, Seen)}
    if len(agents) > 1:
        return (
            f"the machines of {' and '.join(names)} have changed places: give each its address in the inventory again"
        )
    # All of it: besides its identity, a clone has its original's last orders, and refuses its own as older ones.
    mend = "systemctl stop sshoal-agent; rm -r /var/lib/sshoal/documents; systemctl start sshoal-agent"
    return f"{wrong}: keep one name in the inventory; on a cloned machine: {mend}"


def _inventory_loss(world: World) -> str:
    """Why the inventory is not believed; "" when it is. One that lost so many hosts at once may be half a file, or the wrong one."""
    known = [name for name, node in world.nodes.items() if not node.orphaned]
    lost = sorted(name for name in known if name not in world.hosts)
    settings = world.cluster.settings
    if settings.accept_inventory_loss or len(lost) <= settings.inventory_loss_fraction * len(known):
        return ""
    listed = ", ".join(lost[:5]) + (" …" if len(lost) > 5 else "")
    return (
        f"the inventory has lost {len(lost)} of {len(known)} hosts ({listed}): nothing follows from that"
        " until `sshoal reconcile --accept-inventory` says that it is meant"
    )


# ---- one record --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """All that this pass knows of one node besides its record."""

    host: HostEntry | None
    sighting: Seen | Unseen | None
    barred: str
    inventory_doubted: bool
    settings: Settings
    now: Moment


def _node_changes(world: World, node: Node, barred: str, inventory_doubted: bool, now: Moment) -> list[Change]:
    """Changes in order, each on top of the one before."""
    name = node.meta.name
    sighting = world.sightings.get(name)
    look = _Look(world.hosts.get(name), sighting, barred, inventory_doubted, world.cluster.settings, now)
    changes: list[Change] = []
    for step in (_orphaning, _inventory, _quarantine, _absence, _return, _identity):
        change = step(node, look)
        if change is not None:
            assert isinstance(change.record, Node)
            node = change.record
            changes.append(change)
    return changes


def _orphaning(node: Node, look: _Look) -> Change | None:
    orphaned = look.host is None
    if orphaned == node.orphaned or (orphaned and look.inventory_doubted):
        return None
    name = node.meta.name
    because = (
        f"{name} is no longer in the inventory: its pods run on" if orphaned else f"{name} is in the inventory again"
    )
    reason = "NodeOrphaned" if orphaned else "NodeAdopted"
    return Change("update", replace(node, orphaned=orphaned), because, reason, warning=orphaned)


def _inventory(node: Node, look: _Look) -> Change | None:
    if look.host is None:
        return None
    host = look.host
    labels = _labels(host, look.sighting, node.labels)
    taints = _taints(host.taints, node.taints, look.now)
    fresh = replace(
        node,
        address=host.address,
        bastion=host.bastion,
        connection=host.connection,
        labels=labels,
        taints=taints,
        storage=host.storage,
    )
    if fresh == node:
        return None
    return Change("update", fresh, f"the inventory's entry of {host.name} changed", "InventoryChanged", quiet=True)


def _labels(host: HostEntry, sighting: Seen | Unseen | None, before: Mapping[str, str]) -> Mapping[str, str]:
    """The inventory's labels with those that Kubernetes puts on every node. A silent node keeps what its host said last."""
    if isinstance(sighting, Seen):
        arch = sighting.capacity.arch
        facts = {"kubernetes.io/arch": _ARCHITECTURES.get(arch, arch), "kubernetes.io/os": "linux"}
    else:
        facts = {key: before[key] for key in ("kubernetes.io/arch", "kubernetes.io/os") if key in before}
    facts = {key: value for key, value in facts.items() if value}
    return {**facts, **host.labels, "kubernetes.io/hostname": host.name}


def _taints(wanted: Iterable[Taint], before: Iterable[Taint], now: Moment) -> tuple[Taint, ...]:
    added = {(taint.key, taint.value, taint.effect): taint.added for taint in before}
    return tuple(
        replace(taint, added=added.get((taint.key, taint.value, taint.effect)) or now)
        for taint in sorted(wanted, key=lambda taint: (taint.key, taint.effect, taint.value))
    )


def _quarantine(node: Node, look: _Look) -> Change | None:
    """A quarantine ends when the host is heard and nothing speaks against it; silence does not end it."""
    barred = look.barred or (node.quarantined if not isinstance(look.sighting, Seen) else "")
    if barred == node.quarantined:
        return None
    name = node.meta.name
    because = f"{name} gets no commands: {barred}" if barred else f"{name} is no longer quarantined"
    reason = "NodeQuarantined" if barred else "NodeTrusted"
    return Change("update", replace(node, quarantined=barred), because, reason, warning=bool(barred))


def _absence(node: Node, look: _Look) -> Change | None:
    """Opens or lengthens the series of missed polls. A host that refuses is there; one that is confirmed dead is not awaited.

    Where another machine answers, the node itself is silent.
    """
    sighting = look.sighting
    if isinstance(sighting, Seen) and is_taken_for_another(node):
        sighting = Unseen("replaced", f"{ANOTHER_MACHINE} by its name")
    if not isinstance(sighting, Unseen) or sighting.kind == "refused" or node.confirmed_dead:
        return None
    name, now, missing = node.meta.name, look.now, node.missing
    step_s = max(look.settings.period_s, _REFRESH_S_MIN)
    if missing is None or now.since(missing.latest) > 3 * step_s or now.seems_before(missing.latest):
        # A long gap, or one of unknown length, means that the controller itself was away: it knows nothing of the time between.
        first = Missing(now, now, 1, sighting.kind, sighting.why)
        return Change(
            "update", replace(node, missing=first), f"{name} does not answer: {sighting.why}", "NodeUnseen", True
        )
    polls = missing.polls + 1
    # Passes follow each other within milliseconds where there is news: two in a row that miss a host are still one missed poll.
    apart_s = step_s if polls > POLLS_UNKNOWN else min(look.settings.period_s, _APART_S_MAX)
    if now.since(missing.latest) < apart_s:
        return None
    longer = replace(missing, latest=now, polls=polls, kind=sighting.kind, why=sighting.why)
    if polls == POLLS_UNKNOWN:
        because = f"{name} missed {polls} polls: {sighting.why}"
        return Change("update", replace(node, missing=longer), because, "NodeNotReady", True)
    return Change("update", replace(node, missing=longer), f"{name} is still silent", quiet=True)


def _return(node: Node, look: _Look) -> Change | None:
    if not isinstance(look.sighting, Seen) or look.barred:
        return None
    if node.missing is None and node.given_up is None and not node.confirmed_dead:
        return None
    silent = f" after {node.missing.polls} missed polls" if node.missing else ""
    dead = f" though it was confirmed {node.confirmed_dead}" if node.confirmed_dead else ""
    back = replace(node, missing=None, given_up=None, confirmed_dead="")
    return Change("update", back, f"{node.meta.name} answers again{silent}{dead}", "NodeReady")


def _identity(node: Node, look: _Look) -> Change | None:
    """The host key vouches for the host; an agent that lost its state comes back with another UUID."""
    sighting = look.sighting
    if not isinstance(sighting, Seen) or look.barred:
        return None
    fresh = replace(node, agent=sighting.agent, host_key=sighting.host_key or node.host_key)
    if fresh == node:
        return None
    if fresh.agent == node.agent:
        return Change("update", fresh, f"the host key of {node.meta.name} is {fresh.host_key}", quiet=True)
    because = f"the agent on {node.meta.name} has a new identity: {sighting.agent}"
    return Change("update", fresh, because, "AgentReplaced", warning=bool(node.agent))


# ---- new nodes -----------------------------------------------------------------------------------------------------------


def _new_nodes(world: World, barred: Mapping[str, str], now: Moment) -> Iterator[Change | str]:
    """A record for each host of the inventory whose agent was heard for the first time; a note where no subnet is left."""
    free = _free_subnets(world)
    for name in sorted(world.hosts):
        sighting = world.sightings.get(name)
        if name in world.nodes or name in barred or not isinstance(sighting, Seen):
            continue
        subnet = next(free, None)
        if subnet is None:
            settings = world.cluster.settings
            yield f"host {name} is not used: no /{settings.node_prefix} is left in {settings.cluster_range}"
            continue
        yield _new_node(world, world.hosts[name], sighting, subnet, now)


def _new_node(world: World, host: HostEntry, seen: Seen, subnet: str, now: Moment) -> Change:
    uid = child_uid(world.cluster.id, f"node/{host.name}/{seen.agent}/{world.counter}")
    node = Node(
        Meta("Node", "", host.name, uid, now),
        host.address,
        subnet,
        agent=seen.agent,
        host_key=seen.host_key,
        labels=_labels(host, seen, {}),
        taints=_taints(host.taints, (), now),
        bastion=host.bastion,
        connection=host.connection,
        storage=host.storage,
    )
    return Change("create", node, f"the agent on {host.name} answered for the first time", "RegisteredNode")


def _free_subnets(world: World) -> Iterator[str]:
    """Subnets that no record holds, in order."""
    settings = world.cluster.settings
    held = [ipaddress.ip_network(node.subnet) for node in world.nodes.values() if node.subnet]
    same = {network for network in held if network.prefixlen == settings.node_prefix}
    others = [network for network in held if network.prefixlen != settings.node_prefix]
    for subnet in ipaddress.ip_network(settings.cluster_range).subnets(new_prefix=settings.node_prefix):
        if subnet not in same and not any(subnet.overlaps(other) for other in others):
            yield str(subnet)


# ---- views and brake -------------------------------------------------------------------------------------------------


def _view(node: Node, sighting: Seen | Unseen | None) -> NodeView:
    name = node.meta.name
    if is_replaced(node):
        return NodeView(name, "Dead", f"confirmed {node.confirmed_dead}")
    if node.quarantined:
        return NodeView(name, "Quarantined", node.quarantined)
    if isinstance(sighting, Seen):
        if node.orphaned:
            return NodeView(name, "Orphaned", "gone from the inventory", may_push=True)
        newer = [item for item in sighting.conditions if item.kind == AGENT_NEWER]
        if newer:
            return NodeView(name, "NotReady", newer[0].message)
        wrong = [item for item in sighting.conditions if item.kind in _NOT_READY]
        if wrong:
            return NodeView(name, "NotReady", f"{wrong[0].kind}: {wrong[0].message}", may_push=True)
        return NodeView(name, "Ready", "", may_push=True, may_place=not node.cordoned)
    if node.confirmed_dead:
        return NodeView(name, "Dead", f"confirmed {node.confirmed_dead}")
    why = sighting.why if sighting is not None else "not polled in this pass"
    unknown = node.missing is not None and node.missing.polls >= POLLS_UNKNOWN
    return NodeView(name, "Unknown" if unknown else "Unseen", why)


def _stranger(world: World, name: str, barred: Mapping[str, str]) -> NodeView:
    """A host of the inventory that is no node yet."""
    if name in barred:
        return NodeView(name, "Quarantined", barred[name])
    sighting = world.sightings.get(name)
    return NodeView(name, "Unseen", sighting.why if isinstance(sighting, Unseen) else "not a node yet")


def _brake(world: World, nodes: Mapping[str, Node]) -> str:
    """Silence of so many nodes at once speaks of our own network, not of theirs. Nodes confirmed dead do not count."""
    settings = world.cluster.settings
    counted = {name: node for name, node in nodes.items() if not node.confirmed_dead}
    silent = {
        name for name, node in counted.items() if is_taken_for_another(node) or _is_silent(world.sightings.get(name))
    }
    if counted and len(silent) == len(counted):
        return f"no node answers ({len(silent)} of {len(counted)}): nothing is given up, the controller may be cut off"
    if len(counted) >= settings.brake_nodes_min and len(silent) >= settings.brake_fraction * len(counted):
        return f"{len(silent)} of {len(counted)} nodes do not answer: nothing is given up"
    behind: dict[str, list[str]] = defaultdict(list)
    for name, node in counted.items():
        if node.bastion:
            behind[node.bastion].append(name)
    for bastion, names in sorted(behind.items()):
        if len(names) > 1 and silent.issuperset(names):
            return f"none of the {len(names)} nodes behind {bastion} answers: nothing is given up"
    return ""


def _held(nodes: Mapping[str, Node], now: Moment) -> Iterator[Change]:
    """While every node is Unknown no time passes for any, and it counts anew for those that are silent still when the first one answers.

    Semantics: Kubernetes' node lifecycle controller, which sets all its times anew when it leaves a full disruption. A missed poll is none.
    """
    counted = [node for node in nodes.values() if not node.confirmed_dead]
    cut_off = all(node.missing is not None and node.missing.polls >= POLLS_UNKNOWN for node in counted)
    for node in counted:
        missing = node.missing
        if missing is not None and missing.held != cut_off:
            changed = replace(missing, held=cut_off, counted=missing.counted if cut_off else now)
            because = "no node answers" if cut_off else "other nodes answer again: what is tolerated counts anew"
            yield Change("update", replace(node, missing=changed), because, quiet=True)


def _is_silent(sighting: Seen | Unseen | None) -> bool:
    return not isinstance(sighting, Seen) and not (sighting is not None and sighting.kind == "refused")
