"""Declared objects as text, and what manifests would change in them. Pure.

Values of secrets are never in it: `***` stands for each, and where one changes the two sides are marked.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from controller.cli.names import resource
from controller.model.cluster import Declared, Record, ReplicaSet
from controller.model.text import HIDDEN

Values = Mapping[str, str]  # of a secret, by key


def declared_object(record: Record) -> dict[str, Any]:
    """As a manifest would declare it: without status and what the controller wrote."""
    meta = record.meta
    source = _source(record)
    metadata: dict[str, Any] = {"name": meta.name}
    if meta.namespace:
        metadata["namespace"] = meta.namespace
    if meta.labels:
        metadata["labels"] = dict(meta.labels)
    if meta.annotations:
        metadata["annotations"] = dict(meta.annotations)
    rest = {key: item for key, item in source.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    return {"apiVersion": source.get("apiVersion", "v1"), "kind": meta.kind, "metadata": metadata, **rest}


def unified(before: Record | None, after: Record, old: Values, new: Values) -> str:
    """The difference in unified form; "" when there is none. `old` and `new`: values of a secret, to be compared only."""
    name = f"{resource(after.meta.kind)}/{after.meta.name}"
    left = _lines(_masked(before, old, new, "before")) if before is not None else []
    right = _lines(_masked(after, new, old, "after"))
    return "\n".join(difflib.unified_diff(left, right, f"{name} (declared)", f"{name} (file)", lineterm=""))


def _masked(record: Record, values: Values, others: Values, side: str) -> dict[str, Any]:
    shown = declared_object(record)
    if isinstance(record, Declared) and record.meta.kind == "Secret":
        shown["data"] = {
            key: f"{HIDDEN} ({side})" if key in others and others[key] != values.get(key) else HIDDEN
            for key in record.source.get("data") or {}
        }
    return shown


def _lines(shown: Mapping[str, Any]) -> list[str]:
    """In one order, so that only content counts."""
    from controller.cli.yamltext import dump

    return dump(shown, sort_keys=True).splitlines()


def _source(record: Record) -> Mapping[str, Any]:
    if isinstance(record, ReplicaSet):
        spec: dict[str, Any] = {"replicas": record.replicas}
        if record.min_ready_s:
            spec["minReadySeconds"] = record.min_ready_s
        return {"apiVersion": "apps/v1", "spec": {**spec, "selector": record.selector, "template": record.template}}
    source: Mapping[str, Any] = getattr(record, "source", None) or {}
    return source
