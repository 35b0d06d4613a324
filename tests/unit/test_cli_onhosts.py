"""What hosts write in `run`: whole lines with the host in front, and nothing that harms a terminal."""

from __future__ import annotations

import io

import pytest

from controller.cli.onhosts import LINE_BYTES_MAX, Lines, script_of


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_pieces_become_whole_lines() -> None:
    out = io.BytesIO()
    lines = Lines("n1", out)
    for piece in (b"on", b"e\ntwo\nth", b"ree"):
        lines.add(piece)
    assert out.getvalue() == b"n1 | one\nn1 | two\n"
    lines.end()
    assert out.getvalue().endswith(b"n1 | three\n")


def test_on_a_terminal_only_colours_pass_and_no_line_overwrites_its_prefix() -> None:
    out = Terminal()
    Lines("n1", out).add(b"\x1b[2J\x07\rn2 | lie \x1b[31mred\n")
    assert out.getvalue() == b"n1 | n2 | lie \x1b[31mred\x1b[0m\n"


def test_elsewhere_bytes_stay_as_they_are() -> None:
    out = io.BytesIO()
    Lines("n1", out).add(b"\x1b[2J\xff\r\n")
    assert out.getvalue() == b"n1 | \x1b[2J\xff\r\n"


def test_a_line_without_an_end_is_printed_in_pieces() -> None:
    out = io.BytesIO()
    lines = Lines("n1", out)
    for _ in range(3):
        lines.add(b"x" * LINE_BYTES_MAX)
    assert out.getvalue().count(b"x") >= 2 * LINE_BYTES_MAX


@pytest.mark.parametrize(
    ("words", "script"),
    [(["df -h | tail -1"], "df -h | tail -1"), (["echo", "a b", "$HOME"], "echo 'a b' '$HOME'")],
)
def test_one_word_is_for_the_shell_and_several_are_arguments(words: list[str], script: str) -> None:
    assert script_of(words) == script
