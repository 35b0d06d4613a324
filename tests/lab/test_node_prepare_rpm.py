"""`node prepare` by the real dnf and zypper, which Debian has too: a host that says it is one of theirs, and a repository of RPMs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import LabHost
from lab.lab import Lab
from lab.system import require_root_and_programs
from tests.lab.cluster import Cluster
from tests.lab.repository import packages, served

MANAGERS = ("dnf", "zypper", "rpm", "createrepo-c")
# Two packages with what this host's own of that name brought; the second is where Fedora and RHEL have it.
PROGRAMS = {"crun": "/usr/bin/crun", "catatonit": "/usr/libexec/podman/catatonit"}
SPEC = """Name: {name}
Version: 1
Release: 1
Summary: for a test
License: none
AutoReqProv: no
%description
For a test.
%install
install -D /root/{name} %{{buildroot}}{path}
%files
{path}
"""
BUILD = "rpmbuild --quiet -bb --define '_rpmdir /srv/rpms' --define '_build_id_links none' --define '__os_install_post %{nil}'"
REPOSITORY = "[local]\nname=local\nbaseurl=file:///srv/rpms\ngpgcheck=0\nenabled=1\n"


@pytest.fixture(scope="module")
def rpm_host() -> Iterator[LabHost]:
    """One host with both managers, without crun and catatonit, which a repository on it has."""
    require_root_and_programs()
    name = f"rpm-{os.getpid()}"
    debs = packages(MANAGERS)
    try:
        lab = Lab.up(name, hosts=1)
        host = lab.hosts[0]
        with served(debs, str(lab.subnet[1])) as url:
            host.run(f"echo 'deb [trusted=yes] {url} ./' >/etc/apt/sources.list; rm -f /etc/apt/sources.list.d/*")
            install = (
                f"DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install {' '.join(MANAGERS)}"
            )
            host.run(f"apt-get -qq update && {install}", timeout_s=300)
        host.run(
            "cp /usr/bin/crun /usr/bin/catatonit /root; rm /usr/bin/crun /usr/bin/catatonit; rm -f /usr/libexec/podman/catatonit"
        )
        host.run("mkdir -p /etc/rpm; echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros")  # as everywhere but on Debian
        for package, path in PROGRAMS.items():
            host.run(f"cat >/root/{package}.spec <<'END'\n{SPEC.format(name=package, path=path)}END")
            host.run(f"{BUILD} /root/{package}.spec", timeout_s=120)
        host.run("createrepo_c --quiet /srv/rpms; mkdir -p /etc/yum.repos.d /etc/zypp/repos.d", timeout_s=120)
        yield host
    finally:
        if name in Lab.names():
            Lab.load(name).down()


@pytest.fixture
def disguised(rpm_host: LabHost, request: pytest.FixtureRequest) -> Iterator[LabHost]:
    system, repositories = request.param
    rpm_host.run(f"rm -f /etc/os-release; printf 'ID=%s\\nID_LIKE=%s\\n' {system} >/etc/os-release")
    rpm_host.run(f"cat >{repositories}/local.repo <<'END'\n{REPOSITORY}END")
    yield rpm_host
    rpm_host.run(f"rm -f {repositories}/local.repo; rpm -e crun; rpm -e catatonit", check=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("disguised", "asked", "has_not"),
    [
        (
            ("fedora fedora", "/etc/yum.repos.d"),
            "crun, /usr/libexec/podman/catatonit",
            "Unable to find a match: crun",
        ),
        (
            ("opensuse-leap '\"suse opensuse\"'", "/etc/zypp/repos.d"),
            "crun, catatonit",
            "'crun' not found",
        ),
    ],
    indirect=["disguised"],
    ids=["dnf", "zypper"],
)
def test_a_host_is_made_ready_by_its_own_manager(disguised: LabHost, asked: str, has_not: str, tmp_path: Path) -> None:
    context = Cluster(Lab.load(disguised.directory.parents[1].name), tmp_path)
    assert f"would install {asked}" in context.run("node", "prepare", "--check")
    assert "is not installed" in disguised.run("rpm -q crun", check=False), "a check changes nothing"

    said = context.run("node", "prepare")
    assert f"✓ node1: install {asked}" in said
    assert "can serve" in said
    assert set(disguised.run("rpm -qa").split()) == {"crun-1-1.x86_64", "catatonit-1-1.x86_64"}
    assert "node1: nothing to do" in context.run("node", "prepare")

    # What it says when it has no such package is told.
    disguised.run("rpm -e crun; rm /srv/rpms/*/crun-*; createrepo_c --quiet --update /srv/rpms; rm -rf /var/cache/dnf")
    try:
        said = context.run("node", "prepare", expect=1)
        assert "✗ node1: install crun" in said
        assert has_not in said
    finally:
        disguised.run(f"{BUILD} /root/crun.spec; createrepo_c --quiet --update /srv/rpms", timeout_s=120)
