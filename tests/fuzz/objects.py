"""Objects of all kinds with odd values in places where their models have fields: the same dice give the same objects. Pure.

Most are refused when they are read. What is not refused has to be decided on, whatever it asks for.
"""

from __future__ import annotations

import json
import random
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from controller.model.kinds import KINDS

_WORDS = (
    *("a", "web", "main", "data", "zone", "x" * 63, "", "1", "-1", "+1", "-+5", "01", "0x10", "1e3", "1.5", "9" * 21),
    *(
        "50%",
        "0%",
        "150%",
        "100m",
        "0.1m",
        "1n",
        "10Gi",
        "9E",
        "-5",
        "80",
        "65535",
        "5m",
        "http",
        "SIGTERM",
        "NET_ADMIN",
        "ALL",
    ),
    *("kubernetes.io/hostname", "topology.kubernetes.io/zone", "n1", "system-node-critical", "nvidia.com/gpu", "web:1"),
    *(
        "cpu",
        "memory",
        "storage",
        "ephemeral-storage",
        "pods",
        "requests.cpu",
        "limits.memory",
        "requests.storage",
        "count/pods",
    ),
    *(
        "metadata.name",
        "metadata.labels['app']",
        "status.podIP",
        "limits.cpu",
        "$(X)",
        "$$(A)",
        "/",
        "/data",
        "..",
        "a/b",
    ),
    *("*/5 * * * *", "@daily", "0 0 31 2 *", "Europe/Berlin", "2024-01-01T00:00:00Z"),
)
_NUMBERS = (0, 1, 2, 3, -1, -100, 5, 30, 100, 600, 65535, 65536, 100_000, 2**31 - 1, 2**31, 10**12)
_DEEPEST = 7


def mutated(document: Mapping[str, Any], dice: random.Random) -> dict[str, Any]:
    """The object with some of its fields, at any depth, set to values that have their types, seldom their meaning."""
    fresh: dict[str, Any] = json.loads(json.dumps(document, default=str))
    for _ in range(dice.choice((1, 1, 2, 2, 3, 5))):
        data, model = dice.choice(list(_models(fresh, KINDS[fresh["kind"]])))
        name, field = dice.choice(list(model.model_fields.items()))
        if name not in ("kind", "api_version"):
            data[field.alias or name] = _value(field.annotation, dice, 2)
    return fresh


def _models(data: Any, kind: Any) -> Iterator[tuple[dict[str, Any], type[BaseModel]]]:
    """Each mapping within that a model is for."""
    origin = get_origin(kind)
    if origin in (Annotated, Union, types.UnionType):
        for inner in get_args(kind)[: 1 if origin is Annotated else None]:
            yield from _models(data, inner)
    elif origin is tuple and isinstance(data, list):
        for item in data:
            yield from _models(item, get_args(kind)[0])
    elif isinstance(kind, type) and issubclass(kind, BaseModel) and isinstance(data, dict):
        yield data, kind
        for name, field in kind.model_fields.items():
            yield from _models(data.get(field.alias or name), field.annotation)


def _value(kind: Any, dice: random.Random, depth: int) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _value(inner[0], dice, depth)
    if origin in (Union, types.UnionType):
        return _value(dice.choice(inner), dice, depth)
    if origin is Literal:
        return dice.choice(inner)
    if origin is tuple:
        return [_value(inner[0], dice, depth + 1) for _ in range(dice.choice((0, 1, 1, 1, 2, 3)))]
    if inner:  # of a mapping
        keys = [str(_value(inner[0], dice, depth + 1)) for _ in range(dice.choice((0, 1, 1, 2)))]
        return {key: _value(inner[1], dice, depth + 1) for key in keys}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _object(kind, dice, depth + 1)
    if kind is types.NoneType:
        return None
    return {bool: dice.random() < 0.5, int: dice.choice(_NUMBERS)}.get(kind, dice.choice(_WORDS))


def _object(model: type[BaseModel], dice: random.Random, depth: int) -> dict[str, Any]:
    if depth > _DEEPEST:
        return {}
    return {
        field.alias or name: _value(field.annotation, dice, depth)
        for name, field in model.model_fields.items()
        if field.is_required() or dice.random() < 0.2
    }
