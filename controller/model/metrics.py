"""Metrics as Prometheus reads them: families of samples and their text. Pure.

The text is version 0.0.4 of Prometheus' exposition format, which Prometheus and node_exporter's textfile collector take. It is written here
rather than by a client library: such libraries count for a whole process, and what is shown here is computed from one pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller.model.text import printable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_VALUE_MAX = 200  # characters of a label's value; hosts may say anything
_LINE = re.compile(r"([a-z_]+)(?:\{(.*)\})? ([-+.0-9eInf]+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line. `suffix` is what a histogram's lines add to the name of the family."""

    value: float
    labels: Labels = ()
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name. `kind`: gauge, counter or histogram."""

    name: str
    kind: str
    help: str
    samples: tuple[Sample, ...]


def sample(value: float, **labels: str) -> Sample:
    """A sample with these labels, in this order."""
    return Sample(value, tuple(labels.items()))


def text_of(families: Iterable[Family]) -> str:
    """The text of an answer or a file. Families without samples are left out."""
    return "".join(line + "\n" for family in families if family.samples for line in _lines(family))


def samples_in(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """(name, labels, value) of each line of a text that `text_of` made. What is not understood is passed over."""
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found:
            try:
                value = float(found[3])
            except ValueError:
                continue
            yield found[1], {name: _unescaped(raw) for name, raw in _LABEL.findall(found[2] or "")}, value


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {_escaped(family.help, quotes=False)}"
    yield f"# TYPE {family.name} {family.kind}"
    told: set[str] = set()
    for one in family.samples:
        labels = ",".join(f'{name}="{_escaped(printable(value, _VALUE_MAX))}"' for name, value in one.labels)
        series = f"{family.name}{one.suffix}{f'{{{labels}}}' if labels else ''}"
        if series not in told:  # twice the same, as a host may say it, would make Prometheus refuse everything
            told.add(series)
            yield f"{series} {_number(one.value)}"


def _escaped(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], text)


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
