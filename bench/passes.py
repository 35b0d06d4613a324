"""What a pass costs when nothing is to be done: writes, Podman calls that change something, time to the first byte over SSH, `--help`."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

from bench.cluster import DEADLINE_S, SSHOAL, Cluster
from bench.figures import Figure, median

ROUNDS = 7


def measure(cluster: Cluster) -> list[Figure]:
    cluster.apply("calm", 6)
    cluster.sshoal("reconcile", "--settle")
    before = _state(cluster)
    took = [cluster.sshoal("reconcile") for _ in range(ROUNDS)]
    after = _state(cluster)
    cluster.delete("calm")
    return [
        Figure("reconcile, converged: rows written", float(after[0] - before[0]), "", aim=0.0),
        Figure("reconcile, converged: containers changed", float(len(before[1] ^ after[1])), "", aim=0.0),
        Figure("reconcile, converged, 3 hosts: whole command", median(took), "s"),
        Figure("command start → first SSH byte", median([_first_byte(cluster) for _ in range(ROUNDS)]), "s", aim=0.45),
        Figure("sshoal --help", median([_help() for _ in range(ROUNDS)]), "s", aim=0.15),
    ]


def _state(cluster: Cluster) -> tuple[int, set[str]]:
    """(the store's counter of writes, every container with the moment it was started)."""
    with sqlite3.connect(Path(cluster.environment["SSHOAL_CONTEXT"]) / "store.db") as database:
        counter = int(database.execute("SELECT value FROM meta WHERE key = 'counter'").fetchone()[0])
    told = [host.run("podman ps -a --format '{{.ID}} {{.StartedAt}}'", timeout_s=60) for host in cluster.lab.hosts]
    return counter, {line for text in told for line in text.splitlines()}


def _first_byte(cluster: Cluster) -> float:
    """A listener takes the place of a host and notes when the client's first byte arrives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arrived: list[float] = []

        def accept() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"SSH-2.0-bench\r\n")
            connection.recv(1)
            arrived.append(time.monotonic())
            connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        environment = {**cluster.environment, "SSHOAL_INVENTORY": _inventory(cluster, listener.getsockname()[1])}
        began = time.monotonic()
        process = subprocess.Popen(
            [*SSHOAL, "reconcile"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        thread.join(DEADLINE_S)
        process.kill()
        process.wait()
    return arrived[0] - began


def _inventory(cluster: Cluster, port: int) -> str:
    path = Path(cluster.environment["SSHOAL_CONTEXT"]) / "first-byte.ini"
    path.write_text(f"listener ansible_host=127.0.0.1 ansible_port={port}\n")
    return str(path)


def _help() -> float:
    began = time.monotonic()
    subprocess.run([*SSHOAL, "--help"], stdout=subprocess.DEVNULL, check=True, timeout=DEADLINE_S)
    return time.monotonic() - began
