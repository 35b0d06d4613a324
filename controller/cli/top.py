"""`top`: what pods and nodes use now, by their agents' latest samples. Columns and objects are kubectl's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import options
from controller.cli.read import exit_for, tell_unseen
from controller.cli.running import run
from controller.model.text import printable

if TYPE_CHECKING:
    from controller.cli.scene import Scene
    from controller.cli.wiring import Wiring
    from controller.model.cluster import Pod, Seen
    from nodeagent.protocol import Sample

top_app = typer.Typer(help="What pods and nodes use now.", no_args_is_help=True, rich_markup_mode=None)

SortBy = Annotated[str, typer.Option("--sort-by", metavar="cpu|memory", help="The largest first; else by name.")]


def register(app: typer.Typer) -> None:
    app.add_typer(top_app, name="top")


@top_app.command("pods")
def top_pods(
    containers: Annotated[bool, typer.Option("--containers", help="Each container by itself.")] = False,
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
    selector: options.Selector = "",
    sort_by: SortBy = "",
    output: options.Output = "table",
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Show what pods use: processor over the last 15 s, memory without the file cache that can be dropped.

    Exit code 4 when hosts could not be asked.

    Examples:
        sshoal top pods -A --sort-by memory
        sshoal top pods -n shop
    """
    from controller.cli.output import check_output, emit, is_document
    from controller.model.selectors import parse_selector

    check_output(output)
    check_sort(sort_by)
    matches = parse_selector(selector)
    scene = _look(context_dir, inventory)
    space = "" if all_namespaces else namespace
    pods = [
        pod
        for pod in sorted(scene.world.pods.values(), key=lambda pod: pod.meta.key)
        if (not space or pod.meta.namespace == space) and matches(pod.meta.labels) and pod.node
    ]
    rows = sorted_uses(pod_uses(scene, pods), sort_by)
    text = pods_text(scene, rows, output, containers=containers, namespaces=all_namespaces)
    if rows or is_document(output):
        emit(text, output)
    else:
        print("nothing is known yet of what pods use" if pods else "no pods found", file=sys.stderr)
    for pod in waiting_for_samples(scene, pods, rows):
        print(f"note: {pod.meta.key} has no figures yet: they come half a minute after its start", file=sys.stderr)
    exit_for(scene)


@top_app.command("nodes")
def top_nodes(
    sort_by: SortBy = "",
    output: options.Output = "table",
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Show what nodes use, all that runs on them included, and how much of what they have that is.

    Exit code 4 when hosts could not be asked.

    Examples:
        sshoal top nodes
        sshoal top nodes --sort-by cpu
    """
    from controller.cli.output import check_output, emit

    check_output(output)
    check_sort(sort_by)
    scene = _look(context_dir, inventory)
    emit(nodes_text(scene, sort_by, output), output)
    exit_for(scene)


def check_sort(sort_by: str) -> None:
    from controller.model.errors import UsageError

    if sort_by not in ("", "cpu", "memory"):
        raise UsageError(f"--sort-by {sort_by} is no column to sort by", hint="cpu or memory")


def _look(context_dir: str, inventory: list[str] | None) -> Scene:
    from controller.cli.scene import looking
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory)
    wiring.store  # noqa: B018  (no store: that is the error to tell, before hosts are asked)

    async def look(wiring: Wiring) -> Scene:
        async with looking(wiring, usage=True) as see:
            return await see(0.0)

    scene = run(look(wiring))
    tell_unseen(scene)
    return scene


# ---- what is used ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Use:
    """What one pod uses, by container."""

    pod: Pod
    containers: Mapping[str, Sample]

    @property
    def cpu_u(self) -> int:
        return sum(one.cpu_u for one in self.containers.values())

    @property
    def memory_bytes(self) -> int:
        return sum(one.memory_bytes for one in self.containers.values())


def pod_uses(scene: Scene, pods: Sequence[Pod]) -> list[Use]:
    """Those of which an agent has told something, in the order given."""
    told: dict[str, dict[str, Sample]] = {}
    for node, sighting in scene.world.sightings.items():
        usage = getattr(sighting, "usage", None)
        for one in usage.containers if usage is not None else ():
            pod = scene.world.pods.get(one.uid)
            if one.samples and pod is not None and pod.node == node:  # a host may say what it likes of others' pods
                told.setdefault(one.uid, {})[printable(one.container, 63)] = one.samples[-1]
    return [Use(pod, told[pod.meta.uid]) for pod in pods if pod.meta.uid in told and not scene.is_unseen(pod)]


def waiting_for_samples(scene: Scene, pods: Sequence[Pod], uses: Sequence[Use]) -> list[Pod]:
    """Pods that run, and of which nothing is known yet."""
    known = {use.pod.meta.uid for use in uses}
    return [
        pod
        for pod in pods
        if pod.meta.uid not in known and not scene.is_unseen(pod) and pod.report and pod.report.phase == "Running"
    ]


def sorted_uses(uses: Sequence[Use], sort_by: str) -> list[Use]:
    key: Callable[[Use], int] = {"cpu": lambda use: -use.cpu_u, "memory": lambda use: -use.memory_bytes}.get(
        sort_by, lambda use: 0
    )
    return sorted(uses, key=key)


def pods_text(scene: Scene, uses: Sequence[Use], output: str, *, containers: bool, namespaces: bool) -> str:
    """Table or document."""
    from controller.cli.output import document, table

    if output == "name":
        return "\n".join(f"pod/{use.pod.meta.name}" for use in uses)
    if output not in ("table", "wide"):
        return document(_list("PodMetricsList", [_pod_metrics(scene, use) for use in uses]), output)
    front = ["NAMESPACE"] if namespaces else []
    header = [*front, *(["POD", "NAME"] if containers else ["NAME"]), "CPU(cores)", "MEMORY(bytes)"]
    rows = []
    for use in uses:
        space = [use.pod.meta.namespace] if namespaces else []
        if containers:
            rows += [
                [*space, use.pod.meta.name, name, cpu_text(one.cpu_u), memory_text(one.memory_bytes)]
                for name, one in sorted(use.containers.items())
            ]
        else:
            rows.append([*space, use.pod.meta.name, cpu_text(use.cpu_u), memory_text(use.memory_bytes)])
    return table(header, rows)


def nodes_text(scene: Scene, sort_by: str, output: str) -> str:
    """Table or document. A node that gives no report is there, with nothing known of it."""
    from controller.cli.output import document, table

    told: list[tuple[str, Seen, Sample]] = []
    for name in sorted(scene.world.nodes):
        seen = scene.seen(name)
        if seen is not None and seen.usage is not None and seen.usage.node:
            told.append((name, seen, seen.usage.node[-1]))
    if sort_by:
        told.sort(key=lambda item: -(item[2].cpu_u if sort_by == "cpu" else item[2].memory_bytes))
    silent = sorted(scene.world.nodes.keys() - {name for name, _, _ in told})
    if output == "name":
        return "\n".join(f"node/{name}" for name, _, _ in told)
    if output not in ("table", "wide"):
        return document(_list("NodeMetricsList", [_node_metrics(scene, name, one) for name, _, one in told]), output)
    rows = [
        [
            name,
            cpu_text(one.cpu_u),
            _percent(one.cpu_u, seen.capacity.cpu_m * 1000),
            memory_text(one.memory_bytes),
            _percent(one.memory_bytes, seen.capacity.memory_bytes),
        ]
        for name, seen, one in told
    ]
    rows += [[name, *["<unknown>"] * 4] for name in silent]
    return table(["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], rows)


def cpu_text(cpu_u: int) -> str:
    """Thousandths, as kubectl rounds them: up."""
    return f"{-(-max(0, cpu_u) // 1000)}m"


def memory_text(memory_bytes: int) -> str:
    return f"{max(0, memory_bytes) // 2**20}Mi"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part // whole}%" if whole > 0 else "<unknown>"


def _list(kind: str, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": _METRICS, "kind": kind, "metadata": {}, "items": list(items)}


_METRICS = "metrics.k8s.io/v1beta1"


def _pod_metrics(scene: Scene, use: Use) -> dict[str, Any]:
    meta = use.pod.meta
    head = {"name": meta.name, "namespace": meta.namespace, "labels": dict(meta.labels)}
    newest = max(use.containers.values(), key=lambda one: one.at_s)
    containers = [{"name": name, "usage": _usage(one)} for name, one in sorted(use.containers.items())]
    return {**_metrics(scene, "PodMetrics", head, use.pod.node, newest), "containers": containers}


def _node_metrics(scene: Scene, name: str, one: Sample) -> dict[str, Any]:
    return {**_metrics(scene, "NodeMetrics", {"name": name}, name, one), "usage": _usage(one)}


def _metrics(scene: Scene, kind: str, metadata: dict[str, Any], node: str, newest: Sample) -> dict[str, Any]:
    from controller.cli.objects import timestamp

    seen = scene.seen(node)
    boottime_s = seen.usage.boottime_s if seen is not None and seen.usage is not None else newest.at_s
    return {
        "apiVersion": _METRICS,
        "kind": kind,
        "metadata": metadata,
        "timestamp": timestamp(scene.now.wall_s - max(0.0, boottime_s - newest.at_s)),
        "window": f"{newest.window_s:.3f}s",
    }


def _usage(one: Sample) -> dict[str, str]:
    return {"cpu": f"{max(0, one.cpu_u)}u", "memory": f"{max(0, one.memory_bytes) // 1024}Ki"}
