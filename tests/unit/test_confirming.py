"""What is shown before a person vouches that a node is dead."""

from __future__ import annotations

from dataclasses import replace

from controller.cli.confirming import shown
from controller.model.cluster import Missing, Node, Pod, Ref
from tests.builders import bare_pod, moment, node, world

DEAD = node("n1", missing=Missing(moment(), moment(60), 7, "unreachable", "no route to host"))


def owned(name: str, kind: str, **fields: object) -> Pod:
    pod = bare_pod(name)
    owner = Ref(kind, name.rpartition("-")[0], f"uid-{kind}")
    return replace(pod, meta=replace(pod.meta, owner=owner), node="n1", **fields)  # type: ignore[arg-type]


PODS = (
    owned("web-1", "ReplicaSet"),
    owned("db-0", "StatefulSet"),
    owned("log-x", "DaemonSet"),
    replace(bare_pod("alone"), node="n1"),
    replace(bare_pod("elsewhere"), node="n2"),
)


def lines(how: str, *pods: Pod, of: Node = DEAD) -> list[str]:
    return shown(world(of, *pods), of, how)


def test_what_is_started_elsewhere_and_what_the_node_would_start_by_itself_is_told() -> None:
    assert lines("powered-off", *PODS) == [
        "n1 was last heard before 7 missed polls: no route to host",
        "started elsewhere, without waiting: default/db-0, default/web-1",
        "left to this node: nothing replaces them: default/alone, default/log-x",
        "if n1 is switched on it starts by itself, before anybody can stop it: default/alone, default/db-0, default/log-x, default/web-1",
        "these would then run twice, which they must never: default/db-0",
        "the first pass that hears n1 again tells it to stop what was started elsewhere",
    ]


def test_a_wiped_node_starts_nothing() -> None:
    said = lines("wiped", *PODS)
    assert said[-1] == "a host that was wiped starts none of them: its agent and its orders are gone"
    assert not [line for line in said if "switched on" in line]


def test_what_was_replaced_long_ago_is_not_said_to_be_started_but_may_still_start_there() -> None:
    said = lines("powered-off", owned("web-1", "ReplicaSet", lost=moment(30)))
    assert not [line for line in said if line.startswith("started elsewhere")]
    assert [line for line in said if "switched on" in line and "default/web-1" in line]


def test_a_long_list_is_cut_and_its_length_told() -> None:
    said = lines("powered-off", *(owned(f"web-{number}", "ReplicaSet") for number in range(14)))
    assert said[1].endswith("and 4 more")


def test_a_node_without_pods_has_nothing_to_warn_of() -> None:
    assert lines("powered-off")[1:] == ["it has no pods"]
