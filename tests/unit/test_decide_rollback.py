"""Automatic rollback: only where it is asked for, only to a revision that was fully available, and told as an incident."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.decide.reconcile import reconcile
from controller.decide.standing import progress_of
from controller.decide.verbs import AUTO_ROLLBACK
from controller.model.cluster import Deployment
from controller.model.plan import Plan
from nodeagent.protocol import ContainerReport
from tests.agents import Agents
from tests.builders import cluster, deployment, edited, put, template

BAD = template("bad:1")


def test_a_revision_that_misses_its_deadline_goes_back() -> None:
    agents = _running()
    agents.broken = {"bad:1"}
    told = _roll(agents, BAD)
    assert [change.reason for change in told if change.reason == "AutoRollback"] == ["AutoRollback"]
    web = _web(agents)
    assert web.source["spec"]["template"] == template()
    assert web.status.available == 3
    [incident] = web.incidents
    assert (incident.revision, incident.back_to, incident.reason) == (2, 1, "ProgressDeadlineExceeded")
    assert any("probes: not passed yet" in line or "web-" in line for line in incident.timeline)
    assert reconcile(agents.observed(), agents.now).is_empty


def test_a_crash_loop_goes_back_long_before_the_deadline() -> None:
    agents = _running()
    agents.broken = {"bad:1"}
    agents.world = put(agents.world, edited(_web(agents), BAD))
    agents.step()
    agents.step()
    began_s = agents.seconds
    _crash(agents, restarts=1)
    agents.step()
    assert not progress_of(agents.world, _web(agents)).trouble, "waiting on makes sense: it will go back"
    _crash(agents, restarts=2)
    told = [change for _ in range(8) for change in agents.step().changes]
    assert [change.reason for change in told].count("AutoRollback") == 1
    [incident] = _web(agents).incidents
    assert incident.reason == "CrashLoopBackOff"
    assert "has failed 3 times" in incident.message
    assert any("last exit code 5" in line for line in incident.timeline)
    assert agents.seconds - began_s < 60
    agents.settle(40)
    assert _web(agents).status.available == 3


@pytest.mark.parametrize(
    ("annotations", "spec"),
    [({}, {}), ({AUTO_ROLLBACK: "false"}, {}), ({AUTO_ROLLBACK: "true"}, {"paused": True})],
    ids=["not asked for", "refused", "paused"],
)
def test_otherwise_nothing_goes_back(annotations: dict[str, str], spec: dict[str, Any]) -> None:
    agents = _running(annotations)
    agents.broken = {"bad:1"}
    agents.world = put(agents.world, edited(_web(agents), BAD))
    agents.step()
    agents.step()
    agents.world = put(agents.world, edited(_web(agents), **spec))
    _crash(agents, restarts=9)
    told = [change for _ in range(20) for change in agents.step().changes]
    assert not [change for change in told if change.reason == "AutoRollback"]
    assert not _web(agents).incidents


def test_a_first_revision_has_nothing_to_go_back_to() -> None:
    agents = Agents(cluster(3, _asking(deployment(pods=BAD))))
    agents.broken = {"bad:1"}
    agents.settle(80)
    assert not _web(agents).incidents


def test_a_revision_that_was_fully_available_is_not_given_up_for_what_happens_later() -> None:
    agents = _running()
    _roll(agents, template("web:2"))
    _crash(agents, restarts=9)
    told = [change for _ in range(10) for change in agents.step().changes]
    assert not [change for change in told if change.reason == "AutoRollback"]


def test_it_goes_back_past_revisions_that_never_were_available() -> None:
    agents = _running()
    agents.broken = {"bad:1", "bad:2"}
    agents.world = put(agents.world, edited(_web(agents), BAD))
    agents.step()
    _roll(agents, template("bad:2"))
    assert _web(agents).source["spec"]["template"] == template()
    assert [incident.back_to for incident in _web(agents).incidents] == [1]


def test_until_the_next_change_the_deployment_is_said_to_be_rolled_back() -> None:
    agents = _running()
    agents.broken = {"bad:1"}
    _roll(agents, BAD)
    standing = progress_of(agents.world, _web(agents))
    assert not standing.done
    assert "revision 2 was given up for 1" in standing.trouble[0]
    agents.world = put(agents.world, edited(_web(agents), template("web:3")))
    agents.settle(60)
    assert progress_of(agents.world, _web(agents)).done


def test_the_same_bad_template_again_is_tried_and_given_up_again() -> None:
    agents = _running()
    agents.broken = {"bad:1"}
    for _ in range(7):
        _roll(agents, BAD)
    assert len(_web(agents).incidents) == 5, "so many are kept"
    assert _web(agents).status.available == 3


def _running(annotations: dict[str, str] | None = None) -> Agents:
    agents = Agents(cluster(3, _asking(deployment(), annotations)))
    agents.settle(40)
    return agents


def _asking(record: Deployment, annotations: dict[str, str] | None = None) -> Deployment:
    wanted = {AUTO_ROLLBACK: "true"} if annotations is None else annotations
    return replace(record, meta=replace(record.meta, annotations=wanted))


def _roll(agents: Agents, pods: dict[str, Any]) -> list[Any]:
    agents.world = put(agents.world, edited(_web(agents), pods))
    told: list[Any] = []

    def collect(plan: Plan) -> None:
        told.extend(plan.changes)

    agents.settle(80, collect)
    return told


def _crash(agents: Agents, restarts: int) -> None:
    """Pods of images other than the first wait in CrashLoopBackOff."""
    container = ContainerReport(
        "main", "waiting", "CrashLoopBackOff", restarts=restarts, last_exit_code=5, last_reason="Error"
    )
    new = {pod.uid for item in agents.wanted.values() for pod in item.pods if pod.containers[0].image != "web:1"}
    for reports in agents.pods.values():
        for uid in new & reports.keys():
            reports[uid] = replace(reports[uid], ready=False, phase="Running", containers=(container,))


def _web(agents: Agents) -> Deployment:
    [found] = agents.world.deployments.values()
    return found
