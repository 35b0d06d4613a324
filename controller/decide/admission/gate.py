"""Whether pods may be made, asked as each pod is made. Pure. A world without rules pays nothing: rules.py is loaded when there is one.

In: the world, then pod templates one after the other. Out: a Verdict for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from controller.model.cluster import Declared, VolumeClaim, World

if TYPE_CHECKING:
    from controller.decide.shapes import Shape

_LABEL_PREFIX = "pod-security.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` no such pod may be made; "" when it may, with the resources that the namespace gives its containers."""

    why: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape | None = None  # with these resources; None where the namespace has no rules


FREE = Verdict()


class Admission:
    """Of one pass. `refused` holds, by uid of the owner, why it was given no (more) pods."""

    def __init__(self, world: World) -> None:
        self.refused: dict[str, str] = {}
        self._rules = None
        if any(map(_is_rule, world.declared.values())):
            from controller.decide.admission.rules import Rules

            self._rules = Rules(world)

    def admit(self, template: Mapping[str, Any], namespace: str, owner: str) -> Verdict:
        """One pod of `owner`, a uid; it counts as made when nothing is against it."""
        verdict = self._rules.admit(template, namespace) if self._rules is not None else FREE
        if verdict.why:
            self.refused[owner] = verdict.why
        return verdict

    def admit_claim(self, claim: VolumeClaim) -> str:
        """One volume claim of a template: why it may not be made; "" when it counts as made."""
        return self._rules.admit_claim(claim) if self._rules is not None else ""


def _is_rule(item: Declared) -> bool:
    if item.meta.kind == "Namespace":
        return any(key.startswith(_LABEL_PREFIX) for key in item.meta.labels)
    return item.meta.kind in ("LimitRange", "ResourceQuota")
