"""Host patterns of inventory files → names: `db[01:10:2]-[a:c].example.org:2222`. Pure.

The forms and their inclusive ends are Ansible's. Raises ValueError with the reason; the caller knows the place.
"""

from __future__ import annotations

import re
import string

from controller.act.inventory.builder import HOSTS_MAX

_BRACKETED_PORT = re.compile(r"\[(.+)\]:([0-9]+)")
_NAME_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])*):([0-9]+)")
_RANGE = re.compile(r"\[([^\[\]]*)\]")
_DIGITS_MAX = 9


def expand(pattern: str) -> tuple[list[str], int | None]:
    """Names in order, and the port if one is written. Raises ValueError for bad ranges or more than 10,000 names."""
    name, port = _split_port(pattern)
    if "[" not in name and "]" not in name:
        return [name], port
    pieces = _RANGE.split(name)  # text, range, text, range, …, text
    if any("[" in text or "]" in text for text in pieces[::2]):
        raise ValueError("its brackets do not match")
    names = [pieces[0]]
    for body, text in zip(pieces[1::2], pieces[2::2], strict=True):
        values = _values(body, HOSTS_MAX // len(names))
        names = [f"{head}{value}{text}" for head in names for value in values]
    return names, port


def _split_port(pattern: str) -> tuple[str, int | None]:
    found = _BRACKETED_PORT.fullmatch(pattern) or _NAME_PORT.fullmatch(pattern)
    if found is None:
        if pattern.endswith(":") and not pattern.endswith("::"):
            raise ValueError("it ends with ':' but names no port")
        return pattern, None
    port = int(found[2]) if len(found[2]) <= _DIGITS_MAX else 0
    if not 1 <= port <= 65535:
        raise ValueError(f"port {found[2][:20]} is not from 1 to 65535")
    return found[1], port


def _values(body: str, count_max: int) -> list[str]:
    """What one range stands for. `body` is begin:end or begin:end:step."""
    bounds = body.split(":")
    if len(bounds) not in (2, 3):
        raise ValueError(f"the range [{body}] is not begin:end or begin:end:step")
    begin, end = bounds[0] or "0", bounds[1]
    step_text = bounds[2] if len(bounds) == 3 else "1"
    if not end:
        raise ValueError(f"the range [{body}] lacks its end")
    if not (_is_number(step_text) and int(step_text) >= 1):
        raise ValueError(f"the step of [{body}] is not a whole number from 1 up")
    letters = string.ascii_letters
    width = 0
    if len(begin) == len(end) == 1 and begin in letters and end in letters:
        first, last = letters.index(begin), letters.index(end)
    elif _is_number(begin) and _is_number(end):
        letters = ""
        first, last = int(begin), int(end)
        if len(begin) > 1 and begin[0] == "0":
            width = len(begin)
            if len(end) != width:
                raise ValueError(f"begin and end of [{body}] are not written with the same number of digits")
    else:
        raise ValueError(f"the range [{body}] is neither of numbers nor of single letters")
    if first > last:
        raise ValueError(f"the range [{body}] ends before it begins")
    numbers = range(first, last + 1, int(step_text))
    if len(numbers) > count_max:
        raise ValueError(f"it stands for more than {HOSTS_MAX} hosts")
    return [letters[number] if letters else str(number).zfill(width) for number in numbers]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX
