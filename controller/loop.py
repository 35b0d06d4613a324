"""The loop: one_pass (observe, decide, record, push), settle (passes until the declared state is reached), watch (passes for ever).

Station by station as in docs/architecture.md. Everything it touches comes in from outside (store, fleet, clock, inventory), so that this
very code runs in the seeded simulation. It holds no state that a crash could lose.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from controller.act.bell import Bell
from controller.act.fleet import Fleet
from controller.act.secrets import Sealer
from controller.act.store import ACCEPTED, Event, Records, Store
from controller.decide.reconcile import reconcile
from controller.decide.rollback import GIVEN_UP
from controller.model.cluster import (
    Answer,
    AskKey,
    Cluster,
    Deployment,
    HostEntry,
    Moment,
    Node,
    Seen,
    Settings,
    Sighting,
    Unseen,
    World,
)
from controller.model.errors import HostError, InventoryError, SshoalError, StoreConflict, StoreError
from controller.model.inventory import Host, Inventory
from controller.model.plan import Ask, Change, Plan, Wanted, changed
from controller.model.remembered import entry_of, is_remembered, remembered_host
from nodeagent.protocol import AgentEvent, Epoch, ResolveRequest, SecretValue, WantedSet

_CONFLICTS_MAX = 5
_COALESCE_S = 0.02  # agents tell of several changes at about the same time; one pass serves them all
_COALESCE_FACTOR, _COALESCE_MAX_S = 3.0, 0.5  # a busy loop rests three times as long as it decided, at most so long
_STORE_LOOK_S = 1.0  # how soon a waiting loop notices that a user changed something when the bell was not heard


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass saw and did."""

    world: World  # as it was observed
    plan: Plan
    after: World  # with the plan's changes
    pushed: Mapping[str, str]  # node -> "" or what went wrong
    behind: tuple[str, ...] = ()  # agents that are ahead of this store: nothing was done
    took_s: float = 0.0

    @property
    def settled(self) -> bool:
        return self.plan.settled and not self.behind and not any(self.pushed.values())

    @property
    def unseen(self) -> dict[str, Unseen]:
        """Hosts that gave no report, and why."""
        return {name: sighting for name, sighting in self.world.sightings.items() if isinstance(sighting, Unseen)}

    @property
    def quarantined(self) -> tuple[str, ...]:
        """Hosts that no command may go to, though they may answer."""
        return tuple(name for name, view in self.plan.nodes.items() if view.state == "Quarantined")


Watcher = Callable[[Pass], None]


class Controller:
    """One controller of one cluster. The caller holds the pass lock."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        sealer: Sealer,
        inventory: Callable[[], Inventory],
        clock: Callable[[], Moment],
        settings: Settings,
        bell: Bell | None = None,
    ) -> None:
        self._store = store
        self._bell = bell or Bell(None)
        self._fleet = fleet
        self._sealer = sealer
        self._inventory = inventory
        self._clock = clock
        self._settings = settings
        self._entries: dict[str, tuple[Host, HostEntry]] = {}
        self._deciding_s = 0.0  # how long the last decision took
        self._decided_on = -1  # which state of the store: what users change during a pass is not waited over

    async def one_pass(self) -> Pass:
        """Observe all until the per-host deadline, decide, record the intent, push once. Waits for no effects.

        Raises: StoreError, InventoryError, AnotherController, PlanBug. What is wrong with a host is in the result.
        """
        clock_s = asyncio.get_running_loop().time
        began_s = clock_s()
        done = await self._one_pass()
        return replace(done, took_s=clock_s() - began_s)

    async def _one_pass(self) -> Pass:
        records = self._store.load()
        hosts = self._hosts(records)
        sightings = await self._observe(hosts, usage=_needs_usage(records))
        answers: dict[AskKey, Answer] = {}
        for _ in range(_CONFLICTS_MAX - 1):
            try:
                return await self._decide_and_push(hosts, sightings, answers)
            except StoreConflict:
                continue  # a user changed something meanwhile: decide again on the same sightings
        return await self._decide_and_push(hosts, sightings, answers)

    async def preview(self, changes: Sequence[Change] = (), *, usage: bool = False) -> Pass:
        """What a pass would do after `changes`. Observes; writes and pushes nothing, and needs no lock.

        Args:
            usage: ask also what pods use.
        """
        records = self._store.load()
        hosts = self._hosts(records)
        sightings = await self._observe(hosts, usage=usage or _needs_usage(records))
        records = self._store.load()  # never older than what was seen: another controller may be giving orders
        world = changed(self._world(records, hosts, sightings, self._store.epoch()), changes)
        plan = reconcile(world, self._clock())
        return Pass(world, plan, changed(world, plan.changes), {}, _ahead_of(world, records, self._store.epoch()))

    async def settle(
        self,
        budget_s: float,
        watcher: Watcher = lambda _: None,
        until: Callable[[Pass], bool] = lambda done: done.settled or bool(done.behind),
        poll_s: float = 2.0,
    ) -> Pass:
        """Passes until the declared state is reached (or `until` says so) or the budget is spent; the last pass tells which.

        A store that is behind its hosts ends it as well: no pass will do anything until a person decides.
        """
        loop = asyncio.get_running_loop()
        end_s = loop.time() + budget_s
        while True:
            try:
                done = await self.one_pass()
            except StoreConflict:  # users were quicker each time: that ends no command that waits
                if loop.time() >= end_s:
                    raise
                await asyncio.sleep(_COALESCE_MAX_S)
                continue
            watcher(done)
            remaining_s = end_s - loop.time()
            if until(done) or remaining_s <= 0:
                return done
            await self._wait(done, min(remaining_s, poll_s))

    async def watch(
        self, watcher: Watcher = lambda _: None, failed: Callable[[SshoalError], None] = lambda _: None
    ) -> None:
        """Passes every period, and at once when an agent, a user or time itself changes something. Ends by cancellation.

        What makes a later pass fail may pass as well (a full disk, an inventory that is half saved): it is told to `failed` and tried
        again after a period. What fails the first pass is raised, and so is AnotherController always: that one does not pass.
        """
        began = False
        while True:
            try:
                done = await self.one_pass()
                began = True
                watcher(done)
                await self._wait(done, self._settings.period_s)
            except (StoreError, InventoryError) as error:
                if not began:
                    raise
                failed(error)
                await asyncio.sleep(self._settings.period_s)

    # ---- one pass ----

    async def _observe(self, hosts: Mapping[str, Host], *, usage: bool) -> dict[str, Sighting]:
        silent = [name for name, node in self._store.load().nodes.items() if node.missing is not None]
        sightings = await self._fleet.observe(hosts, self._store.cursors(), silent)
        used = await self._fleet.usages() if usage else {}
        return {
            name: replace(sighting, usage=used[name]) if isinstance(sighting, Seen) and name in used else sighting
            for name, sighting in sightings.items()
        }

    def _hosts(self, records: Records) -> dict[str, Host]:
        """The inventory's nodes, reread, plus orphaned nodes at the address they were last known by."""
        hosts = self._inventory().nodes
        for name, node in records.nodes.items():
            if name not in hosts:
                hosts[name] = remembered_host(node)
        return hosts

    async def _decide_and_push(
        self, hosts: Mapping[str, Host], sightings: Mapping[str, Sighting], answers: dict[AskKey, Answer]
    ) -> Pass:
        """`answers`: what registries were asked in this pass; it grows."""
        clock_s = asyncio.get_running_loop().time
        began_s = clock_s()
        records = self._store.load()
        self._decided_on = self._store.loaded_version
        epoch = self._store.epoch()
        world = self._world(records, hosts, sightings, epoch)
        behind = _ahead_of(world, records, epoch)
        plan = reconcile(replace(world, answers=answers), self._clock())
        if behind:
            return Pass(world, plan, world, {}, behind)
        if plan.asks:  # seldom: once per revision whose image has to be pulled
            answers |= await self._ask_registries(plan.asks)
            plan = reconcile(replace(world, answers=answers), self._clock())
        events = self._events(world, plan)
        moved = [
            name
            for name, wanted in plan.wanted.items()
            if name not in records.nodes or records.nodes[name].digest != wanted.digest
        ]
        due = [
            name for name in plan.wanted if name in moved or not _has(world.sightings[name], records.nodes.get(name))
        ]
        pushed: Mapping[str, str] = {}
        serials = {name: node.serial for name, node in records.nodes.items()}
        if plan.changes or events:
            cursors = {name: seen.cursor for name, seen in _seen(world).items() if seen.events}
            serials |= self._store.commit(plan.changes, new_serials=moved, events=events, cursors=cursors).serials
        self._deciding_s = clock_s() - began_s
        if due:
            pushed = await self._push(plan, {name: serials[name] for name in due})
        await self._keep_last_words(hosts, world, plan)
        return Pass(world, plan, changed(world, plan.changes), pushed)

    async def _ask_registries(self, asks: Sequence[Ask]) -> dict[AskKey, Answer]:
        """All at once, each through one node that is to run the image, or else the next. No answer is an answer too."""

        async def ask_one(ask: Ask) -> Answer:
            why = ""
            sealed = self._store.sealed_secrets(ask.secrets)
            try:
                secrets = [self._sealer.unseal(name, digest, data) for name, (digest, data) in sealed.items()]
            except StoreError as error:
                return Answer("", error.message)
            for node in ask.nodes:
                try:
                    return Answer(await self._fleet.resolve(node, ResolveRequest(ask.image, tuple(secrets))))
                except HostError as error:
                    why = f"asked from {node}: {error.problem}"
            return Answer("", why)

        found = await asyncio.gather(*map(ask_one, asks))
        return {(ask.image, ask.secrets): answer for ask, answer in zip(asks, found, strict=True)}

    async def _keep_last_words(self, hosts: Mapping[str, Host], world: World, plan: Plan) -> None:
        """A revision that was just given up still has its pods: the next pass stops them, and then their logs are gone."""
        given_up = [change.record for change in plan.changes if change.reason == GIVEN_UP]
        if not given_up:
            return
        from controller.act.lastwords import last_words  # seldom needed

        deployments = [record for record in given_up if isinstance(record, Deployment)]
        events = await last_words(self._fleet, hosts, world, deployments, self._clock().wall_s)
        if events:
            self._store.edit(events=events)

    def _world(
        self, records: Records, hosts: Mapping[str, Host], sightings: Mapping[str, Sighting], epoch: Epoch
    ) -> World:
        cluster = Cluster(self._store.cluster_id, self._settings)
        entries = {name: self._entry(host) for name, host in hosts.items() if not is_remembered(host)}
        seen = {name: _ours_only(name, sighting, cluster.id, epoch) for name, sighting in sightings.items()}
        return records.world(cluster, entries, seen)

    def _entry(self, host: Host) -> HostEntry:
        """Read once for each host that the inventory gives: typing its variables costs more than all else of a calm pass."""
        known = self._entries.get(host.name)
        if known is None or known[0] is not host:
            known = self._entries[host.name] = (host, entry_of(host))
        return known[1]

    async def _push(self, plan: Plan, serials: Mapping[str, int]) -> dict[str, str]:
        """One push round, all nodes at once. A failure is told and left to the next pass.

        Args:
            serials: by node, of the records that the plan was made on: a set that another controller recorded since has another digest.
        """
        epoch = self._store.take_epoch()

        async def push_one(name: str) -> str:
            wanted = plan.wanted[name]
            try:
                await self._fleet.push(
                    name, self._wanted_set(wanted, serials[name], epoch), self._secret_values(wanted)
                )
            except HostError as error:
                return error.problem
            except (
                StoreError
            ) as error:  # a secret that cannot be read: who waits for it is told of, the others get their orders
                return error.message
            return ""

        pushed = dict(zip(serials, await asyncio.gather(*map(push_one, serials)), strict=True))
        # What was ordered is recorded; a full disk must not end the pass for the answer
        with contextlib.suppress(StoreError):
            self._store.answered({serials[name]: problem or ACCEPTED for name, problem in pushed.items()})
        return pushed

    def _wanted_set(self, wanted: Wanted, serial: int, epoch: Epoch) -> WantedSet:
        return WantedSet(
            self._store.cluster_id,
            epoch,
            serial,
            wanted.digest,
            wanted.node,
            wanted.pods,
            dict(wanted.configs),
            dict(wanted.secrets),
            volumes=wanted.volumes,
        )

    def _secret_values(self, wanted: Wanted) -> Callable[[tuple[str, ...]], dict[str, SecretValue]]:
        """Only secrets that this node's set names: a host can't ask for others'."""

        def values(names: tuple[str, ...]) -> dict[str, SecretValue]:
            sealed = self._store.sealed_secrets(name for name in names if name in wanted.secrets)
            return {name: self._sealer.unseal(name, digest, data) for name, (digest, data) in sealed.items()}

        return values

    def _events(self, world: World, plan: Plan) -> list[Event]:
        wall_s = self._clock().wall_s
        events = [_event_of(change, wall_s) for change in plan.changes if not change.quiet and change.reason]
        at = (
            {f"{pod.meta.namespace}/{pod.meta.name}": pod.node for pod in world.pods.values()}
            if any(seen.events for seen in _seen(world).values())
            else {}
        )
        for name, seen in _seen(world).items():
            events += [_told(name, told, at) for told in seen.events]
        return events

    # ---- between passes ----

    async def _wait(self, done: Pass, timeout_s: float) -> None:
        """Until news from an agent, a change of the store, the time the plan named, or `timeout_s`."""
        if done.plan.wake_s is not None:
            timeout_s = min(timeout_s, max(done.plan.wake_s, _COALESCE_S))
        news = asyncio.ensure_future(self._fleet.changed(timeout_s))
        rung = asyncio.ensure_future(self._bell.rung.wait())
        try:
            while not news.done() and not rung.done() and self._store.data_version() == self._decided_on:
                await asyncio.wait([news, rung], timeout=_STORE_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
            rung.cancel()
            self._bell.rung.clear()
        await asyncio.sleep(max(_COALESCE_S, min(_COALESCE_FACTOR * self._deciding_s, _COALESCE_MAX_S)))


# ---- pure helpers ---------------------------------------------------------------------------------------------------------


def _needs_usage(records: Records) -> bool:
    return any(item.meta.kind == "HorizontalPodAutoscaler" for item in records.policies.values())


def _ours_only(name: str, sighting: Sighting, cluster: str, epoch: Epoch) -> Sighting:
    """An agent that obeys another cluster, or another controller of the same epoch number, is observed by its refusal only."""
    if isinstance(sighting, Unseen) or sighting.owner is None:
        return sighting
    owner = sighting.owner
    if owner.cluster != cluster:
        return Unseen(
            "refused", f"its agent belongs to cluster {owner.cluster}; to make it ours: sshoal node takeover {name}"
        )
    if owner.epoch.number == epoch.number and owner.epoch.id != epoch.id:
        return Unseen("refused", f"two controllers hold epoch {epoch.number}: this store was copied")
    return sighting


def _ahead_of(world: World, records: Records, epoch: Epoch) -> tuple[str, ...]:
    """Nodes whose agents have accepted more than this store has ever said: it was restored from a backup."""
    return tuple(
        name
        for name, seen in _seen(world).items()
        if seen.owner is not None
        and (
            seen.owner.serial > records.serial
            or seen.owner.epoch.number > epoch.number
            or _was_told_more(seen, records.nodes.get(name))
        )
    )


def _was_told_more(seen: Seen, node: Node | None) -> bool:
    """Whether an agent holds a later order than its node was ever given. Others' may have taken the store's counter past it since."""
    if seen.owner is None or node is None or not node.digest or node.agent != seen.agent:
        return False
    return seen.owner.serial > node.serial


def _has(sighting: Sighting, node: Node | None) -> bool:
    """Whether the agent said that it holds the node's wanted set, and all secrets for it."""
    if isinstance(sighting, Unseen) or sighting.owner is None or node is None:
        return False
    return (sighting.owner.serial, sighting.owner.digest) == (node.serial, node.digest) and not sighting.missing_secrets


def _seen(world: World) -> dict[str, Seen]:
    return {name: sighting for name, sighting in world.sightings.items() if isinstance(sighting, Seen)}


def _told(node: str, told: AgentEvent, at: Mapping[str, str]) -> Event:
    """An agent's event as ours. A host speaks of its own pods only: what it says of another node's is an event of that host itself.

    `at`: the node of each pod, by "namespace/name"; pods whose records are gone already are in nobody's way.
    """
    namespace, _, pod = told.pod.partition("/")
    warning = told.type == "Warning"
    if not pod or at.get(told.pod, node) != node:
        return Event(told.wall_s, told.reason, told.message, "Node", "", node, node, warning)
    return Event(told.wall_s, told.reason, told.message, "Pod", namespace, pod, node, warning)


def _event_of(change: Change, wall_s: float) -> Event:
    meta = change.record.meta
    node = getattr(change.record, "node", "")
    return Event(wall_s, change.reason, change.because, meta.kind, meta.namespace, meta.name, node, change.warning)
