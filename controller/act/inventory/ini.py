"""Ansible's INI inventories → Builder. No I/O.

Sections [group], [group:children], [group:vars]; host lines `name-or-range[:port] key=value …` split as a shell would; values are
Python literals where they can be read as such, else strings. Raises InventoryError with file and line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from controller.act.inventory.builder import Builder, Place
from controller.act.inventory.ranges import expand
from controller.model.inventory import Unsafe

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_CHILD = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
_NEEDS_SHELL_SPLIT = re.compile(r"[\"'\\#]")
_PLAIN_STRING = re.compile(r"[A-Za-z_/~][A-Za-z0-9_/~.@-]*[A-Za-z0-9_/~@]")
_LITERAL_WORDS = {"True", "False", "None"}
_LITERAL_CHARS_MAX = 100_000


@dataclass(slots=True)
class _Pending:
    """A group that was mentioned and not yet declared."""

    line: int
    parents: list[str]  # empty: it has only a [group:vars] section


def read(text: str, file: str, builder: Builder) -> None:
    """Adds what the text says to the builder. Raises InventoryError."""
    group, kind = "ungrouped", "hosts"
    pending: dict[str, _Pending] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        place = Place(file, number)
        section = _SECTION.fullmatch(line)
        if section:
            group, kind = section[1], section[2] or "hosts"
            _open_section(group, kind, place, builder, pending)
        elif line[0] == "[" and line[-1] == "]":
            raise place.error(f"{line} is not a section", hint="write [group], [group:children] or [group:vars]")
        elif kind == "hosts":
            _host_line(line, group, place, builder)
        elif kind == "vars":
            name, equals, value = line.partition("=")
            if not equals:
                raise place.error(f"expected key=value, got {line!r}")
            builder.set_group_variable(group, name.strip(), literal(value.strip(), place), place)
        else:
            _child_line(line, group, place, builder, pending)
    for name, mention in pending.items():
        place = Place(file, mention.line)
        if mention.parents:
            raise place.error(f"[{mention.parents[-1]}:children] names group {name!r}, which is not defined")
        raise place.error(f"[{name}:vars] is for a group that is not defined", hint=f"add a section [{name}]")


def literal(text: str, place: Place) -> Any:
    """A value as Ansible reads it from INI: a Python literal if it is one, else the string itself."""
    if text in _LITERAL_WORDS:
        return {"True": True, "False": False, "None": None}[text]
    if _PLAIN_STRING.fullmatch(text):
        return text
    if text.isascii() and text.isdecimal() and len(text) <= 18 and (text[0] != "0" or text == "0"):
        return int(text)
    if len(text) > _LITERAL_CHARS_MAX:
        raise place.error(f"a value of more than {_LITERAL_CHARS_MAX} characters")
    return _plain(_evaluated(text), place)


def _evaluated(text: str) -> Any:
    import ast
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _plain(value: Any, place: Place) -> Any:
    """Python literals that JSON and YAML lack become what Ansible makes of them."""
    if isinstance(value, list | tuple | set):
        return [_plain(item, place) for item in value]
    if isinstance(value, dict):
        if any(not isinstance(key, str | int | float | bool | None) for key in value):
            raise place.error("a mapping has a key that is no plain value")
        return {key: _plain(item, place) for key, item in value.items()}
    if isinstance(value, bytes):
        return Unsafe(value.decode("utf-8", "replace"))
    if isinstance(value, complex):
        return str(value)
    return "..." if value is ... else value


def _open_section(group: str, kind: str, place: Place, builder: Builder, pending: dict[str, _Pending]) -> None:
    if kind not in ("hosts", "children", "vars"):
        raise place.error(f"[{group}:{kind}] is of an unknown kind", hint="kinds are children and vars")
    if group not in builder.groups:
        if kind == "vars" and group not in pending:
            pending[group] = _Pending(place.line, [])
        builder.add_group(group, place)
    if group in pending and kind != "vars":
        mention = pending.pop(group)
        for parent in mention.parents:
            builder.add_child(parent, group, place)


def _child_line(line: str, group: str, place: Place, builder: Builder, pending: dict[str, _Pending]) -> None:
    child = _CHILD.fullmatch(line)
    if not child:
        raise place.error(f"expected the name of a group, got {line!r}")
    name = child[1]
    if name in builder.groups:
        builder.add_child(group, name, place)
    elif name in pending:
        pending[name].parents.append(group)
    else:
        pending[name] = _Pending(place.line, [group])


def _host_line(line: str, group: str, place: Place, builder: Builder) -> None:
    words = _words(line, place)
    if words[0] == "---":
        raise place.error("this is the start of a YAML document", hint="name the file .yml")
    try:
        names, port = expand(words[0])
    except ValueError as error:
        raise place.error(f"{words[0]!r}: {error}") from None
    variables: dict[str, Any] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals:
            raise place.error(f"expected key=value, got {word!r}", hint="a value with spaces needs quotes")
        variables[name] = literal(value, place)
    for host in names:
        builder.add_host(host, group, port, place)
        for name, value in variables.items():
            builder.set_host_variable(host, name, value, place)


def _words(line: str, place: Place) -> list[str]:
    if not _NEEDS_SHELL_SPLIT.search(line):
        return re.split(r"[ \t]+", line)
    import shlex

    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise place.error(f"quotes do not match: {error}") from None
