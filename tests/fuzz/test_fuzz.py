"""A fixed number of hostile inputs for everything that reads what others wrote. `make fuzz` goes on without end.

A crash that `make fuzz` found is mended, and its input stays in tests/fuzz/crashes/TARGET/ for good.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.fuzz.mutate import inputs
from tests.fuzz.targets import TARGETS

SEED = 20
CRASHES = Path(__file__).with_name("crashes")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_is_read_or_refused(name: str) -> None:
    target = TARGETS[name]
    corpus = target.corpus()
    assert corpus
    read = 0
    for data in islice(inputs(corpus, target.words, SEED), target.inputs):
        try:
            target.run(data)
            read += 1
        except target.refusals:
            pass
        except Exception as error:
            pytest.fail(f"{type(error).__name__}: {error}\nfor {data[:2000]!r}")
    assert read, "not even the corpus is read: the target tests nothing"


def test_what_once_crashed_is_read_or_refused() -> None:
    for path in sorted(CRASHES.glob("*/*")):
        target = TARGETS[path.parent.name]
        try:
            target.run(path.read_bytes())
        except target.refusals:
            pass
