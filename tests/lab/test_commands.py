"""Commands that hold a stream to a container, and images: typed as a user types them, against real hosts."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.lab.cluster import PATIENCE_S, REPOSITORY, SSHOAL, Cluster, deployment, shell, single

NAMESPACE = "commands"


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[Cluster]:
    """Two ready pods of a deployment."""
    cluster.apply(NAMESPACE, deployment("web", replicas=2))
    yield cluster
    cluster.run("delete", f"namespace/{NAMESPACE}", "--grace-period", "0", "--timeout", "90s")


@pytest.fixture
def pod(web: Cluster) -> str:
    names = web.run("get", "pods", "-n", NAMESPACE, "-o", "name", "--cached").split()
    return names[0].removeprefix("pod/")


def test_logs_of_a_deployment_are_merged_each_line_with_its_pod(web: Cluster) -> None:
    lines = web.call("logs", "deployment/web", "-n", NAMESPACE).out.splitlines()
    prefixes = {re.match(r"\[(web-\S+)\] serving v1", line)[1] for line in lines}  # type: ignore[index]
    assert len(prefixes) == 2


def test_logs_by_labels_are_the_last_lines_of_each_pod_that_has_them(web: Cluster) -> None:
    merged = web.call("logs", "deployment/web", "-n", NAMESPACE).out.splitlines()
    assert sorted(web.call("logs", "-l", "app=web", "-n", NAMESPACE).out.splitlines()) == sorted(merged)
    none = web.call("logs", "-l", "app=other", "-n", NAMESPACE)
    assert (none.exit_code, none.out) == (0, "")
    assert "No resources found" in none.err


def test_logs_of_all_containers_are_merged_each_line_with_its_container(web: Cluster) -> None:
    begins = {"name": "begins", "image": f"{REPOSITORY}:v1", "command": ["echo", "first"]}
    main = shell("echo main; sleep 1000", name="main")
    side = {"name": "side", "image": f"{REPOSITORY}:v1", "command": ["sh", "-c", "echo side; sleep 1000"]}
    pod = single("several", container=main, pod={"initContainers": [begins], "terminationGracePeriodSeconds": 0})
    pod["spec"]["containers"].append(side)
    web.apply(NAMESPACE, pod)
    assert "is Running" in web.run("wait", "pod/several", "--for", "jsonpath={.status.phase}=Running", "-n", NAMESPACE)
    chosen = web.run("get", "pods", "-n", NAMESPACE, "--field-selector", "metadata.name=several,status.phase=Running")
    assert [line.split()[0] for line in chosen.splitlines()[1:]] == ["several"]
    lines = web.call("logs", "several", "--all-containers", "-n", NAMESPACE).out.splitlines()
    assert sorted(lines) == ["[several/begins] first", "[several/main] main", "[several/side] side"]
    assert web.call("logs", "several", "-c", "side", "-n", NAMESPACE).out == "side\n"
    web.run("delete", "pod/several", "-n", NAMESPACE)


def test_the_exit_code_of_a_command_is_ours_and_its_outputs_stay_apart(web: Cluster, pod: str) -> None:
    done = web.call("exec", "-n", NAMESPACE, pod, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.exit_code, done.out, done.err) == (7, "out\n", "err\n")


def test_the_end_of_standard_input_reaches_the_command(web: Cluster, pod: str) -> None:
    text = "x" * 100_000
    done = web.call("exec", "-i", "-n", NAMESPACE, pod, "--", "wc", "-c", stdin=text)
    assert (done.exit_code, done.out.strip()) == (0, "100000")


def test_a_terminal_is_passed_through_and_restored(web: Cluster, pod: str) -> None:
    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    argv = [SSHOAL, "exec", "-it", "-n", NAMESPACE, pod, "--", "sh"]
    process = subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, env=web.environment)
    _await(controller, b"# ")  # the shell's prompt: it sees a terminal
    os.write(controller, b"test -t 0 && echo is-a-$((1+1))-terminal; exit 5\n")
    _await(controller, b"is-a-2-terminal")
    assert process.wait(PATIENCE_S) == 5
    assert termios.tcgetattr(terminal) == before
    os.close(controller)
    os.close(terminal)


def test_a_forwarded_port_serves_several_connections_and_ends_with_ctrl_c(web: Cluster, pod: str) -> None:
    argv = [SSHOAL, "port-forward", "-n", NAMESPACE, pod, ":8080"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=web.environment)
    assert process.stdout is not None
    port = int(re.search(r"127\.0\.0\.1:(\d+) ", process.stdout.readline())[1])  # type: ignore[index]
    for _ in range(3):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE_S) as answer:
            assert pod in answer.read().decode()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 130
    process.stdout.close()


def _await(descriptor: int, wanted: bytes) -> bytes:
    """Reads until `wanted` was seen → all that was read."""
    seen = b""
    end_s = time.monotonic() + PATIENCE_S
    while wanted not in seen:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, end_s - time.monotonic()))
        if not readable:
            pytest.fail(f"{wanted!r} was not seen in {seen!r}")
        seen += os.read(descriptor, 4096)
    return seen
