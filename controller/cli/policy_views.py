"""How ResourceQuotas, LimitRanges and the rules of a namespace are shown. Pure; loaded when there is one to show.

What is used of a quota is not stored: it is counted when somebody asks, from the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from controller.cli.output import age, table
from controller.cli.scene import Scene
from controller.decide.admission.quota import Used
from controller.decide.admission.rules import Rules
from controller.decide.admission.security import policy_of
from controller.decide.stored import stored
from controller.model.cluster import Declared, World
from controller.model.kinds.policy import LimitRange

Row = list[str]


def status_of(world: World, record: Declared) -> dict[str, Any]:
    """Of a ResourceQuota, as in Kubernetes."""
    used = _used(world, record)
    return {"hard": dict(used.quota.spec.hard), "used": used.texts()}


def quota_row(scene: Scene, record: Declared) -> Row:
    """NAME, AGE, REQUEST, LIMIT, as kubectl has them."""
    used = _used(scene.world, record)
    texts = used.texts()
    pairs = {name: f"{name}: {texts[name]}/{hard}" for name, hard in sorted(used.quota.spec.hard.items())}
    requests = [text for name, text in pairs.items() if not name.startswith("limits.")]
    limits = [text for name, text in pairs.items() if name.startswith("limits.")]
    return [record.meta.name, age(scene.age_s(record.meta.created)), ", ".join(requests), ", ".join(limits)]


def limit_row(scene: Scene, record: Declared) -> Row:
    """NAME, CREATED AT."""
    from controller.cli.objects import timestamp

    return [record.meta.name, timestamp(record.meta.created.wall_s)]


def quota_lines(world: World, record: Declared) -> list[str]:
    """For `describe`."""
    used = _used(world, record)
    texts = used.texts()
    scopes = [
        " ".join([item.scope_name, *([item.operator, ", ".join(item.values)] if item.values else [])])
        for item in used.quota.spec.requirements
    ]
    rows = [[name, texts[name], hard] for name, hard in sorted(used.quota.spec.hard.items())]
    head = [f"Scopes:           {'; '.join(scopes)}"] if scopes else []
    return [*head, *table(["RESOURCE", "USED", "HARD"], rows).splitlines()]


def limit_lines(record: Declared) -> list[str]:
    """For `describe`."""
    limits = stored(LimitRange, record.source).spec.limits
    rows: list[Row] = []
    for item in limits:
        columns: Sequence[Mapping[Any, str]] = (
            item.min,
            item.max,
            item.request_of(),
            item.limit_of(),
            item.max_limit_request_ratio,
        )
        for name in sorted({str(name) for column in columns for name in column}):
            rows.append([item.type, name, *(column.get(name, "-") for column in columns)])
    header = ["TYPE", "RESOURCE", "MIN", "MAX", "DEFAULT REQUEST", "DEFAULT LIMIT", "MAX LIMIT/REQUEST RATIO"]
    return table(header, rows).splitlines()


def namespace_lines(world: World, record: Declared) -> list[str]:
    """The rules of a namespace, for `describe`."""
    policy = policy_of(record.meta.labels)
    lines = [f"Pod security:     enforce {policy.enforce}, audit {policy.audit}, warn {policy.warn}"]
    for kind, word in (("ResourceQuota", "Resource quota"), ("LimitRange", "Limit range")):
        mine = [
            one for one in world.declared.values() if (one.meta.kind, one.meta.namespace) == (kind, record.meta.name)
        ]
        for one in sorted(mine, key=lambda one: one.meta.name):
            lines.append(f"{word} {one.meta.name}:")
            lines += [
                f"  {line}" for line in (quota_lines(world, one) if kind == "ResourceQuota" else limit_lines(one))
            ]
    return lines


def _used(world: World, record: Declared) -> Used:
    found = Rules(world).used(record.meta.namespace)
    return next(one for one in found if one.quota.metadata.name == record.meta.name)
