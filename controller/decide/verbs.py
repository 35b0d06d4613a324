"""User verbs on desired state: apply, delete, scale, rollout, cordon. Pure: records and the request in, changes out.

The only way in which desired state changes (DESIGN §4). Each verb's changes are committed as one transaction; passes then carry them out.
Raises UsageError (exit 2) for a request that makes no sense; then nothing changes.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from controller.model.cluster import (
    BUILT_IN_NAMESPACES,
    Declared,
    Deployment,
    Meta,
    Moment,
    Node,
    Pod,
    Record,
    Ref,
    ReplicaSet,
    Stop,
    World,
)
from controller.model.errors import ManifestError, NotFound, UsageError
from controller.model.identity import child_uid, content_hash, template_hash
from controller.model.plan import POLICIES, Change
from controller.model.quantity import REPLICAS_MAX

if TYPE_CHECKING:  # the first brings pydantic, which commands that only look should not wait for
    from controller.model.manifest import Manifest
    from controller.model.workloads import DaemonSet, StatefulSet

CHANGE_CAUSE = "kubernetes.io/change-cause"
RESTARTED_AT = "sshoal.dev/restartedAt"
CONFIG_HASH = "sshoal.dev/config-hash"  # of a template, where a changed config map restarts pods
_KEPT = (
    "replicas",
    "paused",
)  # of a Deployment: what `scale` and `rollout pause` set, where its manifest does not name it
_PREEMPTS = "PreemptLowerPriority"  # what a priority class without a policy does
_OPAQUE = "Opaque"  # the type of a secret that names none
AUTO_ROLLBACK = "sshoal.dev/auto-rollback"

_Rolled = TypeVar("_Rolled", bound="Deployment | DaemonSet | StatefulSet")
SecretHash = Callable[[Mapping[str, str]], str]


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one manifest: "created", "configured" or "unchanged"."""

    kind: str
    namespace: str
    name: str
    outcome: str
    change: Change | None
    warnings: tuple[str, ...] = ()  # for who applies it
    audit: Change | None = None  # an event to be kept with it


def apply(world: World, manifests: Sequence[Manifest], secret_hash: SecretHash, now: Moment) -> tuple[Applied, ...]:
    """Declares objects as Kubernetes' `apply` does.

    A number of replicas that the manifest leaves open stays as it is, so that `scale` is not undone; so does a pause of a rollout.

    Args:
        secret_hash: {key: base64 value} → keyed hash.
    Raises: ManifestError for all problems at once: an immutable field, a namespace that does not exist, an object being deleted.
        Forbidden for all that rules of namespaces are against.
    """
    problems: list[ManifestError] = []
    applied: list[Applied] = []
    namespaces = set(BUILT_IN_NAMESPACES)
    namespaces |= {record.meta.name for record in world.declared.values() if record.meta.kind == "Namespace"}
    namespaces |= {manifest.object.metadata.name for manifest in manifests if manifest.object.kind == "Namespace"}
    seen: dict[tuple[str, str, str], str] = {}
    by_name = _by_name(world)
    for manifest in manifests:
        identity = _identity(manifest)
        try:
            if identity in seen:
                raise ManifestError(f"the same object is declared at {seen[identity]}")
            seen[identity] = manifest.place
            if identity[1] and identity[1] not in namespaces:
                raise ManifestError(
                    f"namespace {identity[1]!r} does not exist", hint=f"sshoal create namespace {identity[1]}"
                )
            applied.append(_apply_one(world, by_name.get(identity), manifest, secret_hash, now))
        except ManifestError as error:
            problems.append(_at(error, manifest))
    if problems:
        raise ManifestError.several(problems)
    from controller.decide.admission.applied import judged  # brings pydantic, see above

    return judged(world, applied, [manifest.place for manifest in manifests])


def delete(world: World, record: Record, now: Moment, *, grace_s: int | None = None) -> tuple[Change, ...]:
    """Orders the end of an object and of what it owns. Config maps and secrets go at once; pods and their owners by passes.

    Args:
        grace_s: overrides the grace of the pods (0: at once).
    """
    meta = record.meta
    because = f"{meta.kind.lower()} {meta.key} was deleted"
    match record:
        case Pod(stop=None):
            return (_change("stop", replace(record, stop=Stop(because, now, grace_s)), because, "Killing"),)
        case Pod(stop=Stop() as stop):
            # Deleted again with less grace: the rest is shortened, never made longer (agents only hasten a stop that is under way).
            if grace_s is None or (stop.grace_s is not None and stop.grace_s <= grace_s):
                return ()
            return (_change("stop", replace(record, stop=replace(stop, grace_s=grace_s)), because, "Killing"),)
        case _ if meta.kind in POLICIES or (isinstance(record, Declared) and meta.kind != "Namespace"):
            return (_change("remove", record, because, "Deleted"),)
        case Node():
            raise UsageError("a node is not deleted", hint=f"sshoal node forget {meta.name}")
        case _ if meta.name in BUILT_IN_NAMESPACES and meta.kind == "Namespace":
            raise UsageError(f"the namespace {meta.name} cannot be deleted")
        case _:
            changes: list[Change] = []
            if meta.deleting is None:
                changes.append(
                    _change("update", replace(record, meta=replace(meta, deleting=now)), because, "Deleting")
                )
            if grace_s is not None:
                changes += [
                    change for pod in _pods_below(world, record) for change in delete(world, pod, now, grace_s=grace_s)
                ]
            return tuple(changes)


def scale(world: World, record: Record, replicas: int) -> tuple[Change, ...]:
    """Sets the number of replicas of a Deployment, a StatefulSet or of a ReplicaSet of its own."""
    because = f"{record.meta.kind.lower()} {record.meta.key} is scaled to {replicas}"
    if replicas < 0:
        raise UsageError(f"replicas must be 0 or more, not {replicas}")
    if replicas > REPLICAS_MAX:
        raise UsageError(f"replicas must be {REPLICAS_MAX:,} or less, not {replicas:,}")
    match record:
        case Deployment():
            _refuse_deleting(record)
            if _spec(record.source).get("replicas", 1) == replicas:
                return ()
            return (_change("scale", with_spec(record, {"replicas": replicas}), because, "Scaled"),)
        case ReplicaSet(meta=Meta(owner=None)):
            _refuse_deleting(record)
            if record.replicas == replicas:
                return ()
            meta = replace(record.meta, generation=record.meta.generation + 1)
            return (_change("scale", replace(record, meta=meta, replicas=replicas), because, "Scaled"),)
        case ReplicaSet(meta=Meta(owner=Ref(name=owner))):
            raise UsageError(
                f"{record.meta.name} belongs to deployment {owner}", hint=f"sshoal scale deployment/{owner}"
            )
        case _ if record.meta.kind == "StatefulSet":
            stateful = cast("StatefulSet", record)
            _refuse_deleting(stateful)
            if _spec(stateful.source).get("replicas", 1) == replicas:
                return ()
            return (_change("scale", with_spec(stateful, {"replicas": replicas}), because, "Scaled"),)
        case _:
            raise UsageError(f"a {record.meta.kind} has no replicas to scale")


def pause(deployment: Deployment, paused: bool) -> tuple[Change, ...]:
    """Pauses or resumes a rollout."""
    word = "paused" if paused else "resumed"
    if bool(_spec(deployment.source).get("paused", False)) == paused:
        raise UsageError(f"deployment {deployment.meta.key} is already {word}")
    because = f"rollout of {deployment.meta.key} {word}"
    return (
        _change(
            "update",
            with_spec(deployment, {"paused": paused}),
            because,
            "DeploymentPaused" if paused else "DeploymentResumed",
        ),
    )


def restart(record: Deployment | DaemonSet | StatefulSet, now_text: str) -> tuple[Change, ...]:
    """Rolls all pods over by a new annotation of the template, as kubectl does. `now_text`: the time as RFC 3339."""
    _refuse_paused(record, "restarted")
    template = annotated(_spec(record.source)["template"], {RESTARTED_AT: now_text})
    because = f"rollout restart of {record.meta.key}"
    return (_change("update", with_spec(record, {"template": template}), because, "Restarted"),)


def annotated(template: Mapping[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
    """A pod template with these annotations too."""
    metadata = dict(template.get("metadata") or {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return {**template, "metadata": metadata}


def keeping_restarts(live: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the annotations by which the live template was restarted, so that applying it again restarts nothing.

    Kubernetes' `apply` leaves them too: the manifest never had them.
    """
    live_metadata = _spec(live)["template"].get("metadata") or {}
    found = {
        key: text
        for key, text in (live_metadata.get("annotations") or {}).items()
        if key in (RESTARTED_AT, CONFIG_HASH)
    }
    template = _spec(source)["template"]
    found = {
        key: text
        for key, text in found.items()
        if key not in ((template.get("metadata") or {}).get("annotations") or {})
    }
    return {**source, "spec": {**_spec(source), "template": annotated(template, found)}} if found else dict(source)


@dataclass(frozen=True, slots=True)
class Past:
    """One revision of a Deployment, DaemonSet or StatefulSet."""

    number: int
    name: str
    template: Mapping[str, Any]  # as written
    template_hash: str
    change_cause: str


def undo(world: World, record: Deployment | DaemonSet | StatefulSet, to_revision: int = 0) -> tuple[Change, ...]:
    """Takes the template of an earlier revision; 0: of the one before the present.

    Raises: UsageError when paused (as in Kubernetes); NotFound when there is no such revision.
    """
    _refuse_paused(record, "rolled back")
    revisions = history(world, record)
    if to_revision:
        target = revision(record, revisions, to_revision)
    else:
        earlier = (one for one in reversed(revisions) if one.template_hash != record.template_hash)
        target = next(earlier, None) or _no_revision(record, revisions, "earlier revision")
    if target.template_hash == record.template_hash:
        return ()
    because = f"{record.meta.kind.lower()} {record.meta.key} goes back to revision {target.number}"
    return (_change("update", going_back(record, target), because, f"{record.meta.kind}Rollback"),)


def revision(record: Record, revisions: Sequence[Past], number: int) -> Past:
    """The revision of that number. Raises NotFound."""
    found = next((one for one in revisions if one.number == number), None)
    return found or _no_revision(record, revisions, f"revision {number}")


def _no_revision(record: Record, revisions: Sequence[Past], wanted: str) -> NoReturn:
    known = ", ".join(str(one.number) for one in revisions) or "none"
    raise NotFound(f"{record.meta.kind.lower()} {record.meta.key} has no {wanted} (known: {known})")


def going_back(record: _Rolled, target: Past) -> _Rolled:
    """The object with the template and the change-cause of an earlier revision."""
    fresh = with_spec(record, {"template": dict(target.template)})
    if not target.change_cause:
        return fresh
    annotations = {**fresh.meta.annotations, CHANGE_CAUSE: target.change_cause}
    return replace(fresh, meta=replace(fresh.meta, annotations=annotations))


def history(world: World, record: Record) -> list[Past]:
    """The revisions of an object, oldest first. Raises UsageError for kinds that have none."""
    if isinstance(record, Deployment):
        found = [
            Past(one.revision, one.meta.name, one.template, one.template_hash, one.change_cause)
            for one in revisions_of(world, record)
        ]
        return sorted(found, key=lambda one: one.number)
    if record.meta.kind not in ("DaemonSet", "StatefulSet"):
        raise UsageError(f"a {record.meta.kind} has no revisions")
    from controller.decide.revisions import revisions_of_set

    return [
        Past(one.number, one.meta.name, one.written, one.template_hash, one.change_cause)
        for one in revisions_of_set(world, record)
    ]


def revisions_of(world: World, deployment: Deployment) -> tuple[ReplicaSet, ...]:
    """The ReplicaSets of a deployment."""
    return tuple(world.revisions.get(deployment.meta.uid, ()))


def cordon(node: Node, cordoned: bool) -> tuple[Change, ...]:
    """Keeps new pods from a node, or lets them come again."""
    if node.cordoned == cordoned and (cordoned or node.drain is None):
        return ()
    word = "cordoned" if cordoned else "uncordoned"
    return (
        _change(
            "update",
            replace(node, cordoned=cordoned, drain=node.drain if cordoned else None),
            f"node {node.meta.name} {word}",
            f"Node{word.capitalize()}",
        ),
    )


def confirm_dead(node: Node, how: str) -> tuple[Change, ...]:
    """A person vouches that a node is powered-off or wiped: its pods are replaced at once."""
    return (
        _change(
            "update", replace(node, confirmed_dead=how), f"node {node.meta.name} confirmed dead: {how}", "ConfirmedDead"
        ),
    )


def find(world: World, kind: str, namespace: str, name: str) -> Record:
    """Raises NotFound."""
    record = _by_name(world).get((kind, namespace, name))
    if record is None and kind == "Namespace" and name in BUILT_IN_NAMESPACES:
        return _built_in(world, name)
    if record is None:
        place = f" in namespace {namespace}" if namespace else ""
        raise NotFound(f'{kind.lower()} "{name}" not found{place}')
    return record


def records_of(world: World, kind: str) -> list[Record]:
    """All of a kind, by namespace and name."""
    found = [record for table in _tables(world) for record in table.values() if record.meta.kind == kind]
    if kind == "Namespace" and all(record.meta.name != "default" for record in found):
        found.append(_built_in(world, "default"))  # of the others nobody thinks
    return sorted(found, key=lambda record: (record.meta.namespace, record.meta.name))


def _built_in(world: World, name: str) -> Declared:
    """A namespace that is there without having been declared. It has a record once something is said of it: a label, say."""
    records = (record for table in _tables(world) for record in table.values())
    created = min((record.meta.created for record in records), key=lambda one: one.wall_s, default=Moment(0.0, "", 0.0))
    source = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    return Declared(Meta("Namespace", "", name, child_uid(world.cluster.id, f"Namespace//{name}"), created), source)


# ---- apply, kind by kind ------------------------------------------------------------------------------------------------


def _apply_one(
    world: World, present: Record | None, manifest: Manifest, secret_hash: SecretHash, now: Moment
) -> Applied:
    kind, namespace, name = _identity(manifest)
    if present is not None and present.meta.deleting is not None:
        raise ManifestError(f"{kind.lower()} {name} is being deleted", hint="try again when it is gone")
    meta = _new_meta(world, manifest, now) if present is None else _same_meta(present.meta, manifest)
    match kind:
        case "Deployment":
            record: Record = _deployment(meta, present, manifest)
        case "ReplicaSet":
            record = _replica_set(meta, present, manifest)
        case "CronJob" | "DaemonSet" | "Job" | "StatefulSet" | "PersistentVolumeClaim":
            record = _workload(meta, present, manifest)
        case "Pod":
            record = _pod(meta, present, manifest)
        case _ if kind in POLICIES:
            record = _policy(meta, present, manifest)
        case _:
            record = _declared(meta, present, manifest, secret_hash)
    if present is None:
        because = f"{kind.lower()} {meta.key} was declared in {manifest.place}"
        return Applied(kind, namespace, name, "created", _change("create", record, because, "Created"))
    if record == present:
        return Applied(kind, namespace, name, "unchanged", None)
    if _content(record) != _content(present):
        record = replace(record, meta=replace(record.meta, generation=present.meta.generation + 1))
    because = f"{kind.lower()} {meta.key} was changed by {manifest.place}"
    return Applied(kind, namespace, name, "configured", _change("update", record, because, "Configured"))


def _deployment(meta: Meta, present: Record | None, manifest: Manifest) -> Deployment:
    source = dict(manifest.source)
    if isinstance(present, Deployment):
        from controller.decide.sameness import keeping_template, refuse_changes

        refuse_changes(present.source, source, ("selector",))
        spec, live = _spec(source), _spec(present.source)
        source["spec"] = {**spec, **{key: live[key] for key in _KEPT if key in live and key not in spec}}
        source = keeping_template(present.source, keeping_restarts(present.source, source))
        return replace(present, meta=meta, source=source, template_hash=template_hash(_spec(source)["template"]))
    return Deployment(meta, source, template_hash(_spec(source)["template"]))


def _replica_set(meta: Meta, present: Record | None, manifest: Manifest) -> ReplicaSet:
    spec = _spec(manifest.source)
    model: Any = manifest.object
    replicas = spec.get("replicas")
    if isinstance(present, ReplicaSet):
        if present.meta.owner is not None:
            raise ManifestError(
                f"it belongs to deployment {present.meta.owner.name}", hint="change the deployment instead"
            )
        from controller.decide.sameness import keeping_template, refuse_changes

        live = {**manifest.source, "spec": {**spec, "selector": present.selector, "template": present.template}}
        refuse_changes(live, manifest.source, ("selector",))
        template = _spec(keeping_template(live, manifest.source))["template"]
        return replace(
            present,
            meta=meta,
            template=template,
            template_hash=template_hash(template),
            replicas=present.replicas if replicas is None else replicas,
            min_ready_s=model.spec.min_ready_seconds,
        )
    return ReplicaSet(
        meta,
        spec["template"],
        template_hash(spec["template"]),
        1 if replicas is None else replicas,
        spec["selector"],
        min_ready_s=model.spec.min_ready_seconds,
    )


def _workload(meta: Meta, present: Record | None, manifest: Manifest) -> Record:
    from controller.decide.apply_workloads import applied  # with its models, only when such an object is there

    return applied(meta, present, manifest)


def _policy(meta: Meta, present: Record | None, manifest: Manifest) -> Record:
    from controller.model.policies import Autoscaler, Budget

    source = dict(manifest.source)
    if isinstance(present, Budget | Autoscaler):
        return replace(present, meta=meta, source=source)
    return Budget(meta, source) if meta.kind == "PodDisruptionBudget" else Autoscaler(meta, source)


def _pod(meta: Meta, present: Record | None, manifest: Manifest) -> Pod:
    source = dict(manifest.source)
    if isinstance(present, Pod):
        if present.meta.owner is not None:
            raise ManifestError(f"it belongs to {present.meta.owner.kind.lower()} {present.meta.owner.name}")
        if present.source is None or not _is_same_pod(present, source) or _new_gates(present.source, source):
            raise ManifestError(
                "the spec of a pod cannot be changed", field="spec", hint="delete it first, or use a Deployment"
            )
        gates = {key: item for key, item in _spec(source).items() if key == "schedulingGates"}
        return replace(present, meta=meta, source={**source, "spec": {**_ungated(present.source), **gates}})
    return Pod(meta, template_hash(_template_of_pod(source)), source)


def _is_same_pod(present: Pod, source: Mapping[str, Any]) -> bool:
    """Whether a spec is the one that a Pod of its own was declared with, or the one that is shown of it."""
    assert present.source is not None
    declared, spec = _ungated(present.source), _ungated(source)
    if declared == spec:
        return True
    from controller.decide.owners import with_defaults
    from controller.decide.sameness import is_same_template, with_requests

    # What `get` shows is read without it: it may be the scheduler's.
    if "nodeName" in declared and "nodeName" not in spec:
        spec = {**spec, "nodeName": declared["nodeName"]}
    shown = with_defaults({"spec": declared}, present.defaults)["spec"]
    asked = {"spec": with_requests(spec)}
    return any(is_same_template({"spec": with_requests(one)}, asked) for one in (declared, shown))


def _ungated(source: Mapping[str, Any]) -> dict[str, Any]:
    """A pod's spec without its scheduling gates: these alone may be taken out."""
    return {key: item for key, item in _spec(source).items() if key != "schedulingGates"}


def _new_gates(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return any(
        gate not in (_spec(before).get("schedulingGates") or ()) for gate in _spec(after).get("schedulingGates") or ()
    )


def _declared(meta: Meta, present: Record | None, manifest: Manifest, secret_hash: SecretHash) -> Declared:
    source = dict(manifest.source)
    digest = ""
    if meta.kind == "ConfigMap":
        digest = content_hash({"data": source.get("data") or {}, "binaryData": source.get("binaryData") or {}})
    if meta.kind == "Secret":
        values = secret_values(source)
        digest = secret_hash(values)
        source = {key: item for key, item in source.items() if key not in ("data", "stringData")}
        source["data"] = dict.fromkeys(sorted(values), "")  # the names; the values lie sealed in the store
    if isinstance(present, Declared):
        for name in ("value", "preemptionPolicy") if meta.kind == "PriorityClass" else ():
            if present.source.get(name, _PREEMPTS) != source.get(name, _PREEMPTS):
                hint = "give the new class another name"
                raise ManifestError(f"the {name} of a priority class cannot be changed", field=name, hint=hint)
        if meta.kind == "ResourceQuota" and _scopes(present.source) != _scopes(source):
            hint = "delete it first, or give the new one another name"
            raise ManifestError("the scopes of a quota cannot be changed", field="spec.scopes", hint=hint)
        if meta.kind == "Secret" and (present.source.get("type") or _OPAQUE) != (source.get("type") or _OPAQUE):
            raise ManifestError(
                "the type of a secret cannot be changed",
                field="type",
                hint="delete it first, or give the new one another name",
            )
        if present.source.get("immutable"):
            _refuse_immutable(meta, source, digest != present.hash)
        return replace(present, meta=meta, source=source, hash=digest)
    return Declared(meta, source, digest)


def _scopes(source: Mapping[str, Any]) -> set[str]:
    return set(_spec(source).get("scopes") or ())


def _refuse_immutable(meta: Meta, source: Mapping[str, Any], other_content: bool) -> None:
    """What was declared immutable stays so, and keeps its content: as long as the object is there, as in Kubernetes."""
    hint = "give the new content another name, or delete this one first"
    if other_content:
        raise ManifestError(f"{meta.kind.lower()} {meta.name} is immutable", field="data", hint=hint)
    if not source.get("immutable"):
        raise ManifestError("cannot be taken back once it is true", field="immutable", hint=hint)


def secret_values(source: Mapping[str, Any]) -> dict[str, str]:
    """All values of a Secret manifest as {key: base64}; stringData wins over data, as in Kubernetes."""
    values = {key: "".join(str(value).split()) for key, value in (source.get("data") or {}).items()}
    for key, text in (source.get("stringData") or {}).items():
        values[key] = base64.b64encode(str(text).encode()).decode()
    return values


# ---- helpers --------------------------------------------------------------------------------------------------------------


def _identity(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest.object.metadata
    kind = manifest.object.kind
    return kind, metadata.namespace, metadata.name


def _by_name(world: World) -> dict[tuple[str, str, str], Record]:
    return {
        (record.meta.kind, record.meta.namespace, record.meta.name): record
        for table in _tables(world)
        for record in table.values()
    }


def _tables(world: World) -> tuple[Mapping[str, Record], ...]:
    return (
        world.declared,
        world.deployments,
        world.replica_sets,
        world.workloads,
        world.policies,
        world.claims,
        world.pods,
        world.nodes,
    )


def _new_meta(world: World, manifest: Manifest, now: Moment) -> Meta:
    kind, namespace, name = _identity(manifest)
    uid = child_uid(world.cluster.id, f"{kind}/{namespace}/{name}/{world.counter}")
    metadata = manifest.object.metadata
    return Meta(kind, namespace, name, uid, now, labels=dict(metadata.labels), annotations=dict(metadata.annotations))


def _same_meta(meta: Meta, manifest: Manifest) -> Meta:
    metadata = manifest.object.metadata
    return replace(meta, labels=dict(metadata.labels), annotations=dict(metadata.annotations))


def _content(record: Record) -> Any:
    """What makes a new generation when it changes: all but metadata."""
    match record:
        case Deployment():
            return _spec(record.source)
        case Pod() | Declared():
            return {key: item for key, item in (record.source or {}).items() if key != "metadata"}
        case ReplicaSet():
            return (record.template, record.replicas, record.min_ready_s)
        case Node():
            return record.cordoned
        case _:
            return _spec(getattr(record, "source", {}))


def _pods_below(world: World, record: Record) -> list[Pod]:
    if record.meta.kind == "Namespace":
        return [pod for pod in world.pods.values() if pod.meta.namespace == record.meta.name]
    owners = {record.meta.uid}
    owners |= {
        child.meta.uid
        for child in world.replica_sets.values()
        if child.meta.owner and child.meta.owner.uid == record.meta.uid
    }
    return [pod for pod in world.pods.values() if pod.meta.owner and pod.meta.owner.uid in owners]


def with_spec(record: _Rolled, fields: Mapping[str, Any]) -> _Rolled:
    """The object as if the user had written these fields of its spec: a new generation."""
    spec = {**_spec(record.source), **fields}
    meta = replace(record.meta, generation=record.meta.generation + 1)
    return replace(
        record, meta=meta, source={**record.source, "spec": spec}, template_hash=template_hash(spec["template"])
    )


def _spec(source: Mapping[str, Any]) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = source.get("spec") or {}
    return spec


def _template_of_pod(source: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"metadata": source.get("metadata") or {}, "spec": _spec(source)}


def _refuse_deleting(record: Record) -> None:
    if record.meta.deleting is not None:
        raise UsageError(f"{record.meta.kind.lower()} {record.meta.key} is being deleted")


def _refuse_paused(record: Deployment | DaemonSet | StatefulSet, what: str) -> None:
    _refuse_deleting(record)
    if isinstance(record, Deployment) and _spec(record.source).get("paused"):
        name = record.meta.name
        raise UsageError(f"a paused deployment cannot be {what}", hint=f"sshoal rollout resume deployment/{name}")


def _at(error: ManifestError, manifest: Manifest) -> ManifestError:
    file, _, line = manifest.place.rpartition(":")
    return ManifestError(
        error.problem, file=file, line=int(line) if line.isdigit() else 0, field=error.field, hint=error.hint
    )


def _change(verb: str, record: Record, because: str, reason: str) -> Change:
    return Change(verb, record, because, reason)
