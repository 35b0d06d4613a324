"""`operations`: who did what, when, and how it ended. From the store alone; no host is asked."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import options

if TYPE_CHECKING:
    from controller.act.store import Actor, Operation


def register(app: typer.Typer) -> None:
    app.command()(operations)


def operations(
    for_: Annotated[str, typer.Option("--for", metavar="KIND/NAME", help="Only those that concern this object.")] = "",
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="Only what this node was told to do.")] = "",
    user: Annotated[str, typer.Option("--user", metavar="USER", help="Only what this user did, also by sudo.")] = "",
    serial: Annotated[
        int,
        typer.Option(
            "--serial", metavar="N", min=0, max=2**63 - 1, help="The order with this serial: what an agent goes by."
        ),
    ] = 0,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=2**63 - 1, help="So many, the newest.")
    ] = 100,
    namespace: options.Namespace = "default",
    output: options.Output = "table",
    context_dir: options.ContextDir = "",
) -> None:
    """Show the record of operations, oldest first: commands that changed or reached something, and every order given to an agent.

    Each order has the epoch and serial by which its agent knows it. docs/observability.md says how long rows stay.

    Examples:
        sshoal operations --for deployment/web
        sshoal operations --node node1 -o wide
        sshoal operations --user ada --limit 20
        sshoal operations --serial 87 -o json
    """
    from controller.cli.names import parse_target
    from controller.cli.objects import to_list
    from controller.cli.output import check_output, document, emit, is_document, table
    from controller.cli.wiring import Wiring

    check_output(output, ("table", "wide", "json", "yaml"))
    wiring = Wiring.of(context_dir, None)
    text = ""
    if for_:
        kind, where, name = parse_target(for_, namespace)
        text = f"{kind} {where}/{name}" if where else f"{kind} {name}"
    found = wiring.store.operations(text=text, node=node, user=user, serial=serial, limit=limit)
    if is_document(output):
        emit(document(to_list([operation_object(one) for one in found]), output), output)
    elif found:
        now_s = wiring.now().wall_s
        print(table(_HEADER[output], [_row(one, now_s, wide=output == "wide") for one in found]))
    else:
        print("no operations", file=sys.stderr)


_HEADER = {
    "table": ["AGE", "WHO", "COMMAND", "WHAT", "NODE", "EPOCH", "SERIAL", "OUTCOME"],
    "wide": ["TIME", "WHO", "COMMAND", "WHAT", "NODE", "EPOCH", "SERIAL", "OUTCOME", "BECAUSE"],
}
_NAMES, _OUTCOME_MAX = 2, 60  # of them and of its characters are shown in a table


def operation_object(operation: Operation) -> dict[str, Any]:
    """As programs read it."""
    actor = operation.actor
    return {
        "apiVersion": "sshoal.dev/v1",
        "kind": "Operation",
        "id": operation.id,
        "time": _time(operation.wall_s),
        "user": actor.user,
        "sudoUser": actor.sudo_user,
        "machine": actor.machine,
        "command": actor.command,
        "verb": operation.verb,
        "objects": list(operation.objects),
        "because": operation.because,
        "node": operation.node,
        "epoch": operation.epoch,
        "serial": operation.serial,
        "outcome": operation.outcome,
    }


def _row(operation: Operation, now_s: float, *, wide: bool) -> list[str]:
    from controller.cli.output import age
    from controller.model.text import printable

    what = operation.objects if wide else operation.objects[:_NAMES]
    left = len(operation.objects) - len(what)
    command = operation.actor.command
    row = [
        _time(operation.wall_s) if wide else age(now_s - operation.wall_s),
        _who(operation.actor),
        command if operation.verb == command else f"{command}: {operation.verb}",
        ", ".join(what) + (f" and {left} more" if left else ""),
        operation.node,
        str(operation.epoch or ""),
        str(operation.serial or ""),
        (operation.outcome if wide else printable(operation.outcome, _OUTCOME_MAX)) or "<unknown>",
    ]
    return [*row, operation.because] if wide else row


def _who(actor: Actor) -> str:
    """ "ada (as root)@ops1"."""
    user = f"{actor.sudo_user} (as {actor.user})" if actor.sudo_user else actor.user
    return f"{user}@{actor.machine}"


def _time(wall_s: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(wall_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
