"""-o custom-columns=NAME:PATH,…: a table whose columns the user gives. Pure: the text in, and of objects a row each out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from controller.cli.jsonpath import Finder, parse_path, shown
from controller.model.errors import UsageError
from controller.model.text import printable

_CELL_MAX = 1000
_COMMA = re.compile(r",(?![^\[]*\])")  # none of those between brackets: ['a','b']
_HINT = "for example custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[0].image"


@dataclass(frozen=True, slots=True)
class CustomColumns:
    """Of objects of any kind, what paths find in them."""

    header: tuple[str, ...]
    finders: tuple[Finder, ...]

    def row(self, value: Any) -> list[str]:
        """Several values of a column have commas between; an absent one is left empty."""
        return [printable(",".join(map(shown, find(value))), _CELL_MAX) for find in self.finders]


def parse_columns(text: str) -> CustomColumns:
    """NAME:.metadata.name,NODE:.spec.nodeName. Raises UsageError."""
    if not text:
        raise UsageError("custom-columns format specified but no custom columns given", hint=_HINT)
    header, finders = [], []
    for part in _COMMA.split(text):
        name, colon, path = part.partition(":")
        if not (name and colon and path):
            raise UsageError(
                f"unexpected custom-columns spec: {part!r}, expected <header>:<json-path-expr>", hint=_HINT
            )
        header.append(name)
        finders.append(parse_path(path))
    return CustomColumns(tuple(header), tuple(finders))
