"""Jobs: how many pods, which counted once, and when it is over, as Kubernetes does it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.decide import verbs, workloads
from controller.decide.job import back_off_s, condition
from controller.decide.reconcile import reconcile
from controller.decide.standing import progress_of
from controller.decide.workloads import FINISHED_MAX
from controller.model.identity import child_uid
from controller.model.indexes import format_indexes, parse_indexes
from controller.model.kinds.batch import JobSpec
from controller.model.workloads import Job
from nodeagent.agent import PODS_MAX
from nodeagent.protocol import FAILED, SUCCEEDED, ContainerReport
from tests.agents import Agents
from tests.builders import cluster, job, moment, namespace, put, template

IMAGE = "sum:1"
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_a_pod_is_named_after_its_job_and_carries_kubernetes_labels() -> None:
    agents = Agents(cluster(1, job()))
    agents.step()
    [pod] = agents.world.pods.values()
    assert pod.meta.name.startswith("sum-")
    assert pod.meta.labels["batch.kubernetes.io/job-name"] == pod.meta.labels["job-name"] == "sum"
    assert pod.meta.labels["batch.kubernetes.io/controller-uid"] == _job(agents).meta.uid


@pytest.mark.parametrize(
    ("spec", "most", "succeeded"),
    [
        ({}, 1, 1),
        ({"completions": 5}, 1, 5),
        ({"completions": 5, "parallelism": 2}, 2, 5),
        ({"completions": 2, "parallelism": 8}, 2, 2),
        ({"parallelism": 3}, 3, 3),
        ({"completions": 3, "parallelism": 2, "completionMode": "Indexed"}, 2, 3),
        ({"completions": 0}, 0, 0),
    ],
    ids=["neither", "one by one", "two at once", "never more than are left", "work queue", "indexed", "nothing to do"],
)
def test_so_many_pods_run_at_once_until_so_many_have_succeeded(spec: Any, most: int, succeeded: int) -> None:
    agents = Agents(cluster(3, job(**spec)), ends={IMAGE: [0]})
    seen = 0
    for _ in range(40):
        agents.step()
        seen = max(seen, _job(agents).status.active)
    assert seen == most
    assert _job(agents).status.succeeded == succeeded
    assert condition(_job(agents).status, "Complete")
    assert reconcile(agents.observed(), agents.now).is_empty


def test_an_indexed_pod_knows_its_index_and_has_a_stable_host_name() -> None:
    agents = Agents(cluster(2, job(completions=2, parallelism=2, completionMode="Indexed")))
    agents.step()
    wanted = {pod.hostname: pod for item in agents.wanted.values() for pod in item.pods}
    assert sorted(wanted) == ["sum-0", "sum-1"]
    pod = wanted["sum-1"]
    assert pod.annotations["batch.kubernetes.io/job-completion-index"] == "1"
    assert pod.labels["batch.kubernetes.io/job-completion-index"] == "1"
    [variable] = pod.containers[0].env
    assert (variable.name, variable.field) == (
        "JOB_COMPLETION_INDEX",
        "metadata.annotations['batch.kubernetes.io/job-completion-index']",
    )


def test_each_index_is_done_once_and_in_order() -> None:
    agents = Agents(cluster(2, job(completions=5, parallelism=2, completionMode="Indexed")), ends={IMAGE: [0]})
    agents.step()
    assert sorted(pod.hostname for pod in agents.world.pods.values()) == ["sum-0", "sum-1"]
    agents.settle(40)
    assert _job(agents).status.completed_indexes == "0-4"
    assert len(agents.started) == 5


@pytest.mark.parametrize(
    ("rules", "completed"),
    [
        ([{"succeededIndexes": "0"}], "0"),
        ([{"succeededCount": 2}], "0,1"),
        ([{"succeededIndexes": "1-3", "succeededCount": 2}], "0-2"),
        ([{"succeededIndexes": "3"}, {"succeededCount": 3}], "0-2"),
        ([{"succeededIndexes": "4"}], "0-4"),
    ],
)
def test_a_success_policy_ends_an_indexed_job_early(rules: list[dict[str, Any]], completed: str) -> None:
    spec: dict[str, Any] = {"completions": 5, "completionMode": "Indexed", "successPolicy": {"rules": rules}}
    agents = Agents(cluster(1, job(**spec)), ends={IMAGE: [0]})
    agents.settle(60)
    complete = condition(_job(agents).status, "Complete")
    assert complete is not None
    assert (complete.reason, _job(agents).status.completed_indexes) == ("SuccessPolicy", completed)
    assert not _running(agents)


# ---- failures --------------------------------------------------------------------------------------------------------------


def test_what_applies_a_job_is_done_when_it_is_over_however_it_ended() -> None:
    """A Job that fails before `apply` looks, and one that fails a moment after, are no different to it."""
    agents = Agents(cluster(1, job(backoffLimit=0)), ends={IMAGE: [1]})
    agents.settle(20)
    standing = progress_of(agents.world, _job(agents))
    assert standing.done
    assert standing.text.startswith("job sum has failed: BackoffLimitExceeded: ")


def test_backoff_limit_counts_failed_pods() -> None:
    agents = Agents(cluster(1, job(backoffLimit=2)), ends={IMAGE: [1]})
    agents.settle(60)
    status = _job(agents).status
    assert status.failed == 3
    failed = condition(status, "Failed")
    assert failed is not None
    assert failed.reason == "BackoffLimitExceeded"


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 10), (2, 20), (3, 40), (6, 320), (7, 360), (60, 360)])
def test_pods_are_made_again_after_a_growing_pause(failures: int, seconds: float) -> None:
    """Kubernetes: 10 s, doubled, at most six minutes."""
    assert back_off_s(failures) == seconds


def test_the_pause_is_kept_and_then_a_pod_is_made() -> None:
    agents = Agents(cluster(1, job()), ends={IMAGE: [1, 1, 0]}, step_s=1.0)
    made = []
    for _ in range(60):
        plan = agents.step()
        made += [agents.seconds - 1.0] * sum(change.reason == "SuccessfulCreate" for change in plan.changes)
    assert [round(later - earlier) for earlier, later in pairwise(made)] == [13, 23]
    assert condition(_job(agents).status, "Complete")


def test_with_on_failure_restarts_count() -> None:
    pods = template(IMAGE, restartPolicy="OnFailure")
    agents = Agents(cluster(1, job(pods=pods, backoffLimit=3)))
    agents.step()
    agents.step()
    _reports(agents, lambda report: replace(report, containers=(_container(restarts=3),)))
    agents.settle(20)
    failed = condition(_job(agents).status, "Failed")
    assert failed is not None
    assert failed.reason == "BackoffLimitExceeded"
    assert not _running(agents)


def test_backoff_limit_per_index_fails_only_that_index() -> None:
    spec: dict[str, Any] = {"completions": 3, "parallelism": 3, "completionMode": "Indexed", "backoffLimitPerIndex": 1}
    agents = Agents(cluster(1, job(**spec)))
    for _ in range(80):
        agents.step()
        _finish(agents, lambda pod: FAILED if pod.hostname == "sum-1" else SUCCEEDED)
    status = _job(agents).status
    assert (status.completed_indexes, status.failed_indexes) == ("0,2", "1")
    failed = condition(status, "Failed")
    assert failed is not None
    assert failed.reason == "FailedIndexes"
    counts = [
        pod.meta.annotations["batch.kubernetes.io/job-index-failure-count"]
        for pod in agents.world.pods.values()
        if pod.hostname == "sum-1"
    ]
    assert sorted(counts) == ["0", "1"]


def test_backoff_limit_that_is_written_counts_beside_the_one_per_index() -> None:
    """Kubernetes' exceedsBackoffLimit looks at all failed pods; only the default is out of reach then."""
    spec: dict[str, Any] = {"completions": 10, "completionMode": "Indexed", "backoffLimitPerIndex": 3}
    agents = Agents(cluster(1, job(**spec, backoffLimit=1)), ends={IMAGE: [1]})
    agents.settle(60)
    failed = condition(_job(agents).status, "Failed")
    assert failed is not None
    assert (failed.reason, _job(agents).status.failed) == ("BackoffLimitExceeded", 2)


def test_more_failed_indexes_than_allowed_end_the_job() -> None:
    spec: dict[str, Any] = {"completions": 4, "parallelism": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 0}
    agents = Agents(cluster(1, job(**spec, maxFailedIndexes=1)), ends={IMAGE: [1]})
    agents.settle(60)
    failed = condition(_job(agents).status, "Failed")
    assert failed is not None
    assert (failed.reason, _job(agents).status.failed_indexes) == ("MaxFailedIndexesExceeded", "0,1")


@pytest.mark.parametrize(
    ("rule", "code", "failed", "reason"),
    [
        ({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}, 42, 1, "PodFailurePolicy"),
        ({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}, 1, 3, "BackoffLimitExceeded"),
        ({"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [42]}}, 1, 1, "PodFailurePolicy"),
        ({"action": "Count", "onExitCodes": {"operator": "In", "values": [42]}}, 42, 3, "BackoffLimitExceeded"),
        (
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            42,
            1,
            "PodFailurePolicy",
        ),
    ],
)
def test_the_failure_policy_decides_by_exit_code(rule: Any, code: int, failed: int, reason: str) -> None:
    agents = Agents(cluster(1, job(backoffLimit=2, podFailurePolicy={"rules": [rule]})), ends={IMAGE: [code]})
    agents.settle(60)
    found = condition(_job(agents).status, "Failed")
    assert found is not None
    assert (_job(agents).status.failed, found.reason) == (failed, reason)


def test_ignored_failures_do_not_count() -> None:
    rule = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}
    agents = Agents(cluster(1, job(backoffLimit=0, podFailurePolicy={"rules": [rule]})), ends={IMAGE: [42, 42, 42, 0]})
    agents.settle(60)
    assert condition(_job(agents).status, "Complete")
    assert (_job(agents).status.failed, _job(agents).status.succeeded) == (0, 1)


@pytest.mark.parametrize(
    "spec", [{"backoffLimit": 0}, {"completions": 1, "completionMode": "Indexed", "backoffLimitPerIndex": 0}]
)
def test_after_ignored_failures_the_pause_grows_too(spec: dict[str, Any]) -> None:
    rule = {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}}
    agents = Agents(cluster(1, job(**spec, podFailurePolicy={"rules": [rule]})), ends={IMAGE: [42]}, step_s=1.0)
    made = []
    for _ in range(60):
        plan = agents.step()
        made += [agents.seconds - 1.0] * sum(change.reason == "SuccessfulCreate" for change in plan.changes)
    assert [round(later - earlier) for earlier, later in pairwise(made)] == [13, 23]
    assert _job(agents).status.failed == 0


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_condition_that_a_pod_has_not_matches_no_rule_whatever_status_it_asks_for(status: str) -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": status}]}
    agents = Agents(cluster(1, job(backoffLimit=0, podFailurePolicy={"rules": [rule]})), ends={IMAGE: [1]})
    agents.settle(60)
    found = condition(_job(agents).status, "Failed")
    assert found is not None
    assert found.reason == "BackoffLimitExceeded"


def test_a_pod_deleted_by_hand_counts_as_failed_unless_the_policy_ignores_disruptions() -> None:
    policy: dict[str, Any] = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    cases: tuple[tuple[dict[str, Any], int], ...] = (({}, 1), ({"podFailurePolicy": policy}, 0))
    for spec, failed in cases:
        agents = Agents(cluster(1, job(**spec)))
        agents.step()
        agents.step()
        [pod] = agents.world.pods.values()
        for change in verbs.delete(agents.world, pod, agents.now):
            agents.world = put(agents.world, change.record)
        agents.settle(20)
        assert _job(agents).status.failed == failed
        assert len(_running(agents)) == 1


# ---- time ------------------------------------------------------------------------------------------------------------------


def test_active_deadline_stops_all_and_fails_the_job() -> None:
    agents = Agents(cluster(1, job(activeDeadlineSeconds=30, parallelism=2, completions=2)))
    agents.settle(40)
    failed = condition(_job(agents).status, "Failed")
    assert failed is not None
    assert failed.reason == "DeadlineExceeded"
    assert failed.moment.since(moment()) < 45
    assert not _running(agents)


def test_a_finished_job_is_deleted_with_its_pods_after_its_time_to_live() -> None:
    agents = Agents(cluster(1, job(ttlSecondsAfterFinished=60)), ends={IMAGE: [0]})
    while _job(agents).status.finished is None:
        agents.step()
    assert agents.step().wake_s is not None
    agents.settle(20)
    assert not agents.world.workloads
    assert not agents.world.pods


def test_suspending_stops_the_pods_counts_none_and_sets_the_deadline_back() -> None:
    agents = Agents(cluster(1, job(activeDeadlineSeconds=60, parallelism=2, completions=2)))
    for _ in range(3):
        agents.step()
    agents.world = put(agents.world, _with(_job(agents), suspend=True))
    agents.settle(20)
    status = _job(agents).status
    assert condition(status, "Suspended")
    assert (status.started, status.active, status.failed) == (None, 0, 0)
    agents.seconds += 1000
    agents.world = put(agents.world, _with(_job(agents), suspend=False))
    for _ in range(3):
        agents.step()
    assert not condition(_job(agents).status, "Failed")
    assert len(_running(agents)) == 2


def test_fewer_at_once_stops_the_youngest() -> None:
    agents = Agents(cluster(1, job(parallelism=3, completions=9)))
    for _ in range(3):
        agents.step()
    agents.world = put(agents.world, _with(_job(agents), parallelism=1))
    agents.settle(20)
    assert len(_running(agents)) == 1
    assert _job(agents).status.failed == 0


# ---- what finished pods cost ------------------------------------------------------------------------------------------------


def test_a_node_keeps_the_newest_finished_pods_and_its_wanted_set_stays_within_what_agents_take() -> None:
    agents = Agents(cluster(1, job(completions=600, parallelism=60)), ends={IMAGE: [0]})
    most = 0
    for _ in range(80):
        plan = agents.step()
        most = max(most, *(len(item.pods) for item in plan.wanted.values()))
    assert (_job(agents).status.succeeded, len(set(agents.started))) == (600, 600)
    assert condition(_job(agents).status, "Complete")
    assert most < PODS_MAX
    kept = sorted(pod.meta.created.wall_s for pod in agents.world.pods.values())
    assert len(kept) == FINISHED_MAX
    assert kept[0] > moment().wall_s + 20, "the oldest are gone"
    assert reconcile(agents.observed(), agents.now).is_empty


@quick
@given(st.integers(1, 3), st.randoms(use_true_random=False))
def test_a_pod_that_was_cleared_away_stays_counted(parallelism: int, dice: Random) -> None:
    """Whatever is lost or late: as many pods have succeeded as were ever seen to, and none counts as anything else later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workloads, "FINISHED_MAX", 1)
        agents = Agents(cluster(2, job(completions=8, parallelism=parallelism, backoffLimit=50)), step_s=40.0)
        verdicts: dict[str, str] = {}
        for number in range(100):
            if number < 60 and dice.random() < 0.2:
                agents.down = {name for name in agents.world.hosts if dice.random() < 0.4}
            elif number >= 60:
                agents.down = set()
            agents.step()
            for uid, pod in agents.world.pods.items():
                assert verdicts.setdefault(uid, pod.verdict) in ("", pod.verdict)
                verdicts[uid] = pod.verdict
            counts = Counter(verdicts.values())
            assert (_job(agents).status.succeeded, _job(agents).status.failed) == (
                counts["Succeeded"],
                counts["Failed"],
            )
            _finish(agents, lambda pod: dice.choice([SUCCEEDED, SUCCEEDED, FAILED, ""]))
    assert condition(_job(agents).status, "Complete")
    assert all(count <= 1 for count in Counter(pod.node for pod in agents.world.pods.values()).values())
    assert len(agents.started) == len(set(agents.started))


# ---- silent nodes ----------------------------------------------------------------------------------------------------------


def test_a_pod_of_a_silent_node_is_replaced_without_being_counted() -> None:
    agents = Agents(cluster(3, job()), step_s=40.0)
    agents.step()
    agents.step()
    [pod] = agents.world.pods.values()
    agents.down = {pod.node}
    for _ in range(20):
        agents.step()
    assert _job(agents).status.failed == 0
    assert sum(one.lost is None for one in agents.world.pods.values()) == 1
    agents.ends = {IMAGE: [0]}
    for _ in range(5):
        agents.step()
    assert condition(_job(agents).status, "Complete")
    agents.down = set()
    agents.settle(20)
    assert _job(agents).status.succeeded == 1, "what returns after the end counts for nothing"
    assert not _running(agents)


def test_replacement_policy_failed_waits_until_a_silent_node_is_confirmed_dead() -> None:
    agents = Agents(cluster(3, job(podReplacementPolicy="Failed")), step_s=40.0)
    agents.step()
    agents.step()
    [pod] = agents.world.pods.values()
    agents.down = {pod.node}
    for _ in range(20):
        agents.step()
    assert len(agents.world.pods) == 1
    agents.world = put(agents.world, replace(agents.world.nodes[pod.node], confirmed_dead="powered-off"))
    for _ in range(5):
        agents.step()
    assert len(agents.world.pods) == 2
    assert _job(agents).status.failed == 1


def test_a_counted_pod_never_runs_again_though_its_agent_has_forgotten_it() -> None:
    agents = Agents(cluster(1, job(completions=2)), ends={IMAGE: [0]})
    while not _job(agents).status.succeeded:
        agents.step()
    first = agents.started[0]
    agents.pods = {}
    agents.wanted = {}
    agents.settle(30)
    assert _job(agents).status.succeeded == 2
    assert agents.started.count(first) == 1


@pytest.mark.parametrize("ttl_s", [None, 60], ids=["deleted", "time to live"])
def test_what_a_pod_on_a_silent_node_is_outlives_its_job(ttl_s: int | None) -> None:
    """A node that returns is told to stop the pod as it knows it: a pod without containers is an order that agents refuse."""
    agents = Agents(cluster(2, job(**({"ttlSecondsAfterFinished": ttl_s} if ttl_s else {}))), step_s=40.0)
    if ttl_s:
        agents.ends = {IMAGE: [0]}
    for _ in range(5):
        agents.step()
    [pod] = agents.world.pods.values()
    known = next(one for one in agents.wanted[pod.node].pods if one.uid == pod.meta.uid)
    agents.down = {pod.node}
    for _ in range(4):
        agents.step()
    for change in [] if ttl_s else verbs.delete(agents.world, _job(agents), agents.now):
        agents.world = put(agents.world, change.record)
    for _ in range(4):
        agents.step()
    assert not _jobs(agents), "a silent node holds up no Job"
    again = job()
    agents.world = put(agents.world, replace(again, meta=replace(again.meta, uid=child_uid(again.meta.uid, "again"))))
    agents.down = set()
    plan = agents.step()
    told = next(one for one in plan.wanted[pod.node].pods if one.uid == pod.meta.uid)
    assert told == replace(known, stop=True)
    agents.settle(20)
    [left] = agents.world.workloads.values()
    assert left.meta.kind == "Job", "with the pod goes what it was"
    assert pod.meta.uid not in agents.world.pods


def test_deleting_a_namespace_takes_its_jobs_and_pods() -> None:
    agents = Agents(cluster(1, job(), namespace("default", deleting=moment())))
    agents.settle(20)
    assert not agents.world.workloads
    assert not agents.world.pods


# ---- what holds always -----------------------------------------------------------------------------------------------------


@quick
@given(
    st.fixed_dictionaries(
        {"completions": st.integers(1, 6), "parallelism": st.integers(1, 4)},
        optional={
            "completionMode": st.just("Indexed"),
            "backoffLimit": st.integers(0, 20),
            "podReplacementPolicy": st.sampled_from(["Failed", "TerminatingOrFailed"]),
        },
    ),
    st.randoms(use_true_random=False),
)
def test_completions_are_counted_once_whatever_is_lost_or_repeated(spec: dict[str, Any], dice: Random) -> None:
    """Nodes fall silent and come back, pods end by chance, reports come late: each pod counts once, and never more run than may."""
    agents = Agents(cluster(3, job(**spec)), step_s=40.0)
    for _ in range(40):
        if dice.random() < 0.2:
            agents.down = {name for name in agents.world.hosts if dice.random() < 0.4}
        agents.step()
        assert _job(agents).status.active <= spec["parallelism"]
        _finish(agents, lambda pod: dice.choice([SUCCEEDED, SUCCEEDED, FAILED, ""]))
    agents.down = set()
    for _ in range(60):
        agents.step()
        _finish(agents, lambda pod: SUCCEEDED)
    status = _job(agents).status
    pods = agents.world.pods.values()
    counted = [pod for pod in pods if pod.verdict == "Succeeded"]
    if spec.get("completionMode") == "Indexed":
        indexes = parse_indexes(status.completed_indexes)
        assert status.succeeded == len(indexes)
        assert indexes == {int(pod.hostname.removeprefix("sum-")) for pod in counted}
    else:
        assert status.succeeded == len(counted)
    assert status.failed >= sum(pod.verdict == "Failed" for pod in pods)
    assert condition(status, "Complete") or condition(status, "Failed")
    assert len(agents.started) == len(set(agents.started))
    assert reconcile(agents.observed(), agents.now).is_empty


@given(st.sets(st.integers(0, 40)))
def test_indexes_read_back_as_they_were_written(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes


@pytest.mark.parametrize(("indexes", "text"), [((), ""), ((3,), "3"), ((1, 2), "1,2"), ((1, 3, 4, 5, 7), "1,3-5,7")])
def test_three_neighbours_are_written_as_a_range(indexes: tuple[int, ...], text: str) -> None:
    assert format_indexes(indexes) == text


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ({}, "backoff_limit", 6),
        ({"backoffLimitPerIndex": 1}, "backoff_limit", 2147483647),
        ({}, "pod_replacement_policy", "TerminatingOrFailed"),
        ({"podFailurePolicy": {"rules": []}}, "pod_replacement_policy", "Failed"),
        ({}, "at_once", 1),
        ({}, "wanted", 1),
        ({"parallelism": 2}, "wanted", None),
        ({}, "completion_mode", "NonIndexed"),
        ({}, "suspend", False),
        ({}, "ttl_seconds_after_finished", None),
    ],
)
def test_default(written: dict[str, Any], field: str, value: object) -> None:
    pods = {"spec": {"containers": [{"name": "c", "image": "i:1"}], "restartPolicy": "Never"}}
    assert getattr(JobSpec.model_validate({"template": pods, **written}), field) == value


# ---- helpers ---------------------------------------------------------------------------------------------------------------


def _job(agents: Agents) -> Job:
    [found] = _jobs(agents)
    return found


def _jobs(agents: Agents) -> list[Job]:
    return [item for item in agents.world.workloads.values() if isinstance(item, Job)]


def _with(record: Job, **spec: Any) -> Job:
    return replace(record, source={**record.source, "spec": {**record.source["spec"], **spec}})


def _running(agents: Agents) -> list[str]:
    return [uid for pods in agents.pods.values() for uid, report in pods.items() if report.phase == "Running"]


def _reports(agents: Agents, change: Any) -> None:
    agents.pods = {
        name: {uid: change(report) for uid, report in reports.items()} for name, reports in agents.pods.items()
    }


def _finish(agents: Agents, how: Any) -> None:
    """Running pods end as `how(pod)` says: Succeeded, Failed, or "" to go on."""
    for reports in agents.pods.values():
        for uid, report in reports.items():
            pod = agents.world.pods.get(uid)
            phase = how(pod) if pod is not None and report.phase == "Running" else ""
            if phase:
                ended = replace(report, phase=phase, ready=False, ready_since_s=0.0)
                reports[uid] = replace(ended, containers=(_container(exit_code=0 if phase == SUCCEEDED else 1),))


def _container(**fields: Any) -> ContainerReport:
    return ContainerReport("main", "terminated" if "exit_code" in fields else "running", **fields)
