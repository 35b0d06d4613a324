"""The lab's subnet overlaps nothing that this machine or another lab uses."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.network import choose_subnet
from lab.system import LabError


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(16, 32)), max_size=40))
def test_the_chosen_subnet_overlaps_none_that_is_taken(routes: list[tuple[int, int]]) -> None:
    taken = [IPv4Network((f"10.213.{third}.0", prefix), strict=False) for third, prefix in routes]
    if any(network.prefixlen == 16 for network in taken):
        with pytest.raises(LabError):
            choose_subnet(taken)
    else:
        try:
            chosen = choose_subnet(taken)
        except LabError:
            assert sum(network.num_addresses for network in taken) >= 2**16
        else:
            assert not any(chosen.overlaps(network) for network in taken)


def test_the_first_free_subnet_is_chosen() -> None:
    assert choose_subnet([IPv4Network("10.213.0.0/24")]) == IPv4Network("10.213.1.0/24")
