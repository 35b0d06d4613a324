"""The simulation finds what it is made for: each planted defect breaks an invariant within a few of the seeds of test_seeds.py.

The same seeds are clean without the defect; that is what test_seeds.py shows. A defect is one function of the production code gone wrong;
the checks that production code makes of its own plans stay on, and may be what notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from controller.act import agents
from controller.act.store import history, sqlite
from controller.decide import autoscale, budgets, deployment, drain, nodes, pods, replicaset, statefulset, wanted
from controller.model.cluster import Pod
from controller.model.kinds.sets import PersistentVolumeClaimRetentionPolicy
from controller.model.plan import Change
from nodeagent import agent, decide, protocol, supervisor
from tests.fakes.podman import FakePodman
from tests.sim.world import run

pytestmark = [pytest.mark.sim, pytest.mark.timeout(900)]

Plant = Callable[[pytest.MonkeyPatch], None]


# ---- the agent ------------------------------------------------------------------------------------------------------------


def the_agent_accepts_a_lower_epoch(patch: pytest.MonkeyPatch) -> None:
    """Orders of a controller that was replaced are obeyed when they arrive late."""
    patch.setattr(agent.Agent, "_check_sender", lambda *_: None)


def the_agent_accepts_a_lower_serial(patch: pytest.MonkeyPatch) -> None:
    """An older wanted set of the same controller replaces a newer one."""
    patch.setattr(agent.Agent, "_check_serial", lambda *_: None)


def corrupt_state_is_taken_for_an_empty_wanted_set(patch: pytest.MonkeyPatch) -> None:
    """The agent stops everything when it can't read what it shall run."""
    load, commit = agent.Agent._load_wanted, agent.Agent._commit
    clusters: set[str] = set()

    def remember(self: Any, owner: Any, *args: Any, **kwargs: Any) -> None:
        clusters.add(owner.cluster)
        commit(self, owner, *args, **kwargs)

    def load_nothing(self: Any, lost: list[str]) -> Any:
        leaving = load(self, lost)
        if agent.WANTED in lost:
            epoch, node = protocol.Epoch(0, ""), protocol.NodeConfig("", "10.86.250.0/24", "")
            self._owner = protocol.Owner(min(clusters), epoch, 0)
            self._wanted = protocol.WantedSet(min(clusters), epoch, 0, "", node)
        return leaving

    patch.setattr(agent.Agent, "_commit", remember)
    patch.setattr(agent.Agent, "_load_wanted", load_nothing)


def a_restart_of_the_agent_restarts_healthy_containers(patch: pytest.MonkeyPatch) -> None:
    """A new agent begins by ending what it finds."""
    load_record = supervisor.Supervisor._load_record

    def load_to_kill(self: Any, uid: str) -> Any:
        record = load_record(self, uid)
        if record is None:
            return None
        return replace(record, containers=tuple(replace(one, kill="AgentRestarted") for one in record.containers))

    patch.setattr(supervisor.Supervisor, "_load_record", load_to_kill)


def there_is_no_back_off(patch: pytest.MonkeyPatch) -> None:
    """A container that crashes is started again at once, for ever."""
    patch.setattr(decide, "due_s", lambda backoff, ended_s: ended_s)


def the_engine_is_believed_when_it_says_running(patch: pytest.MonkeyPatch) -> None:
    """`podman ps` goes on saying so after conmon and payload were killed; nobody looks whether there is a process."""
    is_alive, wait_exit = FakePodman.is_alive, FakePodman.wait_exit

    def says_running(self: Any, process: Any) -> bool:
        said = (one for one in self._containers.values() if one.life is not None and one.life.process == process)
        return is_alive(self, process) or any(one.state == "running" for one in said)

    async def wait_for_the_engine(self: Any, process: Any) -> None:
        await wait_exit(self, process)
        while says_running(self, process):
            await asyncio.sleep(1.0)

    patch.setattr(FakePodman, "is_alive", says_running)
    patch.setattr(FakePodman, "wait_exit", wait_for_the_engine)


def pods_of_other_clusters_are_not_told_apart(patch: pytest.MonkeyPatch) -> None:
    """Whatever carries our labels is taken for ours, whichever cluster it belongs to."""
    patch.setattr(supervisor.Supervisor, "_is_ours", lambda self, labels: "sshoal.dev/pod-uid" in labels)
    patch.setattr(supervisor.Supervisor, "_dismiss", lambda self, worker: worker.set_order(None, decide.LEAVE))


# ---- the controller -------------------------------------------------------------------------------------------------------


def unseen_is_taken_for_dead(patch: pytest.MonkeyPatch) -> None:
    """The first missed poll gives a node up at once."""
    absence = nodes._absence

    def hasty(node: Any, look: Any) -> Any:
        change = absence(node, look)
        if change is None or change.record.missing is None:
            return change
        long_ago = replace(look.now, wall_s=look.now.wall_s - 3600, boottime_s=look.now.boottime_s - 3600)
        missing = replace(change.record.missing, since=long_ago, polls=nodes.POLLS_UNKNOWN)
        return replace(change, record=replace(change.record, missing=missing))

    patch.setattr(nodes, "_absence", hasty)


def no_intent_is_stored_before_the_push(patch: pytest.MonkeyPatch) -> None:
    """Agents hear of pods that no record knows."""
    commit = sqlite.Store.commit

    def forgetful(self: Any, changes: Any, **kwargs: Any) -> Any:
        return commit(self, [one for one in changes if one.verb != "bind"], **kwargs)

    patch.setattr(sqlite.Store, "commit", forgetful)


def a_partial_report_is_taken_for_all_there_is(patch: pytest.MonkeyPatch) -> None:
    """Pods that a report does not name count as stopped, though it only tells what changed."""
    update = agents.Picture.update
    patch.setattr(agents.Picture, "update", lambda self, report: update(self, replace(report, full=True)))


def the_pod_counter_stands_still(patch: pytest.MonkeyPatch) -> None:
    """Names and uids of pods are used again."""
    create = replicaset._create

    def forgetful(item: Any, *args: Any) -> list[Change]:
        counted, *made = create(item, *args)
        return [replace(counted, record=replace(counted.record, pods_made=item.pods_made)), *made]

    patch.setattr(replicaset, "_create", forgetful)


def a_rollout_ignores_max_unavailable(patch: pytest.MonkeyPatch) -> None:
    """All old pods go as soon as there is a new revision."""

    def shrink(rollout: Any, new: Any) -> None:
        rollout.sizes |= {item.meta.uid: 0 for item in rollout.old}

    patch.setattr(deployment, "_shrink_old", shrink)


def a_converged_pass_writes(patch: pytest.MonkeyPatch) -> None:
    """Every pass stores something, though nothing has changed."""
    digests = wanted.new_digests

    def busy(world: Any, sets: Any) -> tuple[Change, ...]:
        changes = digests(world, sets)
        named = {change.record.meta.name for change in changes}
        idle = [world.nodes[name] for name in sets if name not in named]
        return (*changes, *(Change("update", record, "it was looked at", quiet=True) for record in idle))

    patch.setattr(wanted, "new_digests", busy)


def what_users_change_is_not_seen(patch: pytest.MonkeyPatch) -> None:
    """A controller works on with the records that it had when it began."""
    data_version = sqlite.Store.data_version

    def stuck(self: Any) -> int:
        return data_version(self) if self._epoch is None else self._cached_data_version

    patch.setattr(sqlite.Store, "data_version", stuck)


def a_pods_record_goes_while_its_node_is_silent(patch: pytest.MonkeyPatch) -> None:
    """What can't be asked is taken for stopped."""

    def hasty(pod: Pod, view: Any) -> Change | None:
        return Change("remove", pod, "its node does not answer") if pod.stop is not None else None

    patch.setattr(pods, "_silent", hasty)


def orders_are_not_recorded(patch: pytest.MonkeyPatch) -> None:
    """Agents are told what the record of operations does not know."""
    patch.setattr(history.History, "note_orders", lambda *_: None)


def claims_go_with_the_pods_of_a_smaller_set(patch: pytest.MonkeyPatch) -> None:
    """Scaling down removes data that nobody has deleted."""
    spec_of = statefulset.spec_of_stateful

    def careless(item: Any) -> Any:
        policy = PersistentVolumeClaimRetentionPolicy(when_scaled="Delete")
        return spec_of(item).model_copy(update={"persistent_volume_claim_retention_policy": policy})

    patch.setattr(statefulset, "spec_of_stateful", careless)


def a_drain_asks_no_budget(patch: pytest.MonkeyPatch) -> None:
    """All pods of a node go at once, whatever their budgets say."""
    patch.setattr(budgets.Budgets, "refusal", lambda *_: "")


def a_drain_is_over_once_everything_was_told_to_stop(patch: pytest.MonkeyPatch) -> None:
    """A node is said to be empty while its last pods are still ending."""
    bound = drain._bound_to_go
    patch.setattr(drain, "_bound_to_go", lambda *args: [pod for pod in bound(*args) if pod.stop is None])


def the_autoscaler_ignores_max_replicas(patch: pytest.MonkeyPatch) -> None:
    """As many as the load asks for."""
    patch.setattr(autoscale._Work, "_limited", lambda self, wanted: wanted)


def the_autoscaler_never_scales_down(patch: pytest.MonkeyPatch) -> None:
    """What was once asked for stays."""
    patch.setattr(autoscale._Work, "_limited", lambda self, wanted: max(wanted, self.current))


# Which seed shows it soonest, by experiment; when the course of the runs changes, the others are tried in their order.
DEFECTS: dict[Plant, int] = {
    the_agent_accepts_a_lower_epoch: 15,
    the_agent_accepts_a_lower_serial: 6,
    corrupt_state_is_taken_for_an_empty_wanted_set: 5,
    a_restart_of_the_agent_restarts_healthy_containers: 1,
    there_is_no_back_off: 2,
    the_engine_is_believed_when_it_says_running: 3,
    pods_of_other_clusters_are_not_told_apart: 0,
    unseen_is_taken_for_dead: 0,
    no_intent_is_stored_before_the_push: 0,
    a_partial_report_is_taken_for_all_there_is: 0,
    the_pod_counter_stands_still: 0,
    a_rollout_ignores_max_unavailable: 1,
    a_converged_pass_writes: 3,
    what_users_change_is_not_seen: 2,
    a_pods_record_goes_while_its_node_is_silent: 3,
    orders_are_not_recorded: 0,
    claims_go_with_the_pods_of_a_smaller_set: 5,
    a_drain_asks_no_budget: 2,
    a_drain_is_over_once_everything_was_told_to_stop: 6,
    the_autoscaler_ignores_max_replicas: 6,
    the_autoscaler_never_scales_down: 6,
}
SEEDS_MAX = 20


@pytest.mark.parametrize(("plant", "first"), DEFECTS.items(), ids=[plant.__name__ for plant in DEFECTS])
def test_a_planted_defect_is_caught(plant: Plant, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    seeds = [first, *(seed for seed in range(SEEDS_MAX) if seed != first)]
    caught = next((seed for seed in seeds if run(seed, stop_early=True).violations), None)
    print(f"caught by seed {caught}")
    assert caught is not None
