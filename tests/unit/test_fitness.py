"""Whether a host can serve: what each check says of facts, and what hostile answers can do (nothing)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.fitness import CHECKS, Finding, HostFacts, Need, Severity, judge, serves
from controller.model.fitness.facts import Disk, Program, parse, version, words_of
from controller.model.fitness.podman import HOLES
from tests.builders import fit_host as fit

DOCS = Path(__file__).parents[2] / "docs" / "hosts.md"
FAILS, WARNING, NOTE = Severity


def test_a_host_that_has_everything_has_no_findings() -> None:
    assert judge(fit()) == ()


def with_version(name: str, *numbers: int, base: HostFacts | None = None) -> HostFacts:
    base = base or fit()
    return replace(base, programs={**base.programs, name: Program(f"/usr/bin/{name}", numbers)})


@pytest.mark.parametrize(
    ("facts", "check", "severity", "words", "need"),
    [
        (replace(fit(), user_id=1000), "login", FAILS, "sudo does not make us root", None),
        (replace(fit(), sudo_user="ubuntu", sudo_password=True), "login", NOTE, "for ubuntu", None),
        (replace(fit(), owner="theirs", asked_by="ours"), "owner", FAILS, "cluster theirs", None),
        (replace(fit(), owner="theirs", asked_by=""), "owner", FAILS, "cluster theirs", None),
        (replace(fit(), systemd=False), "systemd", FAILS, "systemd does not run", None),
        (replace(fit(), python_found=False), "python", FAILS, "no Python at /usr/bin/python3", Need.PYTHON),
        (
            replace(fit(), python_found=False, python_path="/opt/python"),
            "python",
            FAILS,
            "no Python at /opt/python",
            None,
        ),
        (replace(fit(), python=(3, 6, 8)), "python", FAILS, "is 3.6.8; the agent needs 3.9", None),
        (replace(fit(), python=()), "python", FAILS, "a Python that does not start", None),
        (replace(fit(), modules_missing=("ssl", "ctypes")), "python", FAILS, "no ssl, ctypes", Need.PYTHON),
        (fit("podman"), "podman", FAILS, "Podman is not installed", Need.PODMAN),
        (with_version("podman", 3, 4, 4), "podman", FAILS, "its Podman is 3.4.4; 4.0 is needed", None),
        (with_version("podman"), "podman", FAILS, "of unknown version", None),
        (fit("crun"), "parts", FAILS, "neither crun nor runc", Need.RUNTIME),
        (fit("conmon"), "parts", FAILS, "conmon", Need.CONMON),
        (fit("catatonit"), "parts", FAILS, "catatonit", Need.INIT),
        (fit("netavark"), "parts", FAILS, "netavark", Need.NETWORK),
        (fit("iptables"), "parts", FAILS, "iptables is missing, which netavark 1.4.0 calls", Need.FIREWALL_TOOL),
        (replace(fit(), cgroups=0), "cgroups", FAILS, "no control groups", None),
        (replace(fit(), controllers=frozenset({"cpu", "pids"})), "cgroups", WARNING, "missing: memory", None),
        (replace(fit(), cgroups=1), "cgroups", NOTE, "version 1", None),
        (replace(fit(), selinux="enforcing"), "selinux", FAILS, "container-selinux", Need.SELINUX_POLICY),
        (replace(fit(), selinux="permissive"), "selinux", WARNING, "container-selinux", Need.SELINUX_POLICY),
        (replace(fit(), selinux="enforcing", selinux_policy=True), "selinux", NOTE, "a label of its own", None),
        (
            replace(fit(), selinux="enforcing", selinux_policy=True, selinux_podman=True),
            "selinux",
            WARNING,
            "confines Podman itself (podman_t",
            None,
        ),
        (
            replace(fit(), selinux="enforcing", selinux_policy=True, python_path="/opt/python"),
            "selinux",
            WARNING,
            "run /opt/python",
            None,
        ),
        (replace(fit(), apparmor=True), "apparmor", NOTE, "apparmor_parser is missing", None),
        (replace(fit(), active_units=frozenset({"firewalld"})), "firewall", WARNING, "firewalld is active", None),
        (replace(fit(), ufw=True), "firewall", WARNING, "ufw is active and forwards nothing", None),
        (
            replace(fit(), forward_policy="drop", active_units=frozenset({"docker"})),
            "firewall",
            WARNING,
            "Docker sets the policy",
            None,
        ),
        (replace(fit(), sshd={"disableforwarding": "yes"}), "sshd", NOTE, "dial", None),
        (replace(fit(), sshd={"allowstreamlocalforwarding": "no"}), "sshd", NOTE, "dial", None),
        (replace(fit(), sshd={"maxsessions": "2"}), "sshd", WARNING, "2 sessions", None),
        (
            replace(fit(), state_disk=Disk("/var", 5 << 20, frozenset({"rw"}))),
            "disk",
            FAILS,
            "only 5 MiB are free in /var/lib",
            None,
        ),
        (
            replace(fit(), state_disk=Disk("/var", 500 << 20, frozenset({"rw"}))),
            "disk",
            WARNING,
            "only 500 MiB are free",
            None,
        ),
        (replace(fit(), state_disk=Disk("/var", 9 << 30, frozenset({"ro"}))), "disk", FAILS, "read-only", None),
        (replace(fit(), image_disk=Disk("/srv", 9 << 30, frozenset({"ro"}))), "disk", FAILS, "read-only", None),
        (replace(fit(), state_disk=Disk("/var", 9 << 30, frozenset({"noexec"}))), "disk", WARNING, "noexec", None),
        (replace(fit(), clock_skew_s=-90.0), "clock", WARNING, "differs by -90 s", Need.CLOCK),
        (
            replace(fit(), clock_skew_s=3.0, active_units=frozenset({"chronyd"})),
            "clock",
            WARNING,
            "differs by +3 s",
            None,
        ),
    ],
)
def test_each_thing_that_is_wrong_is_told_with_what_to_do_about_it(
    facts: HostFacts, check: str, severity: Severity, words: str, need: Need | None
) -> None:
    (found,) = [one for one in judge(facts) if words in one.problem]
    assert (found.check, found.severity, found.need) == (check, severity, need)
    assert found.hint
    assert serves(judge(facts)) == (severity is not FAILS)


def test_a_part_that_may_be_where_containers_conf_says_does_not_keep_a_host_from_serving() -> None:
    (found,) = judge(replace(fit("conmon"), own_parts=True))
    assert (found.severity, found.need) == (WARNING, None), "nor is it installed beside what is there"


def test_every_reason_is_told_at_once_the_gravest_first() -> None:
    facts = replace(fit(), systemd=False, programs={}, clock_skew_s=60.0, cgroups=1)
    assert [(one.check, one.severity) for one in judge(facts)] == [
        ("systemd", FAILS),
        ("podman", FAILS),
        *[("parts", FAILS)] * 5,
        ("clock", WARNING),
        ("cgroups", NOTE),
    ]


@pytest.mark.parametrize(
    "facts",
    [
        replace(fit(), owner="ours", asked_by="ours"),
        replace(fit(), owner="theirs", asked_by=None),
        with_version("netavark", 1, 14, 0, base=fit("iptables")),
        with_version("bridge", base=fit("netavark")),
        replace(fit(), sshd={"allowstreamlocalforwarding": "local"}),
        replace(fit(), ufw=True, ufw_forwards=True, forward_policy="drop"),
    ],
    ids=["our own agent", "nobody asks", "nft is enough", "cni before podman 5", "local forwarding", "ufw forwards"],
)
def test_what_is_right_in_another_way_is_no_finding(facts: HostFacts) -> None:
    assert judge(facts) == ()


def test_podman_5_has_no_cni_plugins_any_more() -> None:
    facts = with_version("bridge", base=with_version("podman", 5, 4, 2, base=fit("netavark")))
    assert [one.need for one in judge(facts)] == [Need.NETWORK]


@pytest.mark.parametrize(
    ("program", "numbers", "names"),
    [
        ("runc", (1, 1, 11), ["CVE-2024-21626", "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881"]),
        ("runc", (1, 1, 15), ["CVE-2025-31133, CVE-2025-52565, CVE-2025-52881"]),
        ("runc", (1, 2, 7), ["CVE-2025-31133, CVE-2025-52565, CVE-2025-52881"]),
        ("runc", (1, 2, 8), []),
        ("runc", (1, 3, 2), ["CVE-2025-31133, CVE-2025-52565, CVE-2025-52881"]),
        ("runc", (1, 4, 0), []),
        ("crun", (1, 4, 3), ["CVE-2022-27650"]),
        ("crun", (1, 21), []),
        ("podman", (4, 0, 2), ["CVE-2022-27649", "CVE-2023-0778"]),
        ("podman", (4, 3, 1), ["CVE-2023-0778"]),
        ("podman", (5, 4, 2), []),
    ],
)
def test_versions_with_known_holes_are_told_by_series(program: str, numbers: tuple[int, ...], names: list[str]) -> None:
    assert [hole.name for hole in HOLES if hole.program == program and hole.has(numbers)] == names


def test_a_runc_that_podman_does_not_use_is_not_held_against_the_host() -> None:
    assert judge(with_version("runc", 1, 0, 0)) == ()
    assert {one.check for one in judge(with_version("runc", 1, 0, 0, base=fit("crun")))} == {"holes"}


# ---- what a host says -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("podman version 4.3.1", (4, 3, 1)),
        ("iptables v1.8.9 (nf_tables)", (1, 8, 9)),
        ("tini version 0.1.7_catatonit", (0, 1, 7)),
        ("5.4.2-dev", (5, 4, 2)),
        ("crun version 1.21", (1, 21)),
        ("", ()),
        ("none", ()),
    ],
)
def test_versions_are_read_out_of_what_programs_say(text: str, numbers: tuple[int, ...]) -> None:
    assert version(text) == numbers


@given(
    st.binary(max_size=2000) | st.text(max_size=2000).map(lambda text: f"uid 0\nowner {text}\nsystem {text}".encode())
)
def test_whatever_a_host_answers_becomes_bounded_facts_and_printable_findings(output: bytes) -> None:
    facts = parse(words_of(output), python_path="/usr/bin/python3", now_s=0.0, asked_by="ours")
    for finding in judge(facts):
        assert finding.problem.isprintable()
        assert len(finding.problem) < 400


def test_a_flood_of_words_is_cut_and_an_escape_never_reaches_a_terminal() -> None:
    flood = b"".join(b"word%d x\n" % number for number in range(100_000))
    assert len(words_of(flood)) <= 300
    assert words_of(b"owner \x1b]0;title\x07evil\x1b[2J\n") == {"owner": "evil"}
    assert words_of(b"time 1\ntime 2\n")["time"] == "1"


def test_nothing_said_means_unfit_rather_than_fit() -> None:
    facts = parse({}, python_path="/usr/bin/python3", now_s=0.0)
    assert not serves(judge(facts))


# ---- documentation --------------------------------------------------------------------------------------------------------


def test_the_page_about_hosts_lists_exactly_these_checks() -> None:
    rows = [f"| `{check.name}` | {check.asks} | {check.worst} |" for check in CHECKS]
    written = [line for line in DOCS.read_text().splitlines() if line.startswith("| `") and line.count("|") == 4]
    assert [line for line in written if line in rows or line.split("`")[1] in {c.name for c in CHECKS}] == rows


def test_no_check_finds_anything_graver_than_the_page_says() -> None:
    order = list(Severity)
    worst = {check.name: check.worst for check in CHECKS}
    for finding in _all_findings():
        assert order.index(finding.severity) >= order.index(worst[finding.check])


def _all_findings() -> list[Finding]:
    nothing = HostFacts(python_path="/x", selinux="enforcing", apparmor=True, user_id=1, owner="a", asked_by="b")
    return list(judge(nothing))
