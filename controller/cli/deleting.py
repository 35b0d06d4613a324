"""The command delete: objects by name, by file, by selector or all of a kind. One transaction, then passes carry it out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options
from controller.cli.running import run
from controller.cli.workloads import Wait, load_manifests, read_texts

if TYPE_CHECKING:
    from controller.model.cluster import Meta
    from controller.model.manifest import Manifest


def register(app: typer.Typer) -> None:
    app.command()(delete)


def delete(
    target: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KIND[,KIND] NAME… | KIND/NAME…",
            help="For example deployment/web; with -l or --all kinds alone: deploy,cm.",
        ),
    ] = None,
    filename: Annotated[
        list[str] | None, typer.Option("--filename", "-f", metavar="PATH", help="Delete what is declared there.")
    ] = None,
    recursive: options.Recursive = False,
    selector: options.Chosen = None,
    all_: options.All = False,
    namespace: options.Namespace = "default",
    all_namespaces: options.AllNamespaces = False,
    grace_period: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            help="Seconds for pods to end, also for those that are ending already; -1: as their manifests say.",
        ),
    ] = -1,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="It is no error when there is none.")
    ] = False,
    wait: Wait = True,
    timeout: options.Timeout = "2m",
    inventory: options.Inventory = None,
    vault_id: options.VaultIds = None,
    allow_executable_inventory: options.Executables = False,
    context_dir: options.ContextDir = "",
) -> None:
    """Delete objects and what they own. A volume claim (pvc/NAME) takes its data with it, once no pod uses it.

    Examples:
        sshoal delete deployment/web
        sshoal delete pod web-1 web-2 --grace-period 0
        sshoal delete deploy,cm -l app=web -A
        sshoal delete -f web.yaml --ignore-not-found
    """
    from controller.cli.carry import carry_out
    from controller.cli.names import resource
    from controller.cli.output import duration_s
    from controller.cli.targets import NONE_FOUND, parse_chosen
    from controller.cli.wiring import Wiring
    from controller.decide import verbs
    from controller.model.errors import UsageError

    budget_s = duration_s(timeout) if wait else 0.0
    wiring = Wiring.of(context_dir, inventory, vault=vault_id, executables=allow_executable_inventory)
    targets = parse_chosen(target or [], "" if all_namespaces else namespace, selector, all_)
    if filename:
        manifests = load_manifests(read_texts(filename, recursive), True, namespace)
        targets = targets.and_named(map(_identity, manifests))
    if targets.names == ():
        raise UsageError("nothing to delete", hint="name objects (deployment/web) or give -f FILE")
    world = wiring.world()
    records = targets.records(world, missing_ok=ignore_not_found)
    if targets.names is None:
        records = [one for one in records if one.meta.version]  # but for the namespace that is there without a record
    if not records and targets.names is None:
        print(NONE_FOUND, file=sys.stderr)
        return
    grace_s = None if grace_period < 0 else grace_period
    changes = [change for record in records for change in verbs.delete(world, record, wiring.now(), grace_s=grace_s)]
    # A pod may be deleted by itself and, with a grace, with its owner: that is one change.
    once = list({change.record.meta.uid: change for change in changes}.values())
    told = [
        f"{resource(record.meta.kind)}/{record.meta.name} deleted" + _where(record.meta, all_namespaces)
        for record in records
    ]
    uids = [record.meta.uid for record in records]
    run(carry_out(wiring, once, told, lambda carry: carry.wait_gone(uids, budget_s)))


def _where(meta: Meta, every_namespace: bool) -> str:
    return f" from namespace {meta.namespace}" if every_namespace and meta.namespace else ""


def _identity(manifest: Manifest) -> tuple[str, str, str]:
    metadata = manifest.object.metadata
    return manifest.object.kind, metadata.namespace, metadata.name
