"""Help: of a command what its docstring says, the options, and at the end its examples, line by line; of all of them a list in sections."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_HEADING = "Examples:"

# As docs/commands.md has them. A command that is in none is listed at the end.
SECTIONS = {
    "Begin": ("init", "config", "completion", "version", "lab"),
    "Workloads": (
        "apply",
        "plan",
        "diff",
        "edit",
        "delete",
        "scale",
        "set",
        "rollout",
        "wait",
        "label",
        "annotate",
        "create",
    ),
    "Look": ("get", "describe", "events", "operations", "logs", "exec", "cp", "port-forward", "top"),
    "Why and what if": ("explain", "simulate", "rebalance"),
    "Hosts": ("node", "inventory", "run", "image"),
    "Passes": ("reconcile", "watch", "schedule"),
    "Keep": ("backup", "restore"),
}


class Command(TyperCommand):
    """A command whose docstring ends with examples, one a line below "Examples:". A comment may follow behind a #."""

    examples: tuple[str, ...]

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        text, _, examples = (self.help or "").partition(_HEADING)
        self.help = text.rstrip() or None
        self.examples = tuple(line.strip() for line in examples.splitlines() if line.strip())

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.examples:
            with formatter.section(_HEADING.rstrip(":")):
                for line in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Sections(TyperGroup):
    """A group that lists its commands in SECTIONS, each with its first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        left = {name: command for name, command in self.commands.items() if not command.hidden}
        width = max(map(len, left), default=0)
        for title, names in (*SECTIONS.items(), ("Others", tuple(left))):
            rows = [(name.ljust(width), first_sentence(left.pop(name).help)) for name in names if name in left]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


# Words that kubectl takes for commands of ours.
SHORT = {"pod": "pods", "po": "pods", "node": "nodes", "no": "nodes", "ns": "namespace"}


class Group(TyperGroup):
    """Commands below one word, each with its first sentence, which is wrapped rather than cut."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, cmd_name) or super().get_command(ctx, SHORT.get(cmd_name, ""))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, first_sentence(one.help)) for name, one in self.commands.items() if not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def first_sentence(text: str | None) -> str:
    """Without its full stop."""
    words = " ".join((text or "").split("\n\n")[0].split())
    return words.partition(". ")[0].rstrip(".")


def show_examples(app: typer.Typer) -> None:
    """Makes all commands of an app, and of the groups in it, such commands."""
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            group.cls = Group
            show_examples(group.typer_instance)
