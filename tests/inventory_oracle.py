"""ansible-core as the oracle of inventory tests, in a process of its own.

As a module: `Oracle().ask(arguments, hosts, patterns)`. As a program (what Oracle starts): imports ansible-core once, then answers each
request, a JSON line, from a fresh fork, so that no cache of one inventory reaches the next.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What ansible-inventory printed; `errors` is its standard error."""

    listed: str
    graph: str
    hosts: dict[str, str]
    selected: dict[str, list[str] | None]  # None: refused
    errors: str


class Oracle:
    def __init__(self) -> None:
        self._asked = 0
        self._home = tempfile.TemporaryDirectory()  # an empty directory to run in: ansible reads ./group_vars, too
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": self._home.name,
            "LANG": "C.UTF-8",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": self._home.name + "/tmp",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=self._home.name,
            text=True,
        )

    def ask(self, arguments: list[str], hosts: list[str] | None = None, patterns: list[str] | None = None) -> Answer:
        """`arguments` as for ansible-inventory, with absolute paths."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._asked += 1
        request = {"number": self._asked, "arguments": arguments, "hosts": hosts or [], "patterns": patterns or []}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        while (answer := json.loads(self._process.stdout.readline())).pop("number") != self._asked:
            pass  # to a question whose asker was interrupted, e.g. by the test's time limit
        return Answer(**answer)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._home.cleanup()


def _serve() -> None:
    from ansible.cli.inventory import InventoryCLI  # type: ignore[import-not-found, import-untyped, unused-ignore]

    InventoryCLI(["ansible-inventory", "-i", "x,", "--list"])  # loads what every fork needs
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps({"number": request["number"], **_answer(request)}), flush=True)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """From a fork: ansible-core caches what it read, and may set itself up only once a process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            with os.fdopen(writing, "w") as pipe:
                json.dump(_ask_ansible(request), pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    answer: dict[str, Any] = json.loads(text)
    return answer


def _ask_ansible(request: dict[str, Any]) -> dict[str, Any]:
    from ansible.cli.inventory import InventoryCLI
    from ansible.errors import AnsibleError  # type: ignore[import-not-found, import-untyped, unused-ignore]

    output, errors = io.StringIO(), io.StringIO()
    selected: dict[str, list[str] | None] = {}
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        command = InventoryCLI(["ansible-inventory", *request["arguments"], "--list"])
        with contextlib.suppress(SystemExit):
            command.run()
        graph = command.inventory_graph()
        hosts = {
            host: command.dump(command._get_host_variables(command.inventory.get_host(host)))
            for host in request["hosts"]
        }
        for pattern in request["patterns"]:
            try:
                selected[pattern] = [host.name for host in command.inventory.get_hosts(pattern)]
            except AnsibleError:
                selected[pattern] = None
    return {
        "listed": output.getvalue().removesuffix("\n"),
        "graph": graph,
        "hosts": hosts,
        "selected": selected,
        "errors": errors.getvalue(),
    }


if __name__ == "__main__":
    _serve()
