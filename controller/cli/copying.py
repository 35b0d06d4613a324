"""`cp`: one file into a container or out of it. What it does stands in transfer.py."""

from __future__ import annotations

from typing import Annotated

import typer

from controller.cli import options
from controller.cli.running import run
from controller.cli.streams import Container, one_pod


def register(app: typer.Typer) -> None:
    app.command()(cp)


def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A local file, or POD:PATH.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="POD:PATH, or a local path.")],
    container: Container = "",
    max_size: Annotated[
        str, typer.Option("--max-size", metavar="SIZE", help="A container may send so much, e.g. 500Mi.")
    ] = "10Gi",
    namespace: options.Namespace = "default",
    inventory: options.InventoryLong = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Copy one file into a container, or out of it; it needs sh and cat there. Appears whole under its name, or not at all.

    Examples:
        sshoal cp db-0:/var/backups/shop.sql .
        sshoal cp -c nginx site.conf web-6d4cf56db6-x7k2p:/etc/nginx/conf.d/
        sshoal cp shop/db-0:/etc/hosts hosts.txt       # of another namespace
    """
    from controller.act.store import named
    from controller.cli import transfer
    from controller.cli.wiring import Wiring
    from controller.model import quantity
    from controller.model.errors import UsageError

    into, out_of = transfer.parse_place(target), transfer.parse_place(source)
    if (into is None) == (out_of is None):
        raise UsageError(
            "either SOURCE or TARGET is POD:PATH", hint="sshoal cp web-0:/etc/hosts .   (a local name with ':': ./a:b)"
        )
    try:
        bytes_max = quantity.memory_bytes(max_size)
    except ValueError as error:
        raise UsageError(f"--max-size: {error}", hint="for example 500Mi or 20Gi") from None
    wiring = Wiring.of(context_dir, inventory)
    if out_of is not None:
        path = transfer.local_target(target, out_of.path)
        pod = one_pod(wiring.world(), f"pod/{out_of.pod}", out_of.namespace or namespace)
        with wiring.noted(named(pod), f"File {out_of.path}", node=pod.node):
            size = run(transfer.download(wiring, pod, container, out_of.path, path, bytes_max))
        print(f"{path}: {size} bytes")
    elif into is not None:
        file = transfer.local_source(source)
        pod = one_pod(wiring.world(), f"pod/{into.pod}", into.namespace or namespace)
        with wiring.noted(named(pod), f"File {into.path}", node=pod.node):
            size = run(transfer.upload(wiring, pod, container, file, into.path))
        print(f"{target}: {size} bytes")
