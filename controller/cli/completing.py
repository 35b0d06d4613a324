"""What a shell may offer for the word under the cursor. In: the words typed, the last one unfinished. Out: values, with some help each.

Commands, options and where arguments stand are read off the command line's own definition; what a value may be follows from the metavar
or the name that it has there, so that a new command is completed without a line here. Objects come from the store's file: no host is
asked, and nothing that is wrong is told.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controller.cli import names as kinds
from controller.cli.help import first_sentence
from controller.model.errors import SshoalError

if TYPE_CHECKING:
    from controller.act.storenames import Names

FILES = ":files"  # a line that asks the shell for names of files as well

Offer = tuple[str, str]  # value, help


@dataclass
class _Typed:
    """What the words before the last one say."""

    command: Any
    words: tuple[str, ...] = ()  # names of the command and its groups
    arguments: list[str] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)  # by parameter
    pending: Any = None  # the option whose value the last word is
    only_arguments: bool = False  # behind --


def answer(root: Any, words: Sequence[str]) -> None:
    """Prints a line for each offer: value, tab, help."""
    offers = complete(root, words)
    sys.stdout.writelines(f"{value}\t{help_}\n" if help_ else f"{value}\n" for value, help_ in offers)


def complete(root: Any, words: Sequence[str]) -> Iterator[Offer]:
    """Offers for the last of `words`, which may be empty. `root`: Typer's command."""
    *before, last = words or ("",)
    typed = _read(root, before)
    seen: set[str] = set()
    # What is wrong, say in the file of settings, the command itself will tell.
    with contextlib.suppress(SshoalError, OSError):
        for value, help_ in _offers(typed, last):
            if value not in seen and (value.startswith(last) or value == FILES):
                seen.add(value)
                yield value, help_


def _offers(typed: _Typed, last: str) -> Iterator[Offer]:
    if typed.pending is not None:
        yield from _values(typed, typed.pending, last)
    elif last.startswith("--") and "=" in last and not typed.only_arguments:
        name, _, rest = last.partition("=")
        option = _options(typed.command).get(name)
        if option is not None:
            yield from (
                (f"{name}={value}" if value != FILES else value, help_) for value, help_ in _values(typed, option, rest)
            )
    elif last.startswith("-") and not typed.only_arguments:
        for name, option in _options(typed.command).items():
            if last.startswith("--") or len(name) == 2 or last == "-":
                yield name, first_sentence(option.help)
    elif hasattr(typed.command, "commands"):
        for name, command in typed.command.commands.items():
            if not command.hidden and not typed.arguments:
                yield name, first_sentence(command.help)
    else:
        arguments = [one for one in typed.command.params if one.param_type_name == "argument"]
        place = len(typed.arguments)
        if arguments and (place < len(arguments) or arguments[-1].nargs == -1):
            yield from _values(typed, arguments[min(place, len(arguments) - 1)], last)


# ---- reading what was typed -----------------------------------------------------------------------------------------------


def _read(root: Any, words: Sequence[str]) -> _Typed:
    typed = _Typed(root)
    for word in words:
        if typed.pending is not None:
            typed.options.setdefault(typed.pending.name, []).append(word)
            typed.pending = None
        elif typed.only_arguments:
            typed.arguments.append(word)
        elif word == "--":
            typed.only_arguments = True
        elif word.startswith("-") and word != "-":
            _read_option(typed, word)
        elif hasattr(typed.command, "commands") and word in typed.command.commands:
            typed.command = typed.command.commands[word]
            typed.words = (*typed.words, word)
        else:
            typed.arguments.append(word)
            typed.only_arguments = typed.command.context_settings.get("allow_interspersed_args") is False
    return typed


def _read_option(typed: _Typed, word: str) -> None:
    known = _options(typed.command)
    name, equals, value = word.partition("=")
    if not word.startswith("--"):
        name, value = word[:2], word[2:].removeprefix("=")  # -nshop; flags together (-it) have no value
    option = known.get(name)
    if option is None:
        return
    if option.is_flag:
        typed.options.setdefault(option.name, []).append("")
    elif equals or value:
        typed.options.setdefault(option.name, []).append(value)
    else:
        typed.pending = option


def _options(command: Any) -> dict[str, Any]:
    """Options by each of their names."""
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    return {name: one for one in options for name in (*one.opts, *one.secondary_opts)}


# ---- what a value may be --------------------------------------------------------------------------------------------------


def _values(typed: _Typed, parameter: Any, last: str) -> Iterator[Offer]:
    look = _BY_METAVAR.get(parameter.metavar or "") or _BY_NAME.get(parameter.name or "")
    if look is not None:
        yield from look(typed, last)


def _plain(*values: str) -> Callable[[_Typed, str], Iterator[Offer]]:
    def offer(_: _Typed, __: str) -> Iterator[Offer]:
        yield from ((value, "") for value in values)

    return offer


def _files(_: _Typed, __: str) -> Iterator[Offer]:
    yield FILES, ""


def _kinds_and_names(typed: _Typed, last: str) -> Iterator[Offer]:
    """KIND[,KIND] NAME… or KIND/NAME…, as kubectl takes them. After KIND,KIND no names are offered."""
    if "/" in last:
        yield from _of_kind(typed, last)
    elif not typed.arguments and "," in last:
        before = last.rpartition(",")[0]
        yield from ((f"{before},{kind}", "") for kind in kinds.PLURALS if kind not in before.split(","))
    elif not typed.arguments:
        for kind in kinds.PLURALS:
            yield kind, ""
        if typed.words == ("get",):
            yield "all", "workloads and their pods"
    elif "/" not in typed.arguments[0] and not _is_chosen(typed):
        for name in _names_of(typed, typed.arguments[0]):
            if name not in typed.arguments:
                yield name, ""


def _is_chosen(typed: _Typed) -> bool:
    """Whether objects are chosen by -l or --all: no name may follow."""
    return bool({"selector", "all_"} & typed.options.keys())


def _kind_slash_name(typed: _Typed, last: str) -> Iterator[Offer]:
    """KIND/NAME: what is stored in this namespace, by its full name; kinds, where -l or --all chooses of them."""
    if _is_chosen(typed):
        if not typed.arguments:
            yield from _kinds_and_names(typed, last)
        return
    if "/" in last:
        yield from _of_kind(typed, last)
        return
    if typed.arguments and "/" not in typed.arguments[0]:  # KIND NAME is taken as well
        yield from ((name, "") for name in _names_of(typed, typed.arguments[0]))
        return
    for kind, name in _store(typed).of_all(_namespace(typed)):
        yield f"{kind.lower()}/{name}", ""


def _of_kind(typed: _Typed, last: str) -> Iterator[Offer]:
    word = last.partition("/")[0]
    for name in _names_of(typed, word):
        yield f"{word}/{name}", ""


def _names_of(typed: _Typed, word: str) -> list[str]:
    kind = kinds.parse_kind(word)
    return _store(typed).of(kind, "" if kind in kinds.WITHOUT_NAMESPACE else _namespace(typed))


def _pods(typed: _Typed, last: str) -> Iterator[Offer]:
    yield from ((name, "") for name in _store(typed).of("Pod", _namespace(typed)))
    if "/" in last:
        yield from _of_kind(typed, last)


def _pods_or_owners(typed: _Typed, last: str) -> Iterator[Offer]:
    if _is_chosen(typed):
        return
    yield from _pods(typed, last)
    for kind, name in _store(typed).of_all(_namespace(typed)):
        if kind in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield f"{kind.lower()}/{name}", ""


def _nodes(typed: _Typed, _: str) -> Iterator[Offer]:
    yield from ((name, "") for name in _store(typed).of("Node"))


def _several_nodes(typed: _Typed, last: str) -> Iterator[Offer]:
    """node1,node2."""
    before = last.rpartition(",")[0]
    for name in _store(typed).of("Node"):
        if name not in before.split(","):
            yield (f"{before},{name}" if before else name), ""


def _places(typed: _Typed, last: str) -> Iterator[Offer]:
    """Of cp: a file here, or POD:PATH, whose path only the container knows."""
    yield from _files(typed, last)
    yield from ((f"{name}:", "") for name in _store(typed).of("Pod", _namespace(typed)))


def _containers(typed: _Typed, _: str) -> Iterator[Offer]:
    for pod in typed.arguments[:1]:
        yield from ((name, "") for name in _store(typed).containers(pod.removeprefix("pod/"), _namespace(typed)))


def _namespaces(typed: _Typed, _: str) -> Iterator[Offer]:
    yield from ((name, "") for name in _store(typed).namespaces())


def _contexts(typed: _Typed, last: str) -> Iterator[Offer]:
    from controller.cli.config import load
    from controller.cli.contexts import known

    if "/" in last:
        yield from _files(typed, last)
    for name, found in known(load(_config_file(typed)), Path.home()).items():
        yield name, str(found.directory)


def _formats(typed: _Typed, _: str) -> Iterator[Offer]:
    yield from ((name, "") for name in ("table", "wide", "json", "yaml", "name", "jsonpath="))
    if typed.words == ("get",):
        yield "custom-columns=", "NAME:.metadata.name,…"


# By what the command line's definition says: the metavar first, as the more exact one, then the parameter's name.
_BY_METAVAR: dict[str, Callable[[_Typed, str], Iterator[Offer]]] = {
    "KIND [NAME…] | KIND/NAME…": _kinds_and_names,
    "KIND[,KIND] NAME… | KIND/NAME…": _kinds_and_names,
    "KIND/NAME": _kind_slash_name,
    "KIND/NAME…": _kind_slash_name,
    "KIND/NAME… KEY=VALUE… KEY-…": _kind_slash_name,
    "POD": _pods,
    "POD|KIND/NAME": _pods_or_owners,
    "NODE": _nodes,
    "HOST": _nodes,
    "PATTERN": _nodes,
    "NODE,…": _several_nodes,
    "SOURCE": _places,
    "TARGET": _places,
    "CONTEXT": _contexts,
    "NAME|DIR": _contexts,
    "FILE": _files,
    "PATH": _files,
    "DIR": _files,
    "REF|FILE": _files,
    "SHELL": _plain("bash", "zsh", "fish"),
    "JSONPATH": _plain(".metadata.name", ".metadata.creationTimestamp"),
    "CONDITION": _plain("ready", "available", "complete", "failed", "delete"),
}
_BY_NAME: dict[str, Callable[[_Typed, str], Iterator[Offer]]] = {
    "namespace": _namespaces,
    "output": _formats,
    "container": _containers,
    "log_format": _plain("text", "json"),
    "log_level": _plain("debug", "info", "warning", "error"),
}


# ---- where to look --------------------------------------------------------------------------------------------------------


def _store(typed: _Typed) -> Names:
    from controller.act.storenames import FILE, Names

    return Names(_chosen(typed).directory / FILE)


def _namespace(typed: _Typed) -> str:
    given = _last(typed, "namespace") or _environment("SSHOAL_NAMESPACE")
    found = _chosen(typed)
    return given or found.entry.namespace or str(found.config.defaults("").get("namespace", "")) or "default"


def _chosen(typed: _Typed) -> Any:
    from controller.cli.config import load
    from controller.cli.contexts import current, resolve

    config, home = load(_config_file(typed)), Path.home()
    given = _last(typed, "context_dir") or _last(typed, "chosen") or _environment("SSHOAL_CONTEXT")
    return resolve(given, "", config, home) if given else current(config, home)


def _config_file(typed: _Typed) -> str:
    return _last(typed, "config") or _environment("SSHOAL_CONFIG")


def _last(typed: _Typed, name: str) -> str:
    return typed.options.get(name, [""])[-1]


def _environment(name: str) -> str:
    import os

    return os.environ.get(name, "")
