"""Cron schedules: five fields or a macro, and when they are due. Pure.

Syntax and meaning are those of Kubernetes' CronJob (robfig/cron's standard parser): names of months and days, lists, ranges, steps, `?` as
`*`, `N/step` as `N-max/step`; where both the day of the month and that of the week are restricted, either will do. Times are wall times of
a time zone: one that a change of clocks skips is skipped, one that comes twice is due twice.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_PART = re.compile(r"(?P<low>\*|\?|[0-9]{1,2}|[a-z]{3})(?:-(?P<high>[0-9]{1,2}|[a-z]{3}))?(?:/(?P<step>[0-9]{1,4}))?")
_HORIZON_DAYS = 366 * 9  # the 29th of February comes every eight years at the least


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a CronJob is due, in wall time of `zone`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0: Sunday
    either_day: bool  # both kinds of day are restricted: one of them is enough
    zone: ZoneInfo

    def latest(self, after_s: float, until_s: float) -> float | None:
        """The last time in (after_s, until_s] that it is due, in seconds since 1970; None when there is none."""
        if until_s <= after_s:
            return None
        day = datetime.fromtimestamp(until_s, self.zone).date()
        first = datetime.fromtimestamp(after_s, self.zone).date() - timedelta(days=1)
        while day >= first:
            if self._is_due_on(day):
                for moment_s in self._times(day, after_s, until_s, backwards=True):
                    return moment_s
            day -= timedelta(days=1)
        return None

    def next(self, after_s: float) -> float | None:
        """The first time after `after_s`; None when it is never due, as on the 30th of February."""
        day = datetime.fromtimestamp(after_s, self.zone).date() - timedelta(days=1)
        for _ in range(_HORIZON_DAYS):
            if self._is_due_on(day):
                for moment_s in self._times(day, after_s, math.inf, backwards=False):
                    return moment_s
            day += timedelta(days=1)
        return None

    def _is_due_on(self, day: date) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((in_month or in_week) if self.either_day else (in_month and in_week))

    def _times(self, day: date, after_s: float, until_s: float, *, backwards: bool) -> Iterator[float]:
        """Due times of a day in (after_s, until_s], in order. Wall times may come twice within an hour, so that is sorted as a whole."""
        first_minute, last_minute = min(self.minutes), max(self.minutes)
        for hour in sorted(self.hours, reverse=backwards):
            first_s = self._moment_s(day, hour, first_minute, 0)
            last_s = self._moment_s(day, hour, last_minute, 1)
            if (first_s is not None and first_s > until_s) or (last_s is not None and last_s <= after_s):
                continue
            found = {self._moment_s(day, hour, minute, fold) for minute in self.minutes for fold in (0, 1)}
            yield from sorted((one for one in found if one is not None and after_s < one <= until_s), reverse=backwards)

    def _moment_s(self, day: date, hour: int, minute: int, fold: int) -> float | None:
        """None for a wall time that a change of clocks skips."""
        moment_s = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone, fold=fold).timestamp()
        back = datetime.fromtimestamp(moment_s, self.zone)
        return moment_s if (back.day, back.hour, back.minute) == (day.day, hour, minute) else None


@lru_cache(maxsize=1024)
def parse_schedule(text: str, zone: str = "") -> Schedule:
    """A schedule in a time zone of the IANA database; "" is UTC. ValueError completes a sentence that begins with the field's path."""
    if text.startswith(("TZ=", "CRON_TZ=")):
        raise ValueError("may not hold a time zone: use spec.timeZone")
    words = MACROS.get(text.strip().lower(), text).split()
    if len(words) != len(_FIELDS):
        known = ", ".join(MACROS)
        raise ValueError(f"must have five fields (minute hour day month weekday) or be one of {known}")
    minutes, hours, days, months, weekdays = (
        _values(word.lower(), field) for word, field in zip(words, _FIELDS, strict=True)
    )
    either = not _is_any(words[2]) and not _is_any(words[4])
    return Schedule(minutes, hours, days, months, weekdays, either, find_zone(zone))


def find_zone(name: str) -> ZoneInfo:
    """ValueError when the time zone is not known on this machine."""
    try:
        return ZoneInfo(name or "UTC")
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a directory's name gives an OSError
        raise ValueError(f"{name!a} is no time zone that this machine knows, such as Europe/Berlin") from None


def shown_time(moment_s: float) -> str:
    """RFC 3339 in UTC."""
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_any(word: str) -> bool:
    """Whether a field does not restrict: `*/2` does."""
    return any(part in ("*", "?", "*/1", "?/1") for part in word.split(","))


def _values(word: str, field: tuple[str, int, int, dict[str, int]]) -> frozenset[int]:
    title, smallest, largest, names = field
    found: set[int] = set()
    for part in word.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(
                f"{part[:40]!a} is no {title}: a number, *, a range such as 1-5, a step such as */15, or a list of these"
            )
        low, high = _number(match["low"], names, smallest), _number(match["high"], names, largest)
        if low is None or high is None:
            raise ValueError(f"{part[:40]!a} is no {title}")
        if match["high"] is None and match["low"] not in ("*", "?") and match["step"] is None:
            high = low
        step = int(match["step"] or 1)
        if match["high"] is not None and match["low"] in ("*", "?"):
            raise ValueError(f"{part[:40]!a} is no {title}: a range begins with a number")
        if not smallest <= low <= high <= largest or step < 1:
            raise ValueError(f"{part[:40]!a} is no {title}: that is {smallest}-{largest}, steps are 1 or more")
        found.update(range(low, high + 1, step))
    return frozenset(found)


def _number(text: str | None, names: dict[str, int], otherwise: int) -> int | None:
    if text in (None, "*", "?"):
        return otherwise
    return int(text) if text is not None and text.isdecimal() else names.get(text or "")
