"""Text of hosts in our messages cannot steer a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand tabs ", "two lines and tabs"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jcleared", "cleared"),
        ("back\x08space\x00", "backspace"),
        ("gro\u202etxet", "grotxet"),
        (b"bad \xff bytes", "bad \ufffd bytes"),
        ("x" * 50, "x" * 9 + "…"),
    ],
)
def test_escapes_and_control_characters_are_taken_out(text: str | bytes, shown: str) -> None:
    assert printable(text, 10 if text == "x" * 50 else 300) == shown


@given(st.one_of(st.text(), st.binary()), st.integers(1, 100))
def test_the_result_is_one_printable_line_within_the_limit(text: str | bytes, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
