"""Names of kinds on the command line, as kubectl reads them: deployment/web, deploy web, po, cm. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from controller.model.errors import UsageError

_KINDS = {
    "Deployment": ("deployment", "deployments", "deploy", "deployment.apps", "deployments.apps"),
    "ReplicaSet": ("replicaset", "replicasets", "rs", "replicaset.apps", "replicasets.apps"),
    "StatefulSet": ("statefulset", "statefulsets", "sts", "statefulset.apps", "statefulsets.apps"),
    "DaemonSet": ("daemonset", "daemonsets", "ds", "daemonset.apps", "daemonsets.apps"),
    "CronJob": ("cronjob", "cronjobs", "cj", "cronjob.batch", "cronjobs.batch"),
    "Job": ("job", "jobs", "job.batch", "jobs.batch"),
    "Pod": ("pod", "pods", "po"),
    "ConfigMap": ("configmap", "configmaps", "cm"),
    "Secret": ("secret", "secrets"),
    "PersistentVolumeClaim": ("persistentvolumeclaim", "persistentvolumeclaims", "pvc", "pvcs"),
    "Namespace": ("namespace", "namespaces", "ns"),
    "ResourceQuota": ("resourcequota", "resourcequotas", "quota"),
    "LimitRange": ("limitrange", "limitranges", "limits"),
    "PriorityClass": ("priorityclass", "priorityclasses", "pc"),
    "PodDisruptionBudget": ("poddisruptionbudget", "poddisruptionbudgets", "pdb", "poddisruptionbudget.policy"),
    "HorizontalPodAutoscaler": (
        "horizontalpodautoscaler",
        "horizontalpodautoscalers",
        "hpa",
        "horizontalpodautoscaler.autoscaling",
    ),
    "Node": ("node", "nodes", "no"),
    "Event": ("event", "events", "ev"),
}
_SHORT = {  # of kinds that only Kubernetes has
    "cs": "componentstatus",
    "crd": "customresourcedefinition",
    "crds": "customresourcedefinition",
    "csr": "certificatesigningrequest",
    "ep": "endpoints",
    "ing": "ingress",
    "netpol": "networkpolicy",
    "pv": "persistentvolume",
    "rc": "replicationcontroller",
    "sa": "serviceaccount",
    "sc": "storageclass",
    "svc": "service",
}
PLURALS = tuple(words[1] for words in _KINDS.values())
_BY_WORD = {word: kind for kind, words in _KINDS.items() for word in words}
_GROUPS = {
    "Deployment": "apps",
    "ReplicaSet": "apps",
    "Job": "batch",
    "CronJob": "batch",
    "DaemonSet": "apps",
    "StatefulSet": "apps",
    "PodDisruptionBudget": "policy",
    "HorizontalPodAutoscaler": "autoscaling",
}
WITHOUT_NAMESPACE = frozenset({"Namespace", "Node", "PriorityClass"})


def parse_kind(word: str) -> str:
    """ "deploy" → "Deployment". Raises UsageError with the nearest right word."""
    kind = _BY_WORD.get(word.lower())
    if kind is None:
        _refuse_foreign(word.lower())
        near = difflib.get_close_matches(word.lower(), _BY_WORD, n=1)
        known = ", ".join(words[1] for words in _KINDS.values())
        raise UsageError(
            f"sshoal knows no kind {word!r}", hint=f"did you mean {near[0]}?" if near else f"known: {known}"
        )
    return kind


def is_kind(word: str) -> bool:
    """Whether kinds are named so."""
    return word.lower() in _BY_WORD


def _refuse_foreign(word: str) -> None:
    """A kind that Kubernetes has is no misspelt one of ours. Raises UsageError."""
    from controller.model.kinds.unsupported import KINDS  # brings pydantic
    from controller.model.shape import NOT_YET

    name = _SHORT.get(word, word.partition(".")[0])
    for kind in sorted(KINDS):
        single = kind.lower()
        plural = f"{single[:-1]}ies" if single.endswith("cy") else f"{single}{'es' if single.endswith('s') else 's'}"
        if name in (single, plural):
            raise UsageError(f"{kind}: {NOT_YET}", hint="docs/limits.md says what there is")


def resource(kind: str) -> str:
    """As kubectl names what it changed: deployment.apps, pod, configmap."""
    group = _GROUPS.get(kind)
    return f"{kind.lower()}.{group}" if group else kind.lower()


def parse_target(word: str, namespace: str) -> tuple[str, str, str]:
    """ "deployment/web" → ("Deployment", namespace, "web"). A bare name is a pod's. Raises UsageError."""
    kind_word, slash, name = word.partition("/")
    if not slash:
        kind_word, name = "pod", word
    if not name:
        raise UsageError(f"{word!r} names no object", hint="for example deployment/web")
    kind = parse_kind(kind_word)
    return kind, "" if kind in WITHOUT_NAMESPACE else namespace, name


def parse_one(words: Sequence[str], namespace: str) -> tuple[str, str, str]:
    """KIND/NAME, KIND NAME, or the name of a pod. Raises UsageError."""
    if len(words) == 1:
        return parse_target(words[0], namespace)
    first, *others = parse_targets(words, namespace)
    if others:
        raise UsageError(f"{' '.join(words)!r}: one object at a time", hint="for example deployment/web")
    return first


def parse_targets(words: Sequence[str], namespace: str) -> list[tuple[str, str, str]]:
    """Either KIND[,KIND] NAME… or KIND/NAME …, as kubectl takes them. Raises UsageError."""
    if not words:
        return []
    if any("/" in word for word in words):
        for word in words:
            if "/" not in word:
                raise UsageError(f"{word!r}: either KIND/NAME for each, or one KIND and names")
        return [parse_target(word, namespace) for word in words]
    if len(words) == 1:
        raise UsageError(f"{words[0]!r}: which one?", hint=f"sshoal … {words[0]} NAME")
    kinds = [kind for kind in words[0].split(",") if kind] or [words[0]]
    return [parse_target(f"{kind}/{name}", namespace) for kind in kinds for name in words[1:]]
