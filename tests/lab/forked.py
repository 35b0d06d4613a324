"""`sshoal` commands by fork: a process that has imported all of sshoal answers each command with a child of its own.

In: arguments, environment and input of a command. Out: what it wrote and its exit code, as if the program had been started. Hundreds of
commands of the lab tests then cost what they do and not what it takes to import them; that the program starts is shown by the tests that
run it as one (`tests/lab/test_newcomer.py`, and all that runs in the background or at a terminal).
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

START_TIMEOUT_S = 60.0
# By commands that come to need it.
IMPORTED_LATER = (
    "controller.loop",
    "controller.act.actor",
    "controller.act.bootstrap",
    "controller.act.inventory",
    "controller.act.ssh",
    "controller.act.transports",
    "controller.model.kinds",
)


class Commands:
    """Begins with the first command; ends with this process, however that ends."""

    def __init__(self) -> None:
        self._directory: Path | None = None

    def run(
        self, arguments: Sequence[str], *, env: Mapping[str, str], stdin: str, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run(["sshoal", *arguments], …)` with text captured. Raises subprocess.TimeoutExpired after killing it."""
        with tempfile.TemporaryDirectory(dir=self._begun()) as place:
            files = [Path(place, name) for name in ("in", "out", "err")]
            files[0].write_text(stdin)
            request = {
                "arguments": list(arguments),
                "env": dict(env),
                "cwd": str(Path.cwd()),
                "files": list(map(str, files)),
            }
            exit_code = self._ask(request, timeout_s)
            return subprocess.CompletedProcess(list(arguments), exit_code, files[1].read_text(), files[2].read_text())

    def _ask(self, request: dict[str, object], timeout_s: float) -> int:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._begun() / "socket"))
            connection.sendall(json.dumps(request).encode() + b"\n")
            answers = connection.makefile()
            pid = int(answers.readline())
            if not select.select([connection], [], [], timeout_s)[0]:
                os.kill(pid, signal.SIGKILL)
                answers.readline()
                raise subprocess.TimeoutExpired(f"sshoal {request['arguments']}", timeout_s)
            return int(answers.readline())

    def _begun(self) -> Path:
        if self._directory is None:
            directory = Path(tempfile.mkdtemp(prefix="sshoal-commands-"))
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
            # As controller/cli/start.py does before anything is imported
            env = {**os.environ, "PYDANTIC_DISABLE_PLUGINS": "__all__"}
            server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(directory)], stdin=subprocess.DEVNULL, env=env
            )
            atexit.register(server.terminate)
            end = time.monotonic() + START_TIMEOUT_S
            while not (directory / "socket").exists():
                assert server.poll() is None and time.monotonic() < end, "the process that runs commands does not start"
                time.sleep(0.05)
            self._directory = directory
        return self._directory


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = 100
    parent = os.getppid()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.parent:  # whom we answered is gone
            os._exit(0)


class _Handler(socketserver.StreamRequestHandler):
    """In a process of its own: its child becomes the command."""

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        pid = os.fork()
        if pid == 0:
            _become(request)
        self.wfile.write(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(request: dict[str, list[str]]) -> NoReturn:
    from controller.cli.start import main

    modes = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    for number, (file, mode) in enumerate(zip(request["files"], modes, strict=True)):
        os.dup2(os.open(file, mode), number)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["sshoal", *request["arguments"]]
    main()


def _serve(directory: Path) -> None:
    import controller.cli

    commands = [f"controller.cli.{found.name}" for found in pkgutil.iter_modules(controller.cli.__path__)]
    for name in (*commands, *IMPORTED_LATER):
        if not name.endswith("__main__"):
            importlib.import_module(name)
    gc.freeze()
    place = directory / "starting"
    with _Server(str(place), _Handler) as server:
        place.rename(directory / "socket")
        server.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
