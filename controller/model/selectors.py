"""Label selectors as text: app=web,tier!=db,env in (a,b),!canary. Pure. Syntax and meaning are kubectl's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from controller.model.errors import UsageError

Predicate = Callable[[Mapping[str, str]], bool]

_KEY = r"[A-Za-z0-9][A-Za-z0-9._/-]*"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s+\(([^()]*)\)")
_EQUAL = re.compile(rf"({_KEY})\s*(==|=|!=)\s*([A-Za-z0-9._-]*)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_COMMA = re.compile(r",(?![^(]*\))")


def parse_selector(text: str) -> Predicate:
    """Whether labels match; an empty text matches all. Raises UsageError."""
    if not text.strip():
        return lambda labels: True
    parts = [_part(part.strip()) for part in _COMMA.split(text)]
    return lambda labels: all(part(labels) for part in parts)


def _part(text: str) -> Predicate:
    if found := _SET.fullmatch(text):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        inside = operator == "in"
        # As in Kubernetes, notin also matches objects that lack the label.
        return lambda labels: (labels[key] in values) == inside if key in labels else not inside
    if found := _EQUAL.fullmatch(text):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.fullmatch(text):
        absent, key = bool(found[1]), found[2]
        return lambda labels: (key in labels) != absent
    raise UsageError(f"{text!r} is not a label selector", hint="for example app=web,tier!=db,env in (a,b),!canary")
