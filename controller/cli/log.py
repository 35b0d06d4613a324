"""What passes say while they work: one line for each thing, on standard error. The only place that logs; below it, what happens is data.

Two forms of the same lines: text for people, json for programs. Words of hosts pass `printable` first: no escapes, no ends of lines,
bounded. Values of secrets are in no change, note or event, so in no line. Light: loaded before the first connection is begun.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from controller.model.cluster import Pod, Seen
from controller.model.errors import SshoalError, UsageError
from controller.model.plan import Change
from controller.model.text import printable

if TYPE_CHECKING:
    from controller.loop import Pass

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_MESSAGE_MAX = 500
_EVENTS_MAX = 50  # of agents, told of one pass


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened. `event`: what kind of thing, for programs; `text`: the whole line, for people."""

    level: str
    event: str
    message: str
    text: str
    fields: Mapping[str, str] = field(default_factory=dict)


class Log:
    """Says what is new in each pass. `clock`: seconds since 1970."""

    def __init__(self, format_: str, level: str, clock: Callable[[], float], out: TextIO | None = None) -> None:
        """Raises UsageError for a format or level that there is not."""
        if format_ not in FORMATS:
            raise UsageError(f"--log-format {format_} is not a format of logs", hint=f"one of {', '.join(FORMATS)}")
        if level not in LEVELS:
            raise UsageError(f"--log-level {level} is not a level", hint=f"one of {', '.join(LEVELS)}")
        self.is_json = format_ == "json"
        self._least = LEVELS.index(level)
        self._clock = clock
        self._out = out
        self._passes = 0
        self._told: frozenset[str] = frozenset()
        self._failing = ""  # why no pass has succeeded since the last one that did

    def passed(self, done: Pass) -> None:
        """After each pass: its changes, what it noticed for the first time, and at level debug what it came to."""
        self._passes += 1
        if self._failing:
            self._failing = ""
            self.say(Line("info", "Resumed", "passes succeed again", "passes succeed again"))
        for change in done.plan.changes:
            if not change.quiet:
                self.say(_of_change(change))
        from controller.cli.carry import notes_of  # there by now: a pass needs the greater part of the program

        notes = frozenset(notes_of(done))
        for note in sorted(notes - self._told):
            self.say(Line("warning", "Note", note, f"! {printable(note, _MESSAGE_MAX)}"))
        self._told = notes
        for line in _of_agents(done):
            self.say(line)
        self.say(_of_pass(done))

    def failed(self, error: SshoalError) -> None:
        """An error, such as the one that ends the program, in the form of the other lines."""
        text = f"error: {error.message}" + (f"\n  → {error.hint}" if error.hint else "")
        self.say(Line("error", type(error).__name__, error.message, text, {"hint": error.hint} if error.hint else {}))

    def stumbled(self, error: SshoalError) -> None:
        """An error that ended one pass, while the program goes on: said once, however often it comes, until a pass succeeds."""
        if error.message != self._failing:
            self._failing = error.message
            self.failed(error)

    def say(self, line: Line) -> None:
        if LEVELS.index(line.level) < self._least:
            return
        print(self._json(line) if self.is_json else line.text, file=self._out or sys.stderr, flush=True)

    def _json(self, line: Line) -> str:
        moment = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        found = {
            "time": moment,
            "level": line.level,
            "event": line.event,
            "message": printable(line.message, _MESSAGE_MAX),
            "pass": self._passes,
            **{name: printable(value, _MESSAGE_MAX) for name, value in line.fields.items() if value},
        }
        return json.dumps(found, ensure_ascii=False)


def _of_change(change: Change) -> Line:
    meta = change.record.meta
    pod = meta.name if isinstance(change.record, Pod) else ""
    node = meta.name if meta.kind == "Node" else str(getattr(change.record, "node", ""))
    fields = {
        "verb": change.verb,
        "reason": change.reason,
        "kind": meta.kind,
        "namespace": meta.namespace,
        "name": meta.name,
        "pod": pod,
        "node": node,
    }
    text = f"{change.verb:8} {change.subject}: {printable(change.because, _MESSAGE_MAX)}"
    return Line("warning" if change.warning else "info", "Change", change.because, text, fields)


def _of_agents(done: Pass) -> Iterator[Line]:
    """What agents tell of themselves and their pods, in the order of the nodes; of a flood only its beginning."""
    told = 0
    for node, sighting in sorted(done.world.sightings.items()):
        if not isinstance(sighting, Seen):
            continue
        for event in sighting.events:
            told += 1
            if told > _EVENTS_MAX:
                break
            subject = f"pod {event.pod}" if event.pod else f"node {node}"
            namespace, _, pod = event.pod.partition("/")
            fields = {
                "reason": event.reason,
                "node": node,
                "namespace": namespace,
                "pod": pod,
                "container": event.container,
            }
            text = printable(f"{event.reason} {subject} on {node}: {event.message}", _MESSAGE_MAX)
            yield Line("debug", "AgentEvent", event.message, text, fields)


def _of_pass(done: Pass) -> Line:
    from controller.cli.measures import outcome_of

    outcome = outcome_of(done)
    seen = sum(isinstance(one, Seen) for one in done.world.sightings.values())
    message = f"pass: {outcome}, {seen} of {len(done.world.sightings)} hosts, {len(done.plan.changes)} changes, {done.took_s:.3f} s"
    return Line("debug", "Pass", message, message, {"outcome": outcome, "seconds": f"{done.took_s:.3f}"})
