"""YAML text → plain JSON data with the line of every key, within bounds. Pure.

In: the text of one file. Out: its documents, and every problem found. Next: manifest.py.

Data is built straight from the event stream of libyaml's parser, which needs no stack for nesting and gives events one
by one; PyYAML's composer and constructor are never reached. They crash on deep nesting, and merge keys make them work
for as long as an attacker likes. Bounds therefore hold while reading: file size, depth, and the number of values
counted after aliases are expanded.

Scalars are YAML 1.2's core schema (`no` is a text, `22:22` too), but for whole numbers that begin with 0: they are
octal as Kubernetes reads them, since `defaultMode: 0644` must mean what it means there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from controller.model.errors import ManifestError

LARGEST_FILE_BYTES = 3 * 1024 * 1024
MOST_VALUES = 10_000  # in one document, aliases counted as what they stand for
MOST_CHARACTERS = LARGEST_FILE_BYTES  # likewise, in its keys and texts
DEEPEST = 64
TOO_DEEP = f"is nested more than {DEEPEST} levels deep"

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """One document. `data` may be changed in place by its reader; lines are found by the identity of its containers."""

    file: str
    line: int
    data: Any = None
    has_nulls: bool = False
    has_aliases: bool = False
    _lines: dict[int, dict[str, int] | list[int]] = field(default_factory=dict)
    _texts: dict[tuple[int, str | int], str] = field(default_factory=dict)
    _kept: list[Any] = field(default_factory=list)  # containers that have lines: an identity must not be reused

    def line_of(self, path: Path) -> int:
        """The line of the key or item at `path`, or of the nearest thing around it that is there."""
        here, line = self.data, self.line
        for step in path:
            lines = self._lines.get(id(here))
            try:
                line, here = lines[step], here[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        return line

    def text_at(self, container: Any, key: str | int) -> str | None:
        """How a number or truth value was written, those of YAML 1.1 among them; None for anything else."""
        return self._texts.get((id(container), key))

    def remove(self, container: Any, key: str | int) -> None:
        """Take a key or item out of the data, so that lines stay right."""
        del container[key]
        lines = self._lines.get(id(container))
        if isinstance(container, list) and lines is not None:
            del lines[key]  # type: ignore[arg-type]


def scan(text: str, file: str) -> tuple[list[Document], list[ManifestError]]:
    """All documents of `text` that could be read, and all problems. Empty documents are left out."""
    if len(text) > LARGEST_FILE_BYTES or len(text.encode(errors="replace")) > LARGEST_FILE_BYTES:
        return [], [ManifestError("is larger than 3 MiB, the most that is read", file=file)]
    reader = _Reader(text, file)
    documents = reader.documents()
    if reader.problems and (as_yaml := _json_as_yaml(text)) != text:
        text, reader = as_yaml, _Reader(as_yaml, file)
        documents = reader.documents()
    for _ in range(_MOST_APOSTROPHES):
        if reader.refused_at is None or (mended := _without_escaped_apostrophes(text, reader.refused_at)) == text:
            break
        text, reader = mended, _Reader(mended, file)
        documents = reader.documents()
    return documents, reader.problems


# Texts with such an escape, of which each is one more reading of the file.
_MOST_APOSTROPHES = 100
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPE = re.compile(r"\\.", re.DOTALL)


def _without_escaped_apostrophes(text: str, at: int) -> str:
    """`\\'` in the double-quoted text at `at`, which kubectl's YAML has and libyaml has not, written so that both have it."""
    quoted = _QUOTED.match(text, at)
    if quoted is None:
        return text
    mended = _ESCAPE.sub(lambda match: r"\x27" if match[0] == r"\'" else match[0], quoted[0])
    return text[:at] + mended + text[quoted.end() :]


# Any escape, so that the second half of `\\` begins none.
_SURROGATES = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)")
# Only between two JSON objects: within one there is a comma, and no text has a line break.
_NEXT_OBJECT = re.compile(r"(?<=\})([ \t\r]*\n(?:[ \t\r]*\n)*)(?=[ \t]*\{)")


def _json_as_yaml(text: str) -> str:
    """What JSON may hold and YAML may not, written as YAML, with every line where it is.

    That is characters as surrogate pairs, and objects one after another, as jq writes them.
    """
    if not text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        return text
    return _NEXT_OBJECT.sub(r"\1--- ", _SURROGATES.sub(_as_one_escape, text))


def _as_one_escape(match: re.Match[str]) -> str:
    if match[1] is None:
        return match[0]
    return f"\\U{0x10000 + ((int(match[1], 16) & 0x3FF) << 10) + (int(match[2], 16) & 0x3FF):08x}"


class _StopReading(Exception):
    """A problem after which the rest of the file can't be read."""


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.problems: list[ManifestError] = []
        self.refused_at: int | None = None  # where the quoted text begins that holds an escape libyaml does not know
        self._text = text
        self._loader: yaml.CSafeLoader | None = None
        self._document = Document(file, 1)
        self._values = self._characters = 0
        # name → (data, values and characters in it); None: not yet complete
        self._anchors: dict[str, tuple[Any, int, int] | None] = {}

    def documents(self) -> list[Document]:
        """All that could be read. Once."""
        try:
            return self._documents()
        finally:
            if self._loader is not None:
                self._loader.dispose()

    def _documents(self) -> list[Document]:
        found: list[Document] = []
        try:
            self._loader = yaml.CSafeLoader(self._text)
            while not isinstance(event := self._next(), yaml.StreamEndEvent):
                if isinstance(event, yaml.DocumentStartEvent):
                    self._document = Document(self.file, 1)
                    self._values, self._characters, self._anchors = 0, 0, {}
                    first = self._next()
                    self._document.line = _line(first)
                    self._document.data = self._compose(first, 1)
                    if self._document.data is not None:
                        found.append(self._document)
        except _StopReading:
            pass
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if error.problem == "found unknown escape character" and error.context_mark:
                self.refused_at = error.context_mark.index
            read = self._text.removeprefix("\ufeff")
            character = read[mark.index : mark.index + 1] if mark else ""
            problem = TOO_DEEP if is_too_deep(error) else f"not YAML: {_reason(error, character)}"
            line = mark.line + 1 if mark else 0
            self._problem(problem + self._of_template(line), line)
        except yaml.YAMLError as error:  # a character that YAML does not allow
            self._problem(f"not YAML: {getattr(error, 'reason', None) or 'cannot be read'}", self._document.line)
        except UnicodeError:
            self._problem("not YAML: it holds half of a surrogate pair", 0)
        return found

    def _next(self) -> Any:
        return self._loader.get_event()  # type: ignore[union-attr]

    def _compose(self, event: Any, depth: int) -> Any:
        kind = type(event)
        if kind is yaml.AliasEvent:
            return self._alias(event, depth)
        line = _line(event)
        size = len(event.value) if kind is yaml.ScalarEvent else 0
        self._count(1, size, line)
        if depth > DEEPEST:
            self._stop(TOO_DEEP, line)
        anchor, values, characters = event.anchor, self._values - 1, self._characters - size
        if anchor:
            self._anchors[anchor] = None
        data: Any
        if kind is yaml.ScalarEvent:
            data = self._scalar(event, line)
        elif kind is yaml.MappingStartEvent:
            data = self._mapping(event, depth, line)
        else:
            data = self._sequence(event, depth, line)
        if anchor:
            self._anchors[anchor] = (data, self._values - values, self._characters - characters)
        return data

    def _mapping(self, start: Any, depth: int, line: int) -> dict[str, Any]:
        self._check_tag(start.tag, ("map",), line)
        document = self._document
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        document._lines[id(data)] = lines
        document._kept.append(data)
        merged: list[Any] | None = None
        while (key := self._next()).__class__ is not yaml.MappingEndEvent:
            key_line = _line(key)
            if key.__class__ is not yaml.ScalarEvent:
                self._stop("a key must be a text" + self._of_template(key_line), key_line)
            name = key.value
            self._count(0, len(name), key_line)
            value_event = self._next()
            value = self._compose(value_event, depth + 1)
            if name == "<<" and not key.style:
                if merged is not None:
                    self._stop("'<<' is there twice: one with a list, '<<: [*a, *b]', takes several mappings", key_line)
                merged = value if isinstance(value, list) else [value]
                if not all(isinstance(one, dict) for one in merged):
                    self._stop("'<<' takes a mapping or a list of mappings", key_line)
                continue
            if name in data:
                self._problem(f"{_shown(name)} is there twice: first on line {lines[name]}", key_line)
            data[name] = value
            lines[name] = key_line
            self._note_text(data, name, value_event, value)
        for source in merged or ():  # of several that have a name, the first gives it
            for name in source.keys() - data.keys():
                data[name] = source[name]
                lines[name] = document._lines[id(source)][name]
                if (text := document.text_at(source, name)) is not None:
                    document._texts[id(data), name] = text
        return data

    def _sequence(self, start: Any, depth: int, line: int) -> list[Any]:
        self._check_tag(start.tag, ("seq",), line)
        data: list[Any] = []
        lines: list[int] = []
        self._document._lines[id(data)] = lines
        self._document._kept.append(data)
        while (event := self._next()).__class__ is not yaml.SequenceEndEvent:
            value = self._compose(event, depth + 1)
            data.append(value)
            lines.append(_line(event))
            self._note_text(data, len(data) - 1, event, value)
        return data

    def _scalar(self, event: Any, line: int) -> Any:
        text: str = event.value
        if "\0" in text:
            self._problem("holds a NUL character", line)
        if event.tag is None:
            value = text if event.style else read_plain(text)
        elif event.tag == "!":
            return text
        else:
            tag = self._check_tag(event.tag, tuple(_TYPE_OF_TAG), line)
            value = text if tag in ("str", "") else read_plain(text)
            if tag and not isinstance(value, _TYPE_OF_TAG[tag]):
                self._problem(f"{_shown(text)} is not what its tag !!{tag} says", line)
        if value is None:
            self._document.has_nulls = True
        return value

    def _alias(self, event: Any, depth: int) -> Any:
        line = _line(event)
        target = self._anchors.get(event.anchor)
        if target is None:
            wrong = "is inside of what it stands for" if event.anchor in self._anchors else "stands for nothing above"
            self._stop(f"alias *{event.anchor[:80]} {wrong}", line)
        data, values, characters = target
        self._count(values, characters, line)
        if depth + _height(data) - 1 > DEEPEST:
            self._stop(f"is nested more than {DEEPEST} levels deep once its aliases are filled in", line)
        self._document.has_aliases = True
        return data

    def _note_text(self, container: Any, key: str | int, event: Any, value: Any) -> None:
        if event.__class__ is yaml.ScalarEvent and (value.__class__ is not str or _is_old_truth(event)):
            self._document._texts[id(container), key] = event.value

    def _check_tag(self, tag: str | None, allowed: tuple[str, ...], line: int) -> str:
        """The short name of a core tag, "" for none or for one that was refused."""
        if tag is None or tag == "!":
            return ""
        name = tag.removeprefix("tag:yaml.org,2002:")
        if name in allowed:
            return name
        self._problem(f"tag {_shown(tag)} is not allowed", line)
        return ""

    def _count(self, values: int, characters: int, line: int) -> None:
        self._values += values
        self._characters += characters
        if self._values > MOST_VALUES or self._characters > MOST_CHARACTERS:
            self._stop(
                f"the document holds more than {MOST_VALUES:,} values or 3 MiB (aliases counted as what they stand "
                "for): write several documents with '---' between them",
                line,
            )

    def _of_template(self, line: int) -> str:
        """Why a line can't be read, where it is of a template: to YAML its braces are mappings."""
        if not line or "{{" not in "".join(self._text.splitlines()[line - 1 : line]):
            return ""
        return ": {{ … }} is for a template engine, whose output can be applied (helm template …)"

    def _problem(self, message: str, line: int) -> None:
        self.problems.append(ManifestError(message, file=self.file, line=line))

    def _stop(self, message: str, line: int) -> NoReturn:
        self._problem(message, line)
        raise _StopReading


_TYPE_OF_TAG: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "null": type(None),
}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
OLD_TRUTHS = {"y": True, "yes": True, "on": True, "n": False, "no": False, "off": False}  # YAML 1.1's
_FIRST_OF_NUMBER = frozenset("+-.0123456789")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_OCTAL = re.compile(r"0o?([0-7]+)")
_HEX = re.compile(r"0x([0-9a-fA-F]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_LONGEST_NUMBER = 32  # longer ones stay texts, and the field that wants a number then says so


def read_plain(text: str) -> Any:
    """The value of an unquoted scalar: None, bool, int, finite float or text."""
    if text in _NULLS:
        return None
    if text[0] not in _FIRST_OF_NUMBER:
        return _BOOLS.get(text, text)
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if match := _OCTAL.fullmatch(text):
        return int(match[1], 8)
    if match := _HEX.fullmatch(text):
        return int(match[1], 16)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text


def _is_old_truth(event: Any) -> bool:
    return not event.style and event.tag is None and len(event.value) <= 3 and event.value.lower() in OLD_TRUTHS


def _line(event: Any) -> int:
    return event.start_mark.line + 1  # type: ignore[no-any-return]


def _height(data: Any) -> int:
    if isinstance(data, dict):
        return 1 + max(map(_height, data.values()), default=0)
    if isinstance(data, list):
        return 1 + max(map(_height, data), default=0)
    return 1


def is_too_deep(error: yaml.YAMLError) -> bool:
    """Whether libyaml gave up by a bound of its own, as it does from 0.2.6 on: it reads ahead of whoever counts levels."""
    return "maximum nesting depth" in str(getattr(error, "problem", ""))


def _reason(error: yaml.MarkedYAMLError, character: str) -> str:
    """`character`: where the error is."""
    if error.problem == "found character that cannot start any token":
        if character == "\t":
            return "a tab where only blanks may be"
        if character in ("@", "`", "%"):
            return f"a text that begins with {character} needs quotes"
    return ", ".join(part for part in (error.problem, error.context) if part)


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 80 else f"{text[:80]!a}…"
