"""What is fuzzed: each target takes bytes, and may refuse them in its own words and in no others.

A target is a function that raises nothing but what its module says it raises; whatever else comes out of it is a defect.
"""

from __future__ import annotations

import json
import random
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from controller.act.agents import Picture
from controller.act.fleet import joined
from controller.act.inventory import load_inventory
from controller.cli.scene import Scene
from controller.cli.top import nodes_text, pod_uses, pods_text
from controller.decide import verbs
from controller.decide.explain import explain
from controller.decide.reconcile import reconcile
from controller.decide.replicas import Used, demand, measure
from controller.decide.whatif import Imagined, imagine
from controller.model.cluster import Cluster, Meta, Moment, Node, Pod, Seen, World
from controller.model.errors import HostError, InventoryError, ManifestError, SshoalError
from controller.model.inventory_connection import read
from controller.model.kinds import KINDS
from controller.model.kinds.autoscaling import MetricSpec
from controller.model.manifest import Manifest, load
from controller.model.plan import changed
from controller.model.quantity import cpu_millicores, memory_bytes
from nodeagent import protocol
from nodeagent.protocol import (
    FAILED,
    PENDING,
    RUNNING_PHASE,
    SUCCEEDED,
    Accepted,
    Cursor,
    FrameReader,
    Hello,
    ProtocolError,
    Report,
    Usage,
    WantedSet,
    decode,
    frame,
)
from tests.builders import after, cluster, moment, report, seen, with_sightings
from tests.fuzz.objects import mutated

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "cases"


@dataclass(frozen=True)
class Target:
    """`run` judges one input; `refusals` are the words in which it may refuse; `words` are what its inputs are made of."""

    run: Callable[[bytes], object]
    corpus: Callable[[], list[bytes]]
    refusals: tuple[type[Exception], ...]
    words: tuple[bytes, ...]
    inputs: int  # in `make test`: a few seconds


def _manifest(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for lenient in (False, True):
        try:
            loaded = load(text, "fuzz.yaml", lenient=lenient)
        except ManifestError as error:
            assert str(error).isprintable() or "\n" in str(error)
            continue
        json.dumps([manifest.source for manifest in loaded.manifests])
        for manifest in loaded.manifests:
            manifest.object.dump()


def _inventory(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory(prefix="sshoal-fuzz-") as directory:
        path = Path(directory) / f"hosts{suffix}"
        path.write_bytes(data)
        inventory = load_inventory([str(path)])
        for host in list(inventory.hosts.values())[:50]:
            read(host)


def _frames(data: bytes) -> None:
    """However the stream is cut, the same comes out; what stands before nonsense may be dropped with it."""
    (whole, trouble), (pieces, same) = _read(data, len(data) or 1), _read(data, 7)
    assert trouble == same
    assert whole == (pieces[: len(whole)] if trouble else pieces)


def _read(data: bytes, size: int) -> tuple[list[object], str]:
    reader, found = FrameReader(), []
    try:
        for start in range(0, len(data), size):
            for item in reader.feed(data[start : start + size]):
                found.append(item)
    except ProtocolError as error:
        return found, str(error)
    return found, ""


def _reply(data: bytes) -> None:
    """A reply's body, read as each message that an agent can be asked for; a report is then taken in."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    for kind in (Hello, Accepted, Report, Usage):
        try:
            message = decode(kind, value, strict=False)
        except ProtocolError:
            continue
        if isinstance(message, Report):
            picture = Picture("n1")
            picture.update(message)
            picture.update(message)
            picture.take_events()
        if isinstance(message, Usage):
            _use(joined(joined(None, message), message))
    decode(WantedSet, value, strict=True)


def _use(usage: Usage) -> None:
    """As a sighting: shown by `top`, and counted by an autoscaler."""
    seen = Seen("a", "i", "b", 0.0, 0.0, "", Cursor("i", 1), None, {}, protocol.Capacity(cpu_m=1000), usage=usage)
    meta = Meta("Pod", "default", "web-1", "uid-1", Moment(0.0, "b", 0.0))
    pods = {"uid-1": Pod(meta, "h", {"spec": {"containers": [{"name": "main", "image": "i"}]}}, node="n1")}
    world = World(Cluster("c"), {}, {"n1": Node(meta, "n1", "")}, {"n1": seen}, pods=pods)
    scene = Scene(world, {}, meta.created, True)
    for output in ("table", "json"):
        pods_text(scene, pod_uses(scene, list(pods.values())), output, containers=True, namespaces=True).encode()
        nodes_text(scene, "cpu", output).encode()
    metric = MetricSpec.model_validate(
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}}}
    )
    measured = measure(list(pods.values()), metric, Used(world), {}, meta.created)
    demand(metric, measured, 1, Fraction(1, 10), Fraction(1, 10))


def _decision(data: bytes) -> None:
    """What is read and applied can be decided on: in a cluster that stands still, and while its pods come and go."""
    dice = random.Random(data)
    documents = [mutated(dice.choice(_objects()), dice) for _ in range(dice.choice((1, 2, 3)))]
    manifests = [manifest for document in documents for manifest in _read_or_not(document)]
    start = cluster(3)
    applied = verbs.apply(start, manifests, lambda _: "hash", moment())
    changes = tuple(one.change for one in applied if one.change is not None)
    settled = imagine(start, Imagined(changes=changes), moment()).world
    plan = reconcile(settled, moment(1))
    for pod in list(settled.pods.values())[:3]:
        explain(settled, plan.nodes, pod)
    world, seconds = changed(start, changes), 0.0
    for _ in range(6):
        world = after(world, reconcile(world, moment(seconds)))
        seconds += dice.choice((1, 10, 600, 100_000))
        world = with_sightings(world, **_told(world, seconds, dice))


def _read_or_not(document: dict[str, Any]) -> tuple[Manifest, ...]:
    document["metadata"] = {**document["metadata"], "namespace": "default"} if document.get("metadata") else {}
    try:
        manifests = load(json.dumps(document), "fuzz.json").manifests
    except ManifestError:
        return ()
    specs = [getattr(manifest.object, "spec", None) for manifest in manifests]
    asked = [getattr(spec, name, None) or 0 for spec in specs for name in ("replicas", "parallelism", "min_replicas")]
    return manifests if max(asked, default=0) <= 1000 else ()  # more of the same only takes longer


def _told(world: World, seconds: float, dice: random.Random) -> dict[str, Seen]:
    """Most pods are heard of, and in any state."""
    phases = (RUNNING_PHASE, RUNNING_PHASE, PENDING, FAILED, SUCCEEDED)
    there = [pod for pod in world.pods.values() if pod.stop is None and dice.random() < 0.8]
    return {
        name: seen(
            name,
            [report(pod, dice.choice(phases), ready=dice.random() < 0.7) for pod in there if pod.node == name],
            boottime_s=5000.0 + seconds,
        )
        for name in world.nodes
    }


def _quantity(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for meaning in (cpu_millicores, memory_bytes):
        for value in (text, *_numbers(text)):
            try:
                number = meaning(value)
            except ValueError:
                continue
            assert 0 <= number <= 2**63 * 1000
    cpu_millicores(text)


def _numbers(text: str) -> list[float]:
    try:
        return [float(text)]
    except (ValueError, OverflowError):
        return []


# ---- corpora --------------------------------------------------------------------------------------------------------------


def _manifests() -> list[bytes]:
    files = [*(CASES / "manifests").rglob("*.yaml"), *(ROOT / "playbooks").rglob("*.yaml")]
    return [path.read_bytes() for path in sorted(files)]


@cache
def _objects() -> list[dict[str, Any]]:
    """Every object of the corpus of manifests that is read."""
    documents = [document for text in _manifests() for document in _documents(text)]
    return [document for document in documents if _read_or_not(document)]


def _documents(text: bytes) -> list[dict[str, Any]]:
    try:
        return [one for one in yaml.safe_load_all(text) if isinstance(one, dict) and one.get("kind") in KINDS]
    except yaml.YAMLError:
        return []


def _inventories(suffixes: tuple[str, ...]) -> list[bytes]:
    files = [*(CASES / "inventory").rglob("*"), *(ROOT / "inventory").rglob("*")]
    return [path.read_bytes() for path in sorted(files) if path.is_file() and path.suffix in suffixes]


def _replies() -> list[bytes]:
    pod = protocol.PodReport(
        "uid-1",
        "default",
        "web-1",
        "h",
        "Running",
        True,
        1.0,
        "10.1.2.3",
        containers=(protocol.ContainerReport("main", "running"),),
    )
    event = protocol.AgentEvent(3, 1.0, "Normal", "Started", "it runs", "uid-1", "default/web-1", "main")
    owner = protocol.Owner("cluster", protocol.Epoch(1, "a"), 2, "digest")
    report = Report(
        "agent", protocol.Cursor("i", 4), "boot", 5.0, 6.0, "v", owner, True, (pod,), ("uid-2",), (event,),
        protocol.Capacity(4000, 2**32), (protocol.Condition("DiskPressure", "LowDisk", "full"),),
        (protocol.ImageReport("sha256:1", ("a:1",), (), 5),), ("default/login",),
    )  # fmt: skip
    hello = Hello(protocol.VERSION, "agent", "instance", "bundle", "boot", 5.0, 6.0, owner)
    sample = protocol.Sample(9.0, 15.0, 100_000, 2**20)
    usage = Usage("boot", 10.0, (sample,), (protocol.ContainerUsage("uid-1", "main", (sample, sample)),))
    messages = (report, hello, Accepted(3, ("a/b",)), usage)
    return [json.dumps(protocol.encode(message)).encode() for message in messages]


def _conversations() -> list[bytes]:
    replies = [frame({"id": number, "ok": json.loads(reply)}) for number, reply in enumerate(_replies(), 1)]
    streams = [frame({"id": 1, "ok": {}}), protocol.data_frame(protocol.STDOUT, b"hello"), frame({"exit": {"code": 0}})]
    return [*replies, b"".join(replies), b"".join(streams)]


YAML_WORDS = (
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"<<: *a",
        b"- ",
        b": ",
        b"? ",
        b"| \n",
        b">-\n",
        b"---\n",
        b"...\n",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(b"!!python/object:os.system ", b"!!binary ", b"!vault |", b"%YAML 1.1\n", b"'", b'"', b"\t", b"\x00", b"\xff"),
    *(b"\xe2\x80\xae", b"~", b"null", b"0x1F", b"1e999", b".nan", b"-.inf", b"0o17", b"9" * 400, b"-1", b"true"),
    *(b"2024-01-01", b"__proto__", b"apiVersion: v1\n", b"kind: Pod\n", b"metadata: ", b"spec: ", b"replicas: "),
)
INI_WORDS = (
    *(
        b"[",
        b"]",
        b":children]\n",
        b":vars]\n",
        b"[all:vars]\n",
        b"=",
        b"[1:99999999]",
        b"[a:z:0]",
        b"[z:a]",
        b"[01:10:3]",
    ),
    *(
        b"#",
        b";",
        b"'",
        b'"',
        b"\\",
        b"ansible_host=",
        b"ansible_port=",
        b"-oProxyCommand=x",
        b"{{ ",
        b" }}",
        b"$(id)",
        b"../",
    ),
    *(b"\r\n", b"\x00", b"\xff", b"a@b:22", b"::1", b"[::1]:22", b"ansible_ssh_common_args='-J ", b"node_taints="),
)
JSON_WORDS = (
    *(
        b"null",
        b"true",
        b"-1",
        b"1e400",
        b"NaN",
        b"-Infinity",
        b"9" * 400,
        b"[]",
        b"{}",
        b"[[[[[[",
        b'"\\ud800"',
        b'"\\u0000"',
    ),
    *(
        b'"agent":',
        b'"cursor":',
        b'"pods":',
        b'"sequence":',
        b'"owner":',
        b'"epoch":',
        b'"number":',
        b'"full":true',
        b'"exit":',
    ),
)
FRAME_WORDS = (
    *JSON_WORDS,
    *(struct.pack(">IB", length, kind) for length, kind in ((0, 0), (2**32 - 1, 0), (5, 9), (2, 2))),
    struct.pack(">IB", 2, 0) + b"{}",
)

TARGETS: dict[str, Target] = {
    "manifest": Target(_manifest, _manifests, (ManifestError,), YAML_WORDS, 2000),
    "decision": Target(
        _decision,
        lambda: [str(number).encode() for number in range(100)],
        (SshoalError,),
        tuple(str(number).encode() for number in range(10)),
        1500,
    ),
    "inventory-ini": Target(
        lambda data: _inventory(data, ".ini"),
        lambda: _inventories((".ini", "", ".odd")),
        (InventoryError,),
        INI_WORDS,
        3000,
    ),
    "inventory-yaml": Target(
        lambda data: _inventory(data, ".yaml"),
        lambda: _inventories((".yml", ".yaml", ".json")),
        (InventoryError,),
        YAML_WORDS,
        3000,
    ),
    "frames": Target(_frames, _conversations, (), FRAME_WORDS, 20_000),
    "reply": Target(_reply, _replies, (ProtocolError, HostError), JSON_WORDS, 20_000),
    "quantity": Target(
        _quantity,
        lambda: [b"250m", b"1.5Gi", b"1e3", b"0.1", b"-3", b"1e-9", b".5", b"12E", b"100000000Ei"],
        (ValueError,),
        (b"e", b"E", b"m", b"Ki", b"-", b"+", b".", b"9" * 70, b"1e99", b"nan", b"inf", b"\xd9\xa1", b"_", b" ", b"0x"),
        20_000,
    ),
}
