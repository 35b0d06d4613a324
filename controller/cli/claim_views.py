"""Volume claims in tables, as objects and in `describe`. Pure; loaded when they are asked for. What hosts say is made printable here."""

from __future__ import annotations

from typing import Any

from controller.cli.objects import timestamp
from controller.cli.output import age
from controller.cli.scene import Scene
from controller.cli.tables import Columns, Row
from controller.decide.schedule.volumes import Volumes, class_of, spec_of_claim, why_unusable
from controller.decide.shapes import Shapes
from controller.model.cluster import VolumeClaim
from controller.model.text import printable
from controller.model.workloads import StatefulSet
from nodeagent.protocol import VOLUME_MISSING, VOLUME_UNUSABLE

Details = list[tuple[str, str]]
_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def phase_of(claim: VolumeClaim) -> str:
    """Kubernetes' phase: Pending, Bound, or Lost when its volume is missing on its node."""
    if not claim.node:
        return "Pending"
    return "Lost" if claim.report is not None and claim.report.state == VOLUME_MISSING else "Bound"


def object_of_claim(claim: VolumeClaim) -> dict[str, Any]:
    """spec and status with Kubernetes' names."""
    spec = {**claim.source["spec"], "storageClassName": class_of(claim), "volumeMode": "Filesystem"}
    status: dict[str, Any] = {"phase": phase_of(claim)}
    if claim.node:
        model = spec_of_claim(claim)
        spec["volumeName"] = claim.volume
        status |= {"accessModes": list(model.access_modes), "capacity": dict(model.resources.requests)}
    return {"spec": spec, "status": status}


def details_of_claim(scene: Scene, claim: VolumeClaim) -> Details:
    """What `describe` says beside the head: (name, text)."""
    spec = spec_of_claim(claim)
    lines = [
        ("Status", "Terminating" if claim.meta.deleting is not None else phase_of(claim)),
        ("Storage class", class_of(claim)),
        ("Asked for", f"{spec.resources.requests.get('storage', '')} (not enforced)"),
        ("Access modes", ",".join(spec.access_modes)),
        ("Node", claim.node or "<none>: it goes where its first pod goes"),
        ("Volume", claim.volume or "<none>"),
        ("Path", path_of(claim) or "<unknown>"),
    ]
    if claim.bound is not None:
        lines.append(("Bound", f"{timestamp(claim.bound.wall_s)} ({age(scene.age_s(claim.bound))} ago)"))
    users = [pod.meta.name for pod in Volumes(scene.world, scene.views, Shapes(scene.world)).users(claim.meta.uid)]
    lines.append(("Used by", ", ".join(users) or "<none>"))
    if claim.meta.deleting is not None:
        lines.append(("Deletion", _deletion(scene, claim, users)))
    elif why := why_unusable(claim, spec):
        lines.append(("Trouble", why))
    if claim.report is not None and claim.report.message:
        lines.append(("Told", claim.report.message))
    if claim.lost:
        lines.append(("Data lost", claim.lost))
    stale = claim.stale.items()
    return [*lines, *(("Stale volume", f"{name} on {stray.node}: old data, not used") for name, stray in stale)]


def claims_of_set(scene: Scene, record: StatefulSet) -> Details:
    """The claims of a StatefulSet, those of ordinals that it does not have now included."""
    beginnings = tuple(f"{name}-{record.meta.name}-" for name in record.claims)
    found = [
        claim
        for claim in scene.world.claims.values()
        if claim.meta.namespace == record.meta.namespace
        and claim.meta.name.startswith(beginnings)
        and claim.meta.name.rpartition("-")[2].isdigit()
    ]
    return [
        ("Volume claim", f"{claim.meta.name} {phase_of(claim)} {claim.node}".rstrip())
        for claim in sorted(found, key=lambda claim: claim.meta.name)
    ]


def path_of(claim: VolumeClaim) -> str:
    """Where on its node; "" before the agent has said it."""
    return printable(claim.report.path, 200) if claim.report is not None else ""


def _deletion(scene: Scene, claim: VolumeClaim, users: list[str]) -> str:
    if users:
        return f"waits until these pods have ended: {', '.join(users)}"
    view = scene.views.get(claim.node)
    if view is not None and not view.may_push and scene.world.nodes.get(claim.node) is not None:
        hint = f"if its disks are gone: sshoal node confirm-dead {claim.node} --wiped"
        return f"waits for {claim.node}, which is {view.state}; {hint}"
    if claim.report is not None and claim.report.state == VOLUME_UNUSABLE:
        return f"is tried again: {claim.report.message}"
    return f"its volume is being removed from {claim.node}" if claim.node else "it goes with the next pass"


def _row(scene: Scene, claim: VolumeClaim) -> Row:
    spec = spec_of_claim(claim)
    word = "Terminating" if claim.meta.deleting is not None else phase_of(claim)
    capacity = spec.resources.requests.get("storage", "") if claim.node else ""
    modes = ",".join(_SHORT[mode] for mode in spec.access_modes) if claim.node else ""
    return [claim.meta.name, word, claim.volume, capacity, modes, class_of(claim), age(scene.age_s(claim.meta.created))]


def _wide(scene: Scene, claim: VolumeClaim) -> Row:
    return ["Filesystem", claim.node, path_of(claim)]


CLAIM_COLUMNS = Columns(
    ("NAME", "STATUS", "VOLUME", "CAPACITY", "ACCESS MODES", "STORAGECLASS", "AGE"),
    _row,
    ("VOLUMEMODE", "NODE", "PATH"),
    _wide,
)
