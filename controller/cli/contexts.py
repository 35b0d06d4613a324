"""Which cluster a command is for. A context is a directory with store, keys and known hosts; its name is short for it.

`choose` is called while a command line is read: it finds the file of settings and the context, and makes what they say the defaults of the
options that are read afterwards. In: the words given. Out: the directory; what else commands need of it, `chosen` gives.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from controller.act.userpath import user_path
from controller.cli.config import CONTEXT_NAME, Config, ContextEntry, load
from controller.model.errors import NotFound, UsageError

DEFAULT = "default"
BEGINNERS = ("init", "restore", "config")  # commands for which a context need not exist yet

_META = "sshoal.chosen"
CONFIG_META, CONTEXT_META = "sshoal.config", "sshoal.context"  # --config and --context before the command


@dataclass(frozen=True, slots=True)
class Chosen:
    """The context of a command, and the file that had a say in it. `source`: who named the context, for people."""

    name: str  # "" for a directory without a name
    directory: Path
    entry: ContextEntry = field(default_factory=ContextEntry)
    config: Config = field(default_factory=Config)
    source: str = ""


def choose(context: typer.Context, given: str) -> str:
    """The directory of the context. `given`: --context or $SSHOAL_CONTEXT, or ""."""
    config = load(context.meta.get(CONFIG_META, ""))
    from_flag = str(context.get_parameter_source("context_dir")).endswith("COMMANDLINE")
    before = context.meta.get(CONTEXT_META, "")
    command = context.command_path.partition(" ")[2]
    if given and from_flag:
        found = resolve(given, "--context", config, Path.home())
    elif before:
        found = resolve(before, "--context", config, Path.home())
    elif given:
        found = resolve(given, "$SSHOAL_CONTEXT", config, Path.home())
    else:
        found = _current_for(command, config)
    if found.name and command.partition(" ")[0] not in BEGINNERS:
        _must_exist(found, Path.home())
    context.meta[_META] = found
    context.default_map = _defaults(found, command)
    return str(found.directory)


def _current_for(command: str, config: Config) -> Chosen:
    try:
        return current(config, Path.home())
    except UsageError as error:
        if command.partition(" ")[0] != "config":
            raise
        print(f"note: {error.message}; {DEFAULT!r} counts until one is chosen", file=sys.stderr)
        return resolve(DEFAULT, "by default", config, Path.home())  # what is damaged can be set anew


def chosen() -> Chosen | None:
    """The context of the command that is carried out; None outside of one."""
    from controller.cli.running import command_context

    context = command_context()
    found = context.meta.get(_META) if context is not None else None
    return found if isinstance(found, Chosen) else None


def current(config: Config, home: Path) -> Chosen:
    """The context that counts when the command names none: that of the file, of `config use-context`, or the default one."""
    if config.context:
        return resolve(config.context, str(config.path), config, home)
    kept = _current_file(home)
    try:
        name = kept.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return resolve(DEFAULT, "by default", config, home)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{kept} cannot be read: {error}") from None
    try:
        return resolve(name, "config use-context", config, home)
    except UsageError as error:
        raise UsageError(f"{kept}: {error.message}", hint="sshoal config use-context NAME") from None


def resolve(given: str, source: str, config: Config, home: Path) -> Chosen:
    """A name or a directory → a context, which need not exist. Raises UsageError for what is neither."""
    if "/" in given or given.startswith(("~", ".")):
        return Chosen("", user_path(given).absolute(), ContextEntry(), config, source)
    if not CONTEXT_NAME.fullmatch(given):
        raise UsageError(
            f"{given!r} names no context", hint="a name of letters and digits, or a directory with a / in it"
        )
    entry = config.contexts.get(given, ContextEntry())
    return Chosen(given, entry.directory or _root(home) / given, entry, config, source)


def known(config: Config, home: Path) -> dict[str, Chosen]:
    """All contexts by name: those of the file, and the directories where contexts are when no file says otherwise."""
    root = _root(home)
    made = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    names = sorted({*config.contexts, *(name for name in made if CONTEXT_NAME.fullmatch(name))})
    return {name: resolve(name, "", config, home) for name in names}


def use(name: str, home: Path) -> None:
    """Makes a context the current one."""
    from controller.act.wholefile import write_whole

    _root(home).mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(_current_file(home), f"{name}\n", mode=0o600)


def _must_exist(found: Chosen, home: Path) -> None:
    if found.name == DEFAULT or found.name in found.config.contexts or found.directory.is_dir():
        return
    names = list(known(found.config, home))
    near = difflib.get_close_matches(found.name, names, n=1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else "sshoal config get-contexts shows those there are; a directory has a / in it"
    )
    raise NotFound(f"there is no context {found.name!r}", hint=hint)


def _defaults(found: Chosen, command: str) -> dict[str, Any]:
    """By the names of parameters: what the context says, over what the file says for the command."""
    entry = found.entry
    of_context = {
        "inventory": list(entry.inventory),
        "namespace": entry.namespace,
        "vault_id": list(entry.vault_ids),
        "allow_executable_inventory": entry.allow_executables,
    }
    return {**found.config.defaults(command), **{name: value for name, value in of_context.items() if value}}


def _root(home: Path) -> Path:
    return home / ".sshoal"


def _current_file(home: Path) -> Path:
    return _root(home) / "current-context"
