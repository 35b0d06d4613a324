"""One cluster on the lab's hosts, driven as a user drives it: by the `sshoal` program. What is true is asked of the hosts themselves.

In: a lab and a context directory of the test's own. Out: exit codes and words of commands, containers as Podman on each host lists them.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.host import LabHost
from lab.image import REPOSITORY
from lab.lab import Lab
from lab.system import LabError
from tests.lab.forked import Commands

SSHOAL = str(Path(sys.executable).with_name("sshoal"))
COMMAND_TIMEOUT_S = 300.0
# A busy machine is slow, not wrong: conditions are waited for so long before a test fails.
PATIENCE_S = 60.0
# Most conditions ask all hosts: to do so without a pause would slow down what is waited for.
LOOK_AGAIN_S = 0.25

COMMANDS = Commands()

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Done:
    """A finished command."""

    exit_code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Running:
    """A container of ours, as Podman on its host lists it. `attempt` counts its restarts within its pod."""

    host: str
    id: str
    namespace: str
    pod: str
    uid: str
    container: str
    attempt: int
    image: str
    pid: int
    podman_pod: str


class Cluster:
    """A context over a lab's hosts. `user`: whose agent and containers they are, on rootless hosts not root's."""

    def __init__(self, lab: Lab, directory: Path, inventory: Path | None = None, user: str = "root") -> None:
        self.lab = lab
        self.directory = directory
        self.inventory = inventory or lab.inventory
        self.user = user

    # ---- commands ----

    def call(self, *arguments: str, stdin: str = "", timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Runs `sshoal …` and returns what it said."""
        done = COMMANDS.run(arguments, env=self.environment, stdin=stdin, timeout_s=timeout_s)
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *arguments: str, stdin: str = "", expect: int = 0) -> str:
        """As `call`; the test fails when the exit code is not `expect`. Returns standard output and error."""
        done = self.call(*arguments, stdin=stdin)
        if done.exit_code != expect:
            pytest.fail(f"sshoal {shlex.join(arguments)}: exit {done.exit_code}\n{done.out}{done.err}")
        assert "Traceback" not in done.err
        return done.out + done.err

    def apply(self, namespace: str, *objects: Object, flags: Sequence[str] = (), expect: int = 0) -> str:
        """Declares objects in a namespace, which is made too."""
        return self.run("apply", "-f", "-", *flags, stdin=manifest(namespace, *objects), expect=expect)

    @contextmanager
    def started(self, *arguments: str, stdin: str = "") -> Iterator[subprocess.Popen[str]]:
        """`sshoal …` in the background, interrupted at the end if it still runs. Its output goes to `directory`/background.log."""
        with (self.directory / "background.log").open("a") as log:
            process = subprocess.Popen(
                [SSHOAL, *arguments], stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, env=self.environment
            )
            assert process.stdin is not None
            try:
                process.stdin.write(stdin)
                process.stdin.close()
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    raise

    @contextmanager
    def watching(self, period: str = "1s") -> Iterator[Path]:
        """`sshoal watch` in the background; gives the file with what it says."""
        log = self.directory / "background.log"
        log.write_text("")
        with self.started("watch", "--period", period) as process:
            wait_for(lambda: "watching" in log.read_text() or process.poll() is not None, "watch to begin")
            assert process.poll() is None, log.read_text()
            try:
                yield log
            finally:
                print(log.read_text())  # shown with a test that fails
                assert process.poll() is None, "watch ended by itself"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SSHOAL_CONTEXT": str(self.directory),
            "SSHOAL_INVENTORY": str(self.inventory),
            "HOME": str(self.directory),
        }

    # ---- what commands say ----

    def pods(self, namespace: str) -> list[Object]:
        """Pods as `get pods -o json` has them, by name. Hosts that cannot be asked are no reason to fail."""
        done = self.call("get", "pods", "-n", namespace, "-o", "json")
        assert done.exit_code in (0, 4), done.err
        return sorted(json.loads(done.out)["items"], key=lambda pod: str(pod["metadata"]["name"]))

    def pod(self, namespace: str, name: str) -> Object:
        return next(pod for pod in self.pods(namespace) if pod["metadata"]["name"] == name)

    # ---- what the store holds ----

    def stored(self) -> list[str]:
        """All that the store holds, as text: two equal answers mean that nothing was written in between. Without a store, nothing."""
        path = self.directory / "store.db"
        if not path.exists():
            return []
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return sorted(database.iterdump())
        finally:
            database.close()

    # ---- what the hosts say ----

    def running(self, namespace: str, hosts: Sequence[str] = ()) -> list[Running]:
        """Running containers of a namespace on the hosts that are named, or on all; by pod, container and host."""
        chosen = [host for host in self.lab.hosts if not hosts or host.name in hosts]
        with ThreadPoolExecutor(len(chosen)) as pool:
            found = [
                one for part in pool.map(lambda host: running_on(host, namespace, self.user), chosen) for one in part
            ]
        return sorted(found, key=lambda one: (one.pod, one.container, one.host))

    def wait_running(self, namespace: str, count: int, *, hosts: Sequence[str] = ()) -> list[Running]:
        """The running containers, as soon as there are `count`."""
        found: list[Running] = []

        def as_many() -> bool:
            found[:] = self.running(namespace, hosts)
            return len(found) == count

        wait_for(as_many, lambda: f"{count} running containers of {namespace}, there are {len(found)}")
        return found

    def host(self, name: str) -> LabHost:
        return self.lab.host(name)

    def inside(self, one: Running, command: str) -> str:
        """What a shell command says in a container, by Podman's own exec on the host."""
        script = f"podman exec {one.id} sh -c {shlex.quote(command)}"
        return self.host(one.host).run(script, user=self.user, timeout_s=60).strip()

    # ---- ends ----

    def wipe(self, *hosts: LabHost) -> None:
        """Takes all of sshoal off the hosts that are given, or off all, whoever put it there."""
        with ThreadPoolExecutor(len(self.lab.hosts)) as pool:
            list(pool.map(self._wipe, hosts or self.lab.hosts))

    def _wipe(self, host: LabHost) -> None:
        from controller.act.bootstrap import removal  # what `forget` runs on a host whose agent does not work

        host.run(removal(self.user != "root"), user=self.user, timeout_s=300)


# ---- hosts ----------------------------------------------------------------------------------------------------------


def running_on(host: LabHost, namespace: str, user: str = "root") -> list[Running]:
    """Running containers of a namespace in a user's Podman on one host. A host that is just going down has none."""
    filters = f"--filter label=sshoal.dev/namespace={namespace} --filter label=sshoal.dev/container"
    try:
        listed = json.loads(host.run(f"podman ps {filters} --format json", user=user) or "[]")
    except LabError:
        return []
    return [
        Running(
            host.name,
            entry["Id"],
            namespace,
            entry["Labels"]["sshoal.dev/pod"],
            entry["Labels"]["sshoal.dev/pod-uid"],
            entry["Labels"]["sshoal.dev/container"],
            int(entry["Labels"]["sshoal.dev/attempt"]),
            entry["Image"],
            entry["Pid"],
            entry["Pod"],
        )
        for entry in listed
    ]


def ids(containers: Sequence[Running]) -> set[str]:
    return {one.id for one in containers}


def spread(containers: Sequence[Running]) -> dict[str, int]:
    """How many containers each host has."""
    return {host: sum(one.host == host for one in containers) for host in sorted({one.host for one in containers})}


def wait_for(condition: Callable[[], object], what: str | Callable[[], str], timeout_s: float = PATIENCE_S) -> None:
    """Returns as soon as `condition()` holds; fails the test, saying `what` was awaited, after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout_s:g} s for {what if isinstance(what, str) else what()}")
        time.sleep(LOOK_AGAIN_S)


# ---- manifests ------------------------------------------------------------------------------------------------------


def manifest(namespace: str, *objects: Object) -> str:
    """Documents of a file: the namespace and what shall be in it."""
    head = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    placed = [{**one, "metadata": {"namespace": namespace, **one["metadata"]}} for one in objects]
    return "\n---\n".join(json.dumps(one, indent=1) for one in (head, *placed))


def deployment(
    name: str,
    replicas: int = 3,
    image: str = "v1",
    *,
    surge: int = 1,
    unavailable: int = 0,
    container: Mapping[str, Any] | None = None,
    pod: Mapping[str, Any] | None = None,
) -> Object:
    """A Deployment of the test image, ready when its page /ready is."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod_spec(image, container, pod)},
        },
    }


def single(
    name: str,
    image: str = "v1",
    *,
    container: Mapping[str, Any] | None = None,
    pod: Mapping[str, Any] | None = None,
    node: str = "",
) -> Object:
    """A Pod of its own, as `deployment` has them; `node` pins it."""
    spec = pod_spec(image, container, pod)
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def pod_spec(image: str, container: Mapping[str, Any] | None, pod: Mapping[str, Any] | None) -> Object:
    ready = {"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1}
    main = {"name": "main", "image": f"{REPOSITORY}:{image}", "readinessProbe": ready, **(container or {})}
    return {
        "terminationGracePeriodSeconds": 5,
        "containers": [{key: value for key, value in main.items() if value is not None}],
        **(pod or {}),
    }


def shell(script: str, **more: Any) -> Object:
    """Fields of a container that runs a shell script and has no readiness probe."""
    return {"command": ["sh", "-c", script], "readinessProbe": None, **more}


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def tolerating(seconds: int) -> Object:
    """Pod fields: how long a silent node is tolerated."""
    keys = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
    tolerations = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds} for key in keys
    ]
    return {"tolerations": tolerations}
