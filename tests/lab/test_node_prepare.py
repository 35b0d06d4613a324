"""`node prepare` on real hosts: a bare Debian becomes a node by its own apt; a program plays the package managers of other systems."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import image
from lab.host import LabHost
from lab.lab import Lab
from lab.system import require_root_and_programs
from tests.lab.cluster import Cluster, single
from tests.lab.repository import packages, served

UNITS = "systemctl list-unit-files --state=enabled --no-legend --plain | awk '{print $1}' | sort"
RUNNING = "systemctl list-units --type=service --state=running --no-legend --plain | awk '{print $1}' | sort"
PIDS = "for unit in ssh dbus systemd-journald systemd-logind; do systemctl show -p MainPID --value $unit; done"


@pytest.fixture(scope="module")
def bare() -> Iterator[LabHost]:
    """One host without Podman and without all of Python; its apt knows one repository, on this machine."""
    require_root_and_programs()
    name = f"bare-{os.getpid()}"
    debs = packages()
    try:
        lab = Lab.up(name, hosts=1, base="bare")
        with served(debs, str(lab.subnet[1])) as url:
            host = lab.hosts[0]
            host.run(f"echo 'deb [trusted=yes] {url} ./' >/etc/apt/sources.list; rm -f /etc/apt/sources.list.d/*")
            yield host
    finally:
        if name in Lab.names():
            Lab.load(name).down()


@pytest.mark.timeout(900)
def test_a_bare_debian_becomes_a_node_by_its_own_package_manager(
    bare: LabHost, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lab = Lab.load(bare.directory.parents[1].name)
    context = Cluster(lab, tmp_path_factory.mktemp("context"), lab.inventory_sudo)
    before, daemons = bare.run(UNITS), bare.run(PIDS)

    # What is missing is told, and a check changes nothing.
    checked = json.loads(context.run("node", "check", "-o", "json", expect=1))[0]
    failing = [finding for finding in checked["findings"] if finding["severity"] == "fails"]
    assert {finding["check"] for finding in failing} == {"python", "podman", "parts"}
    assert all(finding["mendable"] for finding in failing)
    dpkg = bare.run("dpkg-query -W | sha256sum; ls /var/lib/apt/lists | sha256sum")
    said = context.run("node", "prepare", "--check")
    assert "would install python3, podman, crun, conmon, catatonit, netavark, iptables" in said
    assert "Podman is not installed" in said
    assert bare.run("dpkg-query -W | sha256sum; ls /var/lib/apt/lists | sha256sum") == dpkg

    # It is installed, with nothing switched on or restarted that is not needed.
    said = context.run("node", "prepare")
    assert "✓ node1: install python3, podman" in said
    assert "can serve" in said
    new = set(bare.run(UNITS).split()) - set(before.split())
    assert not {unit for unit in new if "podman" in unit}, "its units are for other uses of Podman"
    assert bare.run("systemctl is-active podman.socket podman.service", check=False).split() == ["inactive"] * 2
    assert bare.run(PIDS) == daemons, "nobody's service was restarted"
    assert bare.run("ls /usr/sbin/policy-rc.d", check=False) == ""
    assert bare.run("dpkg --audit") == ""

    # Repeating finds nothing to do, and the host is a node.
    assert "node1: nothing to do" in context.run("node", "prepare")
    assert json.loads(context.run("node", "check", "-o", "json"))[0]["result"] == "fit"
    lab.load_image(image.build())
    context.apply("first", single("pod"))
    assert [one.pod for one in context.running("first")] == ["pod"]
    context.run("node", "forget", "node1", "--yes")


@pytest.mark.timeout(900)
def test_what_fails_is_told_with_the_managers_own_words(bare: LabHost, tmp_path: Path) -> None:
    lab = Lab.load(bare.directory.parents[1].name)
    context = Cluster(lab, tmp_path)
    # Gone with its package's files but not from dpkg's lists: apt has nothing to do, and that does not help.
    bare.run("mv /usr/bin/crun /usr/bin/crun.away")
    try:
        said = context.run("node", "prepare", expect=1)
        assert "no OCI runtime" in said
        assert "cannot serve yet" in said
        bare.run("dpkg --force-depends --remove crun; mv /etc/apt/sources.list /etc/apt/sources.list.away")
        bare.run("rm -rf /var/lib/apt/lists; touch /etc/apt/sources.list")
        said = context.run("node", "prepare", expect=1)
        assert "✗ node1: install crun" in said
        assert "exit code 100" in said
        assert "Unable to locate package crun" in said or "no installation candidate" in said, said
    finally:
        bare.run("mv /etc/apt/sources.list.away /etc/apt/sources.list; rm -f /usr/bin/crun.away", check=False)
    assert "can serve" in context.run("node", "prepare")


@pytest.mark.timeout(900)
def test_an_installation_that_was_cut_off_is_completed_by_the_next(bare: LabHost, tmp_path: Path) -> None:
    lab = Lab.load(bare.directory.parents[1].name)
    context = Cluster(lab, tmp_path)
    context.run("node", "prepare")
    # As a power cut leaves it: one package unpacked and not configured, another missing, and what kept services from starting.
    mark = "# sshoal node prepare is installing"
    bare.run("dpkg --force-depends --purge crun catatonit; cd /tmp; apt-get download crun; dpkg --unpack crun_*.deb")
    bare.run(f"printf '#!/bin/sh\\n{mark}\\nkill -0 99999999 && exit 101\\nexit 0\\n' >/usr/sbin/policy-rc.d")
    assert "crun" in bare.run("dpkg --audit")
    said = context.run("node", "prepare")
    assert "✓ node1: complete an interrupted installation" in said
    assert "✓ node1: install catatonit" in said
    assert bare.run("dpkg --audit; ls /usr/sbin/policy-rc.d", check=False) == ""


def test_a_policy_of_somebody_else_stays(bare: LabHost, tmp_path: Path) -> None:
    context = Cluster(Lab.load(bare.directory.parents[1].name), tmp_path)
    bare.run("dpkg --force-depends --purge catatonit; printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d")
    try:
        assert "can serve" in context.run("node", "prepare")
        assert bare.run("cat /usr/sbin/policy-rc.d") == "#!/bin/sh\nexit 101\n"
    finally:
        bare.run("rm /usr/sbin/policy-rc.d")


# ---- other families: a program that takes the package manager's place on a real host ---------------------------------------

FAKE = """#!/bin/sh
{{
printf '%s\\n' "$0" "$@" --- >>/var/log/fake-manager
case " $* " in *" install "* | *" add "*) [ -e /usr/bin/crun ] || mv /usr/bin/crun.away /usr/bin/crun ;; esac
}} 2>>/var/log/fake-manager
exit {code}
"""


@pytest.fixture
def disguised(lab3: Lab, request: pytest.FixtureRequest) -> Iterator[tuple[LabHost, str]]:
    """A host without crun that says it is of another distribution, with that one's package manager played by a program."""
    host, (manager, system, code) = lab3.hosts[0], request.param
    host.run(
        f"mv /usr/bin/crun /usr/bin/crun.away; cp -L /etc/os-release /root/os-release; rm /etc/os-release;"
        f"printf 'ID=%s\\nID_LIKE=%s\\n' {system} >/etc/os-release; rm -f /var/log/fake-manager;"
        f"cat >/usr/local/bin/{manager} <<'END'\n{FAKE.format(code=code)}END\nchmod 755 /usr/local/bin/{manager}"
    )
    yield host, manager
    host.run(
        f"[ ! -e /usr/bin/crun.away ] || mv /usr/bin/crun.away /usr/bin/crun; rm /etc/os-release /usr/local/bin/{manager};"
        "ln -s ../usr/lib/os-release /etc/os-release; rm -f /root/os-release /var/log/fake-manager"
    )


@pytest.mark.parametrize(
    ("disguised", "words"),
    [
        (("dnf", "fedora fedora", 0), [["-y", "-q", "--setopt=install_weak_deps=False", "install", "crun"]]),
        (
            ("zypper", "opensuse-leap '\"suse opensuse\"'", 103),
            [["--non-interactive", "refresh"], ["--non-interactive", "install", "--no-recommends", "--", "crun"]],
        ),
        (
            ("apk", "alpine", 0),
            [
                ["--wait", "120", "--no-interactive", "update"],
                ["--wait", "120", "--no-interactive", "add", "crun"],
            ],
        ),
    ],
    indirect=["disguised"],
    ids=["dnf", "zypper", "apk"],
)
def test_other_managers_are_asked_in_their_own_words(
    lab3: Lab, disguised: tuple[LabHost, str], words: list[list[str]], tmp_path: Path
) -> None:
    host, manager = disguised
    context = Cluster(lab3, tmp_path)
    assert "would install crun" in context.run("node", "prepare", "node1", "--check")
    assert host.run("ls /var/log/fake-manager", check=False) == ""
    said = context.call("node", "prepare", "node1")
    told = host.run("cat /var/log/fake-manager; ls -l /usr/bin/crun*", check=False)
    assert "node1: can serve" in said.out, said.out + said.err + told
    asked = [call.split("\n") for call in host.run("cat /var/log/fake-manager").split("\n---\n") if call.strip()]
    assert asked == [[f"/usr/local/bin/{manager}", *call] for call in words]


@pytest.mark.parametrize("disguised", [("dnf", "fedora fedora", 1)], indirect=True, ids=["a manager that fails"])
def test_a_failure_on_one_host_stops_no_other(lab3: Lab, disguised: tuple[LabHost, str], tmp_path: Path) -> None:
    host, _ = disguised
    host.run("sed -i 's/^case.*/echo no space left/' /usr/local/bin/dnf")
    said = Cluster(lab3, tmp_path).run("node", "prepare", expect=1)
    assert "✗ node1: install crun" in said
    assert "exit code 1: no space left" in said
    assert "node2: nothing to do" in said
    assert "of 3 hosts: 2 can serve, 1 cannot" in said
