"""Help and documentation of every command: there, complete, and true. What is checked is read off the command line's own definition."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from controller.cli import main as door
from tests.shell import Shell

ROOT = typer.main.get_command(door.command_line())
DOCS = Path(__file__).parents[2] / "docs"


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, inner in command.commands.items():
        if hasattr(inner, "commands"):
            yield from _below(inner, (*words, name))
        else:
            yield " ".join((*words, name)), inner


COMMANDS = dict(_below(ROOT, ()))
each_command = pytest.mark.parametrize(
    ("name", "command"), [pytest.param(*item, id=item[0]) for item in COMMANDS.items()]
)


# ---- help ---------------------------------------------------------------------------------------------------------------


@each_command
def test_every_command_says_what_it_does_and_every_word_what_it_means(name: str, command: Any) -> None:
    assert command.help and len(command.help.split("\n\n")[0]) > 10
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} has no help"
        assert parameter.metavar or getattr(parameter, "is_flag", False), f"{parameter.name} has no metavar"


@each_command
def test_examples_are_what_the_command_line_takes(name: str, command: Any, shell: Shell) -> None:
    assert 2 <= len(command.examples) <= 4
    for context in ("staging", "prod"):
        (shell.home / ".sshoal" / context).mkdir(parents=True)
    for example in command.examples:
        _parse(example, name)


def _parse(example: str, name: str) -> None:
    """Reads the sshoal command of an example as main.py would, without carrying it out."""
    line = re.sub(r"^source <\((.*?)\)", r"\1", example)
    words = shlex.split(line, comments=True)
    words = words[words.index("sshoal") + 1 :]
    words = words[: next((place for place, word in enumerate(words) if word in ("|", ">")), len(words))]
    context = ROOT.make_context("sshoal", words)
    command, path = ROOT, []
    while hasattr(command, "commands"):
        first, *rest = [*context._protected_args, *context.args]
        path.append(first)
        command = command.commands[first]
        context = command.make_context(first, rest, parent=context)
    assert " ".join(path) == name, f"{example!r} shows another command"


def test_help_shows_the_examples_line_by_line(shell: Shell) -> None:
    code, out, _ = shell("apply", "--help")
    assert code == 0
    lines = out[out.index("Examples:") :].splitlines()
    assert lines[1:] == [f"  {example}" for example in COMMANDS["apply"].examples]


def test_a_command_is_listed_by_its_first_sentence(shell: Shell) -> None:
    _, out, _ = shell("--help")
    assert re.search(r"^Workloads:\n  apply +Declare objects, and wait until they are there$", out, re.MULTILINE)
    assert "Example" not in out
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in ROOT.commands)  # type: ignore[attr-defined]


# ---- documentation --------------------------------------------------------------------------------------------------------

# What many commands share is told once, at the top of docs/commands.md.
SHARED = (
    "inventory",
    "context_dir",
    "namespace",
    "all_namespaces",
    "output",
    "vault_id",
    "allow_executable_inventory",
    "yes",
    "timeout",
    "wait",
    "lenient",
    "filename",
    "recursive",
    "cached",
    "watch",
)


def _documented(name: str) -> str:
    """What is said of a command: its section of docs/commands.md, or its item of a list there; all of docs/lab.md for the lab."""
    if name.startswith("lab "):
        return (DOCS / "lab.md").read_text(encoding="utf-8")
    parts = re.split(r"\n(?=#+ |- `)", (DOCS / "commands.md").read_text(encoding="utf-8"))
    return "\n".join(part for part in parts if re.search(rf"`sshoal {re.escape(name)}\b", part))


@each_command
def test_every_command_and_option_is_documented(name: str, command: Any) -> None:
    text = _documented(name)
    assert text, "docs/commands.md does not tell of it"
    own = [one for one in command.params if one.param_type_name == "option" and one.name not in SHARED]
    missing = [one.opts[0] for one in own if not any(f"`{word}" in text or f" {word}" in text for word in one.opts)]
    assert not missing, f"docs/commands.md does not tell of {missing}"


def test_options_that_commands_share_are_told_once() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    shared = text[: text.index("\n## Begin")]
    options = {one.name: one for command in COMMANDS.values() for one in command.params}
    for name in SHARED:
        assert any(f"`{word}" in shared for word in (*options[name].opts, *options[name].secondary_opts)), name


@pytest.mark.parametrize("name", [name for name, one in ROOT.commands.items() if hasattr(one, "commands")])  # type: ignore[attr-defined]
def test_the_list_of_a_group_is_not_cut(name: str, shell: Shell) -> None:
    code, out, _ = shell(name, "--help")
    assert code == 0 and "..." not in out.partition("Commands:")[2]


@pytest.mark.parametrize("words", ["top pod", "top po", "top node", "top no", "create ns"])
def test_words_that_kubectl_takes_name_the_command(words: str, shell: Shell) -> None:
    code, out, err = shell(*words.split(), "--help")
    assert code == 0 and "Examples:" in out, err
