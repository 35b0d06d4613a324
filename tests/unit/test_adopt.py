"""What an engine's listing changes in a pod's record, where the two were not made at the same moment."""

from __future__ import annotations

import pytest

from nodeagent.adopt import merge
from nodeagent.records import ContainerRecord, Ended, PodRecord
from nodeagent.runtime import LABEL_ATTEMPT, LABEL_CONTAINER, ContainerInfo, PodInfo, Process

GONE = Process(20, 1)


@pytest.mark.parametrize(("alive", "strays"), [(False, []), (True, ["main-0"])])
def test_a_container_that_ended_while_the_listing_was_made_keeps_its_exit_code(alive: bool, strays: list[str]) -> None:
    """The listing says that it runs, the record that it has ended: removed now, nobody could ask how. Unless it does run."""
    ended = ContainerRecord("main", attempt=0, id="main-0", sandbox=1, ended=Ended(0, "main-0", 5.0, known=False))
    record = PodRecord(
        "uid-1", "default", "web", "h1", "c", "b", 1.0, 1.0, sandbox_id="s", sandbox_count=1, containers=(ended,)
    )
    listed = ContainerInfo(
        id="main-0",
        name="main",
        labels={LABEL_CONTAINER: "main", LABEL_ATTEMPT: "0"},
        pod_id="s",
        state="running",
        process=GONE,
    )
    seen = merge(
        record,
        PodInfo(id="s", name="web", labels={}),
        [listed],
        skip=frozenset({""}),
        is_alive=lambda process: alive,
        now_s=6.0,
        wall_s=6.0,
    )
    assert [stray.id for stray in seen.strays] == strays
    assert seen.record == record


@pytest.mark.parametrize("state", ["created", "initialized", "external"])
@pytest.mark.parametrize("written", [True, False])
def test_a_container_that_was_made_and_never_started_is_no_attempt(state: str, written: bool) -> None:
    """Podman's service was killed between the two: a Job's pod must not have failed by it."""
    about_to = (ContainerRecord("main", attempt=0, id="main-0", sandbox=1),) if written else ()
    record = PodRecord(
        "uid-1", "default", "web", "h1", "c", "b", 1.0, 1.0, sandbox_id="s", sandbox_count=1, containers=about_to
    )
    listed = ContainerInfo(
        id="main-0", name="main", labels={LABEL_CONTAINER: "main", LABEL_ATTEMPT: "0"}, pod_id="s", state=state
    )
    seen = merge(
        record,
        PodInfo(id="s", name="web", labels={}),
        [listed],
        skip=frozenset({""}),
        is_alive=lambda process: False,
        now_s=6.0,
        wall_s=6.0,
    )
    assert [stray.id for stray in seen.strays] == ["main-0"]
    mine = seen.record.container("main")
    assert (mine.attempt, mine.id, mine.ended) == (-1, "", None)


@pytest.mark.parametrize(("alive", "process"), [(True, GONE), (False, None)])
def test_a_paused_sandbox_stands(alive: bool, process: Process | None) -> None:
    """`podman pod pause` is no reason to end its containers."""
    record = PodRecord("uid-1", "default", "web", "h1", "c", "b", 1.0, 1.0, sandbox_id="s", sandbox_process=GONE)
    infra = ContainerInfo(id="infra", name="infra", labels={}, pod_id="s", state="paused", is_infra=True)
    seen = merge(
        record,
        PodInfo(id="s", name="web", labels={}, infra_id="infra"),
        [infra],
        skip=frozenset(),
        is_alive=lambda process: alive,
        now_s=6.0,
        wall_s=6.0,
    )
    assert seen.record.sandbox_process == process
