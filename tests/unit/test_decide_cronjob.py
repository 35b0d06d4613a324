"""CronJobs: one Job for each time that is due, at most one for all that were missed, and never the same one twice."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.decide import verbs
from controller.decide.cronjob import BY_HAND_KEY, SCHEDULED_KEY, by_hand, owned_by
from controller.model import manifest
from controller.model.kinds.batch import CronJobSpec
from controller.model.workloads import CronJob, Job
from tests.agents import Agents
from tests.builders import START_S, cluster, cron_job, put

IMAGE = "sum:1"
FIRST_S = START_S - START_S % 60 + 60  # the first full minute


def test_a_job_is_named_after_its_cron_job_and_its_time() -> None:
    agents = _at(cron_job(), 61)
    [made] = _jobs(agents)
    assert made.meta.name == f"tick-{int(FIRST_S) // 60}"
    assert made.meta.annotations[SCHEDULED_KEY].endswith(":00Z")
    assert made.meta.owner is not None
    assert made.meta.owner.kind == "CronJob"
    assert len(agents.world.pods) == 1, "its pod is made in the same pass"


def test_nothing_is_due_at_the_time_it_was_made_nor_before() -> None:
    assert not _jobs(_at(cron_job(), 0))


def test_a_pass_tells_when_the_next_time_is() -> None:
    agents = Agents(cluster(1, cron_job("tick", "0 0 * * *", timeZone="Asia/Tokyo")))
    wake_s = agents.step().wake_s
    assert wake_s is not None
    assert (START_S + wake_s) % 86400 == 15 * 3600


def test_of_all_that_were_missed_only_the_latest_is_run() -> None:
    agents = _at(cron_job(), 3600)
    [made] = _jobs(agents)
    assert made.meta.name == f"tick-{int(START_S + 3600) // 60}"
    agents.step_s = 1.0
    agents.step()
    assert len(_jobs(agents)) == 1


@pytest.mark.parametrize(("late_s", "runs"), [(5, 1), (29, 1), (31, 0)])
def test_starting_deadline(late_s: float, runs: int) -> None:
    agents = _at(cron_job("tick", "@hourly", startingDeadlineSeconds=30), _until_hour() + late_s)
    assert len(_jobs(agents)) == runs


@pytest.mark.parametrize(
    ("policy", "active"), [("Allow", 3), ("Forbid", 1), ("Replace", 1)], ids=["Allow", "Forbid", "Replace"]
)
def test_concurrency_policy(policy: str, active: int) -> None:
    agents = Agents(cluster(3, cron_job(concurrencyPolicy=policy)), step_s=60.0)
    agents.seconds = 61
    for _ in range(3):
        agents.step()
    jobs = [item for item in _jobs(agents) if item.meta.deleting is None]
    assert len(jobs) == active
    newest = f"tick-{int(FIRST_S) // 60 + (0 if policy == 'Forbid' else 2)}"
    assert max(item.meta.name for item in jobs) == newest


def test_a_forbidden_time_is_run_once_the_job_before_is_over() -> None:
    agents = Agents(cluster(1, cron_job("tick", "@hourly", concurrencyPolicy="Forbid")))
    agents.seconds = _until_hour() + 1
    agents.step()
    agents.seconds += 3600
    agents.step()
    assert len(_jobs(agents)) == 1
    agents.ends = {IMAGE: [0]}
    for _ in range(8):
        agents.step()
    assert len(_jobs(agents)) == 2


def test_a_suspended_one_begins_nothing_and_goes_on_with_the_latest() -> None:
    agents = _at(cron_job(suspend=True), 600)
    assert not _jobs(agents)
    agents.world = put(agents.world, _with(_cron(agents), suspend=False))
    agents.step()
    assert len(_jobs(agents)) == 1


def test_finished_jobs_beyond_the_history_limits_go() -> None:
    agents = Agents(cluster(1, cron_job(successfulJobsHistoryLimit=2)), step_s=15.0, ends={IMAGE: [0]})
    for _ in range(60):
        agents.step()
    jobs = _jobs(agents)
    assert 2 <= len(jobs) <= 4
    assert _cron(agents).status.succeeded is not None


@pytest.mark.parametrize(("policy", "runs"), [("Forbid", 1), ("Allow", 2)])
def test_a_run_by_hand_counts_as_its_own_and_moves_no_time_on(policy: str, runs: int) -> None:
    agents = Agents(cluster(1, cron_job("tick", "@hourly", concurrencyPolicy=policy)))
    cron = _cron(agents)
    _run_by_hand(agents, "now")
    agents.step()
    assert _cron(agents).status.tick_s == cron.status.tick_s
    assert len(agents.world.pods) == 1
    agents.seconds = _until_hour() + 1
    agents.step()
    assert len(_jobs(agents)) == runs
    for change in verbs.delete(agents.world, _cron(agents), agents.now):
        agents.world = put(agents.world, change.record)
    agents.settle(20)
    assert not agents.world.workloads


def test_a_run_by_hand_is_what_its_cron_job_makes_but_for_name_and_time() -> None:
    agents = Agents(cluster(1, cron_job()))
    made = _run_by_hand(agents, "now")
    agents.seconds = 61
    agents.step()
    [scheduled] = [item for item in _jobs(agents) if item.meta.name != "now"]
    assert (made.source["spec"], made.template_hash, made.meta.owner) == (
        scheduled.source["spec"],
        scheduled.template_hash,
        scheduled.meta.owner,
    )
    assert made.meta.annotations == {BY_HAND_KEY: "manual"}
    assert made.meta.uid != scheduled.meta.uid


def test_deleting_it_takes_its_jobs_and_pods() -> None:
    agents = _at(cron_job(), 61)
    for change in verbs.delete(agents.world, _cron(agents), agents.now):
        agents.world = put(agents.world, change.record)
    agents.settle(20)
    assert not agents.world.workloads
    assert not agents.world.pods


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["* * * * *", "*/5 * * * *", "@hourly"]),
    st.sampled_from(["Allow", "Forbid", "Replace"]),
    st.randoms(use_true_random=False),
)
def test_no_time_is_run_twice_whatever_the_clock_does(schedule: str, policy: str, dice: Random) -> None:
    """Passes come at any distance, the clock is set back, Jobs are deleted by hand: each name is made once."""
    agents = Agents(cluster(2, cron_job("tick", schedule, concurrencyPolicy=policy)), ends={IMAGE: [0, 0, 1]})
    made: list[str] = []
    for _ in range(60):
        agents.seconds += dice.choice([1.0, 30.0, 60.0, 400.0, 4000.0, -300.0])
        plan = agents.step()
        fresh = [
            change.record.meta.name
            for change in plan.changes
            if change.verb == "create" and change.record.meta.kind == "Job"
        ]
        assert len(fresh) <= 1, "at most one catch-up"
        made += fresh
        if dice.random() < 0.2 and (jobs := _jobs(agents)):
            for change in verbs.delete(agents.world, dice.choice(jobs), agents.now):
                agents.world = put(agents.world, change.record)
    assert len(made) == len(set(made))
    assert made == sorted(made)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("concurrency_policy", "Allow"),
        ("suspend", False),
        ("successful_jobs_history_limit", 3),
        ("failed_jobs_history_limit", 1),
        ("starting_deadline_seconds", None),
    ],
)
def test_default(field: str, value: object) -> None:
    spec = cron_job().source["spec"]
    assert getattr(CronJobSpec.model_validate(spec), field) == value


def _run_by_hand(agents: Agents, name: str) -> Job:
    cron = _cron(agents)
    loaded = manifest.load(json.dumps(by_hand(cron, name)), "the command line")
    [applied] = verbs.apply(agents.world, loaded.manifests, lambda values: "", agents.now)
    assert applied.change is not None
    record = owned_by(cron, applied.change).record
    assert isinstance(record, Job)
    agents.world = put(agents.world, record)
    return record


def _at(record: CronJob, seconds: float) -> Agents:
    """After one pass at that time."""
    agents = Agents(cluster(1, record))
    agents.seconds = seconds
    agents.step()
    return agents


def _until_hour() -> float:
    return 3600 - START_S % 3600


def _cron(agents: Agents) -> CronJob:
    [found] = [item for item in agents.world.workloads.values() if isinstance(item, CronJob)]
    return found


def _jobs(agents: Agents) -> list[Job]:
    return [item for item in agents.world.workloads.values() if isinstance(item, Job)]


def _with(record: CronJob, **spec: Any) -> CronJob:
    return replace(record, source={**record.source, "spec": {**record.source["spec"], **spec}})
