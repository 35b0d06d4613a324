"""Agents that do what they are told, one small step after each pass: for properties of decisions over time, without any I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from controller.decide.reconcile import reconcile
from controller.model.cluster import Moment, Sighting, World
from controller.model.plan import Plan, Wanted
from nodeagent.protocol import (
    FAILED,
    PENDING,
    RUNNING_PHASE,
    STOPPED,
    SUCCEEDED,
    VOLUME_HELD,
    VOLUME_MISSING,
    VOLUME_REMOVED,
    ContainerReport,
    PodReport,
    VolumeReport,
)
from tests import builders


@dataclass
class Agents:
    """A world and the agents of its hosts. A host in `down` is not reached; its pods run on."""

    world: World
    seconds: float = 0.0
    step_s: float = 5.0
    boottime_s: float = 5000.0
    down: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)  # images that never get ready
    ends: dict[str, list[int]] = field(default_factory=dict)  # image -> exit codes of its pods as they end
    pods: dict[str, dict[str, PodReport]] = field(default_factory=dict)
    wanted: dict[str, Wanted] = field(default_factory=dict)
    volumes: dict[str, dict[str, VolumeReport]] = field(default_factory=dict)  # by host and name
    machines: dict[str, str] = field(default_factory=dict)  # which machine answers by a host's name, where that matters
    started: list[str] = field(default_factory=list)  # uids, in order: nothing may be started twice

    @property
    def now(self) -> Moment:
        return builders.moment(self.seconds)

    def step(self) -> Plan:
        """One pass, its push, and a moment of the agents' work."""
        plan = reconcile(self.observed(), self.now)
        self.world = builders.after(self.observed(), plan)
        self.wanted |= {name: item for name, item in plan.wanted.items() if name not in self.down}
        self.seconds += self.step_s
        self.boottime_s += self.step_s
        for name in {*self.world.hosts, *self.world.nodes}:
            self.pods[name] = self._advance(name)
            self._keep_volumes(name)
        return plan

    def settle(self, steps: int, check: Callable[[Plan], None] = lambda plan: None) -> Plan:
        """Steps until a pass changes nothing and time would not either; AssertionError when `steps` do not get there."""
        for _ in range(steps):
            before = {name: dict(pods) for name, pods in self.pods.items()}
            plan = self.step()
            check(plan)
            if plan.is_empty and self.pods == before:
                if plan.wake_s is None:
                    return plan
                self.seconds += plan.wake_s
                self.boottime_s += plan.wake_s
        raise AssertionError(f"not settled after {steps} steps: {[change.because for change in plan.changes]}")

    def exchange(self, name: str, machine: str) -> None:
        """Another machine answers by this name from now on: nothing of ours has been there."""
        self.machines[name] = machine
        for told in (self.pods, self.wanted, self.volumes):
            told.pop(name, None)

    def observed(self) -> World:
        """The world with what its agents say now."""
        told: dict[str, Sighting] = {}
        for name in {*self.world.hosts, *self.world.nodes}:
            reports = self.pods.get(name, {}).values()
            machine = self.machines.get(name, "")
            identity = {"agent": f"agent-{machine}", "host_key": f"SHA256:{machine}"} if machine else {}
            told[name] = builders.seen(
                name, reports, boottime_s=self.boottime_s, volumes=dict(self.volumes.get(name, {})), **identity
            )
            if name in self.down:
                told[name] = builders.unseen()
        return replace(self.world, sightings=told)

    def _keep_volumes(self, name: str) -> None:
        if name not in self.wanted:
            return
        held = self.volumes.setdefault(name, {})
        mounted = {volume.claim for pod in self.wanted[name].pods for volume in pod.volumes if volume.kind == "claim"}
        for order in self.wanted[name].volumes:
            if order.remove and order.name not in mounted:
                held[order.name] = VolumeReport(order.name, VOLUME_REMOVED)
            elif order.make:
                held[order.name] = VolumeReport(order.name, VOLUME_HELD, f"/volumes/{order.name}", "", order.directory)
            elif order.name not in held:
                held[order.name] = VolumeReport(order.name, VOLUME_MISSING)
        named = {order.name for order in self.wanted[name].volumes}
        for gone in [one for one, report in held.items() if report.state == VOLUME_REMOVED and one not in named]:
            del held[gone]

    def _advance(self, name: str) -> dict[str, PodReport]:
        before = self.pods.get(name, {})
        if name not in self.wanted:
            return before
        reports = {}
        for pod in self.wanted[name].pods:
            report = before.get(pod.uid)
            if pod.stop:
                if report is not None and report.phase != STOPPED:
                    reports[pod.uid] = self._stopped(report)
            elif report is None:
                self.started.append(pod.uid)
                reports[pod.uid] = builders.report(pod, PENDING)
            elif report.phase == PENDING and pod.containers[0].image not in self.broken:
                reports[pod.uid] = builders.report(pod, RUNNING_PHASE, ready_since_s=self.boottime_s)
            elif report.phase == RUNNING_PHASE and self.ends.get(pod.containers[0].image):
                reports[pod.uid] = self._ended(report, self.ends[pod.containers[0].image])
            else:
                reports[pod.uid] = report
        return reports

    def _stopped(self, report: PodReport) -> PodReport:
        """One that had ended before tells how it did, as agents do."""
        why = report.reason if report.phase in (SUCCEEDED, FAILED) else "Stopped"
        return replace(report, phase=STOPPED, reason=why, ready=False, ready_since_s=0.0)

    def _ended(self, report: PodReport, codes: list[int]) -> PodReport:
        code = codes.pop(0) if len(codes) > 1 else codes[0]
        container = ContainerReport("main", "terminated", exit_code=code)
        phase = FAILED if code else SUCCEEDED
        return replace(report, phase=phase, ready=False, ready_since_s=0.0, containers=(container,))
