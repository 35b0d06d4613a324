"""Runs on a host of a crowd: the production agent over tests.fakes.podman, without systemd.

Arguments: the host's directory, the bundle's digest.
A byte into the directory's pipe `ask` kills five payloads, other ones each time; the count of such rounds is in the file `rounds`, written
when all run again. The pipe is there when the agent answers.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from nodeagent import protocol
from nodeagent.agent import Agent
from nodeagent.clock import HostClock
from nodeagent.main import ROOTFUL
from nodeagent.server import serve
from nodeagent.storage import DirStorage, own_directory
from tests.fakes.podman import SERVE, FakePodman
from tests.sim.host import HostProber, MemoryFiles

KILLED = 5


async def main(directory: Path, bundle: str) -> None:
    clock = HostClock()
    podman = FakePodman(clock, random.Random(0), registry={"localhost/sshoal-test:v1": SERVE})
    own_directory(ROOTFUL.state)
    own_directory(ROOTFUL.run)
    agent = Agent(
        podman,
        MemoryFiles(),
        DirStorage(str(ROOTFUL.documents)),
        clock,
        HostProber(podman),
        bundle=bundle,
        logs_dir=str(ROOTFUL.logs),
        host=protocol.Capacity(cpu_m=64_000, memory_bytes=64 * 2**30, arch="amd64"),
    )
    await agent.start()
    await serve(agent, str(ROOTFUL.socket))
    asked: asyncio.Queue[bytes] = asyncio.Queue()
    os.mkfifo(directory / "ask")
    pipe = os.open(directory / "ask", os.O_RDWR)
    asyncio.get_running_loop().add_reader(pipe, lambda: asked.put_nowait(os.read(pipe, 1)))
    rounds = 0
    while True:
        await asked.get()
        running = podman.running()
        first = rounds * KILLED % max(1, len(running))
        for name in running[first : first + KILLED]:
            podman.kill(name)
        while len(podman.running()) < len(running):  # noqa: ASYNC110 - the engine in memory tells nobody
            await asyncio.sleep(0.02)
        rounds += 1
        (directory / "rounds").write_text(str(rounds))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
