"""Commands about images: push (from the local Podman or an archive, over SSH, to all hosts that lack it) and list."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import options
from controller.cli.running import run

if TYPE_CHECKING:
    from controller.cli.scene import Scene

image_app = typer.Typer(help="Images on the hosts, without a registry.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(image_app, name="image")


@image_app.command("push")
def image_push(
    image: Annotated[
        str, typer.Argument(metavar="REF|FILE", help="An image of the local Podman, or an archive of one.")
    ],
    nodes: Annotated[str, typer.Option("--nodes", metavar="PATTERN", help="Only to these hosts.")] = "all",
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Bring an image onto the hosts that do not have it, over SSH.

    Only layers that a host lacks are sent. A push that broke off goes on where it was when it is repeated. What has arrived is
    verified on the host before Podman gets it. Exit code 4 when some host could not be reached, 1 when one did not take the image.

    Examples:
        sshoal image push localhost/web:v1
        sshoal image push web.tar.gz --nodes 'web:!db'
    """
    from controller.act.imagefile import opened
    from controller.cli.push import push, remember
    from controller.cli.wiring import Wiring

    wiring = Wiring.of(context_dir, inventory)
    hosts = wiring.select(nodes)
    with opened(image) as images, wiring.noted(f"Image {image}", *(f"Node {host.name}" for host in hosts)) as noted:
        outcomes = run(push(wiring, hosts, images))
        remember(wiring, images, outcomes)
        without = [outcome.host for outcome in outcomes if outcome.exit_code]
        if without:
            noted.outcome = f"failed on {', '.join(without)}"
    code = max((outcome.exit_code for outcome in outcomes), default=0)
    if code:
        sys.exit(code)


@image_app.command("list")
def image_list(
    image: Annotated[
        str, typer.Argument(metavar="[IMAGE]", help="Only of this name, or of this id or its beginning.")
    ] = "",
    nodes: Annotated[str, typer.Option("--nodes", metavar="PATTERN", help="Only on these hosts.")] = "all",
    output: options.Output = "table",
    inventory: options.Inventory = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Show which images are on which nodes, and how many pods run them.

    Exit code 1 when an image is named and no node has it, 4 when some node gives no report.

    Examples:
        sshoal image list localhost/web:v1 -o wide
        sshoal image list --nodes db -o name
    """
    from dataclasses import asdict

    from controller.cli.imagelist import image_row, images_of
    from controller.cli.output import check_output, document, emit, is_document, table
    from controller.cli.scene import looking
    from controller.cli.wiring import Wiring
    from controller.model.text import printable

    check_output(output)
    wiring = Wiring.of(context_dir, inventory)
    chosen = {host.name for host in wiring.select(nodes)}

    async def look_once() -> Scene:
        async with looking(wiring) as look:
            return await look(0.0)

    scene = run(look_once())
    unseen = {name: why for name, why in scene.unseen.items() if name in chosen}
    for name, why in unseen.items():
        print(f"note: {name} gives no report: {printable(why)}", file=sys.stderr)
    images = images_of(scene, image, chosen)
    wide = output == "wide"
    if is_document(output):
        emit(document([asdict(one) for one in images], output), output)
    elif output == "name":
        for one in images:
            print("\n".join(one.names or [one.id]))
    elif images:
        header = ["IMAGE", "ID", "SIZE", "PODS", "NODES", *(["DIGESTS"] if wide else [])]
        print(table(header, [image_row(one, len(chosen - unseen.keys()), wide=wide) for one in images]))
    else:
        print(f"no node has {image}" if image else "no images", file=sys.stderr)
    if unseen:
        sys.exit(4)
    if image and not images:
        sys.exit(1)
