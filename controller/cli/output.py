"""What commands print: tables, documents, durations, one line of live progress. Pure but for the functions that print."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from controller.model.errors import SshoalError, UsageError

_JSONPATH = "jsonpath="
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, headers: bool = True) -> str:
    """Columns as kubectl aligns them: upper-case header (unless there shall be no `headers`), three spaces between."""
    lines = [*([list(header)] if headers else []), *[[cell or "<none>" for cell in row] for row in rows]]
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def is_document(output: str) -> bool:
    """Whether it is a format for programs, which `document` makes."""
    return output in ("json", "yaml") or output.startswith(_JSONPATH)


def document(value: Any, output: str) -> str:
    """A value as json, yaml or by a jsonpath. Raises UsageError when that does not fit the value."""
    if output == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    if output.startswith(_JSONPATH):
        from controller.cli import jsonpath

        return jsonpath.parse(output.removeprefix(_JSONPATH)).render(value)
    from controller.cli.yamltext import dump  # only when asked for

    return dump(value).rstrip()


def emit(text: str, output: str) -> None:
    """Prints what a read found. A jsonpath decides on its ends of lines itself; on a terminal its text has no control characters."""
    if not output.startswith(_JSONPATH):
        print(text)
        return
    if sys.stdout.isatty():
        text = "".join(character for character in text if character.isprintable() or character in "\n\t")
    sys.stdout.write(text)


def age(seconds: float) -> str:
    """As kubectl shows ages, the second unit only while it says much: 45s, 3m20s, 3h50m, 12h, 2d5h, 12d, 2y70d."""
    total = max(0, int(seconds))
    minutes, hours, days = total // 60, total // 3600, total // 86400
    years = days // 365
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return _units(minutes, "m", total % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _units(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _units(days, "d", hours % 24, "h")
    if years < 2:
        return f"{days}d"
    return _units(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _units(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


def duration_s(text: str) -> float:
    """Seconds of 90, 90s, 5m, 1h30m. Raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if not match or not any(match.groups()):
        raise UsageError(f"{text!r} is not a duration", hint="for example 90s, 5m or 1h30m")
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds or 0)


def check_output(output: str, allowed: Sequence[str] = ("table", "wide", "json", "yaml", "name")) -> str:
    """Raises UsageError for an output format that the command does not have. Where there is json, there is jsonpath=TEMPLATE."""
    if "json" in allowed and output.startswith(_JSONPATH):
        from controller.cli import jsonpath

        jsonpath.parse(output.removeprefix(_JSONPATH))
    elif output not in allowed:
        known = [*allowed, *(f"{_JSONPATH}TEMPLATE" for name in allowed if name == "json")]
        raise UsageError(f"-o {output} is not a format of this command", hint=f"one of {', '.join(known)}")
    return output


class Unwritten(SshoalError):
    """Standard output, or that of errors, takes no more."""


@contextlib.contextmanager
def writing_here(what: str) -> Iterator[None]:
    """Raises Unwritten for a full disk and the like; BrokenPipeError as it is: whoever reads this has had enough."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(f"{what} can't be written here: {error.strerror}") from None


class Progress:
    """One line on a terminal that is rewritten as things go on; nothing at all where standard error is no terminal."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = ""

    def show(self, text: str) -> None:
        if self._live and text != self._shown:
            self._write(text[: _columns() - 1])
            self._shown = text

    def note(self, text: str) -> None:
        """A line that stays, also where there is no terminal."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._live and self._shown:
            self._write("")
            self._shown = ""

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()


def bar(done: int, total: int, width: int = 20) -> str:
    """A bar of `width` characters: 4 of 6 → ━━━━━━━━━━━━━╌╌╌╌╌╌╌."""
    filled = width * done // total if total else width
    return "━" * filled + "╌" * (width - filled)


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size().columns
