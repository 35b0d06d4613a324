"""What hosts cost the controller: a poll over kept connections, a first poll with its handshake, memory; on 3, 20 and 100 hosts.

CPU is the controller's own, taken from the kernel's account of this process: the hosts share its two cores, so that wall times
say little beyond how the whole machine was loaded.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from bench.cluster import SSHOAL, TAG, run_sshoal
from bench.crowd import Crowd, crowd
from bench.figures import Figure, median
from controller.act.fleet import Deadlines
from controller.cli.wiring import Wiring
from controller.model.cluster import Seen
from controller.model.inventory import Host

SIZES = (3, 20, 100)
PODS_EACH = 50
ROUNDS = 9
COLD_ROUNDS = 5
WATCHED_S = 60.0
PATIENT = Deadlines(poll_s=60.0)  # a hundred handshakes at once on two cores: no figure shall be one of a deadline
HANDSHAKES_MAX = 50  # as many as the fleet begins at once


@dataclass(frozen=True)
class Cost:
    """Per host, in ms."""

    cpu_ms: float
    wall_ms: float


def measure() -> list[Figure]:
    with crowd(max(SIZES)) as hosts:
        hosts.start(forwarding=True)
        figures = [figure for size in SIZES for figure in _of_size(hosts, size)]
        figures += _with_pods(hosts)
        hosts.stop()
        hosts.start(forwarding=False)
        warm = asyncio.run(_warm(_wiring(hosts, 20)))
        figures += _both("poll, 20 hosts, warm, by exec … dial", warm)
    return figures


def _of_size(hosts: Crowd, size: int) -> list[Figure]:
    wiring = _wiring(hosts, size)
    warm = asyncio.run(_warm(wiring))
    cold, bare = asyncio.run(_cold(wiring))
    compared = "bare asyncssh handshake, same run"
    return [
        *_both(f"poll, {size} hosts, warm", warm, aim_ms=0.3),
        Figure(f"first poll, {size} hosts: CPU per host", cold.cpu_ms, "ms", bare.cpu_ms, compared, aim_ratio=1.3),
        Figure(f"first poll, {size} hosts: wall per host", cold.wall_ms, "ms", bare.wall_ms, compared, aim_ratio=1.3),
    ]


def _both(name: str, cost: Cost, aim_ms: float | None = None) -> list[Figure]:
    return [
        Figure(f"{name}: CPU per host", cost.cpu_ms, "ms", aim=aim_ms),
        Figure(f"{name}: wall per host", cost.wall_ms, "ms"),
    ]


# ---- polls --------------------------------------------------------------------------------------------------------------


async def _warm(wiring: Wiring, between: Callable[[], None] = lambda: None) -> Cost:
    """A poll of all hosts over connections that are there; `between` runs before each, outside the figure."""
    hosts = wiring.inventory().hosts
    costs = []
    async with wiring.fleet(PATIENT, deploy=False) as fleet:
        _all_seen(await fleet.observe(hosts, {}))
        for _ in range(ROUNDS):
            between()
            costs.append(await _cost(lambda: fleet.observe(hosts, {}), len(hosts)))
    return _median(costs)


async def _cold(wiring: Wiring) -> tuple[Cost, Cost]:
    """First polls, as a one-shot command makes them; between them, for comparison, handshakes and nothing else."""
    hosts = wiring.inventory().hosts
    colds, bares = [], []
    for _ in range(COLD_ROUNDS):

        async def first_poll() -> None:
            async with wiring.fleet(PATIENT, deploy=False) as fleet:
                _all_seen(await fleet.observe(hosts, {}))

        colds.append(await _cost(first_poll, len(hosts)))
        bares.append(await _cost(lambda: _handshakes(hosts), len(hosts)))
    return _median(colds), _median(bares)


async def _handshakes(hosts: Mapping[str, Host]) -> None:
    slots = asyncio.Semaphore(HANDSHAKES_MAX)
    key_file = Path(hosts["host0"].connection.private_key_file or "")
    key, known = asyncssh.read_private_key(key_file), str(key_file.with_name("known_hosts"))

    async def one(host: Host) -> None:
        async with slots:
            connection = await asyncssh.connect(
                host.connection.address,
                username="root",
                client_keys=[key],
                known_hosts=known,
                agent_path=None,
                config=None,
            )
        opened.append(connection)

    opened: list[asyncssh.SSHClientConnection] = []
    await asyncio.gather(*map(one, hosts.values()))
    for connection in opened:
        connection.close()
    await asyncio.gather(*(connection.wait_closed() for connection in opened))


async def _cost(work: Callable[[], Awaitable[Any]], hosts: int) -> Cost:
    gc.collect()
    began, used = time.monotonic(), _cpu_s()
    await work()
    return Cost((_cpu_s() - used) * 1000 / hosts, (time.monotonic() - began) * 1000 / hosts)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _median(costs: list[Cost]) -> Cost:
    return Cost(median([cost.cpu_ms for cost in costs]), median([cost.wall_ms for cost in costs]))


def _all_seen(sightings: Mapping[str, Any]) -> None:
    unseen = {name: sighting.why for name, sighting in sightings.items() if not isinstance(sighting, Seen)}
    if unseen:
        raise RuntimeError(f"no report of {unseen}")


# ---- pods ---------------------------------------------------------------------------------------------------------------


def _with_pods(hosts: Crowd) -> list[Figure]:
    """A hundred hosts with fifty pods each: polls of which five pods have news, and the memory of a `watch` over them."""
    size = max(SIZES)
    environment = {
        **os.environ,
        "SSHOAL_CONTEXT": str(hosts.root / "context"),
        "SSHOAL_INVENTORY": str(hosts.inventory(size)),
    }
    manifest = hosts.root / "crowd.json"
    manifest.write_text(json.dumps(_deployment(size * PODS_EACH)))
    run_sshoal(environment, "apply", "-f", str(manifest), "--timeout", "0s")
    watch = subprocess.Popen([*SSHOAL, "watch", "--period", "10s"], env=environment, stderr=subprocess.DEVNULL)
    try:
        run_sshoal(environment, "wait", "deployment/crowd", "--for=ready", "--timeout", "240s")
        rss_mib = _rss_mib(watch.pid)
        used = _cpu_of(watch.pid)
        time.sleep(WATCHED_S)
        idle = (_cpu_of(watch.pid) - used) / WATCHED_S * 100
    finally:
        watch.terminate()
        watch.wait(30)
    wiring = Wiring.of(environment["SSHOAL_CONTEXT"], [environment["SSHOAL_INVENTORY"]])
    changed = asyncio.run(_warm(wiring, lambda: hosts.change_pods(size)))
    calm = asyncio.run(_warm(wiring))
    took = [run_sshoal(environment, "reconcile") for _ in range(3)]
    return [
        *_both(f"poll, {size} hosts × {PODS_EACH} pods, nothing new", calm, aim_ms=0.3),
        *_both(f"poll, {size} hosts × {PODS_EACH} pods, 5 changed on each", changed),
        Figure(f"`watch` over {size} hosts × {PODS_EACH} pods, RSS", rss_mib, "MiB"),
        Figure(f"`watch` over {size} hosts × {PODS_EACH} pods, 10 s polls, CPU", idle, "% of a core"),
        Figure(f"reconcile, converged, {size} hosts × {PODS_EACH} pods: whole command", median(took), "s"),
    ]


def _deployment(replicas: int) -> dict[str, Any]:
    labels = {"app": "crowd"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "crowd"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": TAG, "imagePullPolicy": "Never"}]},
            },
        },
    }


def _rss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _wiring(hosts: Crowd, size: int) -> Wiring:
    inventory = hosts.inventory(size, name=f"{size}.ini")
    return Wiring.of(str(hosts.root / f"context-{size}"), [str(inventory)])
