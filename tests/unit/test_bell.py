"""The doorbell: who changes the store wakes the controller; without it nothing breaks."""

from __future__ import annotations

import asyncio
from pathlib import Path

from controller.act.bell import Bell, ring


def test_a_ring_is_heard_and_a_second_one_too(tmp_path: Path) -> None:
    async def main() -> None:
        with Bell(tmp_path / "bell") as bell:
            for _ in range(2):
                ring(tmp_path / "bell")
                await asyncio.wait_for(bell.rung.wait(), 10)
                bell.rung.clear()

    asyncio.run(main())


def test_the_next_controller_takes_the_place_of_one_that_was_killed(tmp_path: Path) -> None:
    async def main() -> None:
        with Bell(tmp_path / "bell"), Bell(tmp_path / "bell") as successor:
            ring(tmp_path / "bell")
            await asyncio.wait_for(successor.rung.wait(), 10)

    asyncio.run(main())


def test_ringing_where_nobody_listens_and_listening_where_no_socket_can_be_do_no_harm(tmp_path: Path) -> None:
    async def main() -> None:
        ring(tmp_path / "bell")
        with Bell(tmp_path / ("x" * 200)) as bell:
            assert not bell.rung.is_set()

    asyncio.run(main())
