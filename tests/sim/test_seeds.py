"""Hundreds of simulated worlds, each with its own hosts, faults and edits: the invariants hold and the world comes to rest."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.sim.conftest import PROPERTY
from tests.sim.course import course_of
from tests.sim.world import run

SEEDS = int(os.environ.get("SSHOAL_SEEDS", "500"))

pytestmark = [pytest.mark.sim, pytest.mark.timeout(900)]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_world_of_faults_keeps_the_invariants_and_comes_to_rest(
    seed: int, record_property: Callable[[str, object], None]
) -> None:
    outcome = run(seed)
    told = {"passes": outcome.passes, "simulated_s": outcome.simulated_s, "faults": outcome.faults}
    record_property(PROPERTY, json.dumps(told))
    assert outcome.violations == [], f"again: make sim SEED={seed}"
    assert outcome.simulated_s >= course_of(seed).faults_s
