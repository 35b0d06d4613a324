"""What metrics say of a pass: nodes, pods, workloads, the store, and what passes came to so far. docs/observability.md lists them.

In: a pass, the totals of the passes before it, the size of the store. Out: families. Pure; who serves or writes them is elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controller.decide.standing import desired_replicas
from controller.decide.status import TIMED_OUT
from controller.model.cluster import PROGRESSING, Deployment, Moment, Pod, Seen, World
from controller.model.metrics import Family, Labels, Sample, sample, samples_in

if TYPE_CHECKING:
    from controller.act.store import StoreSize
    from controller.loop import Pass
    from controller.model.workloads import CronJob, Job

NODE_STATES = ("Ready", "NotReady", "Unknown", "Unseen", "Quarantined", "Orphaned", "Dead")
PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
OUTCOMES = ("settled", "waiting", "hosts-missing", "push-failed", "behind", "failed")
BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_PHASE_OF = {"Stopping": "Running", "Stopped": "Succeeded"}  # agents' words that Kubernetes does not have
_AGENT_CHARACTERS = 12  # of the digest that names an agent's version

# Totals by their metric's name: what they count, and the labels that tell them apart.
_COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "sshoal_passes_total": ("Passes by outcome.", ("outcome",)),
    "sshoal_changes_total": ("Changes that passes decided on, by verb.", ("verb",)),
    "sshoal_host_errors_total": ("Polls of hosts that gave no report, by reason.", ("node", "reason")),
    "sshoal_push_failures_total": ("Wanted sets that an agent did not take.", ("node",)),
}
_DURATION = "sshoal_pass_duration_seconds"


@dataclass
class Totals:
    """What adds up over passes. `seen` is when each node last gave a report."""

    counts: Counter[tuple[str, Labels]] = field(default_factory=Counter)
    buckets: Counter[float] = field(default_factory=Counter)  # passes that took at most so long
    duration_s: float = 0.0
    seen: dict[str, Moment] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Totals:
        """Goes on from a text of metrics: with cron, each pass is a process of its own."""
        totals = cls()
        for name, labels, value in samples_in(text):
            if name in _COUNTERS and tuple(labels) == _COUNTERS[name][1]:
                totals.counts[name, tuple(labels.items())] = int(value)
            elif name == f"{_DURATION}_bucket" and labels.get("le") != "+Inf":
                totals.buckets[float(labels["le"])] = int(value)
            elif name == f"{_DURATION}_sum":
                totals.duration_s = value
            elif name == "sshoal_node_last_seen_timestamp_seconds" and "node" in labels:
                totals.seen[labels["node"]] = Moment(value, "", 0.0)
        return totals

    def add(self, done: Pass, now: Moment) -> None:
        """Counts one pass, which has just ended."""
        self._count("sshoal_passes_total", outcome=outcome_of(done))
        for change in done.plan.changes:
            if not change.quiet:
                self._count("sshoal_changes_total", verb=change.verb)
        for node, sighting in done.world.sightings.items():
            if isinstance(sighting, Seen):
                self.seen[node] = now
            else:
                self._count("sshoal_host_errors_total", node=node, reason=sighting.kind)
        for node, problem in done.pushed.items():
            if problem:
                self._count("sshoal_push_failures_total", node=node)
        self.duration_s += done.took_s
        self.buckets.update(bound for bound in BUCKETS_S if done.took_s <= bound)

    def add_failure(self) -> None:
        """Counts a run that ended by an error: there is no pass to tell of."""
        self._count("sshoal_passes_total", outcome="failed")

    def families(self, nodes: Iterable[str] | None = None) -> Iterator[Family]:
        """`nodes`: those that still exist; of others nothing is told. None: all."""
        known = None if nodes is None else set(nodes)
        for name, (words, _) in _COUNTERS.items():
            found = sorted(
                (labels, count)
                for (counted, labels), count in self.counts.items()
                if counted == name and (known is None or dict(labels).get("node", "") in {"", *known})
            )
            yield Family(name, "counter", words, tuple(Sample(count, labels) for labels, count in found))
        # A run that failed has no duration.
        passes = sum(
            count
            for (name, labels), count in self.counts.items()
            if name == "sshoal_passes_total" and labels != (("outcome", "failed"),)
        )
        yield Family(_DURATION, "histogram", "How long passes took.", tuple(self._histogram(passes)))

    def _histogram(self, passes: int) -> Iterator[Sample]:
        for bound in BUCKETS_S:
            yield Sample(self.buckets[bound], (("le", f"{bound:g}"),), "_bucket")
        yield Sample(passes, (("le", "+Inf"),), "_bucket")
        yield Sample(self.duration_s, (), "_sum")
        yield Sample(passes, (), "_count")

    def _count(self, name: str, **labels: str) -> None:
        self.counts[name, tuple(labels.items())] += 1


def outcome_of(done: Pass) -> str:
    """In one word of OUTCOMES, the worst first."""
    if done.behind:
        return "behind"
    if any(done.pushed.values()):
        return "push-failed"
    if done.unseen:
        return "hosts-missing"
    return "settled" if done.settled else "waiting"


def families(done: Pass, totals: Totals, size: StoreSize, now: Moment, version: str) -> Iterator[Family]:
    """Everything, after a pass that `totals` has counted. `now`: when it ended."""
    yield _gauge("sshoal_build_info", "Which sshoal this is.", [sample(1, version=version)])
    yield _gauge("sshoal_pass_last_timestamp_seconds", "When the last pass ended.", [sample(now.wall_s)])
    yield _gauge("sshoal_pass_last_duration_seconds", "How long the last pass took.", [sample(done.took_s)])
    yield _gauge("sshoal_settled", "Whether all is as declared.", [sample(done.settled)])
    yield _gauge(
        "sshoal_store_behind",
        "Whether agents are ahead of this store: nothing is done then.",
        [sample(bool(done.behind))],
    )
    yield _gauge(
        "sshoal_brake_on", "Whether so many nodes are silent that nothing is replaced.", [sample(bool(done.plan.brake))]
    )
    yield from totals.families([*done.after.nodes, *done.after.hosts])
    yield from _nodes(done, totals)
    yield from _pods(done)
    yield from _workloads(done.after)
    yield from _store(size)


def _gauge(name: str, words: str, samples: Iterable[Sample]) -> Family:
    return Family(name, "gauge", words, tuple(samples))


# ---- nodes ----------------------------------------------------------------------------------------------------------


def _nodes(done: Pass, totals: Totals) -> Iterator[Family]:
    views = done.plan.nodes
    yield _gauge(
        "sshoal_node_state",
        "1 for the state that a node is in, 0 for the others.",
        [
            sample(view.state == state, node=name, state=state)
            for name, view in views.items()
            for state in dict.fromkeys((*NODE_STATES, view.state))
        ],
    )
    yield _gauge(
        "sshoal_node_last_seen_timestamp_seconds",
        "When a node last gave a report; of one that was silent before this process began: its first missed poll.",
        [sample(seen_s, node=name) for name in views if (seen_s := _last_seen_s(done, totals, name)) is not None],
    )
    yield _gauge(
        "sshoal_node_cordoned",
        "Whether new pods are kept from a node.",
        [sample(node.cordoned, node=name) for name, node in sorted(done.after.nodes.items())],
    )
    bound = Counter(pod.node for pod in done.after.pods.values() if pod.node)
    yield _gauge(
        "sshoal_node_pods",
        "Pods bound to a node.",
        [sample(bound[name], node=name) for name in sorted(done.after.nodes)],
    )
    seen = {name: one for name, one in sorted(done.world.sightings.items()) if isinstance(one, Seen)}
    yield _gauge(
        "sshoal_node_condition",
        "What a node's agent complains of, e.g. DiskPressure.",
        [
            sample(1, node=name, condition=one.kind, reason=one.reason)
            for name, it in seen.items()
            for one in it.conditions
        ],
    )
    yield _gauge(
        "sshoal_node_disk_free_bytes",
        "Free space where a node keeps containers.",
        [sample(it.capacity.disk_free_bytes, node=name) for name, it in seen.items()],
    )
    yield _gauge(
        "sshoal_agent_info",
        "Version of a node's agent (the beginning of its digest), and of what it runs on.",
        [
            sample(
                1,
                node=name,
                version=it.version[:_AGENT_CHARACTERS],
                python=it.capacity.python,
                podman=it.capacity.podman,
                kernel=it.capacity.kernel,
            )
            for name, it in seen.items()
        ],
    )


def _last_seen_s(done: Pass, totals: Totals, name: str) -> float | None:
    if name in totals.seen:
        return totals.seen[name].wall_s
    node = done.after.nodes.get(name)
    return node.missing.since.wall_s if node is not None and node.missing is not None else None


# ---- pods and workloads -------------------------------------------------------------------------------------------------


def _pods(done: Pass) -> Iterator[Family]:
    pods = sorted(done.after.pods.values(), key=lambda pod: pod.meta.key)
    unseen = done.unseen
    counts = Counter((pod.meta.namespace, _phase(pod, pod.node in unseen)) for pod in pods)
    yield _gauge(
        "sshoal_pods",
        "Pods by namespace and phase.",
        [
            sample(counts[namespace, phase], namespace=namespace, phase=phase)
            for namespace in sorted({namespace for namespace, _ in counts})
            for phase in PHASES
        ],
    )
    yield _gauge("sshoal_pods_unplaced", "Pods that fit on no node.", [sample(len(done.plan.unplaced))])
    yield Family(
        "sshoal_pod_restarts_total",
        "counter",
        "Restarts of a pod's containers.",
        tuple(
            sample(
                sum(one.restarts for one in pod.report.containers),
                namespace=pod.meta.namespace,
                pod=pod.meta.name,
                node=pod.node,
            )
            for pod in pods
            if pod.report is not None
        ),
    )


def _phase(pod: Pod, unseen: bool) -> str:
    if pod.lost is not None or unseen:
        return "Unknown"
    if pod.report is None:
        return "Pending"
    phase = _PHASE_OF.get(pod.report.phase, pod.report.phase)
    return phase if phase in PHASES else "Unknown"


@dataclass(frozen=True, slots=True)
class _Replicas:
    """Of a Deployment, a set, or the like."""

    kind: str
    namespace: str
    name: str
    desired: int
    ready: int
    available: int
    updated: int
    stuck: bool


def _workloads(world: World) -> Iterator[Family]:
    all_ = sorted(_replicas(world), key=lambda one: (one.kind, one.namespace, one.name))
    for what, words in (
        ("desired", "Replicas that are declared; of a daemon set, nodes that shall have a pod."),
        ("ready", "Replicas that are ready."),
        ("available", "Replicas that have been ready for minReadySeconds."),
        ("updated", "Replicas of the present template."),
    ):
        yield _gauge(
            f"sshoal_workload_replicas_{what}",
            words,
            [sample(getattr(one, what), kind=one.kind, namespace=one.namespace, name=one.name) for one in all_],
        )
    yield _gauge(
        "sshoal_rollout_stuck",
        "Whether a rollout does not get on: its deadline has passed, or something keeps it.",
        [sample(one.stuck, kind=one.kind, namespace=one.namespace, name=one.name) for one in all_],
    )
    yield from _jobs(world)


def _replicas(world: World) -> Iterator[_Replicas]:
    for deployment in world.deployments.values():
        meta, status = deployment.meta, deployment.status
        counts = (desired_replicas(deployment), status.ready, status.available, status.updated)
        yield _Replicas("Deployment", meta.namespace, meta.name, *counts, _is_stuck(deployment))
    for record in _of(world, "DaemonSet", "StatefulSet"):
        meta, counted = record.meta, record.status
        counts = (counted.desired, counted.ready, counted.available, counted.updated)
        yield _Replicas(meta.kind, meta.namespace, meta.name, *counts, bool(counted.trouble))


def _is_stuck(deployment: Deployment) -> bool:
    conditions = deployment.status.conditions
    return any(one.kind == PROGRESSING and not one.status and one.reason == TIMED_OUT for one in conditions)


def _jobs(world: World) -> Iterator[Family]:
    jobs: list[Job] = _of(world, "Job")
    yield _gauge(
        "sshoal_job_pods",
        "Pods of a job by what became of them.",
        [
            sample(count, namespace=job.meta.namespace, name=job.meta.name, state=state)
            for job in jobs
            for state, count in (
                ("active", job.status.active),
                ("succeeded", job.status.succeeded),
                ("failed", job.status.failed),
            )
        ],
    )
    yield _gauge(
        "sshoal_job_failed",
        "Whether a job has failed for good.",
        [
            sample(
                any(one.kind == "Failed" and one.status for one in job.status.conditions),
                namespace=job.meta.namespace,
                name=job.meta.name,
            )
            for job in jobs
        ],
    )
    crons: list[CronJob] = _of(world, "CronJob")
    yield _gauge(
        "sshoal_cronjob_last_success_timestamp_seconds",
        "When a job of this cron job last completed.",
        [
            sample(cron.status.succeeded.wall_s, namespace=cron.meta.namespace, name=cron.meta.name)
            for cron in crons
            if cron.status.succeeded is not None
        ],
    )


def _of(world: World, *kinds: str) -> list[Any]:
    found = [record for record in world.workloads.values() if record.meta.kind in kinds]
    return sorted(found, key=lambda record: record.meta.key)


# ---- the store ----------------------------------------------------------------------------------------------------------


def _store(size: StoreSize) -> Iterator[Family]:
    yield _gauge(
        "sshoal_store_bytes",
        "Size of the store: its file, what of it is unused, and the log beside it.",
        [
            sample(size.bytes, part="file"),
            sample(size.free_bytes, part="unused"),
            sample(size.log_bytes, part="log"),
        ],
    )
    yield _gauge("sshoal_events", "Events that are kept.", [sample(size.kept.events)])
    yield _gauge("sshoal_operations", "Operations that are kept.", [sample(size.kept.operations)])
    words = "that went before their time because there were too many."
    yield Family("sshoal_events_dropped_total", "counter", f"Events {words}", (sample(size.kept.events_dropped),))
    yield Family(
        "sshoal_operations_dropped_total", "counter", f"Operations {words}", (sample(size.kept.operations_dropped),)
    )
