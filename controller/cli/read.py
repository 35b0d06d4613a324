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
    from controller.cli.wiring import Wiring

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
    field_selector: Annotated[
        str,
        typer.Option(
            "--field-selector", metavar="FIELDS", help="Only objects with these fields, e.g. status.phase!=Running."
        ),
    ] = "",
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FORMAT",
            help="table, wide, json, yaml, name, jsonpath=TEMPLATE or custom-columns=NAME:PATH,….",
            callback=options.without_equals,
        ),
    ] = "table",
    sort_by: Annotated[
        str, typer.Option("--sort-by", metavar="JSONPATH", help="In the order of this field, e.g. .metadata.name.")
    ] = "",
    show_labels: Annotated[
        bool, typer.Option("--show-labels", help="Of tables: all labels as the last column.")
    ] = False,
    label_columns: Annotated[
        list[str] | None,
        typer.Option("--label-columns", "-L", metavar="KEY,…", help="Of tables: a column for each of these labels."),
    ] = None,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Tables without the line of headers.")] = False,
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
        sshoal get pods -o custom-columns=NAME:.metadata.name,NODE:.spec.nodeName --sort-by .spec.nodeName
    """
    from controller.cli.fields import parse_fields
    from controller.cli.getting import Question, parse_shape
    from controller.cli.output import emit, is_document
    from controller.cli.targets import parse_shown
    from controller.cli.wiring import Wiring

    shape = parse_shape(
        output, headers=not no_headers, show_labels=show_labels, keys=label_columns or (), sort_by=sort_by
    )
    if watch and shape.order is not None:
        print("warning: --watch requested, --sort-by will be ignored", file=sys.stderr)
        shape = shape.unordered()
    targets = parse_shown(what, "" if all_namespaces else namespace, selector, field_selector)
    question = Question(targets, shape, parse_fields(field_selector, targets.kinds))
    wiring = Wiring.of(context_dir, inventory)
    if watch:
        _refuse_documents("table" if shape.is_table else output)
        run_until_interrupted(_watch(wiring, lambda scene: question.table(wiring, scene), cached))
        return
    scene = run(_scene(wiring, cached, needs_hosts=question.needs_hosts))
    text = question.answer(wiring, scene)
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
    from controller.cli.getting import chosen, told
    from controller.cli.targets import parse_shown
    from controller.cli.wiring import Wiring

    targets = parse_shown(what, namespace, selector or "")
    wiring = Wiring.of(context_dir, inventory)
    scene = run(_scene(wiring, cached, needs_hosts=True))
    texts = []
    for record in chosen(scene, targets):
        meta = record.meta
        texts.append(describe_one(scene, record, told(wiring, scene, (meta.kind, meta.namespace, meta.name))))
    if not texts:
        print(f"no {targets.words} found", file=sys.stderr)
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
    from controller.cli.getting import told
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
    found = told(wiring, scene, target)
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


# ---- events -------------------------------------------------------------------------------------------------------------


def _event_table(wiring: Wiring, scene: Scene, target: tuple[str, str, str], namespaces: bool) -> str:
    from controller.cli.getting import told

    found = told(wiring, scene, target)
    return _event_text(scene, found, "table", namespaces) if found else ""


def _event_text(scene: Scene, found: Sequence[Event], output: str, namespaces: bool) -> str:
    from controller.cli.objects import event_object, to_list
    from controller.cli.output import document, table
    from controller.cli.tables import event_rows

    if output == "table":
        return table(*event_rows(found, scene.now.wall_s, namespaces=namespaces))
    return document(to_list([event_object(event) for event in found]), output)


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
