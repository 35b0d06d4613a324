"""Kubernetes quantities (`250m`, `1.5Gi`, `1e3`) as exact integers. Pure.

In: what a manifest says (text, or a number that YAML read). Out: millicores or bytes, rounded up as Kubernetes does.
Semantics: k8s.io/apimachinery resource.Quantity. Numbers are exact fractions, never floats: 0.1 is a tenth.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

LARGEST = 2**63 - 1  # Kubernetes' own bound
REPLICAS_MAX = 100_000  # of a workload, ours: a pass over more takes so long that all other workloads wait

_LONGEST_TEXT = 64  # digits beyond this carry no meaning, and reading a number of 5,000 digits costs real time
_SUFFIXES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{suffix: Fraction(1000**power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Fraction(1024**power) for power, suffix in enumerate("KMGTPE", start=1)},
}
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]{1,2})|([numkMGTPE]|[KMGTPE]i)?)")


def cpu_millicores(quantity: str | int | float) -> int:
    """`"250m"` → 250, `2` → 2000, `"0.0001"` → 1 (rounded up). ValueError says what is wrong with it."""
    return math.ceil(_exact(quantity) * 1000)


def memory_bytes(quantity: str | int | float) -> int:
    """`"1Ki"` → 1024, `"1.5"` → 2 (rounded up). ValueError says what is wrong with it."""
    return math.ceil(_exact(quantity))


def exact(quantity: str | int | float) -> Fraction:
    """The number as it is, `"250m"` → 1/4: to compare and add without rounding. ValueError as above."""
    return _exact(quantity)


def format_exact(value: Fraction) -> str:
    """1/4 → `250m`, 2**30 → `1Gi`, 5 → `5`."""
    if value.denominator != 1:
        return f"{math.ceil(value * 1000)}m"
    return format_memory(int(value)) if value % 1024 == 0 else str(int(value))


def format_cpu(millicores: int) -> str:
    """1500 → `1500m`, 2000 → `2`: Kubernetes' canonical form."""
    return f"{millicores}m" if millicores % 1000 else str(millicores // 1000)


def format_memory(size_bytes: int) -> str:
    """The shortest exact form with a binary suffix: 1610612736 → `1536Mi`, 1000 → `1000`."""
    for power, suffix in reversed(list(enumerate("KMGTPE", start=1))):
        if size_bytes and size_bytes % 1024**power == 0:
            return f"{size_bytes // 1024**power}{suffix}i"
    return str(size_bytes)


def _exact(quantity: str | int | float) -> Fraction:
    if isinstance(quantity, bool):
        raise ValueError('must be a quantity such as "250m" or "1Gi", not true or false')
    # repr() of a float is the shortest text that reads back to it, so 0.1 stays a tenth.
    # An int is compared first: turning one of 5,000 digits into text is an error in Python.
    if isinstance(quantity, int) and abs(quantity) > LARGEST:
        raise ValueError(f"is out of range: at most {LARGEST}")
    text = quantity if isinstance(quantity, str) else repr(quantity)
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST_TEXT else None
    if match is None:
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise ValueError(
            f'{shown!r} is not a quantity: write a number with m, k, M, G, T, Ki, Mi, Gi or Ti, such as "250m" or "1Gi"'
        )
    number, exponent, suffix = match.groups()
    value = Fraction(number) * (Fraction(10) ** int(exponent) if exponent else _SUFFIXES[suffix or ""])
    if value < 0:
        raise ValueError(f"{text!r} is negative")
    if value > LARGEST:
        raise ValueError(f"{text!r} is out of range: at most {LARGEST}")
    return value
