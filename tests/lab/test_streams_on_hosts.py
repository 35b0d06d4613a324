"""Streams between a terminal and containers in use: logs followed, terminals that change their size, ports with real traffic."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pty
import random
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lab.cluster import PATIENCE_S, SSHOAL, Cluster, Running, deployment, shell, single, wait_for

NAMESPACE = "streams"
ECHO_PORT = 9000
# Says each line that is written to /say, and echoes what comes to a port.
TALKER = f"mkfifo /say; nc -ll -p {ECHO_PORT} -e cat & echo begun; while true; do cat /say; done"


@pytest.fixture(scope="module")
def talkers(cluster: Cluster) -> Iterator[Cluster]:
    cluster.apply(NAMESPACE, deployment("web", 2, container=shell(TALKER.replace("mkfifo", "busybox mkfifo"))))
    yield cluster
    cluster.run("delete", f"namespace/{NAMESPACE}", "--grace-period", "0", "--timeout", "90s")


@pytest.fixture
def pod(talkers: Cluster) -> Running:
    return talkers.running(NAMESPACE)[0]


class Reader:
    """What a program writes to a descriptor, as it comes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.seen = b""

    def until(self, holds: Callable[[bytes], object]) -> bytes:
        end_s = time.monotonic() + PATIENCE_S
        while not holds(self.seen):
            readable, _, _ = select.select([self.descriptor], [], [], max(0.0, end_s - time.monotonic()))
            part = os.read(self.descriptor, 65536) if readable else b""
            if not part:
                pytest.fail(f"not seen in what came: {self.seen[-2000:]!r}")
            self.seen += part
        return self.seen


# ---- logs -----------------------------------------------------------------------------------------------------------


def test_followed_logs_are_merged_in_whole_lines_and_a_replica_that_comes_later_is_followed_too(
    talkers: Cluster,
) -> None:
    argv = [SSHOAL, "logs", "deployment/web", "-n", NAMESPACE, "-f"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=talkers.environment)
    assert process.stdout is not None
    log = Reader(process.stdout.fileno())
    try:
        first, second = talkers.running(NAMESPACE)
        log.until(lambda seen: all(f"[{one.pod}] begun".encode() in seen for one in (first, second)))
        talkers.inside(first, "printf 'one half' >/say")
        talkers.inside(second, "echo in between >/say")
        log.until(lambda seen: f"[{second.pod}] in between\n".encode() in seen)
        talkers.inside(first, "echo ' and the other' >/say")
        log.until(lambda seen: f"[{first.pod}] one half and the other\n".encode() in seen)

        talkers.run("scale", "deployment/web", "--replicas", "3", "-n", NAMESPACE)
        (third,) = [one for one in talkers.running(NAMESPACE) if one.pod not in (first.pod, second.pod)]
        talkers.inside(third, "echo late >/say")
        seen = log.until(lambda seen: f"[{third.pod}] late\n".encode() in seen)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE_S)
        process.stdout.close()
    assert code == 130
    assert all(re.fullmatch(rb"\[web-\S+\] .*", line) for line in seen.splitlines()), seen
    assert seen.count(b"] begun\n") == 3


def test_previous_logs_are_those_before_the_last_restart(cluster: Cluster, ns: str) -> None:
    count = "echo $(( $(cat /kept/runs 2>/dev/null || echo 0) + 1 )) >/kept/runs; echo run $(cat /kept/runs)"
    mounts = {"volumeMounts": [{"name": "kept", "mountPath": "/kept"}]}
    cluster.apply(
        ns,
        single(
            "again",
            container=shell(f"{count}; while [ ! -e /end ]; do sleep 0.1; done; exit 3", **mounts),
            pod={"volumes": [{"name": "kept", "emptyDir": {}}]},
        ),
    )
    none = cluster.call("logs", "again", "-n", ns, "--previous")
    assert none.exit_code != 0
    assert (none.out, none.err.count("error: ")) == ("", 1), none.err
    assert "previous container 'main' has no log" in none.err
    (before,) = cluster.running(ns)
    cluster.inside(before, "echo >/end")
    wait_for(lambda: [one.attempt for one in cluster.running(ns)] == [before.attempt + 1], "the restart")
    assert cluster.call("logs", "again", "-n", ns, "--previous").out == "run 1\n"
    assert cluster.call("logs", "again", "-n", ns).out == "run 2\n"


# ---- exec -----------------------------------------------------------------------------------------------------------


def test_a_terminal_follows_the_size_of_ours_and_ctrl_c_ends_the_command_not_us(talkers: Cluster, pod: Running) -> None:
    controller, terminal = pty.openpty()
    _resize(terminal, 33, 111)
    argv = [SSHOAL, "exec", "-it", "-n", NAMESPACE, pod.pod, "--", "sh"]
    process = subprocess.Popen(
        argv, stdin=terminal, stdout=terminal, stderr=terminal, env=talkers.environment, start_new_session=True
    )
    screen = Reader(controller)
    try:
        screen.until(lambda seen: b"# " in seen)
        os.write(controller, b"busybox stty size\n")
        screen.until(lambda seen: b"33 111" in seen)
        _resize(terminal, 44, 99)
        process.send_signal(signal.SIGWINCH)  # as the kernel does for the terminal's own session
        # The new size comes after the signal: the command is typed until it shows it.
        wait_for(lambda: _typed(controller, screen, b"busybox stty size\n", b"44 99"), "the new size")
        os.write(controller, b"echo before; sleep 1000; echo af''ter $?\n")
        screen.until(lambda seen: b"before\r\n" in seen)
        os.write(controller, b"\x03")
        os.write(controller, b"echo still-$((40+2))\n")
        screen.until(lambda seen: b"still-42" in seen)
        os.write(controller, b"exit 6\n")
        assert process.wait(PATIENCE_S) == 6
    finally:
        process.kill()
        process.wait()
        os.close(controller)
        os.close(terminal)
    wait_for(lambda: "sleep 1000" not in talkers.inside(pod, "ps"), "the command to be gone")


def test_output_of_megabytes_arrives_to_the_last_byte(talkers: Cluster, pod: Running) -> None:
    for _ in range(3):
        done = talkers.call("exec", "-n", NAMESPACE, pod.pod, "--", "dd", "if=/dev/zero", "bs=1024", "count=3000")
        assert (done.exit_code, len(done.out)) == (0, 3000 * 1024), done.err[-300:]


# ---- cp -------------------------------------------------------------------------------------------------------------


def test_a_copied_file_is_the_same_in_both_directions_and_a_failure_leaves_nothing(
    talkers: Cluster, pod: Running, tmp_path: Path
) -> None:
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(random.Random(5).randbytes(5_000_000))
    file.chmod(0o750)
    talkers.run("cp", str(file), f"{NAMESPACE}/{pod.pod}:/tmp/")
    assert talkers.inside(pod, "busybox stat -c '%a %s' /tmp/file").split() == ["750", "5000000"]
    talkers.run("cp", f"{pod.pod}:/tmp/file", str(back), "-n", NAMESPACE)
    assert back.read_bytes() == file.read_bytes()

    told = talkers.run("cp", f"{pod.pod}:/tmp/nothere", str(tmp_path / "no"), "-n", NAMESPACE, expect=4)
    assert "No such file" in told
    told = talkers.run("cp", str(file), f"{pod.pod}:/proc/", "-n", NAMESPACE, expect=4)
    assert "the container did not do it" in told
    assert sorted(tmp_path.iterdir()) == [back, file]


# ---- port-forward ---------------------------------------------------------------------------------------------------


def test_a_forwarded_port_carries_megabytes_both_ways_at_once_and_outlives_a_refused_connection(
    talkers: Cluster, pod: Running
) -> None:
    argv = [SSHOAL, "port-forward", "-n", NAMESPACE, pod.pod, f":{ECHO_PORT}", ":9"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=talkers.environment)
    assert process.stdout is not None
    try:
        text = Reader(process.stdout.fileno()).until(lambda seen: seen.count(b"127.0.0.1:") == 2).decode()
        echo, closed = (int(port) for port in re.findall(r"127\.0\.0\.1:(\d+) ", text))
        assert _echoed(closed, b"hello") == b"", "nobody listens on that port of the pod"
        messages = [random.Random(seed).randbytes(3 * 2**20) for seed in range(4)]
        with ThreadPoolExecutor(len(messages)) as pool:
            came_back = list(pool.map(lambda message: _echoed(echo, message), messages))
        assert [_digest(one) for one in came_back] == [_digest(one) for one in messages]
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE_S)
        process.stdout.close()
    assert code == 130


def _echoed(port: int, message: bytes) -> bytes:
    """Sends the message and the end, reads meanwhile until the other end."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection, ThreadPoolExecutor(1) as pool:

        def send() -> None:
            connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)

        sending = pool.submit(send)
        received = bytearray()
        with contextlib.suppress(ConnectionError):  # what came until then is looked at
            while part := connection.recv(65536):
                received += part
            sending.result()
    return bytes(received)


def _digest(message: bytes) -> str:
    return f"{len(message)} {hashlib.sha256(message).hexdigest()}"


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _typed(controller: int, screen: Reader, line: bytes, wanted: bytes) -> bool:
    """Types a line, waits for the prompt after it → whether the answer holds what is wanted."""
    before = len(screen.seen)
    os.write(controller, line)
    screen.until(lambda seen: re.search(rb"\r\n\d+ \d+\r\n.*# ", seen[before:], re.DOTALL))
    return wanted in screen.seen[before:]
