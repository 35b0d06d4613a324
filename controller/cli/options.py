"""Options that several commands share, declared once. Light: imported at every start."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from controller.model.errors import UsageError

Inventory = Annotated[
    list[str] | None,
    typer.Option(
        "--inventory", "-i", metavar="PATH", help="Inventory file or directory (repeatable).", envvar="SSHOAL_INVENTORY"
    ),
]
InventoryLong = Annotated[  # for `exec`, where -i is --stdin as in kubectl
    list[str] | None,
    typer.Option(
        "--inventory", metavar="PATH", help="Inventory file or directory (repeatable).", envvar="SSHOAL_INVENTORY"
    ),
]


def _choose(context: typer.Context, given: str) -> str:
    """The context's directory; what the file of settings says becomes the default of the other options, which are read after this one."""
    if context.resilient_parsing:
        return given
    from controller.cli.contexts import choose

    return choose(context, given)


ContextDir = Annotated[
    str,
    typer.Option(
        "--context",
        metavar="NAME|DIR",
        help="Which cluster: a context's name, or the directory of its store, keys and known hosts.",
        envvar="SSHOAL_CONTEXT",
        is_eager=True,
        callback=_choose,
    ),
]


def _namespace(context: typer.Context, given: str) -> str:
    """As written, if an object could be in it."""
    if not context.resilient_parsing and not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", given):
        raise UsageError(
            f"{given!r} cannot be a namespace", hint="1–63 lower-case letters, digits or '-', as in team-1"
        )
    return given


Namespace = Annotated[
    str,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAMESPACE",
        help="Which namespace.",
        envvar="SSHOAL_NAMESPACE",
        callback=_namespace,
    ),
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")]
Files = Annotated[
    list[str],
    typer.Option(
        "--filename", "-f", metavar="PATH", help="Manifest file or directory, or - for standard input (repeatable)."
    ),
]
Recursive = Annotated[
    bool, typer.Option("--recursive", "-R", help="Of directories given by -f, also what lies in those below them.")
]
Lenient = Annotated[
    bool,
    typer.Option("--lenient", help="Run without the fields and kinds that sshoal does not support, and say which."),
]
Timeout = Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long to wait, e.g. 90s or 5m.")]


def without_equals(given: str) -> str:
    """-o=json and -l=app=web, as kubectl takes them too."""
    return given.removeprefix("=")


Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FORMAT",
        help="table, wide, json, yaml, name or jsonpath=TEMPLATE.",
        callback=without_equals,
    ),
]
Selector = Annotated[
    str,
    typer.Option(
        "--selector",
        "-l",
        metavar="LABELS",
        help="Only objects with these labels, e.g. app=web,tier!=db.",
        callback=without_equals,
    ),
]


def _not_empty(given: str | None) -> str | None:
    """An empty selector would choose everything: most likely a variable of the shell is not set."""
    if given is None:
        return None
    selector = without_equals(given)
    if not selector.strip():
        raise UsageError("-l is given an empty selector", hint="is a variable of your shell unset?")
    return selector


def _chooses(what: str) -> Any:
    return typer.Option(
        "--selector",
        "-l",
        metavar="LABELS",
        help=f"{what} that have these labels, e.g. app=web,tier!=db.",
        callback=_not_empty,
    )


Chosen = Annotated[str | None, _chooses("Those of the kinds")]
ChosenPods = Annotated[str | None, _chooses("Pods of the namespace")]
All = Annotated[bool, typer.Option("--all", help="All of the kinds in the namespace.")]
VaultIds = Annotated[
    list[str] | None,
    typer.Option(
        "--vault-id",
        metavar="[ID@]SOURCE",
        help="Password for vaulted variables: a file, or prompt (repeatable).",
        envvar="SSHOAL_VAULT_ID",
    ),
]
Executables = Annotated[
    bool,
    typer.Option(
        "--allow-executable-inventory",
        help="Run inventory files that are programs.",
        envvar="SSHOAL_ALLOW_EXECUTABLE_INVENTORY",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
Pattern = Annotated[str, typer.Argument(metavar="PATTERN", help="Ansible host pattern, e.g. web:!db.")]
