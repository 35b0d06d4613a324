"""Executable inventory sources → Builder. Runs a program of the user's; only reached with allow_executables.

The program prints JSON on `--list`; variables come from `_meta.hostvars`, else from `--host NAME` for each host, as in Ansible.
Deadline and output size are bounded. Raises InventoryError.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from controller.act.inventory.builder import Builder, Place

DEADLINE_S = 30
OUTPUT_BYTES_MAX = 16 * 1024 * 1024


def read(path: Path, builder: Builder) -> None:
    """Runs the program and adds what it says."""
    place = Place(str(path))
    data = _run(path, ["--list"], place)
    hosts: dict[str, None] = {}
    for name, content in data.items():
        if name != "_meta":
            _group(name, content, place, builder, hosts)
    meta = data.get("_meta")
    hostvars = meta.get("hostvars") if isinstance(meta, dict) else None
    if meta is not None and not isinstance(hostvars, dict):
        raise place.error("_meta.hostvars of its output is not an object")
    for host in hosts:
        variables = hostvars.get(host, {}) if hostvars is not None else _run(path, ["--host", host], place)
        if not isinstance(variables, dict):
            raise place.error(f"the variables of {host!r} in its output are not an object")
        for key, value in variables.items():
            builder.set_host_variable(host, key, value, place)


def _group(name: str, content: Any, place: Place, builder: Builder, hosts: dict[str, None]) -> None:
    group = builder.add_group(name, place)
    if not isinstance(content, dict):
        content = {"hosts": content}
    elif not {"hosts", "vars", "children"} & content.keys():
        content = {"hosts": [group], "vars": content}
    for key, kind in (("hosts", list), ("vars", dict), ("children", list)):
        if key in content and not isinstance(content[key], kind):
            raise place.error(f"{key} of group {group!r} in its output is of the wrong type")
    for host in content.get("hosts", []):
        if not isinstance(host, str):
            raise place.error(f"a host of group {group!r} in its output is not a string")
        builder.add_host(host, group, None, place)
        hosts[host] = None
    for key, value in content.get("vars", {}).items():
        builder.set_group_variable(group, key, value, place)
    for child in content.get("children", []):
        builder.add_child(group, builder.add_group(child, place), place)


def _run(path: Path, arguments: list[str], place: Place) -> dict[str, Any]:
    """The program's output as an object."""
    said = " ".join(arguments)
    try:
        program = subprocess.Popen(
            [str(path.absolute()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that its children can be ended with it
        )
    except OSError as error:
        raise place.error(f"cannot be run: {error.strerror}") from None
    try:
        text = _output(program, place, said)
        code = program.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        raise place.error(f"closed its output on {said}, but does not end") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
    if code != 0:
        raise place.error(f"ended with code {code} on {said}", hint="run it by hand")
    if arguments[0] == "--host" and not text.strip():
        return {}
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise place.error(f"printed no valid JSON on {said}", hint="run it by hand") from None
    if not isinstance(data, dict):
        raise place.error(f"printed no JSON object on {said}")
    return data


def _output(program: subprocess.Popen[bytes], place: Place, said: str) -> bytes:
    """All that the program prints, within the deadline and the cap."""
    assert program.stdout is not None
    until = time.monotonic() + DEADLINE_S
    parts: list[bytes] = []
    size = 0
    with program.stdout as stream, selectors.DefaultSelector() as ready:
        ready.register(stream, selectors.EVENT_READ)
        while True:
            if not ready.select(max(0.0, until - time.monotonic())):
                raise place.error(f"did not answer {said} within {DEADLINE_S} s")
            part = os.read(stream.fileno(), 65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
            if size > OUTPUT_BYTES_MAX:
                raise place.error(f"printed more than {OUTPUT_BYTES_MAX // 1024 // 1024} MiB on {said}")
