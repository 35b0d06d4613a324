"""`image push` of 100 MB of random layers to five hosts, and again after one layer of 10 MB has changed.

Beside it, in the same run and from the same local Podman, what one does without sshoal: `podman save | ssh HOST podman load`, to all hosts
at once.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.cluster import run_sshoal
from bench.figures import Figure, median
from lab.host import LabHost
from lab.lab import Lab
from lab.layered import docker_archive, layer

NAME = "bench-images"
HOSTS = 5
ROUNDS = 3
LAYER_BYTES = 10_000_000
LAYERS = 10
REPOSITORY = "localhost/bench-layers"
PLACE = "/var/tmp"  # a real file system: overlay storage wants one


def measure() -> list[Figure]:
    if NAME in Lab.names():
        Lab.load(NAME).down()
    lab = Lab.up(NAME, hosts=HOSTS)
    ours: dict[str, list[float]] = {"first": [], "second": []}
    plain: dict[str, list[float]] = {"first": [], "second": []}
    peaks_mib: list[float] = []
    try:
        with tempfile.TemporaryDirectory(dir=PLACE) as directory, _local_podman(Path(directory)) as environment:
            environment |= {"SSHOAL_CONTEXT": f"{directory}/context", "SSHOAL_INVENTORY": str(lab.inventory)}
            run_sshoal(environment, "reconcile")  # the agents are there: their installation is no part of a push
            for _ in range(ROUNDS):
                for version in ("first", "second"):
                    ours[version].append(run_sshoal(environment, "image", "push", f"{REPOSITORY}:{version}"))
                peaks_mib += [_peak_mib(host) for host in lab.hosts]
                _forget(lab)
                for version in ("first", "second"):
                    plain[version].append(_saved_and_loaded(lab, environment, f"{REPOSITORY}:{version}"))
                _forget(lab)
    finally:
        lab.down()
    size = f"{LAYERS * LAYER_BYTES // 10**6} MB"
    compared = "podman save into ssh HOST podman load, same run"
    return [
        Figure(f"image push of {size} to {HOSTS} hosts", median(ours["first"]), "s", median(plain["first"]), compared),
        Figure(
            f"second push, one layer of {LAYERS} changed",
            median(ours["second"]),
            "s",
            median(plain["second"]),
            compared,
        ),
        Figure("an agent's largest RSS in all that", max(peaks_mib), "MiB", aim=40.0),
    ]


@contextmanager
def _local_podman(directory: Path) -> Iterator[dict[str, str]]:
    """Environment of a Podman with storage of its own, which holds both images."""
    settings = directory / "storage.conf"
    settings.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{directory}/graph"\nrunroot = "{directory}/run"\n'
    )
    environment = {**os.environ, "CONTAINERS_STORAGE_CONF": str(settings)}
    base = [layer(f"part{number}", LAYER_BYTES, number) for number in range(LAYERS - 1)]
    for seed, version in ((100, "first"), (101, "second")):
        file = docker_archive(
            directory / "image.tar", f"{REPOSITORY}:{version}", [*base, layer("app", LAYER_BYTES, seed)]
        )
        _run(["podman", "load", "--quiet", "--input", str(file)], environment)
        file.unlink()
    try:
        yield environment
    finally:
        # Podman leaves it mounted
        subprocess.run(["umount", f"{directory}/graph/overlay"], capture_output=True, check=False)


def _saved_and_loaded(lab: Lab, environment: dict[str, str], reference: str) -> float:
    def one(ssh: Sequence[str]) -> None:
        line = f"podman save --quiet {reference} | {' '.join(ssh)} podman load --quiet"
        _run(["bash", "-o", "pipefail", "-c", line], environment)

    began = time.monotonic()
    with ThreadPoolExecutor(HOSTS) as pool:
        list(pool.map(one, [host.ssh_argv() for host in lab.hosts]))
    return time.monotonic() - began


def _peak_mib(host: LabHost) -> float:
    """Of the agent, since its start."""
    pid = host.run("systemctl show --property MainPID --value sshoal-agent").strip()
    return int(host.run(f"grep VmHWM /proc/{pid}/status").split()[1]) / 1024


def _forget(lab: Lab) -> None:
    for host in lab.hosts:
        host.run(f"podman rmi --force {REPOSITORY}:first {REPOSITORY}:second")


def _run(argv: Sequence[str], environment: dict[str, str]) -> None:
    subprocess.run(argv, env=environment, check=True, capture_output=True, timeout=600)
