"""--sort-by: objects in the order of one field, as kubectl sorts. Pure: a path and objects in, the objects in order out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from controller.cli.jsonpath import Finder, parse_path, shown
from controller.model import quantity
from controller.model.errors import UsageError

_Item = TypeVar("_Item")
_PARTS = re.compile(r"[0-9]+|[^0-9]")


@dataclass(frozen=True, slots=True)
class Order:
    """By what `find` finds first in each object."""

    text: str
    find: Finder

    def sorted(self, items: Sequence[_Item], object_of: Callable[[_Item], Any]) -> list[_Item]:
        """Objects without the field first; equal ones stay as they are.

        Raises: UsageError where no object has the field, or it has no order.
        """
        firsts = [next(iter(self.find(object_of(item))), None) for item in items]
        if items and all(first is None for first in firsts):
            raise UsageError(f"couldn't find any field with path {self.text!r} in the list of objects")
        key = self._key(firsts)
        return [item for _, item in sorted(zip(firsts, items, strict=True), key=lambda pair: key(pair[0]))]

    def _key(self, values: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
        """Numbers before texts. Texts that are all quantities go by these: 500Gi before 1Ti; else web-2 before web-10, times too."""
        for value in values:
            if isinstance(value, bool | dict | list | tuple):
                raise UsageError(
                    f"--sort-by {self.text}: {shown(value)[:60]!r} has no order", hint="a text, number or time has"
                )
        amounts = {text: _amount(text) for text in values if isinstance(text, str)}
        of_text = natural if None in amounts.values() else amounts.get

        def key(value: Any) -> tuple[Any, ...]:
            if value is None:
                return (0,)
            return (2, of_text(value)) if isinstance(value, str) else (1, value)

        return key


def parse_order(text: str) -> Order:
    """Raises UsageError."""
    return Order(text, parse_path(text))


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key by which numbers in texts count as such: web-2 < web-10. Digits stand among other characters where "0" does."""
    parts = []
    for part in _PARTS.findall(text):
        if part[0] in "0123456789":
            digits = part.lstrip("0")
            parts.append((ord("0"), len(digits), digits))
        else:
            parts.append((ord(part), 0, ""))
    return parts


def _amount(text: str) -> Fraction | None:
    try:
        return quantity.exact(text)
    except ValueError:
        return None
