"""Labels and annotations of objects, changed by hand. Pure: a record and the request in, changes out.

Meaning and messages follow kubectl's `label` and `annotate`. The next `apply` of the object's manifest writes what the manifest says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from controller.model.cluster import Node, Record
from controller.model.errors import UsageError
from controller.model.kinds.meta import check_label_key, check_label_value
from controller.model.plan import Change

Field = Literal["labels", "annotations"]
Edits = Mapping[str, str | None]  # None: take it away

ANNOTATIONS_BYTES_MAX = 256 * 1024  # as in Kubernetes, all of an object together


def parse_edits(words: Sequence[str], field: Field) -> Edits:
    """key=value sets, key- takes away. Raises UsageError with the word that is wrong."""
    edits: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            key = word.removesuffix("-")
        if key in edits:
            raise UsageError(f"{key} is named twice")
        try:
            check_label_key(key)
            edits[key] = (check_label_value(value) if field == "labels" else value) if equals else None
        except ValueError as error:
            raise UsageError(f"{word!r}: {error}", hint="key=value sets, key- takes away") from None
    return edits


def edit_metadata(record: Record, field: Field, edits: Edits, *, overwrite: bool) -> tuple[Change, ...]:
    """The record with these labels or annotations; no change when it has them already.

    Raises: UsageError for a value that is there with another content (without `overwrite`), for labels of nodes, which the inventory
        gives, and for objects that a controller made: it would make the next ones without.
    """
    _refuse(record, field)
    meta = record.meta
    before: Mapping[str, str] = getattr(meta, field)
    clashes = [key for key, value in edits.items() if value is not None and before.get(key, value) != value]
    if clashes and not overwrite:
        key = clashes[0]
        raise UsageError(
            f"{meta.kind.lower()} {meta.key} has {key}={before[key]!r} already", hint="--overwrite changes it"
        )
    after = {key: value for key, value in before.items() if key not in edits}
    after |= {key: value for key, value in edits.items() if value is not None}
    if after == before:
        return ()
    if field == "annotations":
        _refuse_too_much(after)
    elif meta.kind == "Namespace":
        _refuse_unknown_levels(after)
    changed = replace(meta, labels=after) if field == "labels" else replace(meta, annotations=after)
    because = f"{field} of {meta.kind.lower()} {meta.key} were changed: {', '.join(sorted(edits))}"
    return (Change("update", replace(record, meta=changed), because, "MetadataChanged"),)


def _refuse(record: Record, field: Field) -> None:
    meta = record.meta
    if isinstance(record, Node) and field == "labels":
        raise UsageError(
            f"labels of nodes come from the inventory: groups, and node_labels of the host {meta.name}",
            hint=f"host_vars/{meta.name}.yaml: node_labels: {{disk: ssd}}; the next pass takes them over",
        )
    if meta.owner is not None:
        owner = f"{meta.owner.kind.lower()}/{meta.owner.name}"
        raise UsageError(
            f"{meta.kind.lower()} {meta.name} belongs to {owner}, which writes its {field}",
            hint="change the template in its manifest",
        )
    if meta.deleting is not None:
        raise UsageError(f"{meta.kind.lower()} {meta.key} is being deleted")


def _refuse_unknown_levels(labels: Mapping[str, str]) -> None:
    from controller.model.kinds.check_policy import label_problems

    for path, problem in label_problems(labels):
        raise UsageError(f"label {path[-1]} {problem}")


def _refuse_too_much(annotations: Mapping[str, str]) -> None:
    size_bytes = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size_bytes > ANNOTATIONS_BYTES_MAX:
        raise UsageError(
            f"annotations of an object may have {ANNOTATIONS_BYTES_MAX} bytes together; these have {size_bytes}"
        )
