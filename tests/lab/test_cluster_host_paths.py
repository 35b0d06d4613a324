"""Directories, files, sockets and devices of a host in containers: each type of a hostPath, with what it demands and what it makes."""

# ruff: noqa: E501  (a pod is a line)
from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.lab import Lab
from tests.lab.cluster import Cluster, Object, shell, single, wait_for

PLACE = "/srv/shown"
# name → (type, path below PLACE, what the container finds there as /it)
GOOD = {
    "plain": ("", "made-too", "test -d /it"),
    "directory": ("Directory", "there", "test $(cat /it/word) = found"),
    "made-directory": ("DirectoryOrCreate", "new/deep", "test -d /it"),
    "file": ("File", "there/word", "test $(cat /it) = found"),
    "made-file": ("FileOrCreate", "empty", "test -f /it && test ! -s /it"),
    "socket": ("Socket", "socket", "test -S /it"),
    "characters": ("CharDevice", "null", "test -c /it"),
    "blocks": ("BlockDevice", "loop", "test -b /it"),
}
# The same types, where something else is, or nothing.
BAD = {
    "no-directory": ("Directory", "nowhere"),
    "file-as-directory": ("DirectoryOrCreate", "there/word"),
    "no-file": ("File", "nowhere"),
    "directory-as-file": ("FileOrCreate", "there"),
    "file-as-socket": ("Socket", "there/word"),
    "socket-as-characters": ("CharDevice", "socket"),
    "characters-as-blocks": ("BlockDevice", "null"),
}


@pytest.fixture
def shown(cluster: Cluster, lab3: Lab) -> Iterator[Cluster]:
    """The context allows PLACE, and node1 has something there."""
    context = cluster.directory / "context.json"
    context.write_text(json.dumps({"host_paths": [PLACE]}))
    listen = "import socket; socket.socket(socket.AF_UNIX).bind('socket')"
    lab3.host("node1").run(
        f"mkdir -p {PLACE}/there && cd {PLACE} && echo found >there/word && mknod null c 1 3 && mknod loop b 7 0 && python3 -c {json.dumps(listen)}"
    )
    yield cluster
    context.unlink()
    lab3.host("node1").run(f"rm -rf {PLACE}")


def mounting(name: str, kind: str, path: str, script: str) -> Object:
    volume = {"name": "it", "hostPath": {"path": f"{PLACE}/{path}", "type": kind}}
    container = shell(script, volumeMounts=[{"name": "it", "mountPath": "/it"}])
    return single(name, node="node1", container=container, pod={"restartPolicy": "Never", "volumes": [volume]})


def test_a_host_path_of_each_type_is_what_it_says_or_the_pod_waits(shown: Cluster, ns: str) -> None:
    pods = [mounting(name, *fields) for name, fields in GOOD.items()]
    pods += [mounting(name, *fields, "true") for name, fields in BAD.items()]
    shown.apply(ns, *pods, flags=["--no-wait"])

    def phases() -> dict[str, str]:
        return {pod["metadata"]["name"]: pod["status"]["phase"] for pod in shown.pods(ns)}

    wanted = {name: "Succeeded" if name in GOOD else "Pending" for name in (*GOOD, *BAD)}
    try:
        wait_for(lambda: phases() == wanted, "the good ones to succeed", 120)
    except pytest.fail.Exception:
        pytest.fail(str(phases()))

    def refused() -> set[str]:
        """Those that wait and say why."""
        found = set()
        for pod in shown.pods(ns):
            for status in pod["status"].get("containerStatuses", ()):
                why = status["state"].get("waiting", {}).get("message", "")
                if "is not of type" in why or "No such file" in why:
                    found.add(pod["metadata"]["name"])
        return found

    wait_for(lambda: refused() == set(BAD), "the bad ones to say why")
    assert phases() == wanted
    modes = shown.host("node1").run(f"cd {PLACE} && stat -c '%A' made-too new new/deep empty").split()
    assert modes == ["drwxr-xr-x", "drwxr-xr-x", "drwxr-xr-x", "-rw-r--r--"]
