"""Metrics: what they say of a pass, that Prometheus' own parser reads them, who may ask for them, and the file for cron."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from controller.act.metrics_http import is_loopback, parse_address, serving
from controller.act.store import Kept, StoreSize
from controller.act.wholefile import write_whole
from controller.cli.measures import OUTCOMES, Totals, families, outcome_of
from controller.cli.metering import Meter
from controller.decide.reconcile import reconcile
from controller.loop import Pass
from controller.model.cluster import (
    AVAILABLE,
    PROGRESSING,
    DeploymentStatus,
    Missing,
    Sighting,
    StatusCondition,
    Unseen,
    World,
)
from controller.model.errors import SshoalError, StoreError, UsageError
from controller.model.metrics import Family, sample, samples_in, text_of
from controller.model.plan import changed
from controller.model.text import printable
from nodeagent.protocol import Condition, ContainerReport
from tests import builders

SIZE = StoreSize(1_000_000, 4096, 12_345, Kept(17, 3, 5, 0))
NOW = builders.moment(0)
Read = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Read:
    """As Prometheus' client library parses it: {(name, labels): value}."""
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def value(found: Read, name: str, /, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def a_pass(world: World, **fields: Any) -> Pass:
    plan = reconcile(world, NOW)
    return Pass(world, plan, changed(world, plan.changes), fields.pop("pushed", {}), took_s=0.2, **fields)


def measured(*passes: Pass, totals: Totals | None = None) -> Read:
    totals = totals or Totals()
    for done in passes:
        totals.add(done, NOW)
    return read(text_of(families(passes[-1], totals, SIZE, NOW, "0.1.0")))


def node_world(sightings: Mapping[str, Sighting], *things: Any) -> World:
    """Nodes as builders make them, each with its sighting."""
    nodes = [builders.node(name, number) for number, name in enumerate(sightings, 1)]
    return builders.world(*nodes, *things, sightings=sightings)


# ---- what they say ------------------------------------------------------------------------------------------------------


def test_nodes_are_told_with_state_agent_and_what_they_complain_of() -> None:
    seen = replace(
        builders.seen("n1"), version="a" * 64, conditions=(Condition("DiskPressure", "Full", "2 % are left"),)
    )
    found = measured(a_pass(node_world({"n1": seen})))
    assert value(found, "sshoal_node_state", node="n1", state="NotReady") == 1
    assert value(found, "sshoal_node_state", node="n1", state="Unknown") == 0
    assert value(found, "sshoal_node_last_seen_timestamp_seconds", node="n1") == NOW.wall_s
    assert value(found, "sshoal_node_condition", node="n1", condition="DiskPressure", reason="Full") == 1
    (info,) = [labels for name, labels in found if name == "sshoal_agent_info"]
    assert dict(info)["version"] == "a" * 12


def test_a_silent_node_keeps_the_time_when_it_was_last_seen_and_its_errors_are_counted_by_reason() -> None:
    totals = Totals()
    totals.add(a_pass(node_world({"n1": builders.seen("n1")})), NOW)
    later = replace(NOW, wall_s=NOW.wall_s + 60, boottime_s=NOW.boottime_s + 60)
    silent = a_pass(node_world({"n1": Unseen("auth", "permission denied")}))
    totals.add(silent, later)
    totals.add(silent, later)
    found = read(text_of(families(silent, totals, SIZE, later, "0.1.0")))
    assert value(found, "sshoal_node_last_seen_timestamp_seconds", node="n1") == NOW.wall_s
    assert value(found, "sshoal_host_errors_total", node="n1", reason="auth") == 2
    assert value(found, "sshoal_passes_total", outcome="hosts-missing") == 2


def test_of_a_node_that_was_silent_before_the_first_missed_poll_is_told() -> None:
    since = builders.moment(-300)
    world = node_world({"n1": Unseen("unreachable", "no route")})
    node = replace(world.nodes["n1"], missing=Missing(since, NOW, 5, "unreachable", "no route"))
    found = measured(a_pass(replace(world, nodes={"n1": node})))
    assert value(found, "sshoal_node_last_seen_timestamp_seconds", node="n1") == since.wall_s
    assert value(found, "sshoal_node_state", node="n1", state="Unknown") == 1


def test_pods_are_counted_by_phase_and_their_restarts_told() -> None:
    running = replace(builders.bare_pod("a"), node="n1")
    report = replace(builders.report(running), containers=(ContainerReport("main", "running", restarts=4),))
    waiting = builders.bare_pod("b", nodeSelector={"no": "such"})
    sighting = builders.seen("n1", [report])
    found = measured(a_pass(node_world({"n1": sighting}, running, waiting)))
    assert value(found, "sshoal_pods", namespace="default", phase="Running") == 1
    assert value(found, "sshoal_pods", namespace="default", phase="Pending") == 1
    assert value(found, "sshoal_pods_unplaced") == 1
    assert value(found, "sshoal_pod_restarts_total", namespace="default", pod="a", node="n1") == 4


def test_a_stuck_rollout_is_told() -> None:
    conditions = (
        StatusCondition(AVAILABLE, True, "", "", NOW),
        StatusCondition(PROGRESSING, False, "ProgressDeadlineExceeded", "", NOW),
    )
    status = DeploymentStatus(1, 3, 1, 2, 2, conditions)
    deployment = replace(builders.deployment("web", replicas=3), status=status)
    done = a_pass(node_world({"n1": builders.seen("n1")}))
    after = replace(done.after, deployments={deployment.meta.uid: deployment})
    found = measured(replace(done, after=after))
    labels = {"kind": "Deployment", "namespace": "default", "name": "web"}
    counts = [
        value(found, f"sshoal_workload_replicas_{what}", **labels)
        for what in ("desired", "ready", "available", "updated")
    ]
    assert counts == [3, 2, 2, 1]
    assert value(found, "sshoal_rollout_stuck", **labels) == 1


def test_sets_and_jobs_are_told() -> None:
    records = [builders.stateful_set("db"), builders.daemon_set("logs"), builders.job("pi"), builders.cron_job("tick")]
    done = a_pass(node_world({"n1": builders.seen("n1")}))
    after = replace(done.after, workloads={record.meta.uid: record for record in records})
    found = measured(replace(done, after=after))
    names = {dict(labels)["name"] for name, labels in found if name == "sshoal_workload_replicas_desired"}
    assert names == {"db", "logs"}
    assert value(found, "sshoal_job_pods", namespace="default", name="pi", state="failed") == 0
    assert value(found, "sshoal_job_failed", namespace="default", name="pi") == 0


def test_the_store_and_the_brake_are_told() -> None:
    silent = {f"n{number}": Unseen("unreachable", "no route") for number in (1, 2, 3)}
    found = measured(a_pass(node_world(silent)))
    assert value(found, "sshoal_store_bytes", part="file") == 1_000_000
    assert value(found, "sshoal_events") == 17
    assert value(found, "sshoal_events_dropped_total") == 3
    assert value(found, "sshoal_brake_on") == 1


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, "settled"),
        ({"behind": ("n1",)}, "behind"),
        ({"pushed": {"n1": "refused"}}, "push-failed"),
        ({"pushed": {"n1": ""}}, "settled"),
    ],
)
def test_a_pass_has_one_outcome_the_worst_first(fields: dict[str, Any], outcome: str) -> None:
    done = a_pass(node_world({}), **fields)
    assert outcome_of(done) == outcome and outcome in OUTCOMES


def test_durations_are_a_histogram() -> None:
    done = a_pass(node_world({}))
    found = measured(done, replace(done, took_s=3.0), replace(done, took_s=100.0))
    buckets = {dict(labels)["le"]: count for (name, labels), count in found.items() if name.endswith("seconds_bucket")}
    assert (buckets["0.1"], buckets["0.25"], buckets["5"], buckets["+Inf"]) == (0, 1, 2, 3)
    assert value(found, "sshoal_pass_duration_seconds_count") == 3
    assert value(found, "sshoal_pass_duration_seconds_sum") == pytest.approx(103.2)


def test_nothing_is_told_of_hosts_that_are_gone() -> None:
    totals = Totals()
    totals.add(a_pass(node_world({"old": Unseen("auth", "no")})), NOW)
    found = measured(a_pass(node_world({"n1": builders.seen("n1")})), totals=totals)
    assert not [labels for _, labels in found if ("node", "old") in labels]


# ---- the text -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False)), max_size=5, unique_by=lambda pair: pair[0]))
def test_whatever_a_label_says_prometheus_reads_one_sample_for_each(pairs: list[tuple[str, float]]) -> None:
    family = Family(
        "sshoal_x", "gauge", "Words \\ of\nhosts.", tuple(sample(number, node=text) for text, number in pairs)
    )
    samples = [one for found in text_string_to_metric_families(text_of([family])) for one in found.samples]
    first: dict[str, float] = {}
    for text, number in pairs:
        first.setdefault(printable(text, 200), number)
    assert {one.labels["node"]: one.value for one in samples} == first and len(samples) == len(first)


def test_what_a_host_says_twice_is_one_series() -> None:
    """Prometheus refuses a whole scrape for one series that comes twice."""
    twice = (Condition("Odd", "Reason", "a"), Condition("Odd", "Reason\x07", "b"))
    found = a_pass(node_world({"n1": replace(builders.seen("n1"), conditions=twice)}))
    text = text_of(families(found, Totals(), SIZE, NOW, "0.1.0"))
    assert text.count('sshoal_node_condition{node="n1",condition="Odd",reason="Reason"} 1') == 1


def test_escapes_of_terminals_do_not_get_into_labels() -> None:
    assert "\x1b" not in text_of([Family("sshoal_x", "gauge", "x", (sample(1, node="\x1b[2Jn1"),))])


@given(st.text(alphabet=st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20), st.integers(0, 10**9))
def test_what_was_written_is_read_again(label: str, number: int) -> None:
    text = text_of([Family("sshoal_x", "counter", "x", (sample(number, node=label), sample(math.inf)))])
    assert list(samples_in(text)) == [("sshoal_x", {"node": label}, number), ("sshoal_x", {}, math.inf)]


# ---- totals over processes ----------------------------------------------------------------------------------------------


def test_totals_go_on_from_the_text_of_the_run_before() -> None:
    world = node_world({"n1": Unseen("auth", "no"), "n2": builders.seen("n2")})
    totals = Totals()
    for _ in range(3):
        done = a_pass(world)
        totals.add(done, NOW)
        totals = Totals.read(text_of(families(done, totals, SIZE, NOW, "0.1.0")))
    totals.add_failure()
    found = read(text_of(totals.families()))
    assert value(found, "sshoal_passes_total", outcome="hosts-missing") == 3
    assert value(found, "sshoal_passes_total", outcome="failed") == 1
    assert value(found, "sshoal_host_errors_total", node="n1", reason="auth") == 3
    assert value(found, "sshoal_pass_duration_seconds_count") == 3
    assert value(found, "sshoal_pass_duration_seconds_bucket", le="0.25") == 3
    assert totals.seen["n2"].wall_s == NOW.wall_s


@given(st.text())
def test_a_damaged_file_is_no_reason_to_fail(text: str) -> None:
    Totals.read(text)
    Totals.read(f'sshoal_passes_total{{{text}}} 1\nsshoal_passes_total{{outcome="settled"}} e\n')


# ---- the file -----------------------------------------------------------------------------------------------------------


def test_a_file_appears_whole_with_its_mode_and_nothing_is_left_when_it_cannot(tmp_path: Path) -> None:
    path = tmp_path / "sshoal.prom"
    write_whole(path, "one\n", mode=0o644)
    write_whole(path, "two\n", mode=0o644)
    assert path.read_text() == "two\n" and path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800", mode=0o644)
    assert path.read_text() == "two\n"
    assert [one.name for one in tmp_path.iterdir()] == ["sshoal.prom"]


@pytest.mark.parametrize(("path", "words"), [("nowhere/x.prom", "no directory"), ("x.txt", "end with .prom")])
def test_a_path_where_no_file_of_metrics_can_be_is_refused(path: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        Meter.of_file(None, str(tmp_path / path))  # type: ignore[arg-type]


# ---- the endpoint -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("9464", ("127.0.0.1", 9464)), ("[::1]:0", ("::1", 0)), ("0.0.0.0:80", ("0.0.0.0", 80))],
)  # fmt: skip
def test_addresses_to_listen_on(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert is_loopback(address[0]) is (address[0] != "0.0.0.0")


@pytest.mark.parametrize("text", ["", "localhost:9464", ":9464", "127.0.0.1:99999", "127.0.0.1:x", "127.0.0.1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no address to listen on"):
        parse_address(text)


def ask(requests: Iterable[bytes], text: Callable[[], str] = lambda: "sshoal_up 1\n") -> list[bytes]:
    """What a real server on loopback answers to each request, on a connection of its own."""

    async def main() -> list[bytes]:
        async with serving("127.0.0.1", 0, text) as port:

            async def one(request: bytes) -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                answer = b""
                with contextlib.suppress(ConnectionError):  # one that is cut may be reset
                    answer = await reader.read()
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
                return answer

            return [await one(request) for request in requests]

    return asyncio.run(main())


def test_metrics_are_read_and_nothing_else_is_there() -> None:
    got, head, query, elsewhere, post, nonsense = ask(
        [
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HEAD /metrics HTTP/1.1\r\n\r\n",
            b"GET /metrics?a=b HTTP/1.0\r\n\r\n",
            b"GET /etc/passwd HTTP/1.1\r\n\r\n",
            b"POST /metrics HTTP/1.1\r\n\r\n",
            b"hello\r\n\r\n",
        ]
    )
    assert got.startswith(b"HTTP/1.1 200 OK\r\n") and got.endswith(b"\r\n\r\nsshoal_up 1\n")
    assert b"Content-Type: text/plain; version=0.0.4" in got
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and head.endswith(b"\r\n\r\n")
    assert query.endswith(b"sshoal_up 1\n")
    assert [answer.split(b" ")[1] for answer in (elsewhere, post, nonsense)] == [b"404", b"405", b"400"]


def test_a_request_without_end_is_cut() -> None:
    assert ask([b"GET /metrics HTTP/1.1\r\n" + b"x" * 100_000]) == [b""]


def test_more_connections_than_the_bound_are_closed_and_those_that_end_make_room() -> None:
    async def main() -> None:
        async with serving("127.0.0.1", 0, lambda: "sshoal_up 1\n") as port:

            async def is_served() -> bool:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
                    return (await reader.read()).endswith(b"sshoal_up 1\n")
                except ConnectionError:
                    return False
                finally:
                    writer.close()

            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
            while await is_served():
                pass  # until the server has taken them in
            for _, writer in idle:
                writer.close()
            while not await is_served():
                pass

    asyncio.run(main())


SCRAPE = b"GET /metrics HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("times", [1, 40])
def test_what_keeps_metrics_from_being_read_is_the_answer_for_as_long_as_it_does(times: int) -> None:
    faults = iter(range(times))

    def text() -> str:
        if next(faults, None) is not None:
            raise StoreError("the store is locked by another process")
        return "sshoal_up 1\n"

    *failing, working = ask([SCRAPE] * (times + 1), text)
    for answer in failing:
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert answer.endswith(b"\r\n\r\nthe store is locked by another process\n")
    assert working.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_bug_in_what_is_asked_for_costs_no_place() -> None:
    """There are sixteen."""
    faults = iter(range(20))

    def text() -> str:
        if next(faults, None) is not None:
            raise ZeroDivisionError
        return "sshoal_up 1\n"

    answers = ask([SCRAPE] * 21, text)
    # Python below 3.12 tells of such tasks when they are collected, and parses sources for that: a parser interrupted by it fails.
    gc.collect()
    assert answers[-1].startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_server_ends_though_somebody_still_listens(capfd: pytest.CaptureFixture[str]) -> None:
    async def main() -> bytes:
        async with serving("127.0.0.1", 0, lambda: "sshoal_up 1\n") as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metrics")
            await writer.drain()
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    assert asyncio.run(main(), debug=True) == b""
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken_is_told() -> None:
    async def main() -> None:
        async with serving("127.0.0.1", 0, str) as port, serving("127.0.0.1", port, str):
            pass

    with pytest.raises(SshoalError, match="cannot be served on"):
        asyncio.run(main())
