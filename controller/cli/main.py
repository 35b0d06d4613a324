"""The door: every command of `sshoal`, and the one place where errors become words and exit codes.

Commands parse, make one call and print; what they need is imported inside them, so that the command line starts quickly.
"""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Annotated

import typer
from typer.models import CommandInfo

from controller.cli import completion
from controller.cli.help import Sections, show_examples
from controller.model.errors import SshoalError, UsageError

# Module → the commands and groups that it registers. One command needs one module: all of them take longer than Python's own start.
MODULES = {
    "workloads": ("apply", "plan", "scale", "rollout"),
    "deleting": ("delete",),
    "editing": ("diff", "edit", "set"),
    "metadata": ("label", "annotate"),
    "passes": ("reconcile", "watch", "wait", "schedule"),
    "read": ("get", "describe", "events", "version"),
    "top": ("top",),
    "streams": ("logs", "exec", "port-forward"),
    "copying": ("cp",),
    "whatif": ("explain", "simulate", "rebalance"),
    "hosts": ("init", "node", "inventory"),
    "creating": ("create",),
    "adhoc": ("run",),
    "images": ("image",),
    "operations": ("operations",),
    "keeping": ("backup", "restore"),
    "configuring": ("config",),
    "completion": ("completion",),
    "laboratory": ("lab",),
}


# What kubectl calls otherwise → what to type here. In the words in which typer refuses it.
MEANT = {
    "no such command 'cordon'": "sshoal node cordon NODE",
    "no such command 'uncordon'": "sshoal node uncordon NODE",
    "no such command 'drain'": "sshoal node drain NODE",
    "no such command 'taint'": "taints of nodes come from the inventory (node_taints): docs/inventory.md",
    "no such command 'autoscale'": "declare a HorizontalPodAutoscaler: docs/manifest.md",
    "no such command 'patch'": "sshoal edit KIND/NAME, sshoal set image, or sshoal apply -f FILE",
    "no such command 'replace'": "sshoal apply -f FILE",
    "no such command 'attach'": "sshoal logs -f POD, or sshoal exec -it POD -- sh",
    "no such command 'expose'": "there are no services yet: docs/limits.md",
    "no such option: --dry-run": "sshoal plan -f FILE shows what apply would do, sshoal diff -f FILE what it would change",
    "no such option: -k": "kustomize build DIR | sshoal apply -f -",
    "no such option: --kustomize": "kustomize build DIR | sshoal apply -f -",
    "no such option: -f": "manifests are declared by sshoal apply -f FILE",
}


def _show_version(asked: bool) -> None:
    if asked:
        from importlib import metadata

        print(f"sshoal {metadata.version('sshoal')}")
        raise typer.Exit


def root(
    context: typer.Context,
    config: Annotated[
        str,
        typer.Option(
            "--config", metavar="FILE", help="Settings; without it the next sshoal.toml counts.", envvar="SSHOAL_CONFIG"
        ),
    ] = "",
    chosen: Annotated[
        str, typer.Option("--context", metavar="NAME|DIR", help="Which cluster; also after the command.")
    ] = "",
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Runs containers on plain Linux hosts over nothing but SSH."""
    context.meta.update({"sshoal.config": config, "sshoal.context": chosen})


def command_line(modules: Iterable[str] = MODULES) -> typer.Typer:
    """The commands of these modules, all of them by default."""
    app = typer.Typer(
        name="sshoal",
        cls=Sections,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(root)
    for module in modules:
        import_module(f"controller.cli.{module}").register(app)
    show_examples(app)
    return app


def main() -> None:
    """Entry of the `sshoal` script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: a file's name need not be UTF-8
    if sys.argv[1:2] == [completion.ASK]:
        from controller.cli.completing import answer

        answer(typer.main.get_command(_narrowed(sys.argv[2:-1])), sys.argv[2:])
        return
    try:
        # The name is given, for `python -m controller.cli` is three words: settings and the record of operations go by those behind it.
        sys.exit(_narrowed(sys.argv[1:])(prog_name="sshoal", standalone_mode=False))
    except SshoalError as error:
        complain(error)
        sys.exit(error.exit_code)
    except typer.TyperException as error:  # flags and arguments that typer refused
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
        else:
            complain(UsageError(_words(error), hint=_help(error)))
        sys.exit(UsageError.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; what was recorded is carried out by the next pass", file=sys.stderr)
        sys.exit(130)


def _narrowed(words: list[str]) -> typer.Typer:
    """The app with only the command that is named. Typer builds every command before it reads one, which is half of the start.

    Without a command, or with one that there is not, the outlines of all are needed: for help, and for the nearest right word.
    """
    place = 0
    while place < len(words) and words[place].startswith("-"):
        place += 2 if words[place] in ("--config", "--context") else 1
    named = words[place] if place < len(words) else ""
    module = next((module for module, names in MODULES.items() if named in names), None)
    if module is None:
        return _outlined(command_line())
    app = command_line([module])
    app.registered_commands = [one for one in app.registered_commands if _name_of(one) == named]
    app.registered_groups = [one for one in app.registered_groups if one.name == named]
    return app


def _outlined(app: typer.Typer) -> typer.Typer:
    """The same commands by name and help alone: typer reads no signatures. For a command line that runs none of them."""
    outline = copy.copy(app)
    outline.registered_commands = [copy.copy(one) for one in app.registered_commands]
    for command in outline.registered_commands:
        command.name, command.callback = _name_of(command), _only_told(command.callback)
    outline.registered_groups = [copy.copy(one) for one in app.registered_groups]
    for group in outline.registered_groups:
        if group.typer_instance is not None:
            group.typer_instance = _outlined(group.typer_instance)
    return outline


def _only_told(command: Callable[..., object] | None) -> Callable[[], None]:
    def told() -> None:
        raise AssertionError("an outline was run")

    told.__doc__ = command.__doc__
    return told


def _name_of(command: CommandInfo) -> str:
    return command.name or getattr(command.callback, "__name__", "").replace("_", "-")


def complain(error: SshoalError) -> None:
    """The error on standard error, and what to do about it on a line of its own."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  → {error.hint}", file=sys.stderr)


def _words(error: typer.TyperException) -> str:
    """Typer's sentence without its capital and full stop, as ours are."""
    words = error.format_message() if hasattr(error, "format_message") else str(error)
    return (words[:1].lower() + words[1:]).rstrip(".")


def _help(error: typer.TyperException) -> str:
    if meant := MEANT.get(_words(error).partition(" (")[0].partition(". Did")[0]):
        return meant
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else "sshoal --help"
