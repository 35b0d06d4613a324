"""How long hosts may take."""

from __future__ import annotations

import asyncio

import pytest

from controller.act.bootstrap import preflight
from controller.act.examine import GATHER_TIMEOUT_S
from controller.act.fleet import Deadlines
from controller.act.transport import Channel, Completed
from controller.model.errors import HostUnreachable
from controller.model.inventory import Host


@pytest.mark.parametrize(
    ("variables", "poll_s", "push_s"),
    [({}, 10.0, 20.0), ({"ansible_timeout": 30}, 30.0, 60.0), ({"ansible_timeout": 2}, 10.0, 20.0)],
    ids=["usual", "a slow host", "no host is rushed"],
)
def test_a_host_that_the_inventory_gives_more_time_gets_it_in_all(
    variables: dict[str, float], poll_s: float, push_s: float
) -> None:
    """`ansible_timeout` is 10 s by default; a short one is about connecting only."""
    deadlines = Deadlines().of(Host("n1", (), {"ansible_host": "192.0.2.1", **variables}, "test:1"))
    assert (deadlines.poll_s, deadlines.push_s) == (poll_s, push_s)


@pytest.mark.parametrize(("timeout_s", "factor"), [(10, 1.0), (30, 3.0)])
def test_preflight_takes_as_much_longer_as_the_host_is_given(timeout_s: int, factor: float) -> None:
    session = Silent()
    host = Host("n1", (), {"ansible_host": "192.0.2.1", "ansible_timeout": timeout_s}, "test:1")
    with pytest.raises(HostUnreachable):
        asyncio.run(preflight(session, host))
    assert session.waited_s == GATHER_TIMEOUT_S * factor


class Silent:
    """A Session to a host that gives no answer in time; remembers how long it was given."""

    host_name = "n1"
    is_closed = False
    waited_s = 0.0

    async def run(self, script: str, *, stdin: bytes = b"", become: bool, timeout_s: float) -> Completed:
        self.waited_s = timeout_s
        raise HostUnreachable(self.host_name, "no answer")

    async def open_channel(self, timeout_s: float) -> Channel:
        raise HostUnreachable(self.host_name, "no answer")

    async def close(self) -> None:
        return
