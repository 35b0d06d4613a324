"""`config`: contexts and the file of settings, with kubectl's verbs. What a context is stands in contexts.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from controller.cli import options

if TYPE_CHECKING:
    from controller.cli.contexts import Chosen

config_app = typer.Typer(
    help="Contexts (one for each cluster) and settings.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(metavar="CONTEXT", help="Its name.")]


def register(app: typer.Typer) -> None:
    app.add_typer(config_app, name="config")


@config_app.command("get-contexts")
def get_contexts(output: options.Output = "table", context_dir: options.ContextDir = "") -> None:
    """List contexts; * marks the one that commands are for.

    Examples:
        sshoal config get-contexts
        sshoal config get-contexts -o name
    """
    from controller.cli.contexts import chosen, known
    from controller.cli.output import check_output, document, emit, is_document, table

    check_output(output)
    now = chosen()
    assert now is not None
    found = known(now.config, Path.home())
    if now.name not in found:
        found = {now.name: now, **found}
    rows = [_described(one, is_current=name == now.name) for name, one in found.items()]
    if output == "name":
        print("\n".join(row["name"] for row in rows if row["name"]))
    elif is_document(output):
        emit(document(rows, output), output)
    else:
        cells = [
            ["*" if row["current"] else " ", row["name"], row["cluster"], ", ".join(row["inventory"]), row["namespace"], row["directory"]]
            for row in rows
        ]  # fmt: skip
        print(table(["CURRENT", "NAME", "CLUSTER", "INVENTORY", "NAMESPACE", "DIRECTORY"], cells))


@config_app.command("current-context")
def current_context(context_dir: options.ContextDir = "") -> None:
    """Show which context commands are for; its directory, when it has no name.

    Examples:
        sshoal config current-context
        sshoal config current-context --context staging
    """
    from controller.cli.contexts import chosen

    now = chosen()
    assert now is not None
    print(now.name or now.directory)


@config_app.command("use-context")
def use_context(name: Name, context_dir: options.ContextDir = "") -> None:
    """Make a context the one that commands are for. --context, $SSHOAL_CONTEXT and `context` in sshoal.toml win over it.

    Examples:
        sshoal config use-context staging
        sshoal config use-context default
    """
    import difflib

    from controller.cli.contexts import DEFAULT, chosen, known, use
    from controller.model.errors import NotFound

    now = chosen()
    assert now is not None
    names = known(now.config, Path.home())
    if name not in names and name != DEFAULT:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"sshoal config set-context {name} -i INVENTORY makes it"
        raise NotFound(f"there is no context {name!r}", hint=hint)
    use(name, Path.home())
    print(f"commands are for {name} now")
    if now.config.context and now.config.context != name:
        print(f"note: {now.config.path} says context = {now.config.context!r}, which wins", file=sys.stderr)


@config_app.command("set-context")
def set_context(
    name: Name,
    inventory: Annotated[
        list[str] | None,
        typer.Option("--inventory", "-i", metavar="PATH", help="Inventory file or directory (repeatable)."),
    ] = None,
    context_dir: options.ContextDir = "",
) -> None:
    """Make a context, or give it another inventory. Its store is made by the first command that needs it.

    Examples:
        sshoal config set-context staging -i inventories/staging
        sshoal config set-context prod -i prod.ini -i extra.ini
    """
    from controller.act.settings import find_context, remember_inventory
    from controller.act.userpath import is_host_list, is_there, user_path
    from controller.cli.contexts import chosen, resolve
    from controller.model.errors import UsageError

    now = chosen()
    assert now is not None
    found = resolve(name, "", now.config, Path.home())
    if not found.name:
        raise UsageError(f"{name!r} is a directory, not a name", hint="--context DIR needs no preparation")
    if found.entry.inventory and inventory:
        raise UsageError(f"{now.config.path} gives the inventory of {name}", hint="change it there")
    for source in inventory or ():
        if not is_host_list(source) and not is_there(user_path(source)):
            raise UsageError(f"there is no inventory {source}")
    is_new = not found.directory.is_dir()
    found.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if inventory:
        remember_inventory(find_context(str(found.directory), inventory))
    print(f"context {name} {'made' if is_new else 'changed' if inventory else 'is there'}: {found.directory}")


@config_app.command("view")
def view(output: options.Output = "table", context_dir: options.ContextDir = "") -> None:
    """Show the settings in force: which file, which context and who named it, and what the file says.

    Examples:
        sshoal config view
        sshoal --context staging config view -o json
    """
    from controller.act.settings import find_context
    from controller.cli.contexts import chosen
    from controller.cli.output import check_output, document, emit, is_document, table

    check_output(output, ("table", "json", "yaml"))
    now = chosen()
    assert now is not None
    config = now.config
    inventory = find_context(str(now.directory), configured=now.entry.inventory).inventory
    found: dict[str, Any] = {
        "file": str(config.path or ""),
        "context": now.name,
        "context from": now.source,
        "directory": str(now.directory),
        "inventory": list(inventory),
        "options": {command or "all commands": dict(values) for command, values in config.options.items() if values},
        "history": dict(config.history),
    }
    if is_document(output):
        emit(document(found, output), output)
        return
    rows = [[key, str(value)] for key, value in found.items() if isinstance(value, str)]
    rows += [["inventory", ", ".join(inventory)]]
    rows += [
        [f"{command}: {name}", str(value)]
        for command, values in found["options"].items()
        for name, value in values.items()
    ]
    rows += [[f"history: {name}", f"{value:g}"] for name, value in config.history.items()]
    print(table(["SETTING", "VALUE"], rows))


def _described(found: Chosen, *, is_current: bool) -> dict[str, Any]:
    from controller.act.settings import find_context

    context = find_context(str(found.directory), configured=found.entry.inventory)
    return {
        "name": found.name,
        "current": is_current,
        "cluster": _cluster(context.store),
        "inventory": list(context.inventory),
        "namespace": found.entry.namespace or "default",
        "directory": str(found.directory),
    }


def _cluster(store: Path) -> str:
    """The id of its cluster; "" before there is a store, and for one that cannot be read."""
    from contextlib import closing

    from controller.act.store import Store
    from controller.model.errors import StoreError

    if not store.exists():
        return ""
    try:
        with closing(Store(store)) as opened:
            return opened.cluster_id
    except StoreError:
        return ""
