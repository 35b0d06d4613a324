"""Inputs made from good ones: the same seed gives the same inputs. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator

LENGTH_MAX = 64 * 1024


def inputs(corpus: list[bytes], words: tuple[bytes, ...], seed: int) -> Iterator[bytes]:
    """For ever: the corpus itself, then what several small changes make of it."""
    yield from corpus
    dice = random.Random(seed)
    while True:
        data = dice.choice(corpus)
        for _ in range(dice.choice((1, 1, 2, 3, 8))):
            data = _change(data, corpus, words, dice)[:LENGTH_MAX]
        yield data


def _change(data: bytes, corpus: list[bytes], words: tuple[bytes, ...], dice: random.Random) -> bytes:
    at = dice.randrange(len(data) + 1)
    end = min(len(data), at + dice.choice((1, 1, 4, 16, 200)))
    kind = dice.randrange(9)
    if kind == 0:  # a bit
        return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :] if at < len(data) else data
    if kind == 1:  # bytes of nobody
        return data[:at] + dice.randbytes(dice.choice((1, 2, 8))) + data[at:]
    if kind == 2:  # a piece less
        return data[:at] + data[end:]
    if kind == 3:  # a piece twice, or very often
        return data[:end] + data[at:end] * dice.choice((1, 2, 50, 1000)) + data[end:]
    if kind == 4:  # a word of this language
        return data[:at] + dice.choice(words) + data[at:]
    if kind == 5:  # … in place of something
        return data[:at] + dice.choice(words) + data[end:]
    if kind == 6:  # the rest of another one
        other = dice.choice(corpus)
        return data[:at] + other[dice.randrange(len(other) + 1) :]
    if kind == 7:  # a line elsewhere, or in more deeply
        lines = data.split(b"\n")
        line = lines.pop(dice.randrange(len(lines)))
        lines.insert(dice.randrange(len(lines) + 1), b" " * dice.choice((0, 1, 2, 4)) + line)
        return b"\n".join(lines)
    return data[:at]
