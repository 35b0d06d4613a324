"""decide as tables: what is wanted and seen → the steps, and the words of the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.decide import (
    ADDRESS,
    ERASE,
    HOOK,
    KEEP,
    LEARN,
    LEAVE,
    PULL,
    REMOVE_SANDBOX,
    RUN,
    SANDBOX,
    START,
    STOP,
    Decision,
    Trouble,
    View,
    decide,
)
from nodeagent.protocol import Handler, Pod, Probe
from nodeagent.records import ContainerRecord, Ended, PodRecord, fresh
from nodeagent.restarts import Backoff, due_s, pull_delay_s, restarted, retry_delay_s
from nodeagent.runtime import Process
from tests.unit.agentworld import container, pod

NOW_S = 1000.0
SANDBOX_PROCESS = Process(10, 1)
ALL_IMAGES = frozenset({"main", "init", "side", "side2", "other"})


def record(wanted: Pod, *containers: ContainerRecord, sandbox: bool = True, **changes: Any) -> PodRecord:
    made = fresh(wanted, cluster="c", boot_id="b", now_s=900.0, wall_s=5.0)
    if sandbox:
        made = replace(made, sandbox_id="s", sandbox_process=SANDBOX_PROCESS, sandbox_count=1, ip="10.0.0.2")
    return replace(made, containers=tuple(sorted(containers, key=lambda c: c.name)), **changes)


def running(name: str = "main", **fields: Any) -> ContainerRecord:
    fields = {"attempt": 0, "id": f"{name}-0", "sandbox": 1, "started": True, "ready": True, "hooked": True, **fields}
    return ContainerRecord(name, process=Process(20, 1), **fields)


def ended(name: str = "main", code: int | None = 0, *, known: bool = True, **fields: Any) -> ContainerRecord:
    fields = {"attempt": 0, "id": f"{name}-0", "sandbox": 1, **fields}
    at_s = fields.pop("at_s", NOW_S)
    end = Ended(fields["attempt"], fields["id"], at_s, known=known, code=code)
    return ContainerRecord(name, ended=end, **fields)


def decided(wanted: Pod | None, made: PodRecord, order: str = RUN, **view: Any) -> Decision:
    return decide(wanted, order, made, View(**{"now_s": NOW_S, "images": ALL_IMAGES, **view}))


def steps(decision: Decision) -> list[tuple[str, str]]:
    return [(step.kind, step.container) for step in decision.steps]


INIT = pod(init_containers=(container("init"),))
SIDE = pod(init_containers=(container("side", sidecar=True), container("side2", sidecar=True)))
PROBED_SIDE = pod(init_containers=(container("side", sidecar=True, startup=Probe(Handler("tcp", port=1))),))
NEVER = pod(restart="Never")
ON_FAILURE = pod(restart="OnFailure")
HOOKED = pod(containers=(container(post_start=Handler("exec")),))


@pytest.mark.parametrize(
    ("wanted", "made", "expected"),
    [
        pytest.param(pod(), record(pod(), sandbox=False), [(SANDBOX, "")], id="nothing-yet"),
        pytest.param(pod(), record(pod()), [(START, "main")], id="sandbox-up"),
        pytest.param(pod(), record(pod(), ip=""), [(ADDRESS, "")], id="adopted-sandbox-without-address"),
        pytest.param(pod(), record(pod(), running()), [], id="converged"),
        pytest.param(INIT, record(INIT), [(START, "init")], id="init-first"),
        pytest.param(INIT, record(INIT, running("init")), [], id="init-runs"),
        pytest.param(INIT, record(INIT, ended("init", 0)), [(START, "main")], id="init-done"),
        pytest.param(INIT, record(INIT, ended("init", 1)), [(START, "init")], id="init-failed-restarts"),
        pytest.param(INIT, record(INIT, ended("init", 0, sandbox=0)), [(START, "init")], id="init-of-a-former-sandbox"),
        pytest.param(SIDE, record(SIDE, running("side")), [(START, "side2")], id="sidecars-in-order"),
        pytest.param(
            PROBED_SIDE, record(PROBED_SIDE, running("side", started=False)), [], id="sidecar-not-started-yet"
        ),
        pytest.param(
            SIDE,
            record(SIDE, ended("side"), running("side2"), running()),
            [(START, "side")],
            id="sidecar-always-restarts",
        ),
        pytest.param(pod(), record(pod(), ended(code=0)), [(START, "main")], id="always-restarts-a-success"),
        pytest.param(
            pod(),
            record(pod(), ended(code=None, known=False)),
            [(LEARN, "main"), (START, "main")],
            id="always-restarts-before-the-code-is-known",
        ),
        pytest.param(
            ON_FAILURE, record(ON_FAILURE, ended(code=None, known=False)), [(LEARN, "main")], id="on-failure-asks-first"
        ),
        pytest.param(ON_FAILURE, record(ON_FAILURE, ended(code=None)), [(START, "main")], id="unknown-is-a-failure"),
        pytest.param(ON_FAILURE, record(ON_FAILURE, ended(code=0)), [(REMOVE_SANDBOX, "")], id="on-failure-is-done"),
        pytest.param(NEVER, record(NEVER, ended(code=1)), [(REMOVE_SANDBOX, "")], id="never-restarts"),
        pytest.param(pod(), record(pod(), running(kill="why")), [(STOP, "main")], id="probe-wants-it-killed"),
        pytest.param(HOOKED, record(HOOKED, running(hooked=False)), [(HOOK, "main")], id="post-start"),
        pytest.param(
            pod(), record(pod(), running(), sandbox_process=None), [(STOP, "main")], id="dead-sandbox-stops-containers"
        ),
        pytest.param(
            pod(), record(pod(), ended(), sandbox_process=None), [(REMOVE_SANDBOX, "")], id="dead-sandbox-is-removed"
        ),
    ],
)
def test_steps_of_a_pod_that_shall_run(wanted: Pod, made: PodRecord, expected: list[tuple[str, str]]) -> None:
    assert steps(decided(wanted, made)) == expected


@pytest.mark.parametrize(
    ("wanted", "made", "expected"),
    [
        pytest.param(pod(), record(pod(), running()), [(STOP, "main")], id="runs"),
        pytest.param(pod(), record(pod(), ended()), [(REMOVE_SANDBOX, "")], id="ended"),
        pytest.param(pod(), record(pod(), sandbox=False), [(ERASE, "")], id="nothing-left"),
        pytest.param(
            SIDE, record(SIDE, running(), running("side"), running("side2")), [(STOP, "main")], id="mains-first"
        ),
        pytest.param(
            SIDE, record(SIDE, ended(), running("side"), running("side2")), [(STOP, "side2")], id="last-sidecar"
        ),
        pytest.param(None, record(pod(), running(), running("other")), [(STOP, "main"), (STOP, "other")], id="no-spec"),
    ],
)
def test_steps_of_a_pod_that_shall_go(wanted: Pod | None, made: PodRecord, expected: list[tuple[str, str]]) -> None:
    assert steps(decided(wanted, made, LEAVE)) == expected


@pytest.mark.parametrize("made", [record(pod(), running()), record(pod(), ended()), record(pod(), sandbox=False)])
@pytest.mark.parametrize("wanted", [pod(), pod(stop=True), None])
def test_without_a_set_nothing_is_touched(wanted: Pod | None, made: PodRecord) -> None:
    assert steps(decided(wanted, made, KEEP, strays=True, stale_files=True)) == []


def test_a_missing_image_is_pulled_while_the_sandbox_is_made() -> None:
    made = record(pod(), sandbox=False)
    assert steps(decided(pod(), made, images=frozenset())) == [(PULL, "main"), (SANDBOX, "")]


def test_a_held_pod_pulls_meanwhile_unless_it_has_pull_secrets() -> None:
    hold = ("WaitingForSecrets", "no value")
    made = record(pod(), sandbox=False)
    assert steps(decided(pod(), made, images=frozenset(), hold=hold)) == [(PULL, "main")]
    assert steps(decided(pod(pull_secrets=("default/login",)), made, images=frozenset(), hold=hold)) == []


def test_a_held_pod_gets_no_sandbox_and_says_why() -> None:
    decision = decided(pod(), record(pod(), sandbox=False), hold=("WaitingForSecrets", "no value"))
    assert steps(decision) == []
    assert (decision.report.phase, decision.report.reason) == ("Pending", "WaitingForSecrets")


@pytest.mark.parametrize(
    ("ended_s", "backoff", "start", "wake_s"),
    [
        (NOW_S, Backoff(), True, None),
        (NOW_S, Backoff(10, NOW_S - 5), False, NOW_S + 10),
        (NOW_S - 9, Backoff(10, NOW_S - 20), False, NOW_S + 1),
        (NOW_S - 10, Backoff(10, NOW_S - 20), True, None),
        (NOW_S, Backoff(300, NOW_S - 600), True, None),
        (NOW_S, Backoff(300, NOW_S - 599), False, NOW_S + 300),
    ],
)
def test_restarts_wait_for_their_back_off(ended_s: float, backoff: Backoff, start: bool, wake_s: float | None) -> None:
    decision = decided(pod(), record(pod(), ended(code=1, at_s=ended_s, backoff=backoff)))
    assert (bool(decision.steps), decision.wake_s) == (start, wake_s)
    assert decision.report.containers[0].reason == ("" if start else "CrashLoopBackOff")


def test_a_failed_step_waits_and_the_wait_holds_for_its_kind_only() -> None:
    trouble = {"": Trouble(SANDBOX, "FailedCreatePodSandBox", "no", 1, NOW_S + 4)}
    waiting = decided(pod(), record(pod(), sandbox=False), trouble=trouble)
    assert (steps(waiting), waiting.wake_s, waiting.report.reason) == ([], NOW_S + 4, "FailedCreatePodSandBox")
    broken = record(pod(), sandbox_process=None)
    assert steps(decided(pod(), broken, trouble=trouble)) == [(REMOVE_SANDBOX, "")]


@pytest.mark.parametrize(("busy", "named"), [(START, False), (STOP, True), (HOOK, True), (PULL, True)])
def test_a_stop_meets_a_step_under_way(busy: str, named: bool) -> None:
    decision = decided(pod(), record(pod(), running()), LEAVE, busy={"main": busy})
    assert steps(decision) == ([(STOP, "main")] if named else [])


def test_a_verdict_is_on_disk_before_containers_are_removed() -> None:
    decision = decided(NEVER, record(NEVER, ended(code=0)))
    assert decision.record.verdict == "Succeeded" and decision.durable


def test_a_deadline_is_looked_at_when_it_comes() -> None:
    wanted = pod(deadline_s=150)
    assert decided(wanted, record(wanted, running())).wake_s == 900 + 150
    late = decided(wanted, record(wanted, running()), now_s=1050.0)
    assert steps(late) == [(STOP, "main")]


@pytest.mark.parametrize(
    ("wanted", "containers", "phase"),
    [
        (INIT, (), "Pending"),
        (INIT, (ended("init", 1),), "Pending"),
        (INIT, (ended("init", 0), running()), "Running"),
        (pod(), (ended(code=1),), "Running"),
        (NEVER, (ended(code=0),), "Succeeded"),
        (NEVER, (ended(code=None),), "Failed"),
        (ON_FAILURE, (ended(code=2),), "Running"),
        (pod(restart="Never", init_containers=(container("init"),)), (ended("init", 1),), "Failed"),
        (pod(stop=True), (running(),), "Stopping"),
    ],
)
def test_phases_are_those_of_kubernetes(wanted: Pod, containers: tuple[ContainerRecord, ...], phase: str) -> None:
    assert decided(wanted, record(wanted, *containers)).report.phase == phase


@pytest.mark.parametrize(
    ("main", "ready"),
    [
        (running(), True),
        (running(ready=False), False),
        (running(started=False), False),
        (running(kill="liveness"), False),
        (ended(), False),
    ],
)
def test_a_pod_is_ready_when_all_its_containers_are(main: ContainerRecord, ready: bool) -> None:
    probe = Probe(Handler("tcp", port=1))
    wanted = pod(containers=(container(readiness=probe, startup=probe), container("other")))
    decision = decided(wanted, record(wanted, main, running("other")))
    assert decision.report.ready is ready
    assert decision.report.ready_since_s == (NOW_S if ready else 0.0)


@pytest.mark.parametrize(
    ("wanted", "restarts"), [(pod(), True), (NEVER, False), (ON_FAILURE, False), (pod(stop=True), False)]
)
def test_a_container_runs_until_the_engine_has_told_how_it_ended(wanted: Pod, restarts: bool) -> None:
    """Kubernetes never shows `terminated` without an exit code."""
    unknown = ended(code=None, known=False)
    told = decided(wanted, record(wanted, unknown)).report
    assert [(one.state, one.ready, one.started) for one in told.containers] == [("running", False, False)]
    assert not told.ready
    assert (START in {step.kind for step in decided(wanted, record(wanted, unknown)).steps}) is restarts


def test_since_when_a_pod_is_ready_does_not_move() -> None:
    first = decided(pod(), record(pod(), running()))
    later = decided(pod(), first.record, now_s=NOW_S + 500)
    assert later.report == first.report


def test_the_back_off_doubles_from_ten_to_three_hundred_seconds() -> None:
    backoff, now_s, waits = Backoff(), 0.0, []
    for _ in range(9):
        waits.append(due_s(backoff, now_s) - now_s)
        now_s = due_s(backoff, now_s)
        backoff = restarted(backoff, now_s, now_s)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300, 300]
    assert [pull_delay_s(n) for n in range(1, 8)] == [10, 20, 40, 80, 160, 300, 300]
    assert [retry_delay_s(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


@given(delay_s=st.floats(0, 300), ran_s=st.floats(0, 2000), restarted_s=st.floats(0, 1e7), late_s=st.floats(0, 1e5))
def test_no_restart_comes_sooner_or_later_than_kubernetes_allows(
    delay_s: float, ran_s: float, restarted_s: float, late_s: float
) -> None:
    """A wait is between nothing and five minutes, and the next one at most twice as long."""
    before = Backoff(delay_s, restarted_s)
    wait_s = due_s(before, restarted_s + ran_s) - (restarted_s + ran_s)
    after = restarted(before, restarted_s + ran_s, restarted_s + ran_s + late_s)
    assert 0 <= wait_s <= 300.001
    assert after.delay_s <= 300 and (after.delay_s == 10 or after.delay_s <= 2 * delay_s)


_NAMES = st.sampled_from(["main", "init", "side"])
_CONTAINERS = st.lists(
    st.one_of(
        st.builds(running, _NAMES, started=st.booleans(), ready=st.booleans(), kill=st.sampled_from(["", "why"])),
        st.builds(ended, _NAMES, st.sampled_from([0, 1, None]), known=st.booleans(), sandbox=st.integers(0, 1)),
    ),
    max_size=3,
    unique_by=lambda made: made.name,
)
_PODS = st.builds(
    pod,
    restart=st.sampled_from(["Always", "OnFailure", "Never"]),
    stop=st.booleans(),
    init_containers=st.just((container("init"), container("side", sidecar=True))),
)


@given(
    wanted=_PODS,
    containers=_CONTAINERS,
    sandbox=st.booleans(),
    dead=st.booleans(),
    order=st.sampled_from([RUN, LEAVE]),
    busy=st.dictionaries(_NAMES, st.sampled_from([START, STOP, PULL])),
    images=st.frozensets(_NAMES),
)
def test_whatever_is_seen_steps_keep_their_preconditions(
    wanted: Pod,
    containers: list[ContainerRecord],
    sandbox: bool,
    dead: bool,
    order: str,
    busy: dict[str, str],
    images: frozenset[str],
) -> None:
    """Nothing alive is started, nothing dead is stopped, no sandbox goes under a living container, one step a slot."""
    made = record(wanted, *containers, sandbox=sandbox, **({"sandbox_process": None} if dead else {}))
    decision = decided(wanted, made, order, busy=busy, images=images)
    slots = [step.slot for step in decision.steps]
    assert len(slots) == len(set(slots))
    alive = {one.name for one in containers if one.alive}
    for step in decision.steps:
        if step.kind == START:
            assert step.container not in alive and made.sandbox_process is not None and order == RUN and not wanted.stop
        if step.kind == STOP:
            assert step.container in alive
        if step.kind in (REMOVE_SANDBOX, ERASE, SANDBOX):
            assert not alive and START not in busy.values()
    assert decide(wanted, order, decision.record, View(NOW_S, busy, images=images)).report == decision.report
