"""Cron schedules: syntax, and when they are due."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.model.cron import Schedule, parse_schedule


@pytest.mark.parametrize(
    ("text", "after", "due"),
    [
        ("*/15 * * * *", "2026-01-01 10:07", "2026-01-01 10:15"),
        ("5/20 * * * *", "2026-01-01 10:07", "2026-01-01 10:25"),
        ("0 0 * * *", "2026-01-01 00:00", "2026-01-02 00:00"),
        ("30 4 1,15 * 5", "2026-01-01 05:00", "2026-01-02 04:30"),
        ("0 9 * * MON-FRI", "2026-01-02 10:00", "2026-01-05 09:00"),
        ("0 0 29 feb ?", "2026-01-01 00:00", "2028-02-29 00:00"),
        ("0 0 */2 * 1", "2026-01-01 01:00", "2026-01-03 00:00"),
        ("15,45 8-10 * * *", "2026-01-01 08:45", "2026-01-01 09:15"),
        ("@hourly", "2026-01-01 10:00", "2026-01-01 11:00"),
        ("@weekly", "2026-01-01 10:00", "2026-01-04 00:00"),
        ("@yearly", "2026-01-01 10:00", "2027-01-01 00:00"),
    ],
)
def test_next(text: str, after: str, due: str) -> None:
    found = parse_schedule(text).next(_utc(after))
    assert found is not None
    assert datetime.fromtimestamp(found, UTC).strftime("%Y-%m-%d %H:%M") == due


def test_a_day_that_never_comes_is_never_due() -> None:
    assert parse_schedule("0 0 30 2 *").next(_utc("2026-01-01 00:00")) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("* * * *", "must have five fields"),
        ("@fortnightly", "must have five fields"),
        ("60 * * * *", "is no minute: that is 0-59"),
        ("* * 0 * *", "is no day of the month"),
        ("* * * foo *", "is no month"),
        ("* * * * 7", "is no day of the week"),
        ("*/0 * * * *", "steps are 1 or more"),
        ("5-1 * * * *", "is no minute"),
        ("1,,2 * * * *", "is no minute"),
        ("TZ=UTC 0 0 * * *", "use spec.timeZone"),
    ],
)
def test_what_is_no_schedule_is_told(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_schedule(text)


def test_an_unknown_time_zone_is_told() -> None:
    for zone in ("Mars/Olympus", "../etc/passwd", "Europe"):
        with pytest.raises(ValueError, match="is no time zone"):
            parse_schedule("@daily", zone)


def test_wall_times_that_a_change_of_clocks_skips_or_repeats() -> None:
    """Berlin 2026: 02:30 does not exist on March 29th and comes twice on October 25th."""
    schedule = parse_schedule("30 2 * * *", "Europe/Berlin")
    assert _ticks(schedule, "2026-03-28 12:00", 2) == ["2026-03-30 00:30", "2026-03-31 00:30"]
    assert _ticks(schedule, "2026-10-24 12:00", 3) == ["2026-10-25 00:30", "2026-10-25 01:30", "2026-10-26 01:30"]


fields = st.tuples(
    st.sampled_from(["*", "0", "*/7", "3,30-40/5", "59"]),
    st.sampled_from(["*", "2", "*/5", "1-3"]),
    st.sampled_from(["*", "1", "29-31", "*/9"]),
    st.sampled_from(["*", "2", "3,10"]),
    st.sampled_from(["*", "0", "mon-fri", "?"]),
)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"])
moments = st.integers(1_767_225_600, 1_827_619_200).map(float)  # 2026 and 2027


@settings(max_examples=150, deadline=None)
@given(fields, zones, moments)
def test_minute_by_minute_it_is_due_exactly_when_the_fields_say_so(
    words: tuple[str, ...], zone: str, start_s: float
) -> None:
    """The oracle asks each minute of two days by itself."""
    text = " ".join(words)
    schedule = parse_schedule(text, zone)
    start_s -= start_s % 60
    asked = [start_s + 60 * count for count in range(2 * 1440)]
    due = [moment_s for moment_s in asked if _is_due(schedule, datetime.fromtimestamp(moment_s, ZoneInfo(zone)))]
    found = []
    after_s = start_s - 1
    while (tick_s := schedule.next(after_s)) is not None and tick_s <= asked[-1]:
        found.append(tick_s)
        after_s = tick_s
    assert found == due
    assert schedule.latest(start_s - 1, asked[-1] + 30) == (due[-1] if due else None)
    assert schedule.latest(asked[-1], asked[-1]) is None


def _is_due(schedule: Schedule, when: datetime) -> bool:
    in_month, in_week = when.day in schedule.days, when.isoweekday() % 7 in schedule.weekdays
    day = (in_month or in_week) if schedule.either_day else (in_month and in_week)
    return day and when.month in schedule.months and when.hour in schedule.hours and when.minute in schedule.minutes


def _ticks(schedule: Schedule, after: str, count: int) -> list[str]:
    found = []
    after_s = _utc(after)
    for _ in range(count):
        tick_s = schedule.next(after_s)
        assert tick_s is not None
        after_s = tick_s
        found.append(datetime.fromtimestamp(after_s, UTC).strftime("%Y-%m-%d %H:%M"))
    return found


def _utc(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp()


def test_time_zones_are_known_on_a_machine_that_has_none() -> None:
    program = "from controller.model.cron import find_zone; print(find_zone('Europe/Berlin'), find_zone(''))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONTZPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "Europe/Berlin UTC\n"
