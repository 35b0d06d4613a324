"""kubectl's JSONPath templates: `{.items[*].metadata.name}`. Pure: a template and JSON values in, text out.

What there is, and what it means, follows kubectl's reference ("JSONPath Support"): fields, escaped dots, [n], slices, unions, [*],
`..name`, filters, {range}{end}, quoted text. Anything else is refused with its place, rather than printed as nothing.

As in kubectl, a field that is not there gives no text, an index outside a list is an error, several results stand with a blank between,
and objects and lists are printed as JSON. `$` is what the template begins with; where that is not the current object it is refused.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controller.model.errors import UsageError

HINT = "for example '{.items[*].metadata.name}'"

Step = Callable[[Any], Iterator[Any]]  # one value → those it leads to
Path = tuple[Step, ...]
Finder = Callable[[Any], list[Any]]  # a value → what a path finds in it

_NAME = re.compile(r"""(?:\\.|[^\s.,\[\]$@{}()!<>=|&'"*\\])+""")
_SLICE = re.compile(r"(-?\d+)?(?::(-?\d+)?(?::(\d+)?)?)?")
_COMPARISON = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*")
_RELAXED = re.compile(r"\{\.?([^{}]+)\}|\.?([^{}]+)")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_DIGITS_MAX = 19  # of a signed number of 64 bits
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class _Text:
    text: str


@dataclass(frozen=True, slots=True)
class _Value:
    path: Path


@dataclass(frozen=True, slots=True)
class _Range:
    path: Path
    body: tuple[_Part, ...]


_Part = _Text | _Value | _Range


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was read without errors."""

    parts: tuple[_Part, ...]

    def render(self, value: Any) -> str:
        """Raises UsageError for what can only be known with the value: an index outside a list, a list expected."""
        return _render(self.parts, value)


def parse_path(text: str) -> Finder:
    """One path as --sort-by and custom-columns take it: .metadata.name, metadata.name or {.metadata.name}. Raises UsageError.

    What it finds in a value is told; nothing for what is not there, an index outside a list included.
    """
    found = _RELAXED.fullmatch(text)
    inner = (found[1] or found[2]) if found else ""
    if not inner:
        raise UsageError(f"{text!r} is no single JSONPath", hint="for example .metadata.name")
    reader = _Reader(inner if inner.startswith("[") else f".{inner}")
    path = reader.whole_path()

    def find(value: Any) -> list[Any]:
        try:
            return _follow(path, value)
        except UsageError:  # what a list lacks, or what is no list
            return []

    return find


def parse(text: str) -> Template:
    """Raises UsageError with the place of what is not understood."""
    if "{" not in text:
        raise UsageError(f"the JSONPath {text!r} has no expression in braces", hint=HINT)
    reader = _Reader(text)
    parts = reader.parts(in_range=False)
    return Template(parts)


# ---- rendering ----------------------------------------------------------------------------------------------------------


def _render(parts: Sequence[_Part], value: Any) -> str:
    texts = []
    for part in parts:
        match part:
            case _Text(text):
                texts.append(text)
            case _Value(path):
                texts.append(" ".join(shown(found) for found in _follow(path, value)))
            case _Range(path, body):
                texts += [_render(body, item) for item in _follow(path, value)]
    return "".join(texts)


def _follow(path: Path, value: Any) -> list[Any]:
    found = [value]
    for step in path:
        found = [after for before in found for after in step(before)]
    return found


def shown(value: Any) -> str:
    """As text: objects and lists as JSON, null as nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


# ---- steps --------------------------------------------------------------------------------------------------------------


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


def _descend(value: Any) -> Iterator[Any]:
    """The value and all below it that have something below them, outer ones first."""
    if isinstance(value, dict | list | tuple) and value:
        yield value
        for child in _children(value):
            yield from _descend(child)


def _index(number: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        items = _list(value)
        if not -len(items) <= number < len(items):
            raise UsageError(f"JSONPath: [{number}] of a list of {len(items)}")
        yield items[number]

    return step


def _slice(start: int | None, stop: int | None, pace: int | None) -> Step:
    return lambda value: iter(_list(value)[start:stop:pace])


def _union(paths: Sequence[Path]) -> Step:
    return lambda value: (found for path in paths for found in _follow(path, value))


def _filter(left: Path, comparison: str, right: Path) -> Step:
    """Elements for which it holds. One that lacks a side is left out, whatever the comparison: so does kubectl."""

    def step(value: Any) -> Iterator[Any]:
        for item in _list(value):
            lefts = _follow(left, item)
            if not comparison:
                if lefts:
                    yield item
                continue
            rights = _follow(right, item)
            if len(lefts) > 1 or len(rights) > 1:
                raise UsageError("JSONPath: a filter compares one value with one; these are several")
            if lefts and rights and _compared(lefts[0], comparison, rights[0]):
                yield item

    return step


def _compared(left: Any, comparison: str, right: Any) -> bool:
    if isinstance(left, bool) != isinstance(right, bool):  # True is no 1 here
        return comparison == "!="
    try:
        return _COMPARE[comparison](left, right)
    except TypeError:
        raise UsageError(f"JSONPath: {shown(left)!r} and {shown(right)!r} have no order") from None


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"JSONPath: a list is expected where there is {shown(value)[:60]!r}")
    return value


# ---- reading templates --------------------------------------------------------------------------------------------------


class _Reader:
    """A cursor over the template."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parts(self, *, in_range: bool) -> tuple[_Part, ...]:
        """Up to the end of the template, or (in_range) to its {end}."""
        parts: list[_Part] = []
        while self._at < len(self._text):
            brace = self._text.find("{", self._at)
            if brace != self._at:
                end = len(self._text) if brace < 0 else brace
                parts.append(_Text(self._text[self._at : end]))
                self._at = end
                continue
            self._at += 1
            self._blanks()
            if self._takes_word("end"):
                self._expect("}")
                if not in_range:
                    raise self._error("{end} without {range}")
                return tuple(parts)
            if self._takes_word("range"):
                self._blanks()
                path = self._path(in_range=in_range)
                self._expect("}")
                parts.append(_Range(path, self.parts(in_range=True)))
                continue
            parts.append(self._quoted_text() if self._peek() in "\"'" else _Value(self._path(in_range=in_range)))
            self._expect("}")
        if in_range:
            raise self._error("{range} without {end}")
        return tuple(parts)

    def whole_path(self) -> Path:
        """The text as one path."""
        path = self._path(in_range=True)
        if self._peek_after_blanks():
            raise self._error("the end of the path is expected")
        return path

    def _quoted_text(self) -> _Text:
        return _Text(self._quoted())

    def _path(self, *, in_range: bool) -> Path:
        begin = self._at
        root = self._peek()
        if root == "$" and in_range:
            raise self._error("'$' inside a range or filter; '@' is the current object")
        if root in ("$", "@"):
            self._at += 1
        steps: list[Step] = []
        while self._peek() in (".", "["):
            if self._peek() == "[":
                steps.append(self._bracket())
                continue
            self._at += 1
            if self._peek() == ".":
                self._at += 1
                steps.append(_descend)
                if self._peek() == "[":
                    continue
            steps.append(self._star_or_name())
        if self._at == begin:
            raise self._error("a path is expected, which begins with '.'")
        return tuple(steps)

    def _star_or_name(self) -> Step:
        if self._peek() == "*":
            self._at += 1
            return _children
        found = _NAME.match(self._text, self._at)
        if not found:
            raise self._error("a field's name is expected")
        self._at = found.end()
        return _field(_unescaped(found[0]))

    def _bracket(self) -> Step:
        self._at += 1
        self._blanks()
        if self._text.startswith("?(", self._at):
            self._at += 2
            step = self._condition()
            self._expect(")")
            self._expect("]")
            return step
        choices = [self._choice()]
        while self._peek_after_blanks() == ",":
            self._at += 1
            self._blanks()
            choices.append(self._choice())
        self._expect("]")
        return choices[0][0] if len(choices) == 1 and len(choices[0]) == 1 else _union(choices)

    def _choice(self) -> Path:
        """What stands between commas in brackets: *, n, a slice, or 'name' (in which unescaped dots lead on, as in kubectl)."""
        if self._peek() == "*":
            self._at += 1
            return (_children,)
        if self._peek() in ("'", '"'):
            inside = _Reader(f".{self._quoted(raw=True)}")
            path = inside._path(in_range=True)
            if inside._peek():
                raise self._error("a field's name is expected in the quotes")
            return path
        found = _SLICE.match(self._text, self._at)
        if not found or not found[0]:
            raise self._error("a number, a slice, '*', a quoted name or ?(…) is expected")
        if any(len(text or "") > _DIGITS_MAX for text in found.groups()):
            raise self._error(f"a number has at most {_DIGITS_MAX} digits")
        self._at = found.end()
        start, stop, pace = (int(text) if text else None for text in found.groups())
        if ":" not in found[0]:
            return (_index(int(found[0])),)
        if pace == 0:
            raise self._error("the step of a slice must be 1 or more")
        return (_slice(start, stop, pace),)

    def _condition(self) -> Step:
        self._blanks()
        left = self._operand()
        found = _COMPARISON.match(self._text, self._at)
        if not found:
            return _filter(left, "", ())
        self._at = found.end()
        return _filter(left, found[1], self._operand())

    def _operand(self) -> Path:
        if self._peek() in ("'", '"'):
            return (_constant(self._quoted()),)
        for word, value in (("true", True), ("false", False)):
            if self._takes_word(word):
                return (_constant(value),)
        if found := _NUMBER.match(self._text, self._at):
            if len(found[0]) > _DIGITS_MAX:
                raise self._error(f"a number has at most {_DIGITS_MAX} digits")
            self._at = found.end()
            return (_constant(float(found[0]) if found[1] else int(found[0])),)
        if self._peek() != "@":
            raise self._error("a path that begins with '@', a quoted text, a number, true or false is expected")
        return self._path(in_range=True)

    def _quoted(self, *, raw: bool = False) -> str:
        """The text in quotes; with `raw` its backslashes stay."""
        quote = self._peek()
        begin = self._at + 1
        end = begin
        while end < len(self._text) and self._text[end] != quote:
            end += 2 if self._text[end] == "\\" else 1
        if end >= len(self._text):
            raise self._error(f"the quote {quote} does not end")
        self._at = end + 1
        inside = self._text[begin:end]
        return inside if raw else _unescaped(inside)

    def _takes_word(self, word: str) -> bool:
        after = self._at + len(word)
        if not self._text.startswith(word, self._at) or self._text[after : after + 1].isalnum():
            return False
        self._at = after
        return True

    def _expect(self, mark: str) -> None:
        if self._peek_after_blanks() != mark:
            raise self._error(f"{mark!r} is expected")
        self._at += 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _peek_after_blanks(self) -> str:
        self._blanks()
        return self._peek()

    def _blanks(self) -> None:
        while self._peek().isspace():
            self._at += 1

    def _error(self, problem: str) -> UsageError:
        rest = self._text[self._at : self._at + 20]
        where = f"before {rest!r}" if rest else "at the end"
        return UsageError(f"JSONPath, column {self._at + 1}, {where}: {problem}", hint=HINT)


def _constant(value: Any) -> Step:
    return lambda _: iter((value,))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL)
