"""What no plan may do, whatever the reasoning that led to it. Pure; on in production: better to stop than to act on a wrong plan.

In: the world before and after, and the plan. Out: nothing, or PlanBug.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from controller.decide.nodes import trusted
from controller.decide.pods import is_stopped
from controller.decide.shapes import Shapes, spec_of
from controller.model.cluster import Node, Pod, ReplicaSet, VolumeClaim, World
from controller.model.errors import PlanBug
from controller.model.plan import Change, Plan
from nodeagent import protocol


def check_plan(before: World, after: World, plan: Plan, brake: str, ages: Mapping[str, float]) -> None:
    """Raises PlanBug with all that is wrong.

    Args:
        brake: why nothing may be given up, or "".
        ages: who is ready, as in pods.ready_ages.
    """
    problems = [
        *_bindings(before, plan),
        *_removals(before, plan),
        *_evictions(plan, brake),
        *_capacity(before, after, plan),
        *_wanted(after, plan),
        *_availability(before, after, plan, ages),
        *_names(after),
        *_claims(before, after, plan),
    ]
    if problems:
        listed = "; ".join(problems[:10])
        raise PlanBug(
            f"this plan must not be carried out: {listed}", hint="this is a defect of sshoal: please report it"
        )


def _bindings(before: World, plan: Plan) -> Iterator[str]:
    for change in plan.changes:
        record = change.record
        if not isinstance(record, Pod) or change.verb == "remove":
            continue
        known = before.pods.get(record.meta.uid)
        if known is not None and known.node and known.node != record.node:
            yield f"{change.subject} moves from {known.node} to {record.node or 'nowhere'}"
        if record.node and record.node not in plan.nodes:
            yield f"{change.subject} is bound to {record.node}, which is no node"


def _removals(before: World, plan: Plan) -> Iterator[str]:
    for change in plan.changes:
        if change.verb != "remove" or not isinstance(change.record, Pod):
            continue
        pod = before.pods.get(change.record.meta.uid)
        if pod is None or not pod.node or pod.node not in before.nodes or plan.nodes[pod.node].state == "Dead":
            continue
        seen = trusted(before, plan.nodes, pod.node)
        if seen is None or not is_stopped(before, pod, seen):
            yield f"{change.subject} is removed, but {pod.node} has not said that it is stopped"


def _claims(before: World, after: World, plan: Plan) -> Iterator[str]:
    """A claim stays with its node until a person has said that the node is wiped, and its record until its volume is removed."""
    for change in plan.changes:
        claim = change.record
        if not isinstance(claim, VolumeClaim):
            continue
        if claim.removing is not None and claim.meta.deleting is None:
            yield f"the volume of {change.subject} is to be removed, and nobody has deleted the claim"
        known = before.claims.get(claim.meta.uid)
        if known is None or not known.node or known.node not in before.nodes:
            continue
        if after.nodes[known.node].confirmed_dead == "wiped" and plan.nodes[known.node].state == "Dead":
            continue
        said = claim.report is not None and claim.report.state == protocol.VOLUME_REMOVED
        if change.verb == "remove" and (known.removing is None or not said):
            yield f"{change.subject} is removed, but {known.node} has not said that its volume is"
        if change.verb != "remove" and claim.node != known.node:
            yield f"{change.subject} moves from {known.node} to {claim.node or 'nowhere'}"


def _evictions(plan: Plan, brake: str) -> Iterator[str]:
    for change in plan.changes:
        if change.verb == "evict" and isinstance(change.record, Pod):
            state = plan.nodes[change.record.node].state
            if brake and state != "Dead":
                yield f"{change.subject} is evicted though the brake is on"
            if state not in ("Unknown", "Quarantined", "Dead"):
                yield f"{change.subject} is evicted from {change.record.node}, which is {state}"


def _capacity(before: World, after: World, plan: Plan) -> Iterator[str]:
    """New bindings only: a node may have shrunk, or a port been doubled, without our doing."""
    bound = {change.record.node for change in plan.changes if isinstance(change.record, Pod) and change.verb == "bind"}
    if not bound:
        return
    from controller.decide.schedule.filters import cordon, usable  # loaded for placing, then; not in a converged pass
    from controller.decide.schedule.usage import HELD_MAX, Index

    shapes = Shapes(after)
    full = Index(after, plan.nodes, shapes).rooms
    asked: dict[str, list[Change]] = defaultdict(list)
    for change in plan.changes:
        if isinstance(change.record, Pod) and change.verb == "bind":
            asked[change.record.node].append(change)
    for name in sorted(bound):
        room = full[name]
        asks = [
            shape for change in asked[name] if isinstance(change.record, Pod) and (shape := shapes.of(change.record))
        ]
        if any(usable(shape, room) or cordon(shape, room) for shape in asks):
            yield f"new pods on {name}, which is {room.view.state}"
        if room.pods > room.capacity.pods:
            yield f"{room.pods} pods on {name}, at most {room.capacity.pods} are possible"
        if room.held > HELD_MAX:
            yield f"{room.held} pods on {name} and its agent's list, at most {HELD_MAX} are taken"
        if any(shape.cpu_m for shape in asks) and room.cpu_m > room.capacity.cpu_m:
            yield f"{room.cpu_m}m of cpu on {name}, which has {room.capacity.cpu_m}m"
        if any(shape.memory_bytes for shape in asks) and room.memory_bytes > room.capacity.memory_bytes:
            yield f"{room.memory_bytes} bytes of memory on {name}, which has {room.capacity.memory_bytes}"


def _wanted(after: World, plan: Plan) -> Iterator[str]:
    named = {name: {pod.uid for pod in item.pods} for name, item in plan.wanted.items()}
    for name in named:
        if not plan.nodes[name].may_push:
            yield f"a wanted set for {name}, which is {plan.nodes[name].state}"
    seen: Counter[str] = Counter(uid for uids in named.values() for uid in uids)
    yield from (f"pod {uid} is in {count} wanted sets" for uid, count in seen.items() if count > 1)
    for uid, pod in after.pods.items():
        if pod.node in named and uid not in named[pod.node]:
            yield f"pod {pod.meta.key} is missing in the wanted set of {pod.node}"


def _availability(before: World, after: World, plan: Plan, ages: Mapping[str, float]) -> Iterator[str]:
    """Stops of a rollout or a scale-down leave at least what the Deployment promises, or all that counted.

    What it promises in the end: an autoscaler may have made it smaller in this very pass.

    Pods beyond their ReplicaSet's size do not count: they came back with a node after the rollout had gone on without them.
    """
    stopped = {
        change.record.meta.uid
        for change in plan.changes
        if change.verb == "stop" and change.reason == "SuccessfulDelete"
    }
    if not stopped:
        return
    available: Counter[str] = Counter()  # by uid of the ReplicaSet
    left: Counter[str] = Counter()  # by uid of the Deployment
    for uid, age in ages.items():
        pod = before.pods.get(uid)
        owner = before.replica_sets.get(pod.meta.owner.uid) if pod is not None and pod.meta.owner is not None else None
        if owner is not None and owner.meta.owner is not None and age >= owner.min_ready_s:
            available[owner.meta.uid] += 1
            left[owner.meta.owner.uid] += uid not in stopped
    counted: Counter[str] = Counter()
    for uid, count in available.items():
        item = before.replica_sets[uid]
        counted[item.meta.owner.uid if item.meta.owner is not None else ""] += min(count, item.replicas)
    for uid, count in counted.items():
        deployment = after.deployments.get(uid)
        rolling = spec_of(deployment).strategy.rolling_update if deployment is not None else None
        if deployment is None or deployment.meta.deleting is not None or rolling is None or _ends(plan, uid):
            continue
        wanted = spec_of(deployment).replicas
        least = min(count, wanted - rolling.unavailable(wanted))
        if left[uid] < least:
            yield f"{deployment.meta.key} would keep {left[uid]} available pods, {least} are promised"


def _ends(plan: Plan, uid: str) -> bool:
    """Its namespace is being deleted, or a person deletes one of its ReplicaSets."""
    for change in plan.changes:
        record = change.record
        if record.meta.deleting is None:
            continue
        if record.meta.uid == uid or (
            isinstance(record, ReplicaSet) and record.meta.owner and record.meta.owner.uid == uid
        ):
            return True
    return False


def _names(after: World) -> Iterator[str]:
    names: Counter[tuple[str, str]] = Counter()
    tables = (after.deployments, after.replica_sets, after.workloads, after.claims, after.pods, after.nodes)
    for table in tables:
        names.update((record.meta.kind, record.meta.key) for record in table.values())
    yield from (f"{count} {kind}s named {key}" for (kind, key), count in names.items() if count > 1)
    subnets: Counter[str] = Counter(node.subnet for node in after.nodes.values() if isinstance(node, Node))
    yield from (f"{count} nodes with the subnet {subnet}" for subnet, count in subnets.items() if subnet and count > 1)
