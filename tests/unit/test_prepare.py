"""What `node prepare` would do, by family: facts → commands, in order and with reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.decide.prepare import prepare
from controller.model.fitness import HostFacts, Need, judge
from controller.model.fitness.facts import UserFacts
from controller.model.fitness.packages import FAMILIES, WITHOUT_STARTS
from tests.builders import fit_host as fit

APT = (
    "env",
    "DEBIAN_FRONTEND=noninteractive",
    "NEEDRESTART_SUSPEND=1",
    "apt-get",
    "-y",
    "-q",
    "-o",
    "DPkg::Lock::Timeout=120",
)
DNF = ("dnf", "-y", "-q", "--setopt=install_weak_deps=False", "install")
ZYPPER = ("env", "ZYPP_LOCK_TIMEOUT=120", "zypper", "--non-interactive")
APK = ("apk", "--wait", "120", "--no-interactive")
CONFIGURED = (
    "-o",
    "Dpkg::Use-Pty=0",
    "-o",
    "Dpkg::Options::=--force-confold",
    "--no-install-recommends",
    "--no-remove",
)


def of(family: str, *ids: str, base: HostFacts | None = None) -> HostFacts:
    return replace(base or fit(), managers=(family,), system_ids=ids)


def commands(facts: HostFacts) -> list[tuple[str, ...]]:
    """What would be run, without the shell programs that are tested on real hosts."""
    plan = prepare(facts, judge(facts))
    return [tuple(word for word in step.argv if "\n" not in word) for step in plan.steps]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            of("apt-get", "debian", base=fit("catatonit")),
            [(*APT, "update"), ("/bin/sh", "-c", "sh", *APT, *CONFIGURED, "install", "--", "catatonit")],
        ),
        (
            of("apt-get", "linuxmint", "ubuntu", "debian", base=replace(fit(), modules_missing=("ssl",))),
            [(*APT, "update"), ("/bin/sh", "-c", "sh", *APT, *CONFIGURED, "install", "--", "python3")],
        ),
        (of("dnf", "fedora", base=fit("catatonit", "crun")), [(*DNF, "crun", "/usr/libexec/podman/catatonit")]),
        (
            of("dnf", "rocky", "rhel", "centos", "fedora", base=replace(fit(), selinux="enforcing")),
            [(*DNF, "container-selinux")],
        ),
        (
            of("zypper", "opensuse-leap", "suse", "opensuse", base=fit("netavark", "iptables", "nft")),
            [(*ZYPPER, "refresh"), (*ZYPPER, "install", "--no-recommends", "--", "netavark", "iptables")],
        ),
        (
            of("apk", "postmarketos", "alpine", base=fit("conmon")),
            [(*APK, "update"), (*APK, "add", "conmon")],
        ),
        (
            of("dnf", "fedora", base=replace(fit(), clock_skew_s=-100.0)),
            [(*DNF, "chrony"), ("systemctl", "enable", "--now", "chronyd")],
        ),
        (of("apt-get", "debian"), []),
    ],
    ids=["apt", "apt by likeness", "dnf", "dnf with selinux", "zypper", "apk", "clock", "nothing"],
)
def test_each_family_is_told_in_its_own_words_what_is_missing(
    facts: HostFacts, expected: list[tuple[str, ...]]
) -> None:
    assert commands(facts) == expected


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_bare_host_gets_podman_and_all_its_parts_in_one_installation(family) -> None:  # type: ignore[no-untyped-def]
    facts = replace(of(family.name, family.ids[0]), programs={}, python_found=False)
    plan = prepare(facts, judge(facts))
    (install,) = [step for step in plan.steps if step.title.startswith("install ")]
    wanted = ("python3", "podman", "crun", "conmon", *family.packages[Need.INIT], "netavark", "iptables")
    assert install.argv[-len(wanted) :] == wanted
    assert install.because[:2] == ("no Python at /usr/bin/python3", "Podman is not installed")
    assert plan.steps[-1].argv[-6:][0] == "podman.socket", "what comes with it is switched off again"
    assert plan.told == ()


def test_an_interrupted_installation_is_completed_first_where_something_is_to_be_installed() -> None:
    facts = replace(fit("crun"), packages_unfinished=True)
    assert commands(facts)[0][-4:] == ("dpkg", "--configure", "--pending", "--force-confold")
    assert commands(replace(fit(), packages_unfinished=True)) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(fit("podman"), systemd=False), "systemd does not run"),
        (replace(fit("podman"), user_id=1000), "sudo does not make us root"),
        (replace(fit("podman"), owner="theirs", asked_by="ours"), "belongs to cluster theirs"),
        (replace(fit("podman"), image_based=True), "rpm-ostree"),
        (replace(fit("podman"), managers=()), "no package manager that sshoal knows"),
        (replace(fit("podman"), user_id=1000, user=UserFacts("ann")), "set ansible_become"),
    ],
    ids=["no systemd", "no root", "another cluster's", "an image", "no manager", "rootless without sudo"],
)
def test_nothing_is_installed_where_it_would_not_help_or_is_not_ours(facts: HostFacts, words: str) -> None:
    plan = prepare(facts, judge(facts))
    assert plan.steps == ()
    assert words in plan.why_not
    assert "Podman is not installed" in [finding.problem for finding in plan.told]


def test_a_rootless_host_whose_user_may_use_sudo_gets_what_ordinary_users_need() -> None:
    user = UserFacts("ann", subuids=65536, subgids=65536, tun=True, runtime_directory=True, may_become=True)
    facts = replace(fit("catatonit"), user_id=1000, user=user)
    (install,) = [step for step in prepare(facts, judge(facts)).steps if step.title.startswith("install")]
    assert install.argv[-4:] == ("catatonit", "uidmap", "slirp4netns", "dbus-user-session")


def test_what_is_no_package_is_told_and_not_attempted() -> None:
    facts = replace(
        fit("catatonit"),
        python=(3, 6, 8),
        controllers=frozenset({"cpu", "pids"}),
        active_units=frozenset({"firewalld"}),
        sshd={"maxsessions": "2"},
    )
    plan = prepare(facts, judge(facts))
    assert [finding.check for finding in plan.told] == ["python", "cgroups", "firewall", "sshd"]
    assert [step.title for step in plan.steps] == ["refresh the lists of packages", "install catatonit"]


def test_a_podman_that_is_there_is_neither_upgraded_nor_are_its_units_switched_off() -> None:
    facts = fit("catatonit")
    old = replace(facts.programs["podman"], version=(3, 4, 4))
    plan = prepare(replace(facts, programs={**facts.programs, "podman": old}), judge(facts))
    assert all("podman" not in step.argv and "podman.socket" not in step.argv for step in plan.steps)


def test_the_manager_of_the_hosts_own_distribution_is_taken_where_it_has_several() -> None:
    facts = replace(fit("crun"), managers=("apt-get", "dnf"), system_ids=("fedora",))
    assert commands(facts) == [(*DNF, "crun")]


@given(missing=st.sets(st.sampled_from(sorted(fit().programs))), skew_s=st.floats(-500, 500))
def test_what_is_planned_mends_all_that_packages_can_and_no_word_of_a_host_is_in_a_command(
    missing: set[str], skew_s: float
) -> None:
    facts = replace(fit(*missing), clock_skew_s=skew_s, arch="$(reboot)", system="; reboot", kernel="`reboot`")
    findings = judge(facts)
    plan = prepare(facts, findings)
    installed = {name for step in plan.steps for name in step.argv}
    for finding in findings:
        if finding.need is not None:
            assert set(FAMILIES[0].packages[finding.need]) <= installed
    assert not any("reboot" in word for step in plan.steps for word in step.argv)


def test_debian_is_kept_from_starting_services_only_while_the_installation_runs() -> None:
    facts = fit("crun")
    (install,) = [step for step in prepare(facts, judge(facts)).steps if "install" in step.argv]
    assert install.argv[:4] == ("/bin/sh", "-c", WITHOUT_STARTS, "sh")


def test_the_page_about_hosts_names_the_packages_of_each_family() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hosts.md").read_text()
    for family in FAMILIES:
        names = sorted({name for group in family.packages.values() for name in group})
        assert f"| {', '.join(family.ids)} | {family.name} | {', '.join(names)} |" in page
