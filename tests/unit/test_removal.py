"""The script of `node forget`, with a Podman that is a few lines: whose network it removes. On real hosts: tests/lab/test_bootstrap.py."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from controller.act.bootstrap import removal

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
