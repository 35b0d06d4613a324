"""Stored workloads as their models, with Kubernetes' defaults; each text is read once. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

from controller.model.errors import PlanBug
from controller.model.kinds import Object
from controller.model.manifest import parse_object

M = TypeVar("M", bound=Object)


def stored(model: type[M], source: Mapping[str, Any]) -> M:
    """`source` of a record as its model. Raises ManifestError as parse_object does."""
    parsed = _parsed(model.__name__, json.dumps(source, sort_keys=True))
    if not isinstance(parsed, model):
        raise PlanBug(f"a stored {model.__name__} is none")
    return parsed


@lru_cache(maxsize=7 * 1024)
def _parsed(kind: str, text: str) -> Object:
    return parse_object(kind, json.loads(text))
