"""Commands that look: get, describe, events, version. Live by default: agents are asked, nothing is changed, no lock is taken."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options
from controller.cli.running import run, run_until_interrupted

if TYPE_CHECKING:
    from controller.act.store import Event
    from controller.cli.scene import Scene
    from controller.cli.targets import Targets
    from controller.cli.wiring import Wiring
    from controller.model.cluster import Record

Cached = Annotated[bool, typer.Option("--cached", help="From the store alone; no host is asked.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on, and show what changes.")]

_WATCH_S = 2.0


def register(app: typer.Typer) -> None:
    app.command()(get)
    app.command()(describe)
    app.command()(events)
    app.command()(version)


def get(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="KIND [NAME…] | KIND/NAME…",
            help="pods, deployments, statefulsets, daemonsets, jobs, cronjobs, pvc, nodes, configmaps …, events, or all.",
        ),
    ],
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
    selector: options.Selector = "",
    output: options.Output = "table",
    cached: Cached = False,
    watch: Watch = False,
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """List objects, as they are now. Exit code 4 when hosts could not be asked.

    Examples:
        sshoal get pods -o wide
        sshoal get deploy,po -A -l app=web
        sshoal get deployment web -o yaml
        sshoal get pods -o jsonpath='{.items[*].metadata.name}'
    """
    from controller.cli.output import check_output, emit, is_document
    from controller.cli.targets import parse_shown
    from controller.cli.wiring import Wiring

    check_output(output)
    question = _Question(parse_shown(what, "" if all_namespaces else namespace, selector))
    wiring = Wiring.of(context_dir, inventory)
    if watch:
        _refuse_documents(output)
        run_until_interrupted(_watch(wiring, lambda scene: question.table(wiring, scene, output), cached))
        return
    scene = run(_scene(wiring, cached, needs_hosts=question.needs_hosts))
    text = question.answer(wiring, scene, output)
    if text or is_document(output):
        emit(text, output)
    else:
        place = f" in namespace {namespace}" if question.namespaced and not all_namespaces else ""
        print(f"no {question.words} found{place}", file=sys.stderr)
    exit_for(scene)


def describe(
    what: Annotated[
        list[str], typer.Argument(metavar="KIND [NAME…] | KIND/NAME…", help="For example pod web-1, or node/node1.")
    ],
    selector: options.Chosen = None,
    namespace: options.Namespace = "default",
    cached: Cached = False,
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Tell all about objects: fields, conditions, containers, reasons, events.

    Examples:
        sshoal describe pod web-6d4cf56db6-x7k2p
        sshoal describe deployment/web node/node1
        sshoal describe pods -l app=web
    """
    from controller.cli.describe import describe as describe_one
    from controller.cli.scene import events_of
    from controller.cli.targets import parse_shown
    from controller.cli.wiring import Wiring

    targets = parse_shown(what, namespace, selector or "")
    wiring = Wiring.of(context_dir, inventory)
    scene = run(_scene(wiring, cached, needs_hosts=True))
    texts = []
    for record in _chosen(scene, targets):
        meta = record.meta
        stored = wiring.store.events(kind=meta.kind, namespace=meta.namespace, name=meta.name)
        told = [event for event in events_of(scene, stored) if _is_about(event, record)]
        texts.append(describe_one(scene, record, told))
    if not texts:
        print(f"no {_words(targets.kinds)} found", file=sys.stderr)
    else:
        print("\n\n".join(texts))
    exit_for(scene)


def events(
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
    for_: Annotated[str, typer.Option("--for", metavar="KIND/NAME", help="Only of this object.")] = "",
    output: options.Output = "table",
    cached: Cached = False,
    watch: Watch = False,
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Show what happened, oldest first. Events of nodes belong to no namespace and are shown with -A or --for node/NAME.

    Examples:
        sshoal events --for deployment/web
        sshoal events -A --watch
    """
    from controller.cli.names import parse_target
    from controller.cli.output import check_output, emit
    from controller.cli.wiring import Wiring

    check_output(output, ("table", "json", "yaml"))
    target = parse_target(for_, namespace) if for_ else ("", "" if all_namespaces else namespace, "")
    wiring = Wiring.of(context_dir, inventory)
    if watch:
        _refuse_documents(output)
        run_until_interrupted(_watch(wiring, lambda scene: _event_table(wiring, scene, target, all_namespaces), cached))
        return
    scene = run(_scene(wiring, cached, needs_hosts=True))
    found = _events(wiring, scene, target)
    if not found and output == "table":
        print("no events", file=sys.stderr)
    else:
        emit(_event_text(scene, found, output, all_namespaces), output)
    exit_for(scene)


def version(context_dir: options.ContextDir = "") -> None:
    """Show which sshoal this is, and which agent it brings.

    Examples:
        sshoal version
        sshoal version --context staging
    """
    from importlib import metadata

    from controller.act import bundle
    from controller.act.settings import find_context

    print(f"sshoal {metadata.version('sshoal')}")
    print(f"agent  {bundle.build(find_context(context_dir).cache).digest[:12]}")
    print(f"python {sys.version.split()[0]}")


# ---- what is asked for --------------------------------------------------------------------------------------------------


class _Question:
    """Which objects `get` is asked for, and how its answer looks."""

    def __init__(self, targets: Targets) -> None:
        from controller.cli.names import WITHOUT_NAMESPACE
        from controller.cli.targets import ALL

        self._targets = targets
        self.namespaced = not all(kind in WITHOUT_NAMESPACE for kind in targets.kinds)
        self.needs_hosts = any(
            kind in (*ALL, "Node", "Event", "PersistentVolumeClaim", "HorizontalPodAutoscaler")
            for kind in targets.kinds
        )
        self.words = _words(targets.kinds)

    def answer(self, wiring: Wiring, scene: Scene, output: str) -> str:
        """Text in the format asked for; "" when nothing was found."""
        from controller.cli.names import resource
        from controller.cli.objects import event_object, to_list, to_object
        from controller.cli.output import check_output, document

        if output in ("table", "wide"):
            return self.table(wiring, scene, output)
        if self._targets.kinds == ("Event",):
            check_output(output, ("table", "wide", "json", "yaml"))
            found = [event_object(event) for event in _events(wiring, scene, ("", self._targets.namespace, ""))]
            return document(to_list(found), output)
        chosen = _chosen(scene, self._targets)
        if output == "name":
            return "\n".join(f"{resource(record.meta.kind)}/{record.meta.name}" for record in chosen)
        objects = [to_object(scene, record) for record in chosen]
        single = len(self._targets.names or ()) == 1 and len(objects) == 1
        return document(objects[0] if single else to_list(objects), output)

    def table(self, wiring: Wiring, scene: Scene, output: str) -> str:
        from controller.cli.names import WITHOUT_NAMESPACE, resource
        from controller.cli.output import table
        from controller.cli.tables import rows_of

        kinds, namespace = self._targets.kinds, self._targets.namespace
        if kinds == ("Event",):
            return _event_table(wiring, scene, ("", namespace, ""), not namespace)
        chosen = _chosen(scene, self._targets)
        parts = []
        for kind in kinds:
            records = [record for record in chosen if record.meta.kind == kind]
            strangers = _strangers(scene, self._targets) if kind == "Node" else []
            if not records and not strangers:
                continue
            namespaces = not namespace and kind not in WITHOUT_NAMESPACE
            header, rows = rows_of(scene, kind, records, wide=output == "wide", namespaces=namespaces)
            rows += [[*row, *["<unknown>"] * (len(header) - len(row))] for row in strangers]
            if len(kinds) > 1:
                place = 1 if namespaces else 0
                for row in rows:
                    row[place] = f"{resource(kind)}/{row[place]}"
            parts.append(table(header, rows))
        return "\n\n".join(parts)


def _chosen(scene: Scene, targets: Targets) -> list[Record]:
    """Raises NotFound when an object that was named is not there."""
    from dataclasses import replace

    if targets.names is not None:  # hosts of the inventory that are no nodes yet have no records
        known = [
            one for one in targets.names if one[0] != "Node" or one[2] in scene.world.nodes or one[2] not in scene.views
        ]
        targets = replace(targets, names=tuple(known))
    return targets.records(scene.world)


def _strangers(scene: Scene, targets: Targets) -> list[list[str]]:
    """Hosts of the inventory that are no nodes yet: they have no labels."""
    named = None if targets.names is None else {name for kind, _, name in targets.names if kind == "Node"}
    rows = []
    for name, view in scene.views.items():
        if name not in scene.world.nodes and (targets.matches({}) if named is None else name in named):
            host = scene.world.hosts.get(name)
            address = host.address if host else "<unknown>"
            rows.append([name, view.state, "0", "<none>", "<none>", "<none>", address])
    return rows


def _words(kinds: Sequence[str]) -> str:
    return ", ".join(f"{kind.lower()}s" for kind in kinds)


# ---- events -------------------------------------------------------------------------------------------------------------


def _events(wiring: Wiring, scene: Scene, target: tuple[str, str, str]) -> list[Event]:
    from controller.cli.scene import events_of

    kind, namespace, name = target
    stored = wiring.store.events(kind=kind, namespace=namespace, name=name)
    return [
        event
        for event in events_of(scene, stored)
        if (not kind or event.kind == kind)
        and (not namespace or event.namespace == namespace)
        and (not name or event.name == name)
    ]


def _event_table(wiring: Wiring, scene: Scene, target: tuple[str, str, str], namespaces: bool) -> str:
    found = _events(wiring, scene, target)
    return _event_text(scene, found, "table", namespaces) if found else ""


def _event_text(scene: Scene, found: Sequence[Event], output: str, namespaces: bool) -> str:
    from controller.cli.objects import event_object, to_list
    from controller.cli.output import document, table
    from controller.cli.tables import event_rows

    if output == "table":
        return table(*event_rows(found, scene.now.wall_s, namespaces=namespaces))
    return document(to_list([event_object(event) for event in found]), output)


def _is_about(event: Event, record: Record) -> bool:
    meta = record.meta
    return (event.kind, event.namespace, event.name) == (meta.kind, meta.namespace, meta.name)


# ---- looking ------------------------------------------------------------------------------------------------------------


async def _scene(wiring: Wiring, cached: bool, *, needs_hosts: bool) -> Scene:
    """Live where that is asked for, possible, and says more than the store."""
    from controller.cli.scene import looking, stored_scene

    wiring.store  # noqa: B018  (no store: that is the error to tell, before hosts are asked)
    if not cached and needs_hosts and not wiring.context.inventory:
        print("note: no inventory (-i, or sshoal init): this is what the last pass stored", file=sys.stderr)
        cached = True
    if cached or not needs_hosts:
        return stored_scene(wiring.world(), wiring.now())
    async with looking(wiring) as look:
        scene = await look(0.0)
    tell_unseen(scene)
    return scene


def tell_unseen(scene: Scene) -> None:
    from controller.model.text import printable

    for name, why in scene.unseen.items():
        print(f"note: {name} gives no report: {printable(why)}", file=sys.stderr)


def exit_for(scene: Scene) -> None:
    if scene.unseen:
        sys.exit(4)


def _refuse_documents(output: str) -> None:
    from controller.model.errors import UsageError

    if output not in ("table", "wide"):
        raise UsageError(f"--watch and -o {output} do not go together", hint="-o table or -o wide")


async def _watch(wiring: Wiring, show: Callable[[Scene], str], cached: bool) -> None:
    """The table once, then each line that is new or changed. Ends by Ctrl-C."""
    import asyncio

    from controller.cli.scene import looking, stored_scene

    told = _Told()
    if cached or not wiring.context.inventory:
        version = -1
        while True:
            if wiring.store.data_version() != version:
                version = wiring.store.data_version()
                told(show(stored_scene(wiring.world(), wiring.now())))
            await asyncio.sleep(0.1)
    async with looking(wiring) as look:
        await _watch_live(look, lambda scene: told(show(scene)))


async def _watch_live(look: Callable[[float], Awaitable[Scene]], tell: Callable[[Scene], None]) -> None:
    unseen: frozenset[str] = frozenset()
    patience_s = 0.0
    while True:
        scene = await look(patience_s)
        if frozenset(scene.unseen) != unseen:
            unseen = frozenset(scene.unseen)
            tell_unseen(scene)
        tell(scene)
        patience_s = _WATCH_S


class _Told:
    """Prints a table's lines that were not there before. Ages change all the time: they make no line new."""

    def __init__(self) -> None:
        self._before: set[tuple[str, ...]] = set()

    def __call__(self, text: str) -> None:
        lines = text.splitlines()
        keys = {_without_ages(line) for line in lines}
        fresh = [line for line in lines if _without_ages(line) not in self._before]
        if fresh:
            print("\n".join(fresh), flush=True)
        self._before = keys


def _without_ages(line: str) -> tuple[str, ...]:
    import re

    return tuple(re.sub(r"\b\d+(s|m\d*s?|h|d)\b( ago)?", "", line).split())
