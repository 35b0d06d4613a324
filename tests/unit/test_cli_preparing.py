"""What `node prepare` says of a host, and with which exit code."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.act.prepare import Done
from controller.cli.check import Checked
from controller.cli.preparing import Prepared, lines_of, summary
from controller.decide.prepare import prepare
from controller.model.errors import HostError, HostNotReady, HostUnreachable
from controller.model.fitness import HostFacts, judge
from tests.builders import fit_host as fit


def prepared(
    before: HostFacts, after: HostFacts | None = None, failed: str = "", lost: HostError | None = None
) -> Prepared:
    """A host on which all steps but the last succeeded, and that one too unless it `failed`."""
    plan = prepare(before, judge(before))
    done = [Done(step, "") for step in plan.steps] if after or lost else []
    done[-1:] = [replace(done[-1], failed=failed)] if failed else done[-1:]
    checked = Checked("n1", "192.0.2.1", after, judge(after)) if after else None
    return Prepared(Checked("n1", "192.0.2.1", before, judge(before)), plan, done, checked, lost)


NARROW = replace(fit("catatonit"), sshd={"maxsessions": "2"})


def test_a_plan_says_what_would_be_done_and_what_not() -> None:
    one = prepared(NARROW)
    assert [line.partition(":")[0] + line.partition(" would")[1] for line in lines_of(one)[:2]] == ["+ n1 would"] * 2
    assert lines_of(one)[2].startswith("! n1: sshd allows 2 sessions")
    assert one.exit_code == 0, "it could serve then"


def test_what_was_done_is_told_with_its_reason_and_what_came_of_it() -> None:
    one = prepared(fit("catatonit"), fit())
    assert lines_of(one) == [
        "✓ n1: refresh the lists of packages: packages are to be installed",
        "✓ n1: install catatonit: catatonit is missing, without which Podman has no pods",
        "n1: can serve",
    ]
    assert one.exit_code == 0


def test_what_failed_is_told_in_the_managers_words() -> None:
    one = prepared(fit("catatonit"), fit("catatonit"), failed="exit code 100: no such package")
    assert "  exit code 100: no such package" in lines_of(one)
    assert lines_of(one)[-1] == "n1: cannot serve yet"
    assert one.exit_code == 1


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (HostUnreachable("n1", "no answer within 900 s"), "what had begun there may go on"),
        (
            HostNotReady("n1", "sudo wants a password", hint="set ansible_become_password"),
            "→ set ansible_become_password",
        ),
    ],
)
def test_a_host_that_was_lost_under_the_work_is_told_with_what_was_done(lost: HostError, words: str) -> None:
    one = prepared(fit("catatonit"), lost=lost)
    assert lines_of(one)[0].startswith("✓ n1")
    assert words in "\n".join(lines_of(one))
    assert one.exit_code == 4


def test_a_host_that_lacks_nothing_is_left_alone() -> None:
    assert lines_of(prepared(fit())) == ["n1: nothing to do"]


def test_the_hosts_are_counted_by_what_became_of_them() -> None:
    gone = Prepared(Checked("n2", "192.0.2.2", unreachable=HostUnreachable("n2", "no route")), prepare(fit(), ()))
    assert summary([prepared(fit()), prepared(replace(fit(), systemd=False)), gone]) == (
        "of 3 hosts: 1 can serve, 1 cannot, 1 not reached"
    )
