"""StatefulSets: pods with names that last, made and replaced in order. Pure.

In: a StatefulSet, its pods and revisions. Out: changes. Semantics: Kubernetes' stateful set controller (stateful_set_control.go).

Never the same identity twice: a pod's record is the claim to its name. It outlives scaling, deletion and the StatefulSet itself, and goes
only when a report says that the pod is stopped, or a person has confirmed its node dead. Until then no pod of that name is made.

Worked example, OrderedReady, three replicas, a new template: web-2 is stopped, its end is heard, web-2 is made with the new template and
gets available; then web-1, then web-0. If the node of web-1 falls silent meanwhile, nothing more happens: web-1 may still run there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from controller.decide import homes
from controller.decide.context import Context, Step, status_change
from controller.decide.owners import revision_uid
from controller.decide.pods import is_active
from controller.decide.revisions import HASH_LABEL, revise
from controller.decide.stored import stored
from controller.model.cluster import Meta, Pod, Ref, Stop, VolumeClaim
from controller.model.identity import child_uid
from controller.model.kinds.sets import StatefulSet as StatefulSetModel
from controller.model.kinds.sets import StatefulSetSpec
from controller.model.plan import Change
from controller.model.workloads import Revision, SetStatus, StatefulSet

NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"


def step_stateful(item: StatefulSet, pods: Sequence[Pod], revisions: Sequence[Revision], context: Context) -> Step:
    """One step of a StatefulSet that is not being deleted."""
    return _Work(item, spec_of_stateful(item), pods, revisions, context).step()


def spec_of_stateful(item: StatefulSet) -> StatefulSetSpec:
    """The spec with Kubernetes' defaults."""
    return stored(StatefulSetModel, item.source).spec


class _Work:
    def __init__(
        self,
        item: StatefulSet,
        spec: StatefulSetSpec,
        pods: Sequence[Pod],
        revisions: Sequence[Revision],
        context: Context,
    ) -> None:
        self.item = item
        self.spec = spec
        self.context = context
        self.name = item.meta.name
        used = {*(pod.template_hash for pod in pods), item.status.revision}
        self.revised = revise(item, revisions, used, spec.revision_history_limit, context)
        self.hash = self.revised.current.template_hash
        self.old_hash = item.status.revision or self.hash  # what ordinals below the partition keep
        self.ordinals = range(spec.ordinals.start, spec.ordinals.start + spec.replicas)
        self.pods = {pod.meta.name: pod for pod in pods}
        self.in_order = spec.pod_management_policy == "OrderedReady"
        self.rolling = spec.update_strategy.rolling_update if spec.update_strategy.type == "RollingUpdate" else None
        self.made = item.pods_made
        self.changes: list[Change] = []
        self.trouble: list[str] = []

    def step(self) -> Step:
        # Each of these returns whether the next one may begin; out of order, all may.
        if (self._fill() or not self.in_order) and (self._shrink() or not self.in_order):
            self._update()
        self._look_for_silence()
        status = self._status()
        fresh = replace(self.item, pods_made=self.made, status=status)
        if fresh != self.item:
            self.changes.insert(0, status_change(self.item, fresh, self.context))
        is_stuck = bool(self.trouble) and not any(change.verb in ("create", "stop") for change in self.changes)
        waits = status.behind and not is_stuck
        waiting = f"statefulset {self.item.meta.key}: {progress_text(status)}" if waits else ""
        return Step((*self.revised.changes, *self.changes), waiting, self._wake_s())

    # ---- up, down, on (updateStatefulSet) ----

    def _fill(self) -> bool:
        """Makes what is missing; in order, one at a time, each when all before it are available."""
        complete = True
        for ordinal in self.ordinals:
            pod = self.pods.get(self._pod_name(ordinal))
            if pod is None:
                complete = False
                self._create(ordinal)
            elif not self._is_available(pod):
                complete = False
            if self.in_order and not complete:
                return False
        return complete

    def _shrink(self) -> bool:
        """Stops what is too many, the highest first; in order, one at a time."""
        condemned = [pod for pod in self._by_ordinal() if _ordinal(pod) not in self.ordinals]
        for pod in condemned:
            if pod.stop is None:
                self._stop(pod, f"{self.name} wants {self.spec.replicas} replicas")
            # Also of a pod that was stopping before, by an update or a person.
            if self.spec.persistent_volume_claim_retention_policy.when_scaled == "Delete":
                because = f"{self.name} was scaled down, and its whenScaled is Delete"
                self.changes += given_up(self.item, pod.meta.name, because, self.context)
            if self.in_order:
                return False
        return not condemned

    def _update(self) -> None:
        """Replaces pods of an older template, the highest first, down to the partition.

        Broken ones are missing already and wait for no others; else an update that mends one of a set in parallel would not begin
        (updateStatefulSetAfterInvariantEstablished).
        """
        if self.rolling is None:
            return
        targets = [
            pod for pod in self._by_ordinal() if _ordinal(pod) in self.ordinals and self._is_rolled(_ordinal(pod))
        ]
        missing = sum(self._is_rolled(ordinal) for ordinal in self.ordinals) - len(targets)
        room = self.rolling.unavailable(self.spec.replicas) - missing
        room -= sum(not self._is_available(pod) for pod in targets)
        for pod in targets:
            if pod.template_hash == self.hash or not is_active(pod):
                continue
            if self._is_available(pod):
                if room <= 0:
                    continue
                room -= 1
            elif pod.node and not self.context.answers(pod.node):
                continue  # it may well serve, as may others there: they would all stop at once when the node is back
            self._stop(pod, f"{self.name} has a new template")

    # ---- pods ----

    def _create(self, ordinal: int) -> None:
        name = self._pod_name(ordinal)
        claims, leaving = self._claims(name)
        if leaving:
            self.trouble.append(f"{name} is not made: volume claim {leaving} is being deleted")
            return
        taken = self.context.taken[self.item.meta.namespace]
        if name in taken:
            self.trouble.append(self._held(name))
            return
        digest = self.hash if self._is_rolled(ordinal) or self.rolling is None else self.old_hash
        template = self._template(digest)
        # What counts as made is made: claims come first, and stay when the pod is refused, as in Kubernetes.
        for change in claims:
            why = self.context.admission.admit_claim(change.record) if isinstance(change.record, VolumeClaim) else ""
            if why:
                self.trouble.append(f"{name} is not made: volume claim {change.record.meta.name}: {why}")
                return
            self.changes.append(change)
        verdict = self.context.admission.admit(template, self.item.meta.namespace, self.item.meta.uid)
        if verdict.why:
            self.trouble.append(f"{name} is not made: {verdict.why}")
            return
        taken.add(name)
        self.made += 1
        metadata = template.get("metadata") or {}
        own = {NAME_LABEL: name, INDEX_LABEL: str(ordinal), HASH_LABEL: digest}
        meta = Meta(
            "Pod",
            self.item.meta.namespace,
            name,
            child_uid(self.item.meta.uid, f"pod/{self.made}"),
            self.context.now,
            labels={**(metadata.get("labels") or {}), **own},
            annotations=dict(metadata.get("annotations") or {}),
            owner=Ref("StatefulSet", self.name, self.item.meta.uid),
        )
        because = f"{self.name} wants {self.spec.replicas} replicas, and {name} is not there"
        pod = Pod(meta, digest, defaults=verdict.defaults, home=homes.home_of(self.item, name))
        self.changes.append(Change("create", pod, because, "SuccessfulCreate"))
        self.pods[name] = pod

    def _claims(self, pod_name: str) -> tuple[list[Change], str]:
        """The claims that a pod lacks; and the name of one that is on its way out, for whose end the pod has to wait."""
        missing = []
        for template in self.spec.volume_claim_templates:
            name = f"{template.metadata.name}-{pod_name}"
            claim = self.context.claims.get((self.item.meta.namespace, name))
            if claim is None:
                fresh = claim_of(self.item, self.spec, template.metadata.name, name, self.context)
                missing.append(Change("create", fresh, f"{self.name} needs it for {pod_name}", "SuccessfulCreate"))
            elif claim.meta.deleting is not None:
                return [], name
        return missing, ""

    def _template(self, digest: str) -> Mapping[str, Any]:
        known = self.context.world.workloads.get(revision_uid(self.item.meta.uid, digest))
        revision = known if isinstance(known, Revision) else self.revised.current
        return revision.template

    def _held(self, name: str) -> str:
        """Why a pod of this name is not made."""
        space = self.item.meta.namespace
        for pod in self.context.world.pods.values():
            if (pod.meta.namespace, pod.meta.name) == (space, name):
                where = f" on {pod.node}" if pod.node else ""
                silent = "" if self.context.answers(pod.node) else ", which gives no report"
                return f"{name} is not made: another pod of that name may still run{where}{silent}"
        return f"{name} is not made: another pod has that name"

    def _stop(self, pod: Pod, because: str) -> None:
        stopped = replace(pod, stop=Stop(because, self.context.now))
        self.changes.append(Change("stop", stopped, because, "SuccessfulDelete"))
        self.pods[pod.meta.name] = stopped

    def _pod_name(self, ordinal: int) -> str:
        return f"{self.name}-{ordinal}"

    def _by_ordinal(self) -> list[Pod]:
        return sorted(self.pods.values(), key=_ordinal, reverse=True)

    def _is_available(self, pod: Pod) -> bool:
        return is_active(pod) and self.context.is_available(pod, self.spec.min_ready_seconds)

    def _is_rolled(self, ordinal: int) -> bool:
        """Whether a rolling update reaches this ordinal."""
        return self.rolling is not None and ordinal - self.spec.ordinals.start >= self.rolling.partition

    # ---- status ----

    def _look_for_silence(self) -> None:
        for pod in self._by_ordinal():
            if pod.node and not self.context.answers(pod.node):
                hint = f"if that host is off for sure: sshoal node confirm-dead {pod.node}"
                self.trouble.append(f"{pod.meta.name} may still run on {pod.node}, which gives no report; {hint}")

    def _status(self) -> SetStatus:
        present = [pod for pod in self.pods.values() if _ordinal(pod) in self.ordinals]
        active = [pod for pod in present if is_active(pod)]
        updated = [pod for pod in active if pod.template_hash == self.hash]
        available = [pod for pod in active if self._is_available(pod)]
        fine = [pod for pod in available if pod.template_hash == self.hash or not self._is_rolled(_ordinal(pod))]
        too_many = len(self.pods) - len(present)
        behind = self.spec.replicas - len(fine) + too_many
        complete = not behind and len(updated) == self.spec.replicas
        return SetStatus(
            observed_generation=self.item.meta.generation,
            desired=self.spec.replicas,
            current=len(active),
            updated=len(updated),
            ready=sum(pod.meta.uid in self.context.ages for pod in active),
            available=len(available),
            behind=behind,
            revision=self.hash if complete or not self.item.status.revision else self.item.status.revision,
            trouble=tuple(self.trouble),
        )

    def _wake_s(self) -> tuple[float, ...]:
        """Until ready pods have been so for minReadySeconds."""
        least_s = self.spec.min_ready_seconds
        found = (self.context.ages.get(pod.meta.uid, least_s) for pod in self.pods.values())
        return tuple(least_s - age_s for age_s in found if age_s < least_s)


def claim_of(item: StatefulSet, spec: StatefulSetSpec, template_name: str, name: str, context: Context) -> VolumeClaim:
    """A claim as Kubernetes' controller makes it from a template: with the labels that the set selects by."""
    written = next(
        one for one in item.source["spec"]["volumeClaimTemplates"] if one["metadata"]["name"] == template_name
    )
    metadata = written["metadata"]
    labels = {**(metadata.get("labels") or {}), **spec.selector.match_labels}
    annotations = dict(metadata.get("annotations") or {})
    uid = child_uid(item.meta.uid, f"claim/{name}/{context.world.counter}")
    meta = Meta(
        "PersistentVolumeClaim", item.meta.namespace, name, uid, context.now, labels=labels, annotations=annotations
    )
    own = {"name": name, "namespace": item.meta.namespace, "labels": labels, "annotations": annotations}
    head = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    return VolumeClaim(meta, {**head, "metadata": own, "spec": written["spec"]})


def given_up(item: StatefulSet, pod_name: str, because: str, context: Context) -> list[Change]:
    """Marks the claims of one pod as deleted; they go once it has ended."""
    changes = []
    for template_name in item.claims:
        claim = context.claims.get((item.meta.namespace, f"{template_name}-{pod_name}"))
        if claim is not None and claim.meta.deleting is None:
            marked = replace(claim, meta=replace(claim.meta, deleting=context.now))
            changes.append(Change("update", marked, because, "Deleting"))
    return changes


def given_up_with(item: StatefulSet, context: Context) -> list[Change]:
    """A set that is being deleted takes its claims with it when whenDeleted says so."""
    if spec_of_stateful(item).persistent_volume_claim_retention_policy.when_deleted != "Delete":
        return []
    because = f"statefulset {item.meta.name} is being deleted, and its whenDeleted is Delete"
    names = {name for space, name in context.claims if space == item.meta.namespace}
    ours: set[str] = set()
    for template_name in item.claims:
        beginning = f"{template_name}-{item.meta.name}-"
        rest = {name.removeprefix(beginning) for name in names if name.startswith(beginning)}
        ours |= {f"{item.meta.name}-{ordinal}" for ordinal in rest if ordinal.isascii() and ordinal.isdigit()}
    return [change for pod_name in sorted(ours) for change in given_up(item, pod_name, because, context)]


def progress_text(status: SetStatus) -> str:
    """One line: 2 of 3 updated, 1 available."""
    return f"{status.updated} of {status.desired} updated, {status.available} available"


def _ordinal(pod: Pod) -> int:
    return int(pod.meta.name.rpartition("-")[2])
