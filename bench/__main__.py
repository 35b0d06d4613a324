"""`make bench`: takes the figures, prints a table, keeps it in bench/results/. Arguments: only those parts
(schedule fleet push images pass apply kill agent loss)."""

from __future__ import annotations

import compileall
import os
import sys
from collections.abc import Callable

from bench import agent, apply, fleet, images, kill, loss, passes, push, schedule
from bench.cluster import Cluster, cluster
from bench.figures import Figure, keep, table

PARTS: dict[str, Callable[[Cluster], list[Figure]]] = {
    "pass": passes.measure,
    "apply": apply.measure,
    "kill": kill.measure,
    "agent": agent.measure,
    "loss": loss.measure,  # last: it leaves a host switched off and on
}
WITH_OWN_HOSTS: dict[str, Callable[[], list[Figure]]] = {
    "schedule": schedule.measure,  # needs none
    "fleet": fleet.measure,
    "push": push.measure,
    "images": images.measure,
}


def main() -> None:
    for package in ("controller", "nodeagent", "lab"):  # as an installation does: users' commands do not compile
        compileall.compile_dir(package, quiet=1)
    wanted = sys.argv[1:] or [*WITH_OWN_HOSTS, *PARTS]
    load_before = os.getloadavg()[0]
    figures: list[Figure] = []
    for name in (name for name in wanted if name in WITH_OWN_HOSTS):
        _say(name)
        figures += WITH_OWN_HOSTS[name]()
    on_cluster = [name for name in wanted if name not in WITH_OWN_HOSTS]
    if on_cluster:
        with cluster() as made:
            for name in on_cluster:
                _say(name)
                figures += PARTS[name](made)
    print(table(figures))
    print(f"kept in {keep(figures, load_before)}; load before: {load_before:.2f}")


def _say(name: str) -> None:
    print(f"… {name}", file=sys.stderr, flush=True)


main()
