"""A host that lies: the production loop and fleet against agents whose words were twisted on their way (FAULTS I17).

One of the hosts of a converged cluster answers with what a table says. Passes must go on, and nothing may change but what is that host's
own: its node record, the reports of its own pods, and what the counts of a workload make of those.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.act.agents import AgentStream
from controller.act.store.records import to_row
from controller.loop import Pass
from controller.model.cluster import Node, Pod, Seen, Unseen
from controller.model.errors import HostError
from nodeagent.protocol import (
    FRAME_BYTES_MAX,
    JSON,
    LOGS,
    STDOUT,
    STREAM_CHUNK_BYTES,
    FrameReader,
    LogsRequest,
    data_frame,
)
from tests.sim.network import SimChannel, SimSession
from tests.unit.test_loop import Run, player

Body = dict[str, Any]
Lie = Callable[[Body, "Case"], "Body | bytes"]

ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e\x00\n"
HALF = "\ud800"  # of a surrogate pair: JSON can write it, no file and no database can


class Case:
    """A converged cluster of three honest hosts, one of which becomes a liar."""

    def __init__(self, run: Run) -> None:
        self.run = run
        pods = run.store.load().pods.values()
        self.liar = sorted({pod.node for pod in pods})[0]
        self.own = [pod for pod in pods if pod.node == self.liar]
        self.others = [pod for pod in pods if pod.node != self.liar]
        assert self.own and self.others
        agents = {name: host.agent for name, host in run.world.hosts.items()}
        self.agent_ids = {name: agent.hello().agent for name, agent in agents.items() if agent is not None}

    def about(self, pods: list[Pod], **changes: Any) -> list[Body]:
        """Reports about pods, in words that an agent could say."""
        return [
            {
                "uid": p.meta.uid,
                "namespace": p.meta.namespace,
                "name": p.meta.name,
                "hash": p.template_hash,
                "phase": "Running",
            }
            | changes
            for p in pods
        ]

    def honest(self) -> list[str]:
        """All that is stored but what the liar may change."""
        records = self.run.store.load()
        rows = []
        for record in records.all():
            if isinstance(record, Node) and record.meta.name == self.liar:
                continue
            if isinstance(record, Pod) and record.node == self.liar:
                continue
            plain = json.loads(to_row(record))
            if not isinstance(record, Node | Pod):
                plain.pop("status", None)  # counts of ready pods, the liar's own among them
                plain["meta"].pop("version")
            rows.append(json.dumps(plain, sort_keys=True))
        events = self.run.store.events(limit=10_000)
        named = {pod.meta.name for pod in self.others} | (set(self.agent_ids) - {self.liar})
        rows += [repr(event) for event in events if event.name in named]
        return sorted(rows)


class TwistedChannel:
    """The way back from an agent, on which each reply to a poll is replaced by what a lie makes of it."""

    def __init__(self, channel: SimChannel, twist: Callable[[Body], Body | bytes]) -> None:
        self._channel, self._twist, self._reader = channel, twist, FrameReader()

    async def read(self) -> bytes:
        while received := await self._channel.read():
            out = b""
            for kind, message in self._reader.feed(received):
                is_report = kind == JSON and isinstance(message.get("ok"), dict) and "cursor" in message["ok"]
                told = self._twist(message["ok"]) if is_report else None
                if isinstance(told, bytes):
                    out += told
                else:
                    payload = json.dumps({**message, "ok": told} if told is not None else message).encode(
                        "utf-8", "surrogatepass"
                    )
                    out += data_frame(kind, payload)
            if out:
                return out
        return b""

    async def write(self, data: bytes) -> None:
        await self._channel.write(data)

    def close(self) -> None:
        self._channel.close()


def raw(payload: bytes, kind: int = JSON) -> bytes:
    return struct.pack(">IB", len(payload), kind) + payload


LIES: dict[str, Lie] = {
    "other nodes' pods are stopped": lambda r, c: {**r, "pods": c.about(c.others, phase="Stopped")},
    "other nodes' pods have failed": lambda r, c: {**r, "pods": c.about(c.others, phase="Failed", reason="Error")},
    "other nodes' pods are gone": lambda r, c: {**r, "gone": [pod.meta.uid for pod in c.others]},
    "another pod under the uid of one of its own": lambda r, c: {
        **r, "pods": [{**c.about(c.own)[0], "name": c.others[0].meta.name, "namespace": "kube-system"}]
    },
    "pods that nobody asked for": lambda r, c: {
        **r, "pods": [{**c.about(c.own)[0], "uid": f"made-up-{n}", "name": f"p{n}"} for n in range(300)]
    },
    "more pods than a host can have": lambda r, c: {
        **r, "full": True, "pods": [{**c.about(c.own)[0], "uid": f"made-up-{n}"} for n in range(30_000)]
    },
    "events about other nodes' pods": lambda r, c: {
        **r,
        "events": [
            {"sequence": 10**6, "wall_s": 1.0, "type": "Warning", "reason": "Killing", "message": "it is gone",
             "pod": f"{p.meta.namespace}/{p.meta.name}", "pod_uid": p.meta.uid} for p in c.others
        ],
    },
    "escapes in every text": lambda r, c: {
        **r,
        "pods": c.about(c.own, reason=ESCAPES, message=ESCAPES, ip=ESCAPES),
        "conditions": [{"kind": ESCAPES, "reason": ESCAPES, "message": ESCAPES}],
        "events": [{"sequence": 10**6, "wall_s": 1.0, "type": ESCAPES, "reason": ESCAPES, "message": ESCAPES, "pod": ESCAPES}],
    },
    "novels": lambda r, c: {
        **r,
        "pods": c.about(c.own, message="m" * 10**5, ip="9" * 10**5, containers=[{"name": "c", "state": "s" * 10**5}] * 3),
        "events": [{"sequence": 10**6, "wall_s": 1.0, "type": "Normal", "reason": "r" * 10**5, "message": "m" * 10**5}],
        "conditions": [{"kind": "k" * 10**5, "reason": "r", "message": "m" * 10**5}],
    },
    "half a character": lambda r, c: {**r, "version": HALF, "events": []},
    "half a character of a pod's message": lambda r, c: {**r, "pods": c.about(c.own, message=HALF)},
    "half a character of an event": lambda r, c: {
        **r,
        "events": [{"sequence": 10**6, "wall_s": 1.0, "type": "Normal", "reason": HALF, "message": HALF, "pod": f"default/{HALF}"}],
    },
    "half a character of its architecture": lambda r, c: {
        **r, "capacity": {"cpu_m": 4000, "memory_bytes": 2**32, "pods": 100, "arch": HALF}
    },
    "half a character of its owner": lambda r, c: {**r, "owner": {**r["owner"], "cluster": HALF}},
    "half a character of its cursor": lambda r, c: {
        **r,
        "full": True,
        "cursor": {"instance": HALF, "sequence": 5},
        "events": [{"sequence": 10**6, "wall_s": 1.0, "type": "Normal", "reason": "r", "message": "m"}],
    },
    "a sequence below zero": lambda r, c: {**r, "cursor": {"instance": r["cursor"]["instance"], "sequence": -5}},
    "a sequence of 4000 digits": lambda r, c: raw(
        b'{"id":1,"ok":{"agent":"x","boot_id":"b","boottime_s":1,"wall_s":1,"cursor":{"instance":"i","sequence":' + b"9" * 4000 + b"}}}"
    ),
    "no numbers": lambda r, c: {**r, "boottime_s": float("nan"), "wall_s": float("inf")},
    "a time before all times": lambda r, c: {**r, "boottime_s": -1e300, "wall_s": -1e300},
    "another cluster's": lambda r, c: {**r, "owner": {**r["owner"], "cluster": "11111111-2222-4333-8444-555555555555"}},
    "an owner of the same epoch under another id": lambda r, c: {
        **r, "owner": {**r["owner"], "epoch": {"number": r["owner"]["epoch"]["number"], "id": "forged"}}
    },
    "an epoch below zero": lambda r, c: {**r, "owner": {**r["owner"], "epoch": {"number": -7, "id": "old"}}},
    "another agent": lambda r, c: {**r, "agent": "somebody-else"},
    "another node's agent": lambda r, c: {**r, "agent": next(i for name, i in c.agent_ids.items() if name != c.liar)},
    "more than it has": lambda r, c: {
        **r, "capacity": {"cpu_m": 10**30, "memory_bytes": -1, "pods": -3, "arch": "amd64\n" + ESCAPES}
    },
    "secrets that it wants to have": lambda r, c: {**r, "missing_secrets": ["default/login", "../../etc/shadow", ESCAPES]},
    "a list for an object": lambda r, c: {**r, "pods": {"uid": []}, "cursor": []},
    "nothing of what a report holds": lambda r, c: {},
    "an endless number of images": lambda r, c: {**r, "images": [{"id": f"i{n}"} for n in range(20_000)]},
    "100,000 levels": lambda r, c: raw(b'{"id":1,"ok":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "no UTF-8": lambda r, c: raw(b'{"id":1,"ok":"\xff\xfe\xc3"}'),
    "no JSON": lambda r, c: raw(b"Connection to cluster closed.\r\n"),
    "a frame of four gigabytes": lambda r, c: struct.pack(">IB", 2**32 - 1, JSON) + b"x" * 1000,
    "a frame of its largest size": lambda r, c: raw(b'{"id":1,"ok":"' + b"x" * (FRAME_BYTES_MAX - 20) + b'"}'),
    "a kind of frame that is none": lambda r, c: raw(b"{}", kind=200),
    "output outside a stream": lambda r, c: data_frame(STDOUT, b"x" * 100),
    "an answer to no question": lambda r, c: raw(b'{"id":123456,"ok":{}}'),
    "silence": lambda r, c: b"",
}  # fmt: skip


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Callable[[Run], Any]], None]:
    return player(tmp_path)


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_agent_changes_nothing_but_its_own_status(
    play: Callable[[Callable[[Run], Any]], None], lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 6, "app:1")
        await run.converge()
        await asyncio.sleep(30.0)
        await run.controller.one_pass()
        case = Case(run)
        before, running = case.honest(), {pod.meta.uid for pod in case.others}
        mutations = {name: host.podman.mutations.total() for name, host in run.world.hosts.items() if name != case.liar}
        _twist(monkeypatch, case, LIES[lie])
        run.network.reset(case.liar)
        for _ in range(4):
            done = await run.controller.one_pass()
            assert not done.behind
            seen = [name for name in run.world.hosts if isinstance(done.world.sightings[name], Seen)]
            assert set(run.world.hosts) - {case.liar} <= set(seen)
            await asyncio.sleep(2.0)  # in all less than what is tolerated of a silent node
        assert sorted(set(case.honest()) ^ set(before)) == []
        assert {pod.meta.uid for pod in run.store.load().pods.values() if pod.node != case.liar} == running
        assert {
            name: host.podman.mutations.total() for name, host in run.world.hosts.items() if name != case.liar
        } == mutations
        sizes = [len(to_row(record)) for record in run.store.load().all()]
        assert max(sizes) < 64 * 1024, "what one host says fills no store"
        assert max(len(repr(event)) for event in run.store.events(limit=10_000)) < 16 * 1024

    play(body)


@pytest.mark.parametrize(
    "lie", ["nothing of what a report holds", "no JSON", "half a character", "an answer to no question"]
)
def test_nonsense_makes_no_storm_of_passes_and_logins(
    play: Callable[[Callable[[Run], Any]], None], lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(run: Run) -> None:
        run.world.apply("web", 6, "app:1")
        await run.converge()
        await asyncio.sleep(30.0)
        case = Case(run)
        _twist(monkeypatch, case, LIES[lie])
        run.network.reset(case.liar)
        run.network.attempts.clear()
        passes: list[Pass] = []
        watching = asyncio.ensure_future(run.controller.watch(passes.append))
        await asyncio.sleep(100.0)
        watching.cancel()
        assert isinstance(passes[-1].world.sightings[case.liar], Unseen)
        assert 8 <= len(passes) <= 20
        assert run.network.attempts.count(case.liar) <= 20

    play(body)


def _twist(monkeypatch: pytest.MonkeyPatch, case: Case, lie: Lie) -> None:
    honest = SimSession.open_channel

    async def open_channel(self: SimSession, timeout_s: float) -> Any:
        channel = await honest(self, timeout_s)
        return TwistedChannel(channel, lambda r: lie(r, case)) if self._host.name == case.liar else channel

    monkeypatch.setattr(SimSession, "open_channel", open_channel)


class Flood:
    """A channel that answers a request for a stream and then sends output for ever, whatever credit it has."""

    def __init__(self) -> None:
        self.sent = 0
        self.closed = False

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        if self.closed:
            return b""
        self.sent += 1
        return raw(b'{"id":1,"ok":{}}') if self.sent == 1 else data_frame(STDOUT, b"x" * STREAM_CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        self.closed = True


def test_an_endless_stream_is_cut_off() -> None:
    async def check() -> None:
        flood = Flood()
        request = LogsRequest("uid", "main", follow=True)
        stream = await AgentStream.open("n1", flood, LOGS, request, timeout_s=5.0)
        while not flood.closed:  # nobody reads
            await asyncio.sleep(0)
        assert flood.sent * STREAM_CHUNK_BYTES < 4 * FRAME_BYTES_MAX
        with pytest.raises(HostError):
            async for _ in stream:
                pass

    asyncio.run(check())


def test_a_liar_that_claims_newer_orders_stops_the_passes_and_is_named(
    play: Callable[[Callable[[Run], Any]], None],
) -> None:
    """The one lie that reaches further: it cannot be told from a store that was restored (docs/limits.md). Nothing is changed by it."""

    async def body(run: Run) -> None:
        run.world.apply("web", 6, "app:1")
        await run.converge()
        case = Case(run)
        before = case.honest()
        patch = pytest.MonkeyPatch()
        _twist(patch, case, lambda r, _: {**r, "owner": {**r["owner"], "serial": 10**9}})
        run.network.reset(case.liar)
        done = await run.controller.one_pass()
        patch.undo()
        assert done.behind == (case.liar,)
        assert case.honest() == before

    play(body)
