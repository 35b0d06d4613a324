"""Parts of the agent by themselves: the ledger that readers follow, images and their credentials, the probes' schedule."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.events import EVENTS_MAX, GONE_MAX, Ledger
from nodeagent.images import Images, PullTrouble, credentials, registry_of
from nodeagent.probing import Probing
from nodeagent.protocol import Cursor, Handler, PodReport, Probe, SecretValue
from nodeagent.runtime import ProbeOutcome, RegistryAuth
from tests.fakes.podman import Behaviour, FakePodman, Faults
from tests.simloop import simulate
from tests.unit.agentworld import WorldClock, container

HTTP = Handler(kind="http", port=80)


def a_report(uid: str, phase: str = "Running") -> PodReport:
    return PodReport(uid=uid, namespace="default", name=uid, hash="h", phase=phase)


# ---- ledger ---------------------------------------------------------------------------------------------------------------


_CHANGES = st.lists(st.tuples(st.sampled_from(["pod", "gone", "read"]), st.sampled_from("abc"), st.integers(0, 3)))


@given(_CHANGES)
def test_a_reader_that_follows_the_changes_always_has_the_whole_picture(changes: list[tuple[str, str, int]]) -> None:
    async def run() -> None:
        ledger = Ledger("i")
        truth: dict[str, str] = {}
        held: dict[str, str] = {}
        cursor = None
        for kind, uid, number in [*changes, ("read", "a", 0)]:
            if kind == "pod":
                truth[uid] = f"phase {number}"
                ledger.tell_pod(a_report(uid, truth[uid]))
            elif kind == "gone" and uid in truth:
                del truth[uid]
                ledger.tell_gone(uid)
            elif kind == "read":
                seen = ledger.since(cursor)
                held = {} if seen.full else {name: phase for name, phase in held.items() if name not in seen.gone}
                held.update({report.uid: report.phase for report in seen.pods})
                cursor = Cursor("i", ledger.sequence)
                assert held == truth

    simulate(run())


def test_a_reader_that_is_too_far_behind_gets_everything() -> None:
    async def run() -> None:
        ledger = Ledger("i")
        ledger.tell_pod(a_report("stays"))
        cursor = Cursor("i", ledger.sequence)
        for number in range(GONE_MAX):
            ledger.tell_gone(f"pod-{number}")
        assert not ledger.since(cursor).full
        ledger.tell_gone("one more")
        assert ledger.since(cursor).full
        assert [report.uid for report in ledger.since(cursor).pods] == ["stays"]

    simulate(run())


def test_events_are_a_ring_and_their_messages_are_cut() -> None:
    async def run() -> None:
        ledger = Ledger("i")
        for number in range(EVENTS_MAX + 10):
            ledger.tell_event(1.0, f"reason-{number}", "x" * 5000)
        events = ledger.since(None).events
        assert (len(events), events[0].reason) == (EVENTS_MAX, "reason-10")
        assert max(len(event.message) for event in events) == 1024

    simulate(run())


# ---- images ---------------------------------------------------------------------------------------------------------------


def engine(**podman: Any) -> FakePodman:
    return FakePodman(WorldClock(), random.Random(1), Faults(), {"app": Behaviour(), "tool": Behaviour()}, **podman)


async def find(images: Images, reference: str = "app", policy: str = "IfNotPresent", **fields: Any) -> str:
    fields = {"known_id": "", "pulling": lambda: (), **fields}
    return (await images.find(reference, policy, **fields)).id


async def unguarded(call: Any) -> Any:
    return await call


@pytest.mark.parametrize(
    ("policy", "present", "pulls"),
    [("IfNotPresent", True, 0), ("IfNotPresent", False, 1), ("Always", True, 1), ("Never", True, 0)],
)
def test_the_pull_policy_says_when_to_pull(policy: str, present: bool, pulls: int) -> None:
    async def run() -> None:
        podman = engine(present={"app"} if present else set())
        await find(Images(podman, unguarded), policy=policy)
        assert podman.calls["pull"] == pulls

    simulate(run())


def test_an_image_that_ran_before_is_used_again_without_its_registry() -> None:
    async def run() -> None:
        podman = engine()
        known = await find(Images(podman, unguarded), policy="Never")
        podman.faults.pull_failures["app"] = "registry is down"
        assert await find(Images(podman, unguarded), policy="Always", known_id=known) == known

    simulate(run())


def test_containers_that_want_the_same_image_share_one_pull_and_two_pulls_run_at_once() -> None:
    async def run() -> None:
        podman = engine(present=set())
        images = Images(podman, unguarded)
        podman.faults.pull_stalls.update({"app", "tool", "other"})
        waiting = [asyncio.ensure_future(find(images, name)) for name in ("app", "app", "tool", "other")]
        await asyncio.sleep(10)
        assert podman.calls["pull"] == 2
        waiting[0].cancel()
        results = await asyncio.gather(*waiting[1:], return_exceptions=True)
        assert [type(result) for result in results] == [PullTrouble] * 3
        assert podman.calls["pull"] == 3

    simulate(run())


def docker_secret(**auths: dict[str, str]) -> SecretValue:
    document = json.dumps({"auths": {name.replace("_", "."): entry for name, entry in auths.items()}})
    return SecretValue("h", {".dockerconfigjson": base64.b64encode(document.encode()).decode()})


JOINED = {"auth": base64.b64encode(b"ann:s3:cret").decode()}


@pytest.mark.parametrize(
    ("reference", "secret", "found"),
    [
        ("registry.example/app", docker_secret(registry_example={"username": "a", "password": "b"}), ("a", "b")),
        ("registry.example/app", docker_secret(registry_example=JOINED), ("ann", "s3:cret")),
        ("registry.example/app", docker_secret(other_example=JOINED), None),
        ("app", docker_secret(index_docker_io=JOINED), ("ann", "s3:cret")),
        ("registry.example/app", docker_secret(registry_example={"auth": "%%%"}), None),
        ("registry.example/app", SecretValue("h", {".dockerconfigjson": "bm90IGpzb24="}), None),
        ("registry.example/app", SecretValue("h", {"other": "eA=="}), None),
    ],
)
def test_credentials_come_from_the_pull_secret_of_that_registry(
    reference: str, secret: SecretValue, found: tuple[str, str] | None
) -> None:
    assert credentials(reference, [secret]) == ((RegistryAuth(*found),) if found else ())


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        ("nginx", "docker.io"),
        ("library/nginx:1", "docker.io"),
        ("localhost/app", "localhost"),
        ("host:5000/app", "host:5000"),
        ("ghcr.io/a/b@sha256:0", "ghcr.io"),
    ],
)
def test_the_registry_of_a_reference(reference: str, registry: str) -> None:
    assert registry_of(reference) == registry


# ---- probes ---------------------------------------------------------------------------------------------------------------


class Script:
    """Answers of a container over time; keeps when it was asked and what was told."""

    def __init__(self, ok_from_s: float = 0.0, ok_until_s: float = 1e9) -> None:
        self.asked_s: list[float] = []
        self.told: list[tuple[float, str, bool]] = []
        self._span = (ok_from_s, ok_until_s)

    async def run(self, probe: Probe) -> ProbeOutcome:
        now_s = asyncio.get_running_loop().time()
        self.asked_s.append(now_s)
        ok = self._span[0] <= now_s < self._span[1]
        return ProbeOutcome(ok, "" if ok else "refused")

    def tell(self, kind: str, passed: bool, message: str) -> None:
        self.told.append((round(asyncio.get_running_loop().time(), 3), kind, passed))


def probed(script: Script, seconds: float, *, adopted: bool = False, started: bool = False, **probes: Probe) -> None:
    async def run() -> None:
        probing = Probing(container(**probes), script.run, script.tell, lambda kind, message: None)
        task = asyncio.ensure_future(probing.run(age_s=0.0, started=started, adopted=adopted, spread=0.5))
        await asyncio.sleep(seconds)
        task.cancel()

    simulate(run())


def test_a_refused_first_readiness_probe_is_repeated_quickly_and_then_once_a_period() -> None:
    script = Script(ok_from_s=1e9)
    probed(script, 25, readiness=Probe(HTTP, period_s=5))
    assert [round(at_s, 2) for at_s in script.asked_s] == [0, 0.05, 0.15, 0.35, 0.75, 1.55, 3.15, 5, 10, 15, 20]
    assert script.told == [(15.0, "Readiness", False)]


def test_the_startup_probe_holds_back_the_others() -> None:
    script = Script(ok_from_s=7.0)
    probed(script, 30, startup=Probe(HTTP, period_s=4), readiness=Probe(HTTP), liveness=Probe(HTTP))
    assert script.told == [(8.0, "Startup", True), (8.0, "Readiness", True), (9.0, "Liveness", True)]


@pytest.mark.parametrize(("kind", "field"), [("Startup", "startup"), ("Liveness", "liveness")])
def test_a_threshold_of_failures_is_told_once(kind: str, field: str) -> None:
    script = Script(ok_from_s=1e9)
    probed(script, 300, **{field: Probe(HTTP, period_s=10, failure_threshold=3)})
    assert script.told == [(30.0 if kind == "Startup" else 21.0, kind, False)]


def test_a_success_between_failures_starts_the_count_anew() -> None:
    script = Script(ok_from_s=10, ok_until_s=50)
    probed(script, 100, readiness=Probe(HTTP, period_s=10, failure_threshold=3, success_threshold=2))
    assert script.told == [(20.0, "Readiness", True), (70.0, "Readiness", False)]


def test_probes_of_an_adopted_container_begin_spread_over_a_period_and_count_at_once() -> None:
    script = Script(ok_from_s=1e9)
    probed(script, 40, adopted=True, readiness=Probe(HTTP, period_s=10))
    assert script.asked_s == [5, 15, 25, 35]
    assert script.told == [(25.0, "Readiness", False)]


def test_initial_delays_count_from_the_start_of_the_container() -> None:
    script = Script()
    probed(script, 30, startup=Probe(HTTP, initial_delay_s=3), readiness=Probe(HTTP, initial_delay_s=12, period_s=60))
    assert script.asked_s == [3, 12]
