"""What `describe` prints: one object with all that is known of it. Pure. What hosts say is made printable here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from controller.cli.objects import node_conditions, timestamp, why_unplaced
from controller.cli.output import age, table
from controller.cli.scene import Scene
from controller.cli.tables import addresses_of, event_rows, node_words, selector_text
from controller.decide.owners import pins_at, template_key
from controller.decide.standing import desired_replicas, progress_of
from controller.decide.verbs import revisions_of
from controller.model import quantity
from controller.model.cluster import Declared, Deployment, Node, Pod, Record, ReplicaSet, StatusCondition, VolumeClaim
from controller.model.plan import is_policy
from controller.model.text import printable
from nodeagent.protocol import ContainerReport

if TYPE_CHECKING:
    from controller.act.store import Event
    from controller.model.workloads import Revision, Workload

Lines = list[str]
_WIDTH = 18


def describe(scene: Scene, record: Record, events: Sequence[Event]) -> str:
    """All about one object; `events` are those of this object, oldest first."""
    lines = _head(scene, record)
    match record:
        case Pod():
            lines += _pod(scene, record)
        case Deployment():
            lines += _deployment(scene, record)
        case ReplicaSet():
            lines += _replica_set(scene, record)
        case Node():
            lines += _node(scene, record)
        case Declared():
            lines += _declared(scene, record)
        case _ if is_policy(record):
            from controller.cli import scaling_views

            lines += [_field(name, printable(text, 400)) for name, text in scaling_views.details_of(scene, record)]
        case VolumeClaim():
            from controller.cli.claim_views import details_of_claim

            lines += [_field(name, printable(text)) for name, text in details_of_claim(scene, record)]
        case _:
            lines += _workload(scene, record)
    if events:
        header, rows = event_rows(events, scene.now.wall_s, namespaces=False)
        place = header.index("OBJECT")
        shorter = [[cell for column, cell in enumerate(row) if column != place] for row in (header, *rows)]
        lines += ["Events:", *_indented(table(shorter[0], shorter[1:]).splitlines())]
    else:
        lines.append("Events:           <none>")
    return "\n".join(lines)


def _head(scene: Scene, record: Record) -> Lines:
    meta = record.meta
    lines = [_field("Name", meta.name)]
    if meta.namespace:
        lines.append(_field("Namespace", meta.namespace))
    created = f"{timestamp(meta.created.wall_s)} ({age(scene.age_s(meta.created))} ago)"
    lines.append(_field("Created", created))
    labels = {**record.labels, **meta.labels} if isinstance(record, Node) else meta.labels
    lines += _pairs("Labels", labels) + _pairs("Annotations", meta.annotations)
    if meta.owner is not None:
        lines.append(_field("Controlled by", f"{meta.owner.kind}/{meta.owner.name}"))
    if meta.deleting is not None:
        lines.append(_field("Deleting", f"since {age(scene.age_s(meta.deleting))}"))
    return lines


# ---- pods ----


def _pod(scene: Scene, pod: Pod) -> Lines:
    report = pod.report
    word = scene.word(pod)
    node = scene.world.nodes.get(pod.node)
    lines = [_field("Status", word)]
    if report is not None and (report.reason or report.message):
        lines.append(_field("Reason", f"{printable(report.reason, 60)} {printable(report.message)}".strip()))
    lines.append(_field("Node", f"{pod.node} ({node.address})" if node else pod.node or "<none>"))
    lines += _placing(scene, pod)
    if pod.decision:
        lines.append(_field("Chosen by", printable(pod.decision)))
    if pod.stop is not None:
        lines.append(_field("Stopping", f"since {age(scene.age_s(pod.stop.moment))}: {printable(pod.stop.because)}"))
    if pod.lost is not None:
        lines.append(_field("Lost", f"{age(scene.age_s(pod.lost))} ago, with its node; it is replaced"))
    lines.append(_field("IP", printable(report.ip, 45) if report and report.ip else "<none>"))
    lines += [_field("Open", address) for address in addresses_of(scene, pod)]
    template: Mapping[str, Any] = scene.template(pod)
    spec: Mapping[str, Any] = template.get("spec") or {}
    told = {item.name: item for item in report.containers} if report else {}
    for title, field in (("Init containers", "initContainers"), ("Containers", "containers")):
        containers = spec.get(field) or ()
        if containers:
            lines.append(f"{title}:")
        for container in containers:
            lines += _container(scene, container, told.get(str(container.get("name"))))
    lines += _pins(pins_at(scene.world, template_key(pod)))
    lines += _volumes(spec)
    lines += _pairs("Node selector", spec.get("nodeSelector") or {}, empty=False)
    return lines


def _placing(scene: Scene, pod: Pod) -> Lines:
    """Why a pod has no node, with the reason of each."""
    why = why_unplaced(scene, pod)
    if not why:
        return []
    lines = [_field("Not placed", printable(why))]
    if pod.nominated:
        lines.append(_field("Nominated node", f"{pod.nominated}: less important pods make room there"))
    unplaced = scene.unplaced.get(pod.meta.uid)
    if unplaced is not None:
        lines += _indented([f"{name}: {printable(reason)}" for name, reason in sorted(unplaced.rejected.items())], 4)
    return lines


def _container(scene: Scene, written: Mapping[str, Any], told: ContainerReport | None) -> Lines:
    lines = [f"  {written.get('name')}:", _field("Image", str(written.get("image")), 4)]
    if told is not None:
        lines += _told(scene, told)
    ports = [_port(port) for port in written.get("ports") or ()]
    if ports:
        lines.append(_field("Ports", ", ".join(ports), 4))
    for title, field in (("Command", "command"), ("Args", "args")):
        if written.get(field):
            lines.append(_field(title, " ".join(map(str, written[field])), 4))
    resources = written.get("resources") or {}
    for title, field in (("Requests", "requests"), ("Limits", "limits")):
        if resources.get(field):
            lines.append(_field(title, ", ".join(f"{key} {item}" for key, item in resources[field].items()), 4))
    for title, field in (("Startup", "startupProbe"), ("Readiness", "readinessProbe"), ("Liveness", "livenessProbe")):
        if written.get(field):
            lines.append(_field(title, probe_text(written[field]), 4))
    lines += _environment(written)
    for mount in written.get("volumeMounts") or ():
        mode = " (read only)" if mount.get("readOnly") else ""
        lines.append(_field("Mount", f"{mount.get('mountPath')} from {mount.get('name')}{mode}", 4))
    return lines


def _told(scene: Scene, told: ContainerReport) -> Lines:
    """What the agent says of a container."""
    now_s = scene.now.wall_s
    lines = []
    if told.image_id:
        lines.append(_field("Image ID", printable(told.image_id, 80), 4))
    word = printable(f"{told.state} {told.reason}".strip(), 100)
    if told.state == "running" and told.started_wall_s:
        word += f", since {age(now_s - told.started_wall_s)}"
    if told.state == "terminated":
        code = "unknown" if told.exit_code is None else str(told.exit_code)
        word += f", exit code {code}"
        if told.finished_wall_s:
            word += f", {age(now_s - told.finished_wall_s)} ago"
    lines.append(_field("State", word, 4))
    if told.message:
        lines.append(_field("Message", printable(told.message), 4))
    if told.last_reason or told.last_exit_code is not None:
        code = "unknown" if told.last_exit_code is None else str(told.last_exit_code)
        when = f", {age(now_s - told.last_finished_wall_s)} ago" if told.last_finished_wall_s else ""
        last = f"{printable(told.last_reason, 60)} exit code {code}{when}".strip()
        lines.append(_field("Last state", last, 4))
    lines.append(_field("Ready", "yes" if told.ready else "no", 4))
    lines.append(_field("Restarts", str(told.restarts), 4))
    return lines


def _port(port: Mapping[str, Any]) -> str:
    host = f" (host port {port['hostPort']})" if port.get("hostPort") else ""
    name = f"{port['name']} " if port.get("name") else ""
    return f"{name}{port.get('containerPort')}/{port.get('protocol') or 'TCP'}{host}"


def probe_text(probe: Mapping[str, Any]) -> str:
    """One line: http-get :8080/ready every 5s, timeout 1s, after 3 failures."""
    if http := probe.get("httpGet"):
        scheme = str(http.get("scheme") or "HTTP").lower()
        what = f"{scheme}-get {http.get('host') or ''}:{http.get('port')}{http.get('path') or '/'}"
    elif tcp := probe.get("tcpSocket"):
        what = f"tcp {tcp.get('host') or ''}:{tcp.get('port')}"
    elif grpc := probe.get("grpc"):
        what = f"grpc :{grpc.get('port')} {grpc.get('service') or ''}".rstrip()
    else:
        what = f"exec {' '.join(map(str, (probe.get('exec') or {}).get('command') or ()))}"
    delay = f", first after {probe['initialDelaySeconds']}s" if probe.get("initialDelaySeconds") else ""
    period, timeout = probe.get("periodSeconds") or 10, probe.get("timeoutSeconds") or 1
    return f"{what} every {period}s, timeout {timeout}s, fails after {probe.get('failureThreshold') or 3}{delay}"


def _environment(written: Mapping[str, Any]) -> Lines:
    """Values as the manifest has them; of secrets and config maps their names only."""
    lines = []
    for variable in written.get("env") or ():
        source = variable.get("valueFrom") or {}
        value = str(variable.get("value", ""))
        if reference := source.get("secretKeyRef"):
            value = f"<key {reference.get('key')} of secret {reference.get('name')}>"
        elif reference := source.get("configMapKeyRef"):
            value = f"<key {reference.get('key')} of config map {reference.get('name')}>"
        elif reference := source.get("fieldRef"):
            value = f"<{reference.get('fieldPath')}>"
        elif reference := source.get("resourceFieldRef"):
            value = f"<{reference.get('resource')}>"
        lines.append(_field("Env", f"{variable.get('name')}={printable(value)}", 4))
    for item in written.get("envFrom") or ():
        for field, word in (("configMapRef", "config map"), ("secretRef", "secret")):
            if item.get(field):
                lines.append(_field("Env", f"<all of {word} {item[field].get('name')}>", 4))
    return lines


def _volumes(spec: Mapping[str, Any]) -> Lines:
    lines = []
    for volume in spec.get("volumes") or ():
        kind = next((key for key in volume if key != "name"), "emptyDir")
        source = volume.get(kind) or {}
        named = (
            source.get("claimName")
            or source.get("name")
            or source.get("secretName")
            or source.get("path")
            or source.get("medium")
            or ""
        )
        lines.append(_field(str(volume.get("name")), f"{kind} {named}".rstrip(), 2))
    return ["Volumes:", *lines] if lines else []


# ---- deployments and replica sets ----


def _deployment(scene: Scene, record: Deployment) -> Lines:
    spec = record.source.get("spec") or {}
    status = record.status
    progress = progress_of(scene.world, record)
    counts = (
        f"{desired_replicas(record)} desired, {status.updated} updated, {status.replicas} total, "
        f"{status.available} available, {status.replicas - status.available} unavailable"
    )
    lines = [
        _field("Selector", selector_text(spec.get("selector") or {})),
        _field("Replicas", counts),
        _field("Strategy", _strategy(spec)),
        _field("Progress", progress.text),
    ]
    lines += [_field("Trouble", printable(trouble)) for trouble in progress.trouble]
    lines += _conditions(scene, status.conditions)
    for incident in record.incidents:
        told = (
            f"{age(scene.age_s(incident.moment))} ago, revision {incident.revision} was given up for {incident.back_to}"
        )
        lines.append(_field("Incident", f"{told}: {incident.reason}"))
        lines += _indented([printable(line) for line in (incident.message, *incident.timeline)], 4)
    lines += template_lines(spec.get("template") or {})
    revisions = sorted(revisions_of(scene.world, record), key=lambda item: -item.revision)
    if revisions:
        rows = [_revision(scene, record, item) for item in revisions]
        header = ["REVISION", "REPLICASET", "REPLICAS", "READY", "IMAGES", "CHANGE-CAUSE"]
        lines += ["Revisions:", *_indented(table(header, rows).splitlines())]
    return lines


def _conditions(scene: Scene, conditions: Sequence[StatusCondition]) -> Lines:
    rows = [
        [item.kind, str(item.status), item.reason, age(scene.age_s(item.moment)), printable(item.message)]
        for item in conditions
    ]
    header = ["TYPE", "STATUS", "REASON", "FOR", "MESSAGE"]
    return ["Conditions:", *_indented(table(header, rows).splitlines())] if rows else []


def _workload(scene: Scene, record: Workload | Revision) -> Lines:
    """A Job or the like."""
    from controller.cli.workload_views import details_of
    from controller.model.workloads import Revision

    if isinstance(record, Revision):
        return template_lines(record.written) + _pins(record.images)
    lines = [_field(name, printable(text)) for name, text in details_of(scene, record)]
    trouble = progress_of(scene.world, record).trouble
    lines += [_field("Trouble", printable(text)) for text in trouble]
    lines += _conditions(scene, record.status.conditions)
    lines += template_lines(record.template)
    rows = [
        [
            pod.meta.name,
            scene.word(pod),
            pod.node,
            _exit_codes(pod),
        ]
        for pod in scene.owned(record)
    ]
    return (
        [*lines, "Pods:", *_indented(table(["NAME", "STATUS", "NODE", "EXIT CODES"], rows).splitlines())]
        if rows
        else lines
    )


def _exit_codes(pod: Pod) -> str:
    containers = pod.report.containers if pod.report else ()
    return ", ".join(
        f"{printable(item.name, 63)} {item.exit_code}" for item in containers if item.exit_code is not None
    )


def _revision(scene: Scene, record: Deployment, item: ReplicaSet) -> list[str]:
    pods = scene.owned(item)
    ready = sum(bool(pod.report and pod.report.ready) and not scene.is_unseen(pod) for pod in pods)
    current = " (current)" if item.template_hash == record.template_hash else ""
    images = ",".join(str(one.get("image")) for one in (item.template.get("spec") or {}).get("containers") or ())
    return [f"{item.revision}{current}", item.meta.name, str(item.replicas), str(ready), images, item.change_cause]


def _strategy(spec: Mapping[str, Any]) -> str:
    strategy = spec.get("strategy") or {}
    kind = strategy.get("type") or "RollingUpdate"
    if kind != "RollingUpdate":
        return str(kind)
    rolling = strategy.get("rollingUpdate") or {}
    unavailable, surge = rolling.get("maxUnavailable", "25%"), rolling.get("maxSurge", "25%")
    ready = f", min ready {spec['minReadySeconds']}s" if spec.get("minReadySeconds") else ""
    return f"RollingUpdate, at most {unavailable} unavailable, {surge} surge{ready}"


def _replica_set(scene: Scene, record: ReplicaSet) -> Lines:
    pods = scene.owned(record)
    words: dict[str, int] = {}
    for pod in pods:
        word = scene.word(pod)
        words[word] = words.get(word, 0) + 1
    lines = [
        _field("Selector", selector_text(record.selector)),
        _field("Replicas", f"{len(pods)} current / {record.replicas} desired"),
        _field("Pods", ", ".join(f"{count} {word}" for word, count in sorted(words.items())) or "<none>"),
    ]
    if record.revision:
        lines.append(_field("Revision", str(record.revision)))
    if record.refused:
        lines.append(_field("Refused", record.refused))
    return lines + template_lines(record.template) + _pins(record.images)


def _pins(images: Mapping[str, str] | None) -> Lines:
    """Which bytes tags stand for; those that go on as tags are not named."""
    return _pairs("Images are", {image: pin for image, pin in (images or {}).items() if pin}, empty=False)


def template_lines(template: Mapping[str, Any]) -> Lines:
    lines = ["Pod template:"]
    spec = template.get("spec") or {}
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or ():
            word = " (init)" if field == "initContainers" else ""
            lines += _indented([f"{container.get('name')}{word}:"])
            lines += _container_of_template(container)
    return lines


def _container_of_template(container: Mapping[str, Any]) -> Lines:
    """As in a pod, without what only a running one has."""
    none: Any = None
    return _container(none, container, None)[1:]


# ---- nodes and the rest ----


def _node_volumes(scene: Scene, node: Node) -> Lines:
    """Storage that is declared, the claims on the node, and volumes that no claim knows: of another store, or of a claim that went without
    its host."""
    places = [f"{name} at {place.path or 'Podman'}" for name, place in sorted(node.storage.items())]
    lines = [_field("Storage", ", ".join(places))] if places else []
    claims = list(scene.world.claims.values())
    lines += [
        _field("Volume claim", claim.meta.key)
        for claim in sorted(claims, key=lambda claim: claim.meta.key)
        if claim.node == node.meta.name
    ]
    known = {name for claim in claims for name in (claim.volume, *claim.stale)}
    seen = scene.seen(node.meta.name)
    strange = [item for name, item in sorted((seen.volumes or {}).items()) if name not in known] if seen else []
    return [
        *lines,
        *(
            _field("Of no claim", f"volume {printable(item.name, 120)} at {printable(item.path, 200)}")
            for item in strange
        ),
    ]


def _node(scene: Scene, node: Node) -> Lines:
    name = node.meta.name
    view = scene.views.get(name)
    seen = scene.seen(name)
    lines = [_field("Status", node_words(scene, node))]
    if view is not None and view.why:
        lines.append(_field("Because", printable(view.why)))
    if node.missing is not None:
        since = f"{age(scene.age_s(node.missing.since))}, {node.missing.polls} polls: {printable(node.missing.why)}"
        lines.append(_field("Unseen for", since))
    if node.given_up is not None:
        lines.append(_field("Given up", f"{age(scene.age_s(node.given_up))} ago: its pods were replaced"))
    lines += [_field("Address", node.address), _field("Pod subnet", node.subnet)]
    taints = [f"{taint.key}={taint.value}:{taint.effect}".replace("=:", ":") for taint in node.taints]
    lines.append(_field("Taints", ", ".join(taints) or "<none>"))
    if seen is not None:
        room = seen.capacity
        lines += [
            _field(
                "System", f"{printable(room.os, 60)}, {printable(room.arch, 20)}, kernel {printable(room.kernel, 60)}"
            ),
            _field(
                "Podman",
                f"{printable(room.podman, 20)}, cgroups {printable(room.cgroups, 10)}{', rootless' if room.rootless else ''}",
            ),
            _field(
                "Agent", f"{printable(seen.version, 80)[:12]}, Python {printable(room.python, 20)}, id {seen.agent}"
            ),
            _field("CPU", quantity.format_cpu(room.cpu_m)),
            _field("Memory", f"{room.memory_bytes / 2**30:.1f}Gi"),
            _field("Disk free", f"{room.disk_free_bytes / 2**30:.1f}Gi"),
            _field("Pods", f"at most {room.pods}"),
            _field("Images", str(len(seen.images))),
            *_node_volumes(scene, node),
        ]
    rows = [
        [item["type"], item["status"], item.get("reason", ""), printable(item.get("message", ""))]
        for item in node_conditions(scene, node)
    ]
    lines += ["Conditions:", *_indented(table(["TYPE", "STATUS", "REASON", "MESSAGE"], rows).splitlines())]
    pods = sorted(scene.world.bound_to.get(name, ()), key=lambda pod: pod.meta.key)
    if pods:
        rows = [
            [
                pod.meta.namespace,
                pod.meta.name,
                scene.word(pod),
            ]
            for pod in pods
        ]
        lines += ["Pods:", *_indented(table(["NAMESPACE", "NAME", "STATUS"], rows).splitlines())]
    return lines


def _declared(scene: Scene, record: Declared) -> Lines:
    if record.meta.kind in ("Namespace", "ResourceQuota", "LimitRange"):
        return _rules(scene, record)
    if record.meta.kind == "Secret":
        keys = [str(key) for key in record.source.get("data") or {}]
        return [
            _field("Type", str(record.source.get("type") or "Opaque")),
            _field("Keys", ", ".join(keys) or "<none>"),
        ]
    if record.meta.kind == "PriorityClass":
        lines = [_field("Value", str(record.source.get("value")))]
        lines.append(_field("Global default", "yes" if record.source.get("globalDefault") else "no"))
        lines.append(_field("Preemption", str(record.source.get("preemptionPolicy") or "PreemptLowerPriority")))
        return [*lines, _field("Description", printable(str(record.source.get("description") or "<none>")))]
    lines = ["Data:"]
    for key, text in (record.source.get("data") or {}).items():
        lines += [f"  {key}:", *_indented([printable(line, 200) for line in str(text).splitlines()], 4)]
    lines += [f"  {key}: <binary>" for key in record.source.get("binaryData") or {}]
    return lines


def _rules(scene: Scene, record: Declared) -> Lines:
    from controller.cli import policy_views

    if record.meta.kind == "ResourceQuota":
        return policy_views.quota_lines(scene.world, record)
    if record.meta.kind == "LimitRange":
        return policy_views.limit_lines(record)
    status = _field("Status", "Terminating" if record.meta.deleting else "Active")
    return [status, *policy_views.namespace_lines(scene.world, record)]


# ---- layout ----


def _field(name: str, text: str, indent: int = 0) -> str:
    return f"{' ' * indent}{name + ':':<{_WIDTH - indent}}{text}"


def _pairs(name: str, pairs: Mapping[str, Any], *, empty: bool = True) -> Lines:
    if not pairs:
        return [_field(name, "<none>")] if empty else []
    first, *rest = [f"{key}={printable(str(item), 200)}" for key, item in sorted(pairs.items())]
    return [_field(name, first), *(" " * _WIDTH + line for line in rest)]


def _indented(lines: Sequence[str], width: int = 2) -> Lines:
    return [f"{' ' * width}{line}" for line in lines]
