"""--field-selector: objects by the fields that Kubernetes' API server knows for that. Pure: a text in, a question about objects out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.model.errors import UsageError

_EVERY_KIND = ("metadata.name", "metadata.namespace")
_EVENT = ("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "reason", "type", "source")
# As Kubernetes' own kinds register them; what has no meaning here is left out. "": absent.
_KNOWN: Mapping[str, Mapping[str, str]] = {
    "Pod": {
        "spec.nodeName": "",
        "spec.restartPolicy": "Always",
        "spec.hostNetwork": "false",
        "spec.schedulerName": "default-scheduler",
        "spec.serviceAccountName": "default",
        "status.phase": "",
        "status.podIP": "",
        "status.nominatedNodeName": "",
    },
    "Node": {"spec.unschedulable": "false"},
    "Namespace": {"status.phase": ""},
    "Secret": {"type": "Opaque"},
    "Job": {"status.successful": "0"},
    "ReplicaSet": {"status.replicas": "0"},
    "Event": dict.fromkeys(_EVENT, ""),
}
_STANDS_FOR = {"status.successful": "status.succeeded", "source": "source.component"}
_TERM = re.compile(r"(?P<field>[A-Za-z.]+)(?P<operator>==|!=|=)(?P<value>[^=!]*)\Z")


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """(field, is equal, value) each; all must hold."""

    terms: tuple[tuple[str, bool, str], ...] = ()

    def matches(self, thing: Mapping[str, Any]) -> bool:
        """Whether an object as `get -o json` shows it is one of those."""
        return all((_value(thing, field) == value) is equal for field, equal, value in self.terms)


def parse_fields(text: str, kinds: Sequence[str]) -> FieldSelector:
    """Of "status.phase=Running,spec.nodeName!=node1". Raises UsageError for what is none, and for fields that a kind is not chosen by."""
    terms = []
    for word in (part.strip() for part in text.split(",")):
        if not word:
            continue
        match = _TERM.match(word)
        if match is None:
            raise UsageError(
                f"{word!r} is not a field selector", hint="for example status.phase=Running,spec.nodeName!=node1"
            )
        for kind in kinds:
            known = (*_EVERY_KIND, *_KNOWN.get(kind, ()))
            if match["field"] not in known:
                raise UsageError(f"a {kind} is not chosen by {match['field']}", hint=f"by {', '.join(known)}")
        terms.append((match["field"], match["operator"] != "!=", match["value"].strip()))
    return FieldSelector(tuple(terms))


def _value(thing: Mapping[str, Any], field: str) -> str:
    found: Any = thing
    for key in _STANDS_FOR.get(field, field).split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    if found is None:
        return _KNOWN.get(thing["kind"], {}).get(field, "")
    return str(found).lower() if isinstance(found, bool) else str(found)
