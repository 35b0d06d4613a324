"""The script of `node forget`, with a Podman that is a few lines: whose network it removes. On real hosts: tests/lab/test_bootstrap.py."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.act.bootstrap import forget, removal
from controller.act.transport import Completed
from controller.model.errors import HostNotReady

PODMAN = """#!/bin/sh
case "$1 $2 $*" in
    "network exists "*) [ -e "$NETWORKS/$3" ];;
    "network ls "*"label=sshoal.dev/cluster"*) cd "$NETWORKS" && grep -l sshoal.dev/cluster -- *; exit 0;;
    "network rm "*) rm "$NETWORKS/$3";;
esac
"""


@pytest.mark.parametrize(("label", "is_removed"), [("sshoal.dev/cluster", True), ("somebody", False)])
def test_a_network_is_removed_by_its_label_not_its_name(label: str, is_removed: bool, tmp_path: Path) -> None:
    programs, networks = tmp_path / "bin", tmp_path / "networks"
    for directory in (programs, networks):
        directory.mkdir()
    for name, text in (("podman", PODMAN), ("systemctl", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (networks / "sshoal").write_text(label)
    script = removal(False)
    for place in ("/etc/systemd/system", "/var/lib/sshoal", "/run/sshoal"):
        script = script.replace(place, str(tmp_path / "host" / place[1:]))
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "NETWORKS": str(networks)}
    done = subprocess.run(["sh"], input=script.encode(), env=environment, capture_output=True, check=True, timeout=20)
    assert done.stdout == b"", "nothing of ours is left"
    assert (networks / "sshoal").exists() is not is_removed


@pytest.mark.parametrize("whose", ["a-b-c", "d-e-f"], ids=["ours", "another cluster's"])
def test_where_another_clusters_containers_are_nothing_is_removed(whose: str, tmp_path: Path) -> None:
    """Its agent, which would have refused, does not answer: the labels say whose host it is."""
    programs, state = tmp_path / "bin", tmp_path / "host/var/lib/sshoal"
    for directory in (programs, state):
        directory.mkdir(parents=True)
    podman = f"""#!/bin/sh
case "$*" in
    "ps "*label=sshoal.dev/cluster=*) case "$*" in *={whose}*) cat "$PODS";; esac;;
    "ps "*label=sshoal.dev/cluster*) cat "$PODS";;
    "rm "*) : >"$PODS";;
esac
"""
    for name, text in (("podman", podman), ("systemctl", "#!/bin/sh\n")):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "pods").write_text("db-0\nweb-1\n")
    script = removal(False, "a-b-c")
    for place in ("/etc/systemd/system", "/var/lib/sshoal", "/run/sshoal"):
        script = script.replace(place, str(tmp_path / "host" / place[1:]))
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "PODS": str(tmp_path / "pods")}
    done = subprocess.run(["sh"], input=script.encode(), env=environment, capture_output=True, check=True, timeout=20)
    is_ours = whose == "a-b-c"
    assert done.stdout.split() == ([] if is_ours else [b"theirs:", b"db-0", b"web-1"])
    assert ((tmp_path / "pods").read_text() == "", not state.exists()) == (is_ours, is_ours)


def test_it_is_told_whose_containers_keep_a_host_from_being_forgotten() -> None:
    class Theirs:
        host_name = "n1"

        async def run(self, script: str, **_: Any) -> Completed:
            return Completed(0, b"theirs: db-0 web-1\n", b"")

    with pytest.raises(HostNotReady, match="nothing is removed: these containers are of another cluster: db-0, web-1"):
        asyncio.run(forget(Theirs(), None, cluster="a-b-c", timeout_s=1.0))  # type: ignore[arg-type]
