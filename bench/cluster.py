"""The lab that figures are taken on, and the commands a user would type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import image
from lab.lab import Lab

NAME = "bench"
SSHOAL = [sys.executable, "-m", "controller.cli"]
DEADLINE_S = 300.0
TAG = f"{image.REPOSITORY}:v1"


class Cluster:
    """Three lab hosts with the agent and the test image on them."""

    def __init__(self, directory: Path) -> None:
        if NAME in Lab.names():
            Lab.load(NAME).down()
        self.lab = Lab.up(NAME, hosts=3)
        self.lab.load_image(image.build(TAG))
        self._directory = directory
        self.environment = {
            **os.environ,
            "SSHOAL_CONTEXT": str(directory / "context"),
            "SSHOAL_INVENTORY": str(self.lab.inventory),
        }
        self.apply("warm-up", 3)  # first pods make the network; no figure shall hold that
        self.delete("warm-up")

    def sshoal(self, *arguments: str) -> float:
        """As run_sshoal."""
        return run_sshoal(self.environment, *arguments)

    def apply(self, name: str, replicas: int, **more: Any) -> float:
        path = self._directory / f"{name}.json"
        path.write_text(json.dumps(deployment(name, replicas, **more)))
        return self.sshoal("apply", "-f", str(path), "--timeout", "240s")

    def delete(self, name: str) -> None:
        self.sshoal("delete", f"deployment/{name}", "--grace-period", "0", "--timeout", "240s")

    @contextmanager
    def watching(self, period: str) -> Iterator[None]:
        """`sshoal watch` beside the block."""
        watch = subprocess.Popen(
            [*SSHOAL, "watch", "--period", period], env=self.environment, stderr=subprocess.DEVNULL
        )
        try:
            time.sleep(2)  # it has made its first pass; the figures taken inside do not begin with its start
            yield
        finally:
            watch.terminate()
            watch.wait(30)

    def pods(self) -> list[dict[str, Any]]:
        """As the store says, which a watch keeps: a host that is off would only cost time."""
        done = subprocess.run(
            [*SSHOAL, "get", "pods", "-o", "json", "--cached"],
            env=self.environment,
            capture_output=True,
            timeout=DEADLINE_S,
            check=True,
        )
        found = json.loads(done.stdout)
        items: list[dict[str, Any]] = found.get("items", [])
        return items


def run_sshoal(environment: Mapping[str, str], *arguments: str) -> float:
    """Runs a command as a user would → seconds from its start to its end. Raises on failure."""
    started = time.monotonic()
    done = subprocess.run(
        [*SSHOAL, *arguments], env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"sshoal {' '.join(arguments)} exits {done.returncode}: {done.stderr[-2000:]}")
    return time.monotonic() - started


@contextmanager
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as directory:
        made = Cluster(Path(directory))
        try:
            yield made
        finally:
            made.lab.down()


def deployment(
    name: str, replicas: int, *, toleration_s: int = 300, probe: dict[str, Any] | None = None, period_s: int = 10
) -> dict[str, Any]:
    handler = probe or {"httpGet": {"path": "/", "port": 8080}}
    container = {
        "name": "app",
        "image": TAG,
        "imagePullPolicy": "IfNotPresent",
        "readinessProbe": {**handler, "periodSeconds": period_s},
        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}},
    }
    spec: dict[str, Any] = {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "tolerations": [
            {
                "key": "node.kubernetes.io/unreachable",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": toleration_s,
            }
        ],
    }
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def until(holds: Callable[[], bool], within_s: float = 120.0) -> float:
    """Seconds until it holds, asked again and again. Raises TimeoutError."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > within_s:
            raise TimeoutError(f"not within {within_s} s")
        time.sleep(0.02)
    return time.monotonic() - started
