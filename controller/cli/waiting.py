"""`wait --for jsonpath=…`: whether a field of an object has a value. Pure: a text in, a judge of objects out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from controller.cli.jsonpath import parse_path, shown
from controller.cli.objects import to_object
from controller.cli.scene import stored_scene
from controller.decide.standing import Progress
from controller.model.errors import UsageError
from controller.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.cli.carry import Judge
    from controller.model.cluster import Moment, Record, World

# An expression in braces may hold = and ==; what comes behind it is the value.
_FORM = re.compile(r"(?P<path>\{.*\}|[^=]+)(?:=(?P<value>.*))?", re.DOTALL)


def jsonpath_judge(text: str, now: Callable[[], Moment]) -> Judge:
    """Of "{.status.phase}=Running", as kubectl takes it; without a value any will do. Raises UsageError."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is no JSONPath and value", hint="for example --for jsonpath='{.status.phase}'=Running"
        )
    path, value = match["path"], match["value"]
    if value == "":
        raise UsageError("jsonpath wait value cannot be empty", hint="without = any value will do")
    find = parse_path(path)

    def judge(world: World, record: Record) -> Progress:
        found = [shown(one) for one in find(to_object(stored_scene(world, now()), record))]
        done = found == [value] if value is not None else bool(found)
        name = f"{record.meta.kind.lower()} {record.meta.name}"
        return Progress(done, f"{name}: {path} is {printable(', '.join(found), 200) or 'not there'}")

    return judge
