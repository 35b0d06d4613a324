"""The store's history: who did what, what happened, and how much of both is kept. Real SQLite files."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.act.actor import actor
from controller.act.store import ACCEPTED, Actor, Bounds, Event, Store
from controller.model.errors import StoreError
from controller.model.plan import Change
from tests import builders
from tests.shell import Shell
from tests.unit.test_loop import Body, Run, play  # noqa: F401 - a fixture

ADA = Actor("root", "ada", "ops1", "apply")
DAY_S = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now_s = builders.START_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., Store]]:
    """Opens the test's store; every connection is closed at the end."""
    stores: list[Store] = []

    def open_(bounds: Bounds | None = None, who: Actor = ADA) -> Store:
        stores.append(Store(tmp_path / "store.db", create=True, actor=who, bounds=bounds or Bounds(), clock=clock))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


def event(number: int, wall_s: float = 100.0) -> Event:
    return Event(wall_s, "BackOff", f"event {number}", "Pod", "default", "web-1", "n1", True)


# ---- operations -----------------------------------------------------------------------------------------------------


def test_a_users_verb_is_recorded_with_who_and_what_in_the_same_transaction(opened: Callable[..., Store]) -> None:
    store = opened()
    store.edit([builders.deployment("web"), builders.namespace("staging")], because=["declared by web.yaml:1"])
    (row,) = store.operations()
    assert (row.actor, row.verb, row.outcome) == (ADA, "apply", "done")
    assert row.objects == ("Deployment default/web", "Namespace staging")
    assert (row.wall_s, row.because) == (builders.START_S, "declared by web.yaml:1")


def test_what_was_refused_has_no_row(opened: Callable[..., Store]) -> None:
    store = opened()
    stale = replace(builders.deployment("web"), meta=replace(builders.deployment("web").meta, version=7))
    with pytest.raises(StoreError):
        store.edit([stale])
    assert store.operations() == []


def test_each_order_is_recorded_with_its_epoch_serial_and_reason(opened: Callable[..., Store]) -> None:
    store = opened()
    pod = replace(builders.bare_pod("web-1"), node="n1")
    changes = [
        Change("create", builders.node("n1"), "n1 is new"),
        Change("create", builders.node("n2"), "n2 is new"),
        Change("bind", pod, "web-1 goes to n1"),
    ]
    done = store.commit(changes, new_serials=["n1", "n2"])
    first, second = store.operations()
    assert (first.verb, first.node, first.epoch, first.serial) == ("order", "n1", done.epoch.number, 1)
    assert (first.objects, first.because, first.outcome) == (("Pod default/web-1",), "web-1 goes to n1", "")
    assert (second.node, second.serial, second.objects) == ("n2", 2, ()) and "the same pods" in second.because


def test_what_an_agent_answered_is_put_in_and_an_equal_answer_changes_nothing(opened: Callable[..., Store]) -> None:
    store, other = opened(), opened()
    store.commit([Change("create", builders.node("n1"), "")], new_serials=["n1"])
    store.answered({1: "refused: old-epoch\x1b[31m"})
    assert other.operations(serial=1)[0].outcome == "refused: old-epoch"
    store.answered({1: ACCEPTED})
    assert other.operations(serial=1)[0].outcome == ACCEPTED


def test_what_is_no_transaction_is_recorded_before_it_begins_and_then_how_it_ended(
    opened: Callable[..., Store],
) -> None:
    store, other = opened(), opened()
    with store.noted("exec", ["Pod default/web-1"], node="n1"):
        assert [(row.verb, row.outcome) for row in other.operations()] == [("exec", "")]
    assert other.operations()[0].outcome == "done"
    with store.noted("exec", ["Pod default/web-1"], node="n1") as noted:
        noted.outcome = "exit code 7"
    assert other.operations()[-1].outcome == "exit code 7"
    with pytest.raises(ValueError, match="boom"), store.noted("exec", ["Pod default/web-1"], node="n1"):
        raise ValueError("boom")
    with pytest.raises(KeyboardInterrupt), store.noted("exec", ["Pod default/web-1"], node="n1"):
        raise KeyboardInterrupt
    assert [row.outcome for row in other.operations()] == ["done", "exit code 7", "failed: boom", "interrupted"]


def test_operations_are_found_by_object_node_user_and_serial(opened: Callable[..., Store]) -> None:
    store = opened()
    store.edit([builders.deployment("web")])
    store.commit([Change("create", builders.node("n1"), "")], new_serials=["n1"])
    assert [row.verb for row in store.operations(text="Deployment default/web")] == ["apply"]
    assert store.operations(text="Deployment default/we") == []
    assert [row.verb for row in store.operations(node="n1")] == ["order"]
    assert [row.verb for row in store.operations(serial=1)] == ["order"]
    assert len(store.operations(user="ada")) == len(store.operations(user="root")) == 2
    assert store.operations(user="eve") == []
    assert [row.verb for row in store.operations(limit=1)] == ["order"]


def test_of_many_objects_some_are_named_and_the_rest_is_counted(opened: Callable[..., Store]) -> None:
    store = opened()
    store.edit([builders.namespace(f"n{number}") for number in range(60)])
    (row,) = store.operations()
    assert len(row.objects) == 51 and row.objects[-1] == "and 10 more"


def test_who_is_whom_the_operating_system_and_sudo_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada\x1b]0;x\x07")
    found = actor("apply")
    assert (found.sudo_user, found.machine, found.command) == ("ada", os.uname().nodename, "apply")
    assert found.user == "root"


def test_values_of_secrets_are_in_no_row(opened: Callable[..., Store]) -> None:
    store = opened()
    store.edit([builders.secret("keys", "digest")], secrets={"default/keys": ("digest", b"sealed-canary")})
    assert "canary" not in repr(store.operations())


# ---- bounds (FAULTS A15) ----------------------------------------------------------------------------------------------


def test_events_and_operations_go_when_they_are_too_old(opened: Callable[..., Store], clock: Clock) -> None:
    store = opened(Bounds(events_age_s=DAY_S, operations_age_s=2 * DAY_S))
    store.edit([builders.namespace("a")], events=[event(1)])
    clock.now_s += 1.5 * DAY_S
    store.edit([builders.namespace("b")], events=[event(2)])
    assert [one.message for one in store.events()] == ["event 2"]
    clock.now_s += DAY_S
    store.edit([builders.namespace("c")])
    assert [row.objects for row in store.operations()] == [("Namespace b",), ("Namespace c",)]
    assert store.size().kept.events_dropped == 0  # they had their time


def test_a_hosts_clock_decides_nothing_about_what_is_kept(opened: Callable[..., Store]) -> None:
    store = opened(Bounds(events_age_s=DAY_S))
    store.edit(events=[event(1)])
    store.edit(events=[event(2, wall_s=1e12), event(3, wall_s=-1e12)])
    assert {one.message for one in store.events()} == {"event 1", "event 2", "event 3"}


def test_what_happens_again_and_again_is_the_last_to_go(opened: Callable[..., Store], clock: Clock) -> None:
    """Its row is old, its last time is not."""
    store = opened(Bounds(events=3))
    for number in range(10):
        clock.now_s += 1
        store.edit(events=[event(0, wall_s=clock.now_s), event(number + 1, wall_s=clock.now_s)])
    assert [(one.message, one.count) for one in store.events()] == [("event 9", 1), ("event 0", 10), ("event 10", 1)]
    assert store.size().kept.events_dropped == 8


def test_of_too_many_operations_the_first_written_go_also_when_the_clock_was_set_back(
    opened: Callable[..., Store], clock: Clock
) -> None:
    store = opened(Bounds(operations=2))
    for name in ("a", "b"):
        store.edit([builders.namespace(name)])
    clock.now_s -= DAY_S
    with store.noted("exec", ["Pod default/web-1"]):
        pass
    assert [(row.verb, row.outcome) for row in store.operations()] == [("apply", "done"), ("exec", "done")]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_never_more_rows_than_the_bounds_and_what_was_dropped_is_counted(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int]
) -> None:
    store = Store(tmp_path_factory.mktemp("store") / "store.db", create=True, bounds=Bounds(events=10, operations=3))
    told = 0
    for size in batches:
        store.edit([builders.namespace(f"n{told}")], events=[event(told + one) for one in range(size)])
        told += size
        kept = store.size().kept
        assert kept.events == min(told, 10) and kept.events + kept.events_dropped == told
        assert kept.operations <= 3
    assert kept.operations + kept.operations_dropped == len(batches)
    store.close()


def test_the_store_gives_space_back_when_its_history_shrinks(opened: Callable[..., Store], clock: Clock) -> None:
    store = opened(Bounds(events_age_s=DAY_S))
    for batch in range(40):
        store.edit(
            events=[replace(event(batch * 100 + one), message=f"{batch} {one} " + "x" * 900) for one in range(100)]
        )
    grown = store.size().bytes
    clock.now_s += 2 * DAY_S
    for number in range(8):
        store.edit(events=[event(-number)])
    size = store.size()
    assert grown > 4_000_000 and size.bytes < grown / 2
    assert size.free_bytes < 2_000_000


# ---- each order of a real controller has its row --------------------------------------------------------------------


def test_every_wanted_set_that_an_agent_holds_is_one_row_of_the_record(play: Callable[[Body], None]) -> None:  # noqa: F811
    async def body(run: Run) -> None:
        run.world.apply("web", 4, "app:1")
        await run.converge()
        run.world.apply("web", 6, "app:2")
        await run.converge()
        orders = [row for row in run.store.operations(limit=10_000) if row.verb == "order"]
        assert sorted(row.serial for row in orders) == list(range(1, run.store.load().serial + 1))
        for name, host in run.world.hosts.items():
            if name in run.world.unlisted or host.agent is None:
                continue
            owner = host.agent.hello().owner
            assert owner is not None
            (row,) = run.store.operations(serial=owner.serial)
            assert (row.node, row.epoch, row.outcome) == (name, owner.epoch.number, ACCEPTED)
        before = run.store.operations(limit=10_000)
        await run.controller.one_pass()
        await asyncio.sleep(60)
        await run.controller.one_pass()
        assert run.store.operations(limit=10_000) == before  # a converged pass writes nothing

    play(body)


def test_an_order_that_did_not_arrive_says_so(play: Callable[[Body], None]) -> None:  # noqa: F811
    async def body(run: Run) -> None:
        await run.converge()
        host = next(iter(set(run.world.hosts) - run.world.unlisted))
        run.network.stall(host, b'"want"')
        run.world.apply("web", 8, "app:1")
        done = await run.controller.one_pass()
        assert done.pushed[host]
        assert run.store.operations(node=host)[-1].outcome == done.pushed[host]
        run.network.reset(host)
        await run.converge()
        assert run.store.operations(node=host)[-1].outcome == ACCEPTED

    play(body)


# ---- the command ------------------------------------------------------------------------------------------------------


def test_operations_are_shown_with_the_command_that_made_them(full: Shell) -> None:
    assert full("label", "deployment/web", "team=shop")[0] == 0
    code, out, _ = full("operations", "--for", "deployment/web")
    assert code == 0
    assert out.splitlines()[0].split() == ["AGE", "WHO", "COMMAND", "WHAT", "NODE", "EPOCH", "SERIAL", "OUTCOME"]
    assert "label" in out and "Deployment default/web" in out and "done" in out
    code, out, _ = full("operations", "-o", "json", "--limit", "1")
    (item,) = json.loads(out)["items"]
    assert (item["command"], item["verb"], item["objects"], item["outcome"]) == (
        "label",
        "label",
        ["Deployment default/web"],
        "done",
    )
    assert item["machine"] == os.uname().nodename


def test_no_operations_is_said(full: Shell) -> None:
    assert full("operations", "--node", "nowhere") == (0, "", "no operations\n")


def test_a_backup_with_the_key_is_recorded_as_such(full: Shell, tmp_path: Path) -> None:
    (full.context / "secrets.key").write_bytes(b"k" * 32)
    assert full("backup", str(tmp_path / "b.db"), "--with-key")[0] == 0
    _, out, _ = full("operations", "-o", "json", "--limit", "1")
    assert json.loads(out)["items"][0]["objects"] == [f"File {tmp_path / 'b.db'}", "the key of the secrets"]
