"""Quantities are exact, bounded, and rounded up."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.quantity import LARGEST, cpu_millicores, format_cpu, format_memory, memory_bytes


@pytest.mark.parametrize(
    ("written", "millicores"),
    [
        ("250m", 250),
        (2, 2000),
        ("2", 2000),
        (0.1, 100),
        ("0.1", 100),
        (0.3, 300),  # as a float 0.3 * 1000 is 299.99…, or 300.00…4: it must be neither
        ("1.5", 1500),
        ("0.0001", 1),  # rounded up, as Kubernetes does
        ("1n", 1),
        ("1u", 1),
        ("1500u", 2),
        ("1e3m", None),
        ("1e2", 100_000),
        ("1E-2", 10),
        ("1k", 1_000_000),
        (".5", 500),
        ("5.", 5000),
        ("+1", 1000),
        (0, 0),
        ("-0", 0),
    ],
)
def test_cpu_is_read_as_millicores(written: str | int | float, millicores: int | None) -> None:
    if millicores is None:
        with pytest.raises(ValueError, match="is not a quantity"):
            cpu_millicores(written)
    else:
        assert cpu_millicores(written) == millicores


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        ("1Ki", 1024),
        ("1Mi", 1024**2),
        ("1Gi", 1024**3),
        ("1Ti", 1024**4),
        ("1Pi", 1024**5),
        ("1Ei", 1024**6),
        ("1k", 1000),
        ("1M", 1000**2),
        ("1G", 1000**3),
        ("1T", 1000**4),
        ("1P", 1000**5),
        ("1E", 1000**6),
        ("1.5Gi", 3 * 1024**3 // 2),
        ("128974848", 128974848),
        ("129e6", 129_000_000),
        ("123m", 1),
        (1000.0, 1000),
        (str(LARGEST), LARGEST),
    ],
)
def test_memory_is_read_as_bytes(written: str | int | float, size_bytes: int) -> None:
    assert memory_bytes(written) == size_bytes


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "'' is not a quantity"),
        ("1 Gi", "is not a quantity"),
        ("1gi", "is not a quantity"),
        ("1KB", "is not a quantity"),
        ("1Mib", "is not a quantity"),
        ("0x10", "is not a quantity"),
        ("1_000", "is not a quantity"),
        ("١", "is not a quantity"),  # a digit, but not an ASCII one
        ("1\n", "is not a quantity"),
        ("nan", "is not a quantity"),
        (float("nan"), "is not a quantity"),
        (float("inf"), "is not a quantity"),
        ("-1", "'-1' is negative"),
        (-1, "'-1' is negative"),
        ("9223372036854775808", "is out of range: at most 9223372036854775807"),
        ("8Ei", "is out of range"),
        ("1e99", "is out of range"),
        ("1e999999999", "is not a quantity"),
        ("9" * 5000, "is not a quantity"),
        pytest.param(10**5000, "is out of range", id="5001 digits"),
        (True, "not true or false"),
    ],
)
def test_what_is_no_quantity_is_refused(written: str | int | float, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        memory_bytes(written)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (1000, "1000"), (1024, "1Ki"), (1536 * 1024**2, "1536Mi"), (2 * 1024**3, "2Gi")],
)
def test_memory_is_shown_in_the_largest_exact_unit(amount: int, text: str) -> None:
    assert format_memory(amount) == text


@pytest.mark.parametrize(("amount", "text"), [(0, "0"), (250, "250m"), (2000, "2"), (1500, "1500m")])
def test_cpu_is_shown_in_cores_or_millicores(amount: int, text: str) -> None:
    assert format_cpu(amount) == text


@given(st.integers(0, LARGEST))
def test_shown_memory_reads_back(amount: int) -> None:
    assert memory_bytes(format_memory(amount)) == amount


@given(st.integers(0, LARGEST // 1000))
def test_shown_cpu_reads_back(amount: int) -> None:
    assert cpu_millicores(format_cpu(amount)) == amount


@given(st.integers(0, 10**9), st.sampled_from(["", "m", "k", "Ki", "M", "Mi", "G", "u", "n"]))
def test_rounding_never_loses_and_never_adds_a_whole_unit(number: int, suffix: str) -> None:
    small = {"": Fraction(1), "m": Fraction(1, 10**3), "u": Fraction(1, 10**6), "n": Fraction(1, 10**9)}
    large = {"k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20}
    factor = small | {name: Fraction(value) for name, value in large.items()}
    exact = number * factor[suffix]
    assert 0 <= memory_bytes(f"{number}{suffix}") - exact < 1


@given(st.text(max_size=80) | st.integers() | st.floats())
def test_anything_gives_a_number_or_a_value_error(written: str | int | float) -> None:
    try:
        amount = memory_bytes(written)
    except ValueError:
        return
    assert 0 <= amount <= LARGEST
