"""What is said of a host that shall be a rootless node: every reason, each with what to do, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from controller.model.fitness import Finding, HostFacts, Need, Severity, judge
from controller.model.fitness.facts import Program, UserFacts, parse
from tests.builders import fit_host

FAILS, WARNING, NOTE = Severity

WELL = UserFacts(
    name="ops",
    runtime_directory=True,
    linger=True,
    subuids=65536,
    subgids=65536,
    tools=frozenset({"newuidmap", "newgidmap", "slirp4netns"}),
    tun=True,
    ports_from=1,
    controllers=frozenset({"cpu", "memory", "pids"}),
    session_bus=True,
    overlay=True,
)
FIT = replace(fit_host(), user_id=1000, user=WELL)


def podman(*version: int) -> Mapping[str, Program]:
    return {**FIT.programs, "podman": Program("/usr/bin/podman", version)}


def of_user(**changes: Any) -> HostFacts:
    return replace(FIT, user=replace(WELL, **changes))


def test_nothing_is_said_of_a_host_where_all_is_well() -> None:
    assert judge(FIT) == ()
    assert judge(replace(of_user(tools=WELL.tools - {"slirp4netns"} | {"pasta"}), programs=podman(5, 4, 2))) == ()
    assert judge(replace(of_user(overlay=False, tools=WELL.tools | {"pasta"}), programs=podman(5, 4, 2))) == ()


@pytest.mark.parametrize(
    ("facts", "check", "severity", "words", "need"),
    [
        (replace(FIT, user_id=0), "login", FAILS, "the login is root", None),
        (replace(FIT, rootful_agent=True), "modes", FAILS, "the host would be two nodes", None),
        (replace(fit_host(), rootless_agent="/run/user/1/x"), "modes", FAILS, "runs there (/run/user/1/x)", None),
        (of_user(subuids=0), "ids", FAILS, "ops has no subordinate ids in /etc/subuid", None),
        (of_user(subgids=1000), "ids", FAILS, "ops has only 1000 subordinate ids in /etc/subgid", None),
        (of_user(tools=WELL.tools - {"newgidmap"}), "ids", FAILS, "newuidmap and newgidmap", Need.ID_MAPS),
        (of_user(namespaces=False), "ids", FAILS, "no user namespaces", None),
        (of_user(tools=WELL.tools - {"slirp4netns"}), "user-network", FAILS, "slirp4netns is missing", Need.SLIRP),
        (replace(FIT, programs=podman(5, 0)), "user-network", FAILS, "pasta is missing", Need.PASTA),
        (of_user(tun=False), "user-network", FAILS, "may not open /dev/net/tun", None),
        (of_user(ports_from=1024), "user-network", NOTE, "hostPort below 1024", None),
        (of_user(linger=False), "linger", WARNING, "linger is off for ops", None),
        (of_user(linger=False, may_become=True), "linger", NOTE, "linger is off for ops", None),
        (replace(FIT, cgroups=1), "limits", WARNING, "control groups version 1", None),
        (of_user(controllers=frozenset({"memory"})), "limits", WARNING, "the controllers cpu to ops", None),
        (of_user(session_bus=False), "limits", WARNING, "no session bus", Need.SESSION_BUS),
        (of_user(overlay=False), "storage", WARNING, "vfs", None),
    ],
)
def test_each_thing_amiss_is_one_finding_that_says_what_to_do(
    facts: HostFacts, check: str, severity: Severity, words: str, need: Need | None
) -> None:
    (finding,) = judge(facts)
    assert (finding.check, finding.severity, finding.need) == (check, severity, need)
    assert words in finding.problem
    assert finding.hint


def test_the_disk_that_counts_is_the_one_with_the_users_home() -> None:
    assert FIT.state_disk is not None
    small = replace(FIT.state_disk, free_bytes=1 << 20)
    problems = [finding.problem for finding in judge(replace(FIT, state_disk=small))]
    assert problems == ["only 1 MiB are free in ~/.local/share"]


def test_before_the_user_has_ever_logged_in_nothing_is_said_of_his_systemd() -> None:
    assert judge(of_user(runtime_directory=False, controllers=frozenset(), session_bus=False)) == ()


def test_who_switches_linger_on_is_said() -> None:
    def hint(facts: HostFacts) -> str:
        (finding,) = judge(facts)
        assert isinstance(finding, Finding)
        return finding.hint

    assert "by sudo" in hint(of_user(linger=False, may_become=True))
    assert "where the host lets users do that" in hint(of_user(linger=False))


def test_what_the_host_says_of_its_user_is_read() -> None:
    said = {
        "uid": "1000",
        "user": "ops",
        "user_runtime_directory": "yes",
        "linger": "yes",
        "subuid": "65536",
        "subgid": "65536",
        "user_tools": " newuidmap newgidmap slirp4netns rm",
        "tun": "yes",
        "ports_from": "1",
        "user_namespaces_max": "96364",
        "user_controllers": "cpu memory pids",
        "session_bus": "yes",
        "overlay": "yes",
    }
    assert parse(said, python_path="/usr/bin/python3", now_s=0.0, rootless=True).user == WELL
    assert parse(said, python_path="/usr/bin/python3", now_s=0.0).user is None


@pytest.mark.parametrize("said", ["many", "-1", "9" * 30, "٣"])
def test_numbers_that_are_none_count_as_nothing(said: str) -> None:
    user = parse({"subuid": said, "ports_from": said}, python_path="", now_s=0.0, rootless=True).user
    assert user is not None
    assert (user.subuids, user.ports_from) == (0, 1024)


@pytest.mark.parametrize("word", ["user_namespaces_max", "user_namespaces_allowed"])
def test_a_kernel_that_refuses_user_namespaces_by_either_setting_is_seen(word: str) -> None:
    user = parse({word: "0"}, python_path="", now_s=0.0, rootless=True).user
    assert user is not None and not user.namespaces
