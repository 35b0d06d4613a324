"""Tables, objects and descriptions of records: pure functions from a Scene to text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controller.act.store import Event
from controller.cli import describe, objects, tables
from controller.cli.imagelist import ImageOnNodes, image_row, images_of
from controller.cli.scene import Scene, events_of, live_scene, stored_scene
from controller.decide.pins import remember_pushed
from controller.decide.reconcile import reconcile
from controller.decide.standing import progress_of
from controller.loop import Pass
from controller.model.cluster import Missing, Pod, Ref, ReplicaSet, Seen, Stop, Unseen, World
from controller.model.plan import NodeView, Unplaced, changed
from nodeagent.protocol import AgentEvent, ContainerReport, ImageReport, PodReport
from tests import builders
from tests.builders import meta, moment

NOW = moment(200)
TEMPLATE = {
    "metadata": {"labels": {"app": "web"}},
    "spec": {"containers": [{"name": "main", "image": "web:1", "ports": [{"containerPort": 80, "hostPort": 8080}]}]},
}


def pod(name: str = "web", node: str = "n1", **fields: Any) -> Pod:
    source = {"metadata": {"name": name}, "spec": TEMPLATE["spec"]}
    return Pod(meta("Pod", name, **fields.pop("meta", {})), "hash", source, node=node, bound=moment(1), **fields)


def report(*containers: ContainerReport, phase: str = "Running", ready: bool = True, **fields: Any) -> PodReport:
    return PodReport("uid", "default", "web", "hash", phase, ready, ip="10.86.0.2", containers=containers, **fields)


RUNNING = ContainerReport("main", "running", image="web:1", ready=True, started=True, started_wall_s=NOW.wall_s - 60)
CRASHING = ContainerReport(
    "main", "waiting", "CrashLoopBackOff", "back-off 40s", restarts=3, last_reason="Error", last_exit_code=137,
    last_finished_wall_s=NOW.wall_s - 30,
)  # fmt: skip


def scene(*pods: Pod, unseen: dict[str, str] | None = None, **fields: Any) -> Scene:
    nodes = {name: builders.node(name) for name in ("n1", "n2")}
    world = World(builders.world().cluster, {}, nodes, {}, pods={item.meta.uid: item for item in pods})
    views = {name: NodeView(name, "Unseen" if name in (unseen or {}) else "Ready") for name in nodes}
    return Scene(world, views, NOW, True, unseen or {}, **fields)


@pytest.mark.parametrize(
    ("record", "unseen", "expected"),
    [
        pytest.param(pod(report=report(RUNNING)), {}, ["web", "1/1", "Running", "0", "3m20s"], id="running"),
        pytest.param(
            pod(report=report(CRASHING, ready=False)), {}, ["web", "0/1", "CrashLoopBackOff", "3 (30s ago)", "3m20s"],
            id="crashing",
        ),
        pytest.param(
            pod(report=report(RUNNING)), {"n1": "no route"}, ["web", "0/1", "Unknown", "0", "3m20s"],
            id="on a host that does not answer nothing is known",
        ),
        pytest.param(
            pod(report=report(RUNNING), lost=moment(9)), {}, ["web", "0/1", "Lost", "0", "3m20s"], id="lost"
        ),
        pytest.param(
            pod(report=report(RUNNING), stop=Stop("scaled", moment(9))), {}, ["web", "1/1", "Terminating", "0", "3m20s"],
            id="stopping",
        ),
        pytest.param(pod(node=""), {}, ["web", "0/1", "Pending", "0", "3m20s"], id="not placed"),
    ],
)  # fmt: skip
def test_a_pods_row_reads_as_kubectls(record: Pod, unseen: dict[str, str], expected: list[str]) -> None:
    _, rows = tables.rows_of(scene(record, unseen=unseen), "Pod", [record], wide=False, namespaces=False)
    assert rows == [expected]


SIDECAR = ContainerReport("log", "running", init=True, ready=True, started=True, restarts=2)
PREPARED = ContainerReport("prepare", "terminated", "Completed", init=True, exit_code=0, restarts=3)


@pytest.mark.parametrize(
    ("told", "ready", "restarts"),
    [
        pytest.param((SIDECAR, PREPARED, RUNNING), "2/2", "2", id="restarts of what has prepared the pod are forgotten"),
        pytest.param((replace(SIDECAR, ready=False), PREPARED, RUNNING), "1/2", "2", id="the sidecar is not ready"),
        pytest.param(
            (SIDECAR, replace(PREPARED, exit_code=1), ContainerReport("main", "waiting")), "1/2", "5",
            id="not prepared yet",
        ),
    ],
)  # fmt: skip
def test_sidecars_count_among_a_pods_containers(told: tuple[ContainerReport, ...], ready: str, restarts: str) -> None:
    init = [{"name": "log", "restartPolicy": "Always"}, {"name": "prepare"}]
    record = replace(pod(report=report(*told)), source={"spec": {**TEMPLATE["spec"], "initContainers": init}})
    _, [row] = tables.rows_of(scene(record), "Pod", [record], wide=False, namespaces=False)
    assert (row[1], row[3]) == (ready, restarts)


def test_a_pod_behind_gates_is_not_scheduled_for_that_reason() -> None:
    record = replace(builders.bare_pod("gated", schedulingGates=[{"name": "a/b"}]), unplaced="waits behind them")
    [told, *_] = objects.to_object(scene(record), record)["status"]["conditions"]
    assert (told["type"], told["status"], told["reason"]) == ("PodScheduled", "False", "SchedulingGated")


def test_wide_shows_address_node_and_what_a_user_can_open() -> None:
    record = pod(report=report(RUNNING))
    picture = scene(record)
    header, rows = tables.rows_of(picture, "Pod", [record], wide=True, namespaces=True)
    address = picture.world.nodes["n1"].address
    assert dict(zip(header, rows[0], strict=True)) == {
        "NAMESPACE": "default", "NAME": "web", "READY": "1/1", "STATUS": "Running", "RESTARTS": "0", "AGE": "3m20s",
        "IP": "10.86.0.2", "NODE": "n1", "OPEN": f"http://{address}:8080",
    }  # fmt: skip


def test_what_a_host_says_cannot_steer_the_terminal() -> None:
    evil = ContainerReport("main", "waiting", "\x1b]0;owned\x07Bad\x1b[2J", "\x1b[31mred\nline")
    record = pod(report=report(evil, phase="Pending", ready=False, message="\x1b[2J"))
    picture = scene(record)
    _, rows = tables.rows_of(picture, "Pod", [record], wide=True, namespaces=False)
    event = Event(NOW.wall_s, "Rea\x1b[2Json", "mess\x1b]0;x\x07age", "Pod", "default", "web", "n1", True, NOW.wall_s)
    shown = "".join(rows[0]) + describe.describe(picture, record, [event])
    assert "\x1b" not in shown and "\x07" not in shown
    assert "Bad" in rows[0][2]


def test_a_cordoned_node_says_so_and_is_counted_with_its_pods() -> None:
    picture = scene(pod("a"), pod("b"))
    node = replace(picture.world.nodes["n1"], cordoned=True)
    _, rows = tables.rows_of(picture, "Node", [node], wide=False, namespaces=False)
    assert rows[0][:3] == ["n1", "Ready,SchedulingDisabled", "2"]


class Counted(dict[str, Any]):
    """Records that count how often all of them are looked through."""

    looks = 0

    def values(self) -> Any:
        self.looks += 1
        return super().values()


@pytest.mark.parametrize("kind", ["Node", "ReplicaSet", "Deployment"])
def test_a_view_of_many_objects_looks_through_the_pods_once(kind: str) -> None:
    world = builders.cluster(4, *(builders.deployment(f"web-{number}", 2) for number in range(5)))
    world = builders.after(world, reconcile(world, NOW))
    pods = Counted(world.pods)
    world = replace(world, pods=pods)
    records = Scene(world, {}, NOW).records(kind)
    assert len(records) > 3
    pods.looks = 0
    tables.rows_of(Scene(world, {}, NOW), kind, records, wide=True, namespaces=False)
    assert pods.looks <= 1
    pods.looks = 0
    fresh = replace(world)
    for record in records:
        progress_of(fresh, record)
    assert pods.looks <= 1


def test_a_selector_is_written_as_kubectl_writes_it() -> None:
    selector = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
            {"key": "new", "operator": "Exists"},
        ],
    }
    assert tables.selector_text(selector) == "app=web,tier in (a,b),!old,new"


# ---- objects ----


def test_a_pod_that_others_make_room_for_is_shown_with_the_node() -> None:
    waits = replace(builders.bare_pod("vip"), unplaced="0/1 nodes fit: 1 cpu: needs 1, free 0", nominated="n1")
    assert objects.to_object(scene(waits), waits)["status"]["nominatedNodeName"] == "n1"
    assert "Nominated node:   n1: less important pods make room there" in describe.describe(scene(waits), waits, [])


def test_a_pod_is_an_object_as_kubernetes_writes_it() -> None:
    record = pod(report=report(RUNNING), meta={"labels": {"app": "web"}, "version": 7})
    written = objects.to_object(scene(record), record)
    assert (written["apiVersion"], written["kind"]) == ("v1", "Pod")
    assert written["metadata"]["creationTimestamp"] == "2023-11-14T22:13:20Z"
    assert written["metadata"]["resourceVersion"] == "7"
    assert written["spec"]["nodeName"] == "n1"
    status = written["status"]
    assert (status["phase"], status["podIP"], status["qosClass"]) == ("Running", "10.86.0.2", "BestEffort")
    assert {item["type"]: item["status"] for item in status["conditions"]} == {
        "PodScheduled": "True", "Initialized": "True", "ContainersReady": "True", "Ready": "True",
    }  # fmt: skip
    assert status["containerStatuses"][0]["state"] == {"running": {"startedAt": "2023-11-14T22:15:40Z"}}


def test_a_crashed_container_keeps_its_last_state() -> None:
    status = objects.container_status(CRASHING)
    assert status["restartCount"] == 3
    assert status["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
    assert status["lastState"]["terminated"]["exitCode"] == 137


def test_a_pod_on_a_silent_host_is_unknown_not_running() -> None:
    record = pod(report=report(RUNNING))
    status = objects.to_object(scene(record, unseen={"n1": "no route"}), record)["status"]
    assert status["phase"] == "Unknown"
    assert {item["type"]: item["status"] for item in status["conditions"]}["Ready"] == "Unknown"


def test_a_secret_shows_its_keys_and_never_a_value() -> None:
    record = replace(builders.secret("s", "digest"), source={"data": {"password": "aHVudGVyMg=="}})
    for text in (str(objects.to_object(scene(), record)), describe.describe(scene(), record, [])):
        assert "password" in text
        assert "aHVudGVyMg" not in text


def test_several_objects_are_a_list() -> None:
    assert objects.to_list([{"kind": "Pod"}])["kind"] == "List"


@pytest.mark.parametrize("wall_s", [float("inf"), 1e300, -1e300])
def test_a_time_that_no_calendar_has_breaks_nothing(wall_s: float) -> None:
    assert objects.timestamp(wall_s) == "1970-01-01T00:00:00Z"


# ---- describe ----


def test_describe_of_a_pod_that_fits_nowhere_gives_the_reason_of_each_node() -> None:
    record = pod(node="")
    why = Unplaced(record.meta.uid, "0/2 nodes fit", {"n1": "memory: needs 900Gi", "n2": "cordoned"})
    text = describe.describe(scene(record, unplaced={record.meta.uid: why}), record, [])
    assert "0/2 nodes fit" in text and "n1: memory: needs 900Gi" in text and "n2: cordoned" in text


def test_describe_of_a_crashing_pod_tells_state_last_state_and_restarts() -> None:
    record = pod(report=report(CRASHING, ready=False))
    text = describe.describe(scene(record), record, [])
    assert "waiting CrashLoopBackOff" in text
    assert "exit code 137, 30s ago" in text
    assert "Restarts:     3" in text


def test_describe_tells_which_bytes_the_tags_of_a_revision_stand_for() -> None:
    told = {"web:1": "manifest:sha256:" + "d" * 64, "db:1": ""}
    owner = replace(builders.replica_set("web-1"), images=told)
    pod_of_it = replace(
        pod(), source=None, meta=meta("Pod", "web-1-a", owner=Ref("ReplicaSet", "web-1", owner.meta.uid))
    )
    seen_from = scene(pod_of_it)
    seen_from = replace(seen_from, world=builders.put(seen_from.world, owner))
    for record in (owner, pod_of_it):
        text = describe.describe(seen_from, record, [])
        assert "web:1=manifest:sha256:" + "d" * 64 in text
        assert "db:1=" not in text


def test_describe_of_a_deployment_lists_its_revisions_newest_first() -> None:
    deployment = builders.deployment("web", replicas=2, pods=TEMPLATE)
    owner = Ref("Deployment", "web", deployment.meta.uid)
    sets = {
        f"uid{number}": ReplicaSet(
            meta("ReplicaSet", f"web-{number}", uid=f"uid{number}", owner=owner),
            TEMPLATE,
            f"h{number}",
            1,
            revision=number,
        )
        for number in (1, 2)
    }
    picture = scene()
    picture = replace(
        picture,
        world=replace(picture.world, deployments={deployment.meta.uid: deployment}, replica_sets=sets),
    )
    text = describe.describe(picture, deployment, [])
    assert text.index("web-2") < text.index("web-1")
    assert "RollingUpdate, at most 25% unavailable, 25% surge" in text


def test_an_event_that_repeated_shows_its_count_and_span() -> None:
    event = Event(NOW.wall_s - 5, "Killing", "it", "Pod", "default", "web", "n1", True, NOW.wall_s - 65, 3)
    _, rows = tables.event_rows([event], NOW.wall_s, namespaces=False)
    assert rows == [["5s (x3 over 65s)", "Warning", "Killing", "pod/web", "it"]]
    assert objects.event_object(event)["count"] == 3


# ---- scenes ----


def test_a_live_scene_takes_what_agents_say_and_nothing_that_a_pass_would_do() -> None:
    world = builders.cluster(2)
    deployment = builders.deployment("web", replicas=3)
    world = replace(world, deployments={deployment.meta.uid: deployment})
    plan = reconcile(world, NOW)
    assert any(change.verb == "create" for change in plan.changes), "the pass would create pods"
    done = Pass(world, plan, world, {})
    assert live_scene(done, NOW).world.pods == {}


def test_a_host_without_a_report_is_unseen_in_the_scene() -> None:
    world = builders.cluster(2)
    name = sorted(world.nodes)[0]
    world = replace(world, sightings={**world.sightings, name: Unseen("unreachable", "no route")})
    assert live_scene(Pass(world, reconcile(world, NOW), world, {}), NOW).unseen == {name: "no route"}


def test_the_store_alone_tells_which_nodes_were_silent() -> None:
    picture = scene()
    silent = replace(picture.world.nodes["n1"], missing=Missing(moment(1), moment(9), 4, "unreachable", "no route"))
    stored = stored_scene(replace(picture.world, nodes={**picture.world.nodes, "n1": silent}), NOW)
    assert {name: view.state for name, view in stored.views.items()} == {"n1": "Unknown", "n2": "Ready"}


def test_events_that_no_pass_took_over_yet_are_shown_too() -> None:
    world = builders.cluster(1)
    name = next(iter(world.nodes))
    told = AgentEvent(1, NOW.wall_s, "Warning", "Unhealthy", "probe failed", "uid", "default/web", "main")
    sighting = world.sightings[name]
    assert isinstance(sighting, Seen)
    world = replace(world, sightings={name: replace(sighting, events=(told,))})
    found = events_of(Scene(world, {}, NOW), [])
    assert [(event.kind, event.namespace, event.name, event.warning) for event in found] == [
        ("Pod", "default", "web", True)
    ]


IMAGE = ImageReport("sha256:" + "a" * 64, ("localhost/web:v1",), ("localhost/web@sha256:" + "d" * 64,), 3 * 2**20)


def images_on(
    *nodes: str, image: ImageReport = IMAGE, wanted: str = "", chosen: set[str] | None = None
) -> list[ImageOnNodes]:
    """As three nodes tell it, of which `nodes` have the image, and one runs a pod of it."""
    running = ContainerReport("main", "running", image_id=IMAGE.id)
    pod = PodReport("uid-1", "default", "web", "hash", "Running", containers=(running,))
    world = builders.cluster(3)
    sightings = {
        name: builders.seen(name, [pod] if name == "n1" else (), images=(image,) if name in nodes else ())
        for name in world.nodes
    }
    pushed = changed(world, remember_pushed(world, {"localhost/web:v1": IMAGE.id}, NOW))
    return images_of(Scene(replace(pushed, sightings=sightings), {}, NOW), wanted, chosen)


def test_an_image_is_one_row_with_its_nodes_and_the_pods_that_run_it() -> None:
    row = ["localhost/web:v1", "a" * 12, "3.0 MiB", "1"]
    [two] = images_on("n1", "n2")
    assert image_row(two, 3, wide=False) == [*row, "n1,n2"]
    [everywhere] = images_on("n1", "n2", "n3")
    assert image_row(everywhere, 3, wide=False) == [*row, "all 3"]
    assert image_row(everywhere, 3, wide=True) == [*row, "n1,n2,n3", IMAGE.digests[0]]
    assert everywhere.pushed == ["localhost/web:v1"]
    [chosen] = images_on("n1", "n2", chosen={"n2", "n3"})
    assert (chosen.nodes, chosen.pods) == (["n2"], 0)


@pytest.mark.parametrize("wanted", ["localhost/web:v1", "sha256:" + "a" * 64, "aaaaaa", IMAGE.digests[0]])
def test_an_image_is_found_by_name_id_or_digest(wanted: str) -> None:
    assert len(images_on("n1", wanted=wanted)) == 1


@pytest.mark.parametrize("wanted", ["localhost/web:v2", "web:v1", "aaaaa", "bbbbbb"])
def test_an_image_of_another_name_is_not_it(wanted: str) -> None:
    assert images_on("n1", wanted=wanted) == []
