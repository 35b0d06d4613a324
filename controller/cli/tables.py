"""What `get` shows as tables, column by column as kubectl. Pure. What hosts say is made printable here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controller.cli.output import age
from controller.cli.scene import Scene
from controller.decide.standing import desired_replicas, is_initialized, sidecars_of
from controller.model.cluster import Declared, Deployment, Node, Pod, Record, ReplicaSet
from controller.model.errors import UsageError
from controller.model.plan import POLICIES
from controller.model.text import printable

if TYPE_CHECKING:
    from controller.act.store import Event

Row = list[str]


@dataclass(frozen=True, slots=True)
class Columns:
    """A kind's columns: `wide` ones come after the others, with -o wide only."""

    header: tuple[str, ...]
    row: Callable[[Scene, Any], Row]
    wide_header: tuple[str, ...] = ()
    wide_row: Callable[[Scene, Any], Row] = lambda scene, record: []


def rows_of(
    scene: Scene, kind: str, records: Sequence[Record], *, wide: bool, namespaces: bool
) -> tuple[Row, list[Row]]:
    """Header and rows. `namespaces`: with a NAMESPACE column in front."""
    columns = _columns(kind)
    front = ["NAMESPACE"] if namespaces else []
    header = [*front, *columns.header, *(columns.wide_header if wide else ())]
    rows = []
    for record in records:
        row = [*([record.meta.namespace] if namespaces else []), *columns.row(scene, record)]
        rows.append([*row, *(columns.wide_row(scene, record) if wide else [])])
    return header, rows


def event_rows(events: Sequence[Event], now_s: float, *, namespaces: bool) -> tuple[Row, list[Row]]:
    """Events, oldest first."""
    header = [*(["NAMESPACE"] if namespaces else []), "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    rows = []
    for event in events:
        seen = age(now_s - event.wall_s)
        if event.count > 1:
            seen = f"{seen} (x{event.count} over {age(now_s - event.first_wall_s)})"
        row = [seen, "Warning" if event.warning else "Normal", printable(event.reason, 60)]
        row += [f"{event.kind.lower()}/{printable(event.name, 80)}", printable(event.message, 400)]
        rows.append([*([event.namespace] if namespaces else []), *row])
    return header, rows


@dataclass(frozen=True, slots=True)
class LabelColumns:
    """A column for each of `keys`, and one with all labels."""

    keys: tuple[str, ...] = ()
    all: bool = False

    @property
    def header(self) -> list[str]:
        return [*(key.rpartition("/")[2].upper() for key in self.keys), *(["LABELS"] if self.all else [])]

    def row(self, labels: Mapping[str, str]) -> list[str]:
        every = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
        cells = [*(labels.get(key, "") for key in self.keys), *([every] if self.all else [])]
        return [printable(cell, 1000) for cell in cells]


def parse_label_columns(given: Sequence[str], *, every: bool) -> LabelColumns:
    """-L app,tier -L zone. Raises UsageError for an empty key."""
    keys = [key.strip() for text in given for key in text.removeprefix("=").split(",")]
    if not all(keys):
        raise UsageError(f"-L {','.join(given)!r} has an empty label", hint="for example -L app,tier")
    return LabelColumns(tuple(keys), every)


def node_words(scene: Scene, node: Node) -> str:
    """The STATUS of a node: Ready, Unknown,SchedulingDisabled …"""
    view = scene.views.get(node.meta.name)
    state = view.state if view is not None else "Unknown"
    return f"{state},SchedulingDisabled" if node.cordoned else state


def addresses_of(scene: Scene, pod: Pod) -> list[str]:
    """What a user can open: one address for each host port."""
    node = scene.world.nodes.get(pod.node)
    spec = _spec(scene, pod)
    if node is None:
        return []
    found = []
    for container in spec.get("containers") or ():
        for port in container.get("ports") or ():
            number = port.get("hostPort") or (port.get("containerPort") if spec.get("hostNetwork") else None)
            if not number:
                continue
            given = port.get("hostIP")
            host = node.address if given in (None, "", "0.0.0.0", "::") else str(given)  # noqa: S104  (compared with)
            place = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
            if (port.get("protocol") or "TCP") == "TCP":
                found.append(f"{'https' if number in (443, 8443) else 'http'}://{place}")
            else:
                found.append(f"{str(port['protocol']).lower()}://{place}")
    return found


def restarts_of(scene: Scene, pod: Pod) -> str:
    """How often containers were restarted, and how long ago the last time was: 3 (2m ago). Init containers count until they are through."""
    if pod.report is None:
        return "0"
    sidecars = sidecars_of(_spec(scene, pod))
    initialized = is_initialized(pod.report, sidecars)
    counted = [item for item in pod.report.containers if item.name in sidecars or item.init is not initialized]
    count = sum(item.restarts for item in counted)
    last_s = max((item.last_finished_wall_s for item in counted), default=0.0)
    return f"{count} ({age(scene.now.wall_s - last_s)} ago)" if count and last_s else str(count)


def _spec(scene: Scene, pod: Pod) -> Mapping[str, Any]:
    template: Mapping[str, Any] = scene.template(pod)
    spec: Mapping[str, Any] = template.get("spec") or {}
    return spec


# ---- kinds ----


def _columns(kind: str) -> Columns:
    if kind in _COLUMNS:
        return _COLUMNS[kind]
    if kind in POLICIES:
        from controller.cli import scaling_views

        return scaling_views.COLUMNS[kind]
    if kind == "PersistentVolumeClaim":
        from controller.cli.claim_views import CLAIM_COLUMNS

        return CLAIM_COLUMNS
    from controller.cli.workload_views import COLUMNS

    return COLUMNS[kind]


def _pod(scene: Scene, pod: Pod) -> Row:
    spec = _spec(scene, pod)
    sidecars = sidecars_of(spec)
    told = pod.report.containers if pod.report else ()
    containers = [item for item in told if not item.init or item.name in sidecars]
    count = len(spec.get("containers") or ()) + len(sidecars) or len(containers)
    unseen = scene.is_unseen(pod)
    ready = 0 if unseen or pod.lost else sum(item.ready for item in containers)
    word = scene.word(pod)
    return [pod.meta.name, f"{ready}/{count}", word, restarts_of(scene, pod), age(scene.age_s(pod.meta.created))]


def _pod_wide(scene: Scene, pod: Pod) -> Row:
    address = printable(pod.report.ip, 45) if pod.report and pod.report.ip else ""
    return [address, pod.node, ",".join(addresses_of(scene, pod))]


def _deployment(scene: Scene, record: Deployment) -> Row:
    status = record.status
    ready = f"{status.ready}/{desired_replicas(record)}"
    return [
        record.meta.name,
        ready,
        str(status.updated),
        str(status.available),
        age(scene.age_s(record.meta.created)),
    ]


def _deployment_wide(scene: Scene, record: Deployment) -> Row:
    spec = record.source.get("spec") or {}
    return [*images_of(spec.get("template") or {}), selector_text(spec.get("selector") or {})]


def _replica_set(scene: Scene, record: ReplicaSet) -> Row:
    pods = [pod for pod in scene.owned(record) if pod.stop is None and pod.lost is None]
    ready = sum(bool(pod.report and pod.report.ready) and not scene.is_unseen(pod) for pod in pods)
    return [
        record.meta.name,
        str(record.replicas),
        str(len(pods)),
        str(ready),
        age(scene.age_s(record.meta.created)),
    ]


def _replica_set_wide(scene: Scene, record: ReplicaSet) -> Row:
    return [*images_of(record.template), selector_text(record.selector)]


def _node(scene: Scene, node: Node) -> Row:
    name = node.meta.name
    seen = scene.seen(name)
    agent = printable(seen.version, 80)[:7] if seen else ""
    podman = printable(seen.capacity.podman, 20) if seen else ""
    return [
        name,
        node_words(scene, node),
        str(len(scene.world.bound_to.get(name, ()))),
        age(scene.age_s(node.meta.created)),
        agent or "<unknown>",
        podman or "<unknown>",
        node.address,
    ]


def _node_wide(scene: Scene, node: Node) -> Row:
    seen = scene.seen(node.meta.name)
    if seen is None:
        return ["<unknown>"] * 5
    room = seen.capacity
    mode = "rootless" if room.rootless else "root"
    memory = f"{room.memory_bytes / 2**30:.1f}Gi"
    return [mode, printable(room.os, 50), printable(room.kernel, 50), f"{room.cpu_m / 1000:g}", memory]


def _config_map(scene: Scene, record: Declared) -> Row:
    count = len(record.source.get("data") or {}) + len(record.source.get("binaryData") or {})
    return [record.meta.name, str(count), age(scene.age_s(record.meta.created))]


def _secret(scene: Scene, record: Declared) -> Row:
    kind = str(record.source.get("type") or "Opaque")
    return [record.meta.name, kind, str(len(record.source.get("data") or {})), age(scene.age_s(record.meta.created))]


def _namespace(scene: Scene, record: Declared) -> Row:
    status = "Terminating" if record.meta.deleting else "Active"
    created = record.meta.created
    return [record.meta.name, status, age(scene.age_s(created)) if created.wall_s else "<unknown>"]


def images_of(template: Mapping[str, Any]) -> Row:
    containers = (template.get("spec") or {}).get("containers") or ()
    return [",".join(str(item.get(field, "")) for item in containers) for field in ("name", "image")]


def _priority_class(scene: Scene, record: Declared) -> Row:
    source = record.source
    default = "true" if source.get("globalDefault") else "false"
    policy = str(source.get("preemptionPolicy") or "PreemptLowerPriority")
    return [record.meta.name, str(source.get("value")), default, age(scene.age_s(record.meta.created)), policy]


def _resource_quota(scene: Scene, record: Declared) -> Row:
    from controller.cli.policy_views import quota_row

    return quota_row(scene, record)


def _limit_range(scene: Scene, record: Declared) -> Row:
    from controller.cli.policy_views import limit_row

    return limit_row(scene, record)


def selector_text(selector: Mapping[str, Any]) -> str:
    """A label selector as kubectl writes it: app=web,tier in (a,b)."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for item in selector.get("matchExpressions") or ():
        values = ",".join(item.get("values") or ())
        words = {"In": f"in ({values})", "NotIn": f"notin ({values})", "Exists": ""}
        parts.append(
            f"{item['key']} {words[item['operator']]}".rstrip() if item["operator"] in words else f"!{item['key']}"
        )
    return ",".join(parts)


_COLUMNS: Mapping[str, Columns] = {
    "Pod": Columns(("NAME", "READY", "STATUS", "RESTARTS", "AGE"), _pod, ("IP", "NODE", "OPEN"), _pod_wide),
    "Deployment": Columns(
        ("NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"),
        _deployment,
        ("CONTAINERS", "IMAGES", "SELECTOR"),
        _deployment_wide,
    ),
    "ReplicaSet": Columns(
        ("NAME", "DESIRED", "CURRENT", "READY", "AGE"),
        _replica_set,
        ("CONTAINERS", "IMAGES", "SELECTOR"),
        _replica_set_wide,
    ),
    "Node": Columns(
        ("NAME", "STATUS", "PODS", "AGE", "AGENT", "PODMAN", "ADDRESS"),
        _node,
        ("MODE", "OS", "KERNEL", "CPU", "MEMORY"),
        _node_wide,
    ),
    "ConfigMap": Columns(("NAME", "DATA", "AGE"), _config_map),
    "Secret": Columns(("NAME", "TYPE", "DATA", "AGE"), _secret),
    "Namespace": Columns(("NAME", "STATUS", "AGE"), _namespace),
    "ResourceQuota": Columns(("NAME", "AGE", "REQUEST", "LIMIT"), _resource_quota),
    "LimitRange": Columns(("NAME", "CREATED AT"), _limit_range),
    "PriorityClass": Columns(("NAME", "VALUE", "GLOBAL-DEFAULT", "AGE", "PREEMPTIONPOLICY"), _priority_class),
}
