"""Twenty hosts: how long the lab takes to make them, and how long one command takes to put the agent on all of them.

Beside it the least that such a push can take: OpenSSH's own client writing the same archive to the same hosts, as many at once.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.cluster import run_sshoal
from bench.figures import Figure
from controller.act import bundle
from controller.act.bootstrap import PARALLEL_MAX
from lab.lab import Lab

NAME = "bench-push"
HOSTS = 20


def measure() -> list[Figure]:
    if NAME in Lab.names():
        Lab.load(NAME).down()
    began = time.monotonic()
    lab = Lab.up(NAME, hosts=HOSTS)
    up_s = time.monotonic() - began
    try:
        with tempfile.TemporaryDirectory() as directory:
            environment = {
                **os.environ,
                "SSHOAL_CONTEXT": str(Path(directory) / "context"),
                "SSHOAL_INVENTORY": str(lab.inventory),
            }
            copied_s = _copies(lab, Path(directory))
            pushed_s = run_sshoal(environment, "reconcile")
            again_s = run_sshoal(environment, "reconcile")
    finally:
        lab.down()
    return [
        Figure(f"lab of {HOSTS} hosts up, base cached", up_s, "s", aim=90.0),
        Figure(
            f"agent pushed to {HOSTS} hosts, all answer",
            pushed_s,
            "s",
            copied_s,
            "ssh 'cat >' of the archive, same run",
        ),
        Figure(f"first command after that, {HOSTS} hosts", again_s, "s"),
    ]


def _copies(lab: Lab, directory: Path) -> float:
    archive = directory / "archive"
    archive.write_bytes(bundle.build().packed)
    began = time.monotonic()
    with ThreadPoolExecutor(PARALLEL_MAX) as pool:
        list(pool.map(lambda host: host.copy_in(archive, "/tmp/archive"), lab.hosts))
    return time.monotonic() - began
