"""`make demo`: three real hosts on this machine, and what sshoal does with them. Every claim that is printed was observed and timed.

In: nothing. Out: a story on standard output; exit code 1 when a claim was not observed. What a user would type is run as a user would type
it, through the `sshoal` command; what is claimed is checked at the hosts themselves wherever they can tell.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.model.errors import SshoalError
from lab import image
from lab.lab import Lab, state_root

NAME = "demo"
SSHOAL = [sys.executable, "-m", "controller.cli"]
COMMAND_DEADLINE_S = 180.0
LOOK_S = 0.1

MANIFEST = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: {replicas}
  selector:
    matchLabels: {{app: web}}
  strategy:
    rollingUpdate: {{maxSurge: 2, maxUnavailable: 1}}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      tolerations:
        - key: node.kubernetes.io/unreachable
          operator: Exists
          effect: NoExecute
          tolerationSeconds: 5
      containers:
        - name: web
          image: {image}
          ports:
            - containerPort: 8080
          readinessProbe:
            httpGet: {{path: /, port: 8080}}
            periodSeconds: 2
          livenessProbe:
            httpGet: {{path: /, port: 8080}}
          resources:
            requests: {{cpu: 50m, memory: 16Mi}}
            limits: {{memory: 64Mi}}
"""

# One line per address: the first one of its page, or why there is none.
_ASK = """python3 - {} <<'END'
import sys, urllib.request
for address in sys.argv[1:]:
    try:
        print(urllib.request.urlopen("http://" + address + ":8080/", timeout=5).read().decode().replace(chr(10), " "))
    except OSError as error:
        print("no answer", error)
END"""


def main() -> None:
    """Runs the demo, or with --down takes its hosts away."""
    if "--down" in sys.argv[1:]:
        _down()
        return
    demo = Demo()
    try:
        demo.run()
    except SshoalError as error:
        sys.exit(f"✗ {error.message}\n  → {error.hint}")
    except KeyboardInterrupt:
        sys.exit("interrupted; `make demo-down` takes the hosts away")
    if demo.failed:
        sys.exit(
            f"\n{len(demo.failed)} claims were not observed:\n" + "\n".join(f"  ✗ {claim}" for claim in demo.failed)
        )


def _down() -> None:
    if NAME in Lab.names():
        Lab.load(NAME).down()
        print("the demo's hosts are gone, nothing is left of them")
    else:
        print("there are no demo hosts")


@dataclass
class Demo:
    failed: list[str] = field(default_factory=list)

    def run(self) -> None:
        print("sshoal: containers on plain Linux hosts over nothing but SSH. This takes about two minutes.")
        self._chapter("Three hosts come up: own systemd, sshd, Podman, address")
        with self._timed("three hosts boot and answer on port 22"):
            if NAME in Lab.names():
                Lab.load(NAME).down()
            self.lab = Lab.up(NAME, hosts=3)
        self._environment()
        self._chapter("The agent is pushed to them over SSH")
        self._shell("reconcile")
        self._claim("three nodes are Ready", lambda: self._ready_nodes() == 3)
        archives = {version: image.build(f"{image.REPOSITORY}:{version}") for version in ("v1", "v2")}
        for archive in archives.values():
            self._shell("image", "push", str(archive))
        self._deploy()
        self._kill_one()
        self._scale()
        self._update()
        self._bad_image()
        watch = subprocess.Popen([*SSHOAL, "watch", "--period", "2s"], env=self.environment, stderr=subprocess.DEVNULL)
        try:
            self._lose_a_host()
        finally:
            watch.terminate()
            watch.wait(COMMAND_DEADLINE_S)
        self._without_controller()
        self._how_to_go_on()

    # ---- chapters -------------------------------------------------------------------------------------------------------

    def _deploy(self) -> None:
        self._chapter("A Deployment of six replicas, spread over the hosts")
        self._apply("v1", 6)
        self._shell("get", "pods", "-o", "wide", quiet=False)
        self._claim(
            "six replicas are Ready, two on each host", lambda: sorted(self._ready_by_node().values()) == [2, 2, 2]
        )
        self._claim("each replica answers over HTTP", lambda: self._answers() == {"v1": 6})
        self._claim(
            "one of them answers through `sshoal port-forward`", lambda: "v1" in self._forwarded(self._ready_pods()[0])
        )

    def _kill_one(self) -> None:
        self._chapter("One container is killed (kill -9 on its host)")
        killed_s, started_s = self._kill_container()
        self._claim(
            f"it runs again {started_s - killed_s:.2f} s later, as its host says",
            lambda: 0 < started_s - killed_s < 1.0,
        )
        self._claim("six replicas are Ready again", lambda: sum(self._ready_by_node().values()) == 6)

    def _scale(self) -> None:
        self._chapter("Scale up to nine")
        self._shell("scale", "deployment/web", "--replicas", "9")
        self._claim(
            "nine replicas are Ready, three on each host", lambda: sorted(self._ready_by_node().values()) == [3, 3, 3]
        )

    def _update(self) -> None:
        self._chapter("Rolling update to v2 (maxSurge 2, maxUnavailable 1)")
        lowest = []
        # Hosts are asked one after another: what comes up behind the question is missed. Two in a row do not miss the same.
        with self._sampling(lambda: lowest.append(max(len(self._running()), len(self._running())))):
            self._apply("v2", 9)
        self._claim(
            f"never fewer than eight containers ran while it rolled (lowest seen: {min(lowest)})",
            lambda: min(lowest) >= 8,
        )
        self._claim("every replica answers as v2", lambda: self._answers() == {"v2": 9})

    def _bad_image(self) -> None:
        self._chapter("A bad image: the old version goes on serving, and the reason is told")
        done = self._apply("no-such-version", 9, expect=3, timeout="20s")
        print(_indented(done.stderr.strip()))
        self._claim("the command exits 3 and names the image", lambda: "no-such-version" in done.stderr)
        self._claim("at least eight replicas of v2 still answer", lambda: self._answers().get("v2", 0) >= 8)
        self._shell("rollout", "undo", "deployment/web")
        self._claim("after `rollout undo` nine replicas of v2 are Ready", lambda: self._ready_of("v2") == 9)

    def _lose_a_host(self) -> None:
        self._chapter("One host is powered off; `sshoal watch` runs beside it (polls of 2 s, toleration of 5 s)")
        print(
            "  (to replace a lost host's replicas somebody must notice: a watch as here, or cron; until now no controller stayed)"
        )
        self._claim("the watch sees three nodes", lambda: self._ready_nodes() == 3)
        before = self._containers()
        self.lab.kill("node3")
        self._claim("all nine replicas are Ready on the two others", self._nine_on_two, within_s=60.0)
        self._chapter("The host comes back")
        self.lab.start("node3")
        self._claim("node3 is Ready again", lambda: self._ready_nodes() == 3, within_s=60.0)
        self._claim(
            "nine replicas are Ready, and nine containers run: only the surplus was stopped",
            self._settled_at_nine,
            within_s=90.0,
        )
        survivors = {name: started for name, started in before.items() if name in self._containers()}
        self._claim(
            "no container on the other hosts was restarted",
            lambda: all(
                self._containers()[name] == started for name, started in survivors.items() if name[0] != "node3"
            ),
        )

    def _without_controller(self) -> None:
        self._chapter("No controller runs; the hosts heal themselves")
        self._claim("no sshoal process runs on this machine", lambda: not self._controllers())
        killed_s, started_s = self._kill_container()
        self._claim(
            f"a killed container runs again {started_s - killed_s:.2f} s later", lambda: 0 < started_s - killed_s < 1.0
        )

    def _how_to_go_on(self) -> None:
        self._chapter("How to go on")
        print(f"""\
  export SSHOAL_CONTEXT={self.environment["SSHOAL_CONTEXT"]}
  export SSHOAL_INVENTORY={self.lab.inventory}
  . .venv/bin/activate
  sshoal get pods -o wide          what runs where
  sshoal describe deployment/web   events and reasons
  sshoal logs deployment/web -f    of all replicas
  sshoal watch                     a controller that stays; or: sshoal schedule install
  sshoal lab kill --name {NAME} node2   break something
  make demo-down                   take it all away
  Your own hosts: sshoal init root@HOST …   (README.md: your own hosts in two minutes)""")

    # ---- what is done -----------------------------------------------------------------------------------------------------

    def _environment(self) -> None:
        context = state_root() / NAME / "context"
        context.mkdir(exist_ok=True)
        self.environment = {**os.environ, "SSHOAL_CONTEXT": str(context), "SSHOAL_INVENTORY": str(self.lab.inventory)}

    def _apply(
        self, version: str, replicas: int, *, expect: int = 0, timeout: str = "120s"
    ) -> subprocess.CompletedProcess[str]:
        path = Path(self.environment["SSHOAL_CONTEXT"]) / "web.yaml"
        path.write_text(MANIFEST.format(replicas=replicas, image=f"{image.REPOSITORY}:{version}"))
        return self._shell("apply", "-f", str(path), "--timeout", timeout, expect=expect)

    def _shell(self, *arguments: str, expect: int = 0, quiet: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs `sshoal …` as a user would; its exit code is a claim."""
        shown = " ".join(Path(word).name if word.startswith("/") else word for word in arguments)
        started = time.monotonic()
        done = subprocess.run(
            [*SSHOAL, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE_S,
            check=False,
        )
        print(f"  $ sshoal {shown}   ({time.monotonic() - started:.1f} s)")
        if not quiet:
            print(_indented(done.stdout.rstrip()))
        if done.returncode != expect:
            self._fail(
                f"sshoal {shown} exits {done.returncode}, not {expect}: {(done.stderr or done.stdout).strip()[-600:]}"
            )
        return done

    def _kill_container(self) -> tuple[float, float]:
        """SIGKILL for one container's process on node1 → (when, when its successor started by Podman's word), seconds since 1970."""
        name, pid = self._on_host(
            "node1", "podman ps --filter label=sshoal.dev/container=web --format '{{.Names}} {{.Pid}}' | head -1"
        ).split()
        stem = name.rpartition("-")[0]
        before = set(self._on_host("node1", f"podman ps -a --filter name={stem} --format '{{{{.Names}}}}'").split())
        killed_s = time.time()
        self._on_host("node1", f"kill -9 {pid}")
        end_s = time.monotonic() + 20
        while time.monotonic() < end_s:
            names = self._on_host("node1", f"podman ps --filter name={stem} --format '{{{{.Names}}}}'").split()
            fresh = [one for one in names if one not in before]
            if fresh:
                at = self._on_host("node1", f"podman inspect --format '{{{{.State.StartedAt.UnixMilli}}}}' {fresh[0]}")
                return killed_s, int(at) / 1000
        return killed_s, killed_s + 99

    # ---- what is observed ---------------------------------------------------------------------------------------------------

    def _on_host(self, host: str, command: str) -> str:
        return self.lab.host(host).run(command, timeout_s=30.0)

    def _running(self) -> list[str]:
        return [name for host, name in self._containers() if host]

    def _containers(self) -> dict[tuple[str, str], str]:
        """{(host, container): since when it runs}, as each host's Podman says; hosts that are off are left out."""
        found: dict[tuple[str, str], str] = {}
        for host in self.lab.hosts:
            if not host.powered():
                continue
            told = self._on_host(
                host.name, "podman ps --filter label=sshoal.dev/container=web --format '{{.Names}} {{.StartedAt}}'"
            )
            found |= {(host.name, line.split()[0]): line.split()[1] for line in told.splitlines() if line.strip()}
        return found

    def _get(self, kind: str, *options: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [*SSHOAL, "get", kind, "-o", "json", *options],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_DEADLINE_S,
            check=False,
        )
        found = json.loads(done.stdout) if done.stdout.strip() else {}
        items: list[dict[str, Any]] = found.get("items", [found] if found else [])
        return items

    def _ready_nodes(self) -> int:
        return sum(_is_ready(node) for node in self._get("nodes"))

    def _ready_pods(self, *options: str) -> list[dict[str, Any]]:
        return [
            pod for pod in self._get("pods", *options) if _is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
        ]

    def _ready_by_node(self, *options: str) -> dict[str, int]:
        return dict(Counter(pod["spec"]["nodeName"] for pod in self._ready_pods(*options)))

    def _ready_of(self, version: str) -> int:
        return sum(pod["spec"]["containers"][0]["image"].endswith(f":{version}") for pod in self._ready_pods())

    def _nine_on_two(self) -> bool:
        """As the store says, which the watch keeps: asking the host that is off would only cost time."""
        ready = self._ready_by_node("--cached")
        return "node3" not in ready and sum(ready.values()) == 9

    def _settled_at_nine(self) -> bool:
        return sum(self._ready_by_node().values()) == 9 and len(self._containers()) == 9

    def _answers(self) -> dict[str, int]:
        """What the ready replicas say of themselves over HTTP, asked by the hosts they are on."""
        addresses: dict[str, list[str]] = {}
        for pod in self._ready_pods():
            addresses.setdefault(pod["spec"]["nodeName"], []).append(pod["status"]["podIP"])
        pages = [
            page
            for host, listed in addresses.items()
            for page in self._on_host(host, _ASK.format(" ".join(listed))).splitlines()
        ]
        return dict(Counter(next((word for word in ("v1", "v2") if word in page), page[:40]) for page in pages))

    def _controllers(self) -> list[str]:
        """Command lines of sshoal processes with this demo's context."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                mine = f"SSHOAL_CONTEXT={self.environment['SSHOAL_CONTEXT']}".encode() in path.read_bytes().split(b"\0")
                command = path.with_name("cmdline").read_bytes()
            except OSError:
                continue
            if mine and b"controller.cli" in command:
                found.append(command.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def _forwarded(self, pod: dict[str, Any]) -> str:
        """The page of a replica as a user gets it: through a local port and SSH."""
        forward = subprocess.Popen(
            [*SSHOAL, "port-forward", pod["metadata"]["name"], "0:8080"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert forward.stdout is not None
            line = forward.stdout.readline()
            port = line.split("127.0.0.1:")[1].split()[0] if "127.0.0.1:" in line else ""
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                page: str = answer.read(4096).decode()
                return page
        except (OSError, ValueError) as error:
            return f"no answer ({error})"
        finally:
            forward.terminate()
            forward.wait(10)

    # ---- telling --------------------------------------------------------------------------------------------------------------

    def _chapter(self, title: str) -> None:
        print(f"\n{title}", flush=True)

    def _claim(self, text: str, holds: Callable[[], bool], within_s: float = 30.0) -> None:
        """Looks until it holds; told with the time it took."""
        started = time.monotonic()
        while not holds():
            if time.monotonic() - started > within_s:
                self._fail(f"{text} (not seen within {within_s:.0f} s)")
                return
            time.sleep(LOOK_S)
        print(f"  ✓ {text}   ({time.monotonic() - started:.1f} s)", flush=True)

    def _fail(self, text: str) -> None:
        self.failed.append(text)
        print(f"  ✗ {text}", flush=True)

    @contextmanager
    def _timed(self, text: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        print(f"  ✓ {text}   ({time.monotonic() - started:.1f} s)", flush=True)

    @contextmanager
    def _sampling(self, sample: Callable[[], object]) -> Iterator[None]:
        """Calls `sample` again and again while the block runs."""
        import threading

        over = threading.Event()

        def work() -> None:
            while not over.is_set():
                sample()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _is_ready(item: dict[str, Any]) -> bool:
    conditions = item.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


if __name__ == "__main__":
    main()
