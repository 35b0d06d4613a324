"""Commands that change metadata by hand: label, annotate. Committed at once; nothing is waited for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from controller.cli import options

if TYPE_CHECKING:
    from controller.decide.labels import Field
    from controller.model.cluster import Record, World
    from controller.model.plan import Change

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="KIND/NAME… KEY=VALUE… KEY-…",
        help="Objects (with -l or --all kinds: deploy,cm), what to set, and (with a -) what to take away.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Also change values that are there already.")]
List = Annotated[bool, typer.Option("--list", help="Show what there is.")]


def register(app: typer.Typer) -> None:
    app.command()(label)
    app.command()(annotate)


def label(
    words: Words,
    overwrite: Overwrite = False,
    list_: List = False,
    selector: options.Chosen = None,
    all_: options.All = False,
    namespace: options.Namespace = "default",
    context_dir: options.ContextDir = "",
) -> None:
    """Set labels of objects, or take them away. Labels of nodes are set in the inventory: node_labels.

    Examples:
        sshoal label deployment/web team=shop tier-
        sshoal label deployment/web deployment/api team=shop --overwrite
        sshoal label deploy,cm -l app=web team=shop
        sshoal label deployment/web --list
    """
    _edit("labels", "labeled", words, _Choice(namespace, selector, all_), overwrite, list_, context_dir)


def annotate(
    words: Words,
    overwrite: Overwrite = False,
    list_: List = False,
    selector: options.Chosen = None,
    all_: options.All = False,
    namespace: options.Namespace = "default",
    context_dir: options.ContextDir = "",
) -> None:
    """Set annotations of objects, or take them away.

    Examples:
        sshoal annotate deployment/web kubernetes.io/change-cause='release 2.1' --overwrite
        sshoal annotate node/node1 rack=b7
        sshoal annotate nodes --all example.org/owner=ops
    """
    _edit("annotations", "annotated", words, _Choice(namespace, selector, all_), overwrite, list_, context_dir)


class _Choice(NamedTuple):
    """How objects are chosen, if not by their names."""

    namespace: str
    selector: str | None
    every: bool


def _edit(
    field: Field, done: str, words: Sequence[str], choice: _Choice, overwrite: bool, list_: bool, context_dir: str
) -> None:
    """All objects are changed in one transaction, or none."""
    from controller.cli.carry import commit
    from controller.cli.names import resource
    from controller.cli.targets import NONE_FOUND, parse_chosen
    from controller.cli.wiring import Wiring
    from controller.decide.labels import edit_metadata, parse_edits
    from controller.model.errors import UsageError

    is_edit = ["=" in word or word.endswith("-") for word in words]
    edits = parse_edits([word for word, edit in zip(words, is_edit, strict=True) if edit], field)
    targets = parse_chosen([word for word, edit in zip(words, is_edit, strict=True) if not edit], *choice)
    if targets.names == ():
        raise UsageError(f"which object shall be {done}?", hint="for example deployment/web team=shop")
    if not edits and not list_:
        raise UsageError(f"which {field}?", hint="key=value sets, key- takes away, --list shows")
    wiring = Wiring.of(context_dir, None)
    world = wiring.world()
    records = targets.records(world)
    if not records:
        print(NONE_FOUND, file=sys.stderr)
    changes = [edit_metadata(record, field, edits, overwrite=overwrite) if edits else () for record in records]
    commit(wiring, [change for one in changes for change in one])
    for warning in _warnings(world, [change for one in changes for change in one]):
        print(f"warning: {warning}", file=sys.stderr)
    for record, change in zip(records, changes, strict=True):
        if edits:
            print(f"{resource(record.meta.kind)}/{record.meta.name} {done if change else 'unchanged'}")
        if list_:
            listed = _listed(change[0].record if change else record, field)
            if len(records) > 1:
                print(f"Listing {field} for {resource(record.meta.kind)}/{record.meta.name}:")
                listed = indent(listed, " ")
            print(listed)


def _warnings(world: World, changes: Sequence[Change]) -> list[str]:
    """Of namespaces whose new labels forbid what runs there."""
    spaces = [change.record for change in changes if change.record.meta.kind == "Namespace"]
    if not spaces:
        return []
    from controller.decide.admission.applied import namespace_warnings
    from controller.model.plan import changed

    rules = changed(world, changes)
    return [line for space in spaces for line in namespace_warnings(world, rules, space)]


def _listed(record: Record, field: Field) -> str:
    from controller.model.cluster import Node
    from controller.model.text import printable

    found = dict(record.meta.labels if field == "labels" else record.meta.annotations)
    if isinstance(record, Node) and field == "labels":
        found = {**record.labels, **found}
    return "\n".join(f"{key}={printable(value)}" for key, value in sorted(found.items())) or "<none>"
