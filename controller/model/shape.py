"""Plain data → one object of a known kind, or what is wrong with it. Pure.

In: a kind's model, the data of one object, and the document it lies in. Out: the object (when there is one), every
problem, and notes. Pydantic finds what doesn't fit; here its errors become sentences about fields of Kubernetes.
What can be taken out of the data (a field that is unknown or not supported) is taken out, so that one round finds all
problems, and so that `--lenient` has an object to run.
"""

from __future__ import annotations

import difflib
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from controller.model.kinds import unsupported
from controller.model.kinds.check import problems_of
from controller.model.kinds.meta import Object, shown
from controller.model.yamlscan import OLD_TRUTHS, Document, Path

NOT_YET = "Kubernetes has it, sshoal does not support it yet"

Lenient = Literal["no", "without field", "without object"]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one place of a manifest."""

    path: Path
    message: str
    line: int
    lenient: Lenient = "no"  # what --lenient does about it


@dataclass(slots=True)
class Shape:
    """What became of one object's data, which was changed in place to what `thing` says."""

    thing: Object | None = None
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)


def read_shape(model: type[Object], data: dict[str, Any], document: Document, at: Path) -> Shape:
    """The object in `data`, which lies at the path `at` of `document`."""
    shape = Shape()
    if document.has_nulls:
        drop_nulls(data, document)
    reader = _Reader(model, data, document, at, shape)
    # Each round takes something out of the data or turns a number into a text, so this ends.
    while shape.thing is None and reader.attempt():
        pass
    if shape.thing is not None:
        # What lacks the part for which the object will be left out anyway is no further problem.
        ruined = {problem.path[:-1] for problem in shape.problems if problem.lenient == "without object"}
        shape.problems += [
            Problem(path, message, document.line_of((*at, *path)))
            for path, message in problems_of(shape.thing)
            if path not in ruined and not (path[:-1] in ruined and message.startswith("is required"))
        ]
    return shape


_TEXT_MAPS = frozenset(("data", "stringData", "binaryData", "labels", "annotations", "matchLabels", "nodeSelector"))


def drop_nulls(data: Any, document: Document, *, texts: bool = False) -> None:
    """A field without a value is an unset field, and in a map of texts an empty text: as Kubernetes reads JSON."""
    if isinstance(data, list):
        for item in data:
            drop_nulls(item, document)
    elif isinstance(data, dict):
        for key in [key for key, value in data.items() if value is None]:
            if texts:
                data[key] = ""
            else:
                document.remove(data, key)
        for key, value in data.items():
            drop_nulls(value, document, texts=key in _TEXT_MAPS)


def nearest(name: str, known: typing.Iterable[str], *, at_least: float = 0.7) -> str | None:
    """The known name that was most likely meant."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower()[:80], by_lower, n=1, cutoff=at_least)
    return by_lower[found[0]] if found else None


def describe(value: Any) -> str:
    """What kind of YAML value this is. Never the value itself: it may be a secret."""
    names = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    if isinstance(value, float):
        return "a number with a fraction"
    return names.get(type(value), "a number")


class _Reader:
    def __init__(self, model: type[Object], data: dict[str, Any], document: Document, at: Path, shape: Shape) -> None:
        self.model = model
        self.data = data
        self.document = document
        self.at = at
        self.shape = shape

    def attempt(self) -> bool:
        """Read once. Whether another attempt has a chance."""
        try:
            self.shape.thing = self.model.model_validate(self.data, by_alias=True, by_name=False)
            return False
        except ValidationError as error:
            details = error.errors(include_url=False)
        mended = False
        left: list[tuple[Path, ErrorDetails]] = []
        for detail in details:
            path = _path_in(self.data, detail["loc"])
            if self._mend(path, detail):
                mended = True
            else:
                left.append((path, detail))
        if not mended and not (mended := self._refuse_values(left)):
            seen: set[Path] = set()
            for path, detail in left:
                # A default that is computed from other fields is no news when one of those is wrong.
                if path not in seen and detail["type"] != "default_factory_not_called":
                    self._problem(path, _sentence(detail))
                seen.add(path)
        return mended

    def _mend(self, path: Path, detail: ErrorDetails) -> bool:
        if not path:
            return False
        parent, key = _get(self.data, path[:-1]), path[-1]
        if detail["type"] == "extra_forbidden":
            self._extra(path, parent, str(key))
            return True
        if detail["type"] == "string_type" and isinstance(detail["input"], int | float):
            self._as_text(path, parent, key)
            return True
        if (
            detail["input"] == ""
            and detail["type"] in ("literal_error", "value_error")
            and _empty_is_unset(self.model, path)
        ):
            self.document.remove(parent, key)
            return True
        if detail["type"] == "bool_type" and (truth := self._old_truth(parent, key)) is not None:
            parent[key] = truth
            return True
        if detail["type"] in ("int_type", "value_error") and is_whole(detail["input"]):
            parent[key] = int(detail["input"])
            return True
        if detail["type"] == "literal_error" and path[-2:-1] in _OF_RESOURCES and _is_resource(key):
            self._take_out(path, parent, str(key), f"{NOT_YET} (--lenient runs without it)", "without field")
            return True
        return False

    def _old_truth(self, parent: Any, key: str | int) -> bool | None:
        """`yes`, `off` … without quotes: YAML 1.1, as kubectl reads it, has them for true and false. None for anything else."""
        text = self.document.text_at(parent, key)
        return OLD_TRUTHS.get(text.lower()) if text and isinstance(parent[key], str) else None

    def _take_out(self, path: Path, parent: dict[str, Any], name: str, message: str, lenient: Lenient = "no") -> None:
        self._problem(path, message, lenient)
        # An alias elsewhere may stand for the same mapping: then it is out already.
        if name in parent:
            self.document.remove(parent, name)

    def _extra(self, path: Path, parent: dict[str, Any], name: str) -> None:
        model = _model_at(self.model, path[:-1])
        known = unsupported.FIELDS.get(model.__name__, {})
        meaning = known.get(name)
        if name not in known:
            hint = len(self.shape.problems) < _MOST_HINTS
            self._take_out(path, parent, name, _unknown(self.model, model, name, hint=hint))
        elif meaning is unsupported.RUINS:
            self._take_out(path, parent, name, f"{NOT_YET} (--lenient leaves this object out)", "without object")
        elif meaning is unsupported.NAMED and "name" not in parent:
            self._take_out(path, parent, name, "makes no name here: apply finds an object again by its metadata.name")
            parent["name"] = "unnamed"  # that it is missing is told
        elif meaning in (unsupported.MOOT, unsupported.NAMED):
            if name in parent:
                self.document.remove(parent, name)
        elif meaning is unsupported.NEVER or (name in parent and parent[name] not in (meaning, "")):
            self._take_out(path, parent, name, f"{NOT_YET} (--lenient runs without it)", "without field")
        elif name in parent:  # it says what happens anyway
            self.document.remove(parent, name)

    def _refuse_values(self, left: list[tuple[Path, ErrorDetails]]) -> bool:
        """Take out what has a value that Kubernetes knows and sshoal doesn't. Whether there was any.

        Only once nothing else can be mended, and from the end: what is taken out may hold other fields, or shift a list.
        """
        found = False
        gone: set[tuple[int, str | int]] = set()
        for path, detail in reversed(left):
            model = _model_at(self.model, path[:-1]).__name__
            name = next((step for step in reversed(path) if isinstance(step, str)), "")
            meaning, values = unsupported.VALUES.get(model, {}).get(name, (None, ()))
            if detail["type"] != "literal_error" or detail["input"] not in values:
                continue
            found = True
            word = detail["input"]
            told = f"{word}: {NOT_YET}"
            # What goes with such a value is no further problem: `type: Pods` and its `pods`.
            self._forget(path[:-1] if meaning is unsupported.WHOLE else (*path[:-1], word[0].lower() + word[1:]))
            if meaning is unsupported.RUINS:
                self._problem(path, f"{told} (--lenient leaves this object out)", "without object")
                # Another value stands in: what else is wrong with the object shall be told too.
                _get(self.data, path[:-1])[path[-1]] = _choices(detail)[0]
                continue
            if meaning is unsupported.WHOLE:
                told = f"{path[-1]} {told} (--lenient runs without this {model[0].lower()}{model[1:]})"
                path = path[:-1]
            else:
                told = f"{told} (--lenient runs without it)"
            self._problem(path, told, "without field")
            parent = _get(self.data, path[:-1])
            if (place := (id(parent), path[-1])) not in gone:  # an alias may have taken it out already
                self.document.remove(parent, path[-1])
                gone.add(place)
        return found

    def _forget(self, path: Path) -> None:
        """Fields that are not supported there and below."""
        self.shape.problems = [
            problem for problem in self.shape.problems if problem.lenient == "no" or problem.path[: len(path)] != path
        ]

    def _as_text(self, path: Path, parent: Any, key: str | int) -> None:
        value = _get(self.data, path)
        if isinstance(value, str):
            return
        text = self.document.text_at(parent, key)
        parent[key] = str(value) if text is None else text
        message = f"is {describe(value)} without quotes, read as the text it is; Kubernetes wants it in quotes"
        self.shape.notes.append(Problem(path, message, self.document.line_of((*self.at, *path))))

    def _problem(self, path: Path, message: str, lenient: Lenient = "no") -> None:
        self.shape.problems.append(Problem(path, message, self.document.line_of((*self.at, *path)), lenient))


def _empty_is_unset(root: type[BaseModel], path: Path) -> bool:
    """Whether this is an optional name or choice. There Kubernetes cannot tell "" from a field that is not there, and Helm writes it."""
    info = _field_at(root, path)
    if info is None or info.is_required() or not isinstance(path[-1], str):
        return False
    inner = [part for arg in typing.get_args(info.annotation) for part in getattr(arg, "__metadata__", ())]
    # Quantities, percentages and ports read their value before it is a text: of those "" is a wrong one.
    return not any(isinstance(part, BeforeValidator) for part in (*info.metadata, *inner))


_MOST_EXACT = 2**53  # above it a float may be another number than was written


def is_whole(value: Any) -> bool:
    """`1e+06` or `3.0`: YAML has no other way to write what JSON calls the same number."""
    return isinstance(value, float) and value.is_integer() and abs(value) <= _MOST_EXACT


# Maps whose keys are resources: of containers, and of what a LimitRange says.
_OF_RESOURCES = tuple(
    (name,) for name in ("requests", "limits", "min", "max", "default", "defaultRequest", "maxLimitRequestRatio")
)


def _is_resource(name: str | int) -> bool:
    """Whether Kubernetes could have this resource: `nvidia.com/gpu`, `hugepages-2Mi`."""
    return "/" in str(name) or str(name).startswith("hugepages-")


def _path_in(data: Any, loc: tuple[str | int, ...]) -> Path:
    """Pydantic's place of an error without the steps that only it knows, such as `[key]`."""
    path: list[str | int] = []
    for step in loc:
        inside = step in data if isinstance(data, dict) else isinstance(step, int) and isinstance(data, list)
        if inside:
            data = data[step]
            path.append(step)
        else:
            if isinstance(data, dict) and step != "[key]":
                path.append(step)  # a required field that isn't there
            break
    return tuple(path)


def _get(data: Any, path: Path) -> Any:
    for step in path:
        data = data[step]
    return data


def _field_at(model: type[BaseModel], path: Path) -> FieldInfo | None:
    """The field that `path` leads to; None when it leads into a map."""
    info: FieldInfo | None = None
    inside: type[BaseModel] | None = model
    for step in path:
        if not isinstance(step, int):
            info = next((one for one in inside.model_fields.values() if one.alias == step), None) if inside else None
            inside = _model_in(info.annotation) if info else None
    return info


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """The model of what lies at `path`; the last one on the way where that is no model."""
    for step in path:
        for info in model.model_fields.values():
            if info.alias == step and (inner := _model_in(info.annotation)):
                model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in typing.get_args(annotation) if (found := _model_in(arg))), None)


_MOST_HINTS = 50  # per object: finding the nearest name takes a millisecond, and a hostile file has 10,000 fields


def _unknown(root: type[BaseModel], model: type[BaseModel], name: str, *, hint: bool) -> str:
    aliases = [info.alias for info in model.model_fields.values() if info.alias]
    names = [*aliases, *unsupported.FIELDS.get(model.__name__, {})]
    text = f"unknown field {shown(name)}"
    if not hint:
        return text
    if meant := nearest(name, names, at_least=0.8):
        return f"{text}: did you mean {meant!r}?"
    if ending := next((known for known in names if known.lower().endswith(name.lower())), None):
        return f"{text}: did you mean {ending!r}?"  # `secret.name` is `secretName`
    if elsewhere := _where(root, name):
        return f"{text} here: it belongs to {elsewhere}"
    beginnings = [known for known in aliases if len(known) > 2 and name.lower().startswith(known.lower())]
    if meant := max(beginnings, key=len, default=None) or nearest(name, names):  # `environment` is `env`
        return f"{text}: did you mean {meant!r}?"
    return f"{text}: there are {', '.join(sorted(aliases))}"


def _where(root: type[BaseModel], name: str) -> str | None:
    """The path, near the top, of the one mapping that has a field of this name: for fields at the wrong depth."""
    level: list[tuple[str, type[BaseModel]]] = [("", root)]
    for _ in range(5):
        deeper: list[tuple[str, type[BaseModel]]] = []
        for path, model in level:
            for info in model.model_fields.values():
                if info.alias == name and path:
                    return path.removeprefix(".")
                if inner := _model_in(info.annotation):
                    many = "[]" if "tuple" in str(info.annotation) else ""
                    deeper.append((f"{path}.{info.alias}{many}", inner))
        level = deeper
    return None


def _sentence(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    given = detail["input"]
    match detail["type"]:
        case "missing":
            return "is required"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return _choice(given, _choices(detail))
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "int_type" | "int_from_float" | "int_parsing_size":
            return f"must be a whole number, not {describe(given)}"
        case "bool_type":
            word = given.lower() if isinstance(given, str) else ""
            return f"must be true or false, not {f'{word!r}' if word in OLD_TRUTHS else describe(given)}"
        case "string_type":
            return f"must be a text, not {describe(given)}"
        case "tuple_type":
            return f"must be a list, not {describe(given)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a mapping, not {describe(given)}"
        case "string_pattern_mismatch":
            return "holds characters that are not allowed here"
        case _:
            return detail["msg"]


def _choices(detail: ErrorDetails) -> list[str]:
    expected = str(detail["ctx"]["expected"])
    return [word for word in expected.replace(" or ", ", ").replace("'", "").split(", ") if word]


def _one_of(choices: list[str]) -> str:
    return " or ".join((", ".join(choices[:-1]), choices[-1])) if len(choices) > 1 else choices[0]


def _choice(given: Any, choices: list[str]) -> str:
    if not isinstance(given, str):
        return f"must be {_one_of(choices)}, not {describe(given)}"
    meant = nearest(given, choices)
    return f"must be {_one_of(choices)}, not {shown(given)}" + (f": did you mean {meant}?" if meant else "")
