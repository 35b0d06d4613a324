"""How important pods are, by their PriorityClass. Pure. Classes are looked up when they are needed: their values cannot be changed."""

from __future__ import annotations

from controller.model.cluster import World
from controller.model.kinds.pod import PodSpec
from controller.model.kinds.scheduling import BUILT_IN_PRIORITIES, class_fields


def gated(spec: PodSpec) -> str:
    """Why no node is looked for: the pod's scheduling gates; "" without any."""
    names = ", ".join(gate.name for gate in spec.scheduling_gates)
    return f"waits behind scheduling gates: {names}" if names else ""


class Priorities:
    """Of one world's pods."""

    def __init__(self, world: World) -> None:
        classes = {item.meta.name: item for item in world.declared.values() if item.meta.kind == "PriorityClass"}
        found = {name: class_fields(item.source) for name, item in classes.items()}
        self._values = {**BUILT_IN_PRIORITIES, **{name: fields[0] for name, fields in found.items()}}
        self._policies = {name: fields[2] for name, fields in found.items()}
        defaults = sorted((fields[0], name) for name, fields in found.items() if fields[1])
        # The class of pods without one; of several the lowest, as in Kubernetes.
        self.default = defaults[0][1] if defaults else ""

    def of(self, spec: PodSpec) -> int:
        """0 without a class, and for a class that does not exist."""
        return self._values.get(spec.priority_class_name or self.default, 0)

    def problem(self, spec: PodSpec) -> str:
        """Why pods with this spec cannot be placed; "" when they can."""
        name = spec.priority_class_name
        return f"there is no PriorityClass {name}" if name and name not in self._values else ""

    def may_preempt(self, spec: PodSpec) -> bool:
        policy = spec.preemption_policy or self._policies.get(spec.priority_class_name or self.default)
        return policy != "Never"
