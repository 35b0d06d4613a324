"""What happened and who did what: events and operations, two tables of the store with bounds by count and by age.

An operation is written in the transaction that it tells of, so that none is done without its row, and none has a row without being done:
a user's verb with the records it changed, and each order to an agent (a new wanted set: epoch, serial, node) with why. Rows are only added;
the outcome of an order is put in once the agent has answered. What is older than the bounds goes, oldest first, and its pages are given
back to the file system; how much went before its time is counted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controller.model.cluster import Pod, Record
from controller.model.plan import Change
from controller.model.text import printable

SCHEMA = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY, kept_s REAL NOT NULL, wall_s REAL NOT NULL, first_wall_s REAL NOT NULL, count INTEGER NOT NULL,
    warning INTEGER NOT NULL, reason TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    node TEXT NOT NULL, message TEXT NOT NULL
);
CREATE INDEX events_by_object ON events (kind, namespace, name);
CREATE INDEX events_by_time ON events (kept_s);
CREATE TABLE operations (
    id INTEGER PRIMARY KEY, wall_s REAL NOT NULL, user TEXT NOT NULL, sudo_user TEXT NOT NULL, machine TEXT NOT NULL,
    command TEXT NOT NULL, verb TEXT NOT NULL, objects TEXT NOT NULL, because TEXT NOT NULL, node TEXT NOT NULL,
    epoch INTEGER NOT NULL, serial INTEGER NOT NULL, outcome TEXT NOT NULL
);
CREATE INDEX operations_by_time ON operations (wall_s);
CREATE UNIQUE INDEX operations_by_serial ON operations (serial) WHERE serial > 0;
"""

ORDER = "order"  # the verb of a wanted set given to an agent
ACCEPTED = "accepted"

_SAME_PODS = "the same pods; their config, secrets or what the node has to know has changed"
_DAY_S = 86400.0
_SAME_S = 600.0  # equal events so close together are one row
_OBJECTS_MAX = 50  # named in one row; the rest is counted
_TEXT_MAX = 500
_FREE_PAGES_MAX = 256  # that many unused pages stay for what comes next; 1 MiB
_PAGES_AT_ONCE = 1024  # are given back in one transaction


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is kept: so many rows, at most so old (seconds)."""

    events: int = 5_000
    events_age_s: float = 14 * _DAY_S
    operations: int = 20_000
    operations_age_s: float = 400 * _DAY_S


@dataclass(frozen=True, slots=True)
class Actor:
    """Who uses the store: user of the operating system, who called sudo (as sudo tells), machine, and the command given."""

    user: str = ""
    sudo_user: str = ""
    machine: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to an object. Repeated ones are one row with a count, as in Kubernetes."""

    wall_s: float
    reason: str
    message: str
    kind: str
    namespace: str
    name: str
    node: str = ""
    warning: bool = False
    first_wall_s: float = 0.0
    count: int = 1


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the record of operations. `outcome` is "" while it is not known, e.g. because the controller was killed."""

    wall_s: float
    actor: Actor
    verb: str
    objects: tuple[str, ...]  # "Deployment shop/web"
    because: str = ""
    node: str = ""
    epoch: int = 0
    serial: int = 0
    outcome: str = ""
    id: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """How much history there is, and how much went before its time because there was too much of it."""

    events: int
    events_dropped: int
    operations: int
    operations_dropped: int


@dataclass
class Noted:
    """An operation under way: whoever carries it out may say better than "done" how it ended."""

    outcome: str = "done"


NOBODY = Actor()
USUAL = Bounds()


class History:
    """The two tables, over the store's connection. The caller holds the transaction when it writes."""

    def __init__(self, database: sqlite3.Connection, actor: Actor, bounds: Bounds, clock: Callable[[], float]) -> None:
        self._database = database
        self._actor = actor
        self._bounds = bounds
        self._clock = clock

    # ---- events ----

    def events(self, *, kind: str = "", namespace: str = "", name: str = "", limit: int = 500) -> list[Event]:
        """The newest events, oldest first; empty arguments match all."""
        rows: list[tuple[Any, ...]] = self._database.execute(
            "SELECT wall_s, reason, message, kind, namespace, name, node, warning, first_wall_s, count FROM events"
            " WHERE (?1 = '' OR kind = ?1) AND (?2 = '' OR namespace = ?2) AND (?3 = '' OR name = ?3)"
            " ORDER BY wall_s DESC, id DESC LIMIT ?4",
            (kind, namespace, name, limit),
        ).fetchall()
        return [Event(*row) for row in reversed(rows)]

    def add_events(self, events: Iterable[Event]) -> None:
        """Adds to the count of the same event of the last ten minutes, or writes a new one."""
        added = False
        for event in events:
            if self._count_again(event):
                continue
            # The time of writing, by our clock, decides how long a row is kept: a host's clock may say anything.
            self._database.execute(
                "INSERT INTO events (kind, namespace, name, reason, message, node, wall_s, first_wall_s, count, warning, kept_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*_subject(event), event.wall_s, event.wall_s, event.count, int(event.warning), self._clock()),
            )
            added = True
        if added:
            # By time, not by number: an event that came again is as new as its last time.
            self._trim("events", "kept_s", "kept_s, id", self._bounds.events, self._bounds.events_age_s)

    def _count_again(self, event: Event) -> bool:
        same = self._database.execute(
            "UPDATE events SET wall_s = ?, count = count + ?, kept_s = ? WHERE id ="
            " (SELECT id FROM events WHERE (kind, namespace, name, reason, message, node) = (?, ?, ?, ?, ?, ?) AND wall_s >= ?"
            " ORDER BY id DESC LIMIT 1)",
            (event.wall_s, event.count, self._clock(), *_subject(event), event.wall_s - _SAME_S),
        )
        return same.rowcount > 0

    # ---- operations ----

    def operations(
        self, *, text: str = "", node: str = "", user: str = "", serial: int = 0, limit: int = 500
    ) -> list[Operation]:
        """The newest operations, oldest first; empty arguments match all. `text` is an object's name as `named` gives it."""
        rows = self._database.execute(
            "SELECT wall_s, user, sudo_user, machine, command, verb, objects, because, node, epoch, serial, outcome, id"
            " FROM operations WHERE (?1 = '' OR EXISTS (SELECT 1 FROM json_each(objects) WHERE value = ?1))"
            " AND (?2 = '' OR node = ?2) AND (?3 = '' OR ?3 IN (user, sudo_user)) AND (?4 = 0 OR serial = ?4)"
            " ORDER BY id DESC LIMIT ?5",
            (text, node, user, serial, limit),
        ).fetchall()
        return [_operation(row) for row in reversed(rows)]

    def note(self, verb: str, objects: Iterable[str], *, node: str = "", epoch: int = 0) -> int:
        """Writes what is about to be done. Out: its number, for `conclude`."""
        number = self._add(verb, objects, "", node, epoch, 0, "")
        self._trim_operations()
        return number

    def note_edit(self, records: Iterable[Record], because: Iterable[str] = ()) -> None:
        """A user's verb, which is all done with the transaction."""
        why = "; ".join(dict.fromkeys(because))
        self._add(self._actor.command or "edit", map(named, records), why, "", 0, 0, "done")
        self._trim_operations()

    def note_orders(self, epoch: int, serials: Mapping[str, int], changes: Iterable[Change]) -> None:
        """New wanted sets, by node: one row each, with the pods there that the pass has changed, and why."""
        pods: dict[str, list[Change]] = {}
        for change in changes:
            if isinstance(change.record, Pod) and not change.quiet:
                pods.setdefault(change.record.node, []).append(change)
        for node, serial in serials.items():
            there = pods.get(node, [])
            why = "; ".join(dict.fromkeys(change.because for change in there)) or _SAME_PODS
            self._add(ORDER, (named(change.record) for change in there), why, node, epoch, serial, "")
        if serials:
            self._trim_operations()

    def conclude(self, number: int, outcome: str) -> None:
        """How an operation of `note` ended."""
        self._database.execute(
            "UPDATE operations SET outcome = ? WHERE id = ?", (printable(outcome, _TEXT_MAX), number)
        )

    def answered(self, outcomes: Mapping[int, str]) -> bool:
        """What agents said to orders, by serial. Out: whether anything of it was new."""
        rows = [(printable(outcome, _TEXT_MAX), serial) for serial, outcome in outcomes.items()]
        changed = self._database.executemany(
            "UPDATE operations SET outcome = ?1 WHERE serial = ?2 AND outcome != ?1", rows
        )
        return changed.rowcount > 0

    def _add(
        self, verb: str, objects: Iterable[str], because: str, node: str, epoch: int, serial: int, outcome: str
    ) -> int:
        actor = self._actor
        names = list(dict.fromkeys(objects))
        if len(names) > _OBJECTS_MAX:
            names = [*names[:_OBJECTS_MAX], f"and {len(names) - _OBJECTS_MAX} more"]
        done = self._database.execute(
            "INSERT INTO operations (wall_s, user, sudo_user, machine, command, verb, objects, because, node, epoch, serial, outcome)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._clock(),
                actor.user,
                actor.sudo_user,
                actor.machine,
                actor.command,
                verb,
                # A file's name may be no UTF-8, which SQLite does not take.
                json.dumps(names, ensure_ascii=False).encode(errors="replace").decode(),
                printable(because, _TEXT_MAX),
                node,
                epoch,
                serial,
                outcome,
            ),
        )
        return done.lastrowid or 0

    # ---- bounds ----

    def kept(self) -> Kept:
        (events,) = self._database.execute("SELECT COUNT(*) FROM events").fetchone()
        (operations,) = self._database.execute("SELECT COUNT(*) FROM operations").fetchone()
        return Kept(events, self._dropped("events"), operations, self._dropped("operations"))

    def _trim_operations(self) -> None:
        # By number: the row that was just written stays, whatever a clock that was set back says.
        self._trim("operations", "wall_s", "id", self._bounds.operations, self._bounds.operations_age_s)

    def _trim(self, table: str, time: str, order: str, count: int, age_s: float) -> None:
        """`table`, `time` and `order` (which rows go first) are names of ours, never a user's."""
        self._database.execute(f"DELETE FROM {table} WHERE {time} < ?", (self._clock() - age_s,))  # noqa: S608
        (kept,) = self._database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()  # noqa: S608
        dropped = kept - count
        if dropped > 0:
            self._database.execute(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY {order} LIMIT ?)",  # noqa: S608
                (dropped,),
            )
            self._database.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{table}_dropped", str(self._dropped(table) + dropped))
            )
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        for _ in range(min(free - _FREE_PAGES_MAX, _PAGES_AT_ONCE)):
            # Python takes one step, which is one page, of any number
            self._database.execute("PRAGMA incremental_vacuum(1)")

    def _dropped(self, table: str) -> int:
        row = self._database.execute("SELECT value FROM meta WHERE key = ?", (f"{table}_dropped",)).fetchone()
        return int(row[0]) if row else 0


def named(record: Record) -> str:
    """As operations name objects: "Deployment shop/web", "Node node1"."""
    return f"{record.meta.kind} {record.meta.key}"


def _subject(event: Event) -> tuple[str, ...]:
    return event.kind, event.namespace, event.name, event.reason, event.message, event.node


def _operation(row: tuple[Any, ...]) -> Operation:
    wall_s, user, sudo_user, machine, command, verb, objects, because, node, epoch, serial, outcome, number = row
    actor = Actor(user, sudo_user, machine, command)
    return Operation(wall_s, actor, verb, tuple(json.loads(objects)), because, node, epoch, serial, outcome, number)
