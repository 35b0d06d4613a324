"""Text that came from elsewhere, made fit for a terminal and an error message. Pure."""

from __future__ import annotations

import re

HIDDEN = "***"  # in the place of a secret's value; no base64, so that nobody declares it by mistake

# Terminal escapes: CSI (colours, cursor), OSC (titles, links; ended by BEL or ST), and the two-character ones.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?|\x9b[0-?]*[ -/]*[@-~]"
)
_BLANKS = re.compile(r"\s+")


def printable(text: str | bytes, limit: int = 300) -> str:
    """One line of at most `limit` characters, without terminal escapes or control characters; the end of a longer text is cut."""
    if isinstance(text, bytes):
        text = text[: limit * 16].decode("utf-8", "replace")
    text = _ESCAPES.sub("", text[: limit * 16])
    line = _BLANKS.sub(" ", text).strip()
    line = "".join(character for character in line if character.isprintable())
    return line if len(line) <= limit else line[: limit - 1] + "…"
