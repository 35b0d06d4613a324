"""`top` as tables and documents: kubectl's columns, and what is not known said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.cli.scene import Scene
from controller.cli.top import (
    check_sort,
    cpu_text,
    memory_text,
    nodes_text,
    pod_uses,
    pods_text,
    sorted_uses,
    waiting_for_samples,
)
from controller.model.cluster import Pod
from controller.model.errors import UsageError
from controller.model.plan import NodeView
from nodeagent.protocol import ContainerUsage, Sample, Usage
from tests.builders import bare_pod, cluster, moment, report, seen, unseen, with_sightings

MIB = 2**20


def pod(name: str, node: str) -> Pod:
    made = bare_pod(name)
    return replace(made, node=node, report=report(made))


def use(pod: Pod, cpu_u: int, memory_mib: int, container: str = "main") -> ContainerUsage:
    samples = (Sample(4985.0, 15.0, 1, 1), Sample(4995.0, 15.0, cpu_u, memory_mib * MIB))
    return ContainerUsage(pod.meta.uid, container, samples)


A, B, C, D = pod("a", "n1"), pod("b", "n1"), pod("c", "n1"), pod("d", "n2")


def scene() -> Scene:
    """n1 tells of a (two containers) and b, not yet of c; n2 with d is silent."""
    used = Usage(
        "boot",
        5000.0,
        (Sample(4995.0, 15.0, 1_000_000, 1024 * MIB),),
        (use(A, 100_001, 7), use(A, 900, 1, "side"), use(B, 50_000, 64)),
    )
    world = with_sightings(cluster(2, A, B, C, D), n1=seen("n1", usage=used), n2=unseen())
    views = {name: NodeView(name, "Ready") for name in ("n1", "n2")}
    return Scene(world, views, moment(), True, {"n2": "no route to host"})


PODS = [A, B, C, D]


def test_pods_have_the_sum_of_their_containers_newest_samples() -> None:
    uses = pod_uses(scene(), PODS)
    assert pods_text(scene(), uses, "table", containers=False, namespaces=False).splitlines() == [
        "NAME   CPU(cores)   MEMORY(bytes)",
        "a      101m         8Mi",
        "b      50m          64Mi",
    ]


def test_what_a_host_says_of_pods_of_other_hosts_counts_for_nothing() -> None:
    told = scene()
    lying = Usage("boot", 5000.0, (), (use(A, 9_000_000, 9), use(D, 5000, 1, "ma\x1b[2Jin")))
    told = replace(told, world=with_sightings(told.world, n2=seen("n2", usage=lying)), unseen={})
    uses = {one.pod.meta.name: one for one in pod_uses(told, PODS)}
    assert uses["a"].cpu_u == 100_901
    assert "\x1b" not in pods_text(told, [uses["d"]], "table", containers=True, namespaces=False)


def test_containers_and_namespaces_have_columns_of_their_own() -> None:
    uses = pod_uses(scene(), PODS)
    assert pods_text(scene(), uses, "table", containers=True, namespaces=True).splitlines() == [
        "NAMESPACE   POD   NAME   CPU(cores)   MEMORY(bytes)",
        "default     a     main   101m         7Mi",
        "default     a     side   1m           1Mi",
        "default     b     main   50m          64Mi",
    ]


def test_the_largest_come_first_when_asked_for() -> None:
    uses = pod_uses(scene(), PODS)
    assert [one.pod.meta.name for one in sorted_uses(uses, "memory")] == ["b", "a"]
    assert [one.pod.meta.name for one in sorted_uses(uses, "cpu")] == ["a", "b"]
    assert [one.pod.meta.name for one in sorted_uses(uses, "")] == ["a", "b"]
    with pytest.raises(UsageError, match="no column to sort by"):
        check_sort("disk")


def test_what_runs_and_has_no_figures_is_known_and_silent_hosts_are_another_matter() -> None:
    assert waiting_for_samples(scene(), PODS, pod_uses(scene(), PODS)) == [C]


def test_nodes_are_shown_in_percent_of_what_they_have_and_silent_ones_as_unknown() -> None:
    assert nodes_text(scene(), "", "table").splitlines() == [
        "NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)",
        "n1     1000m        25%         1024Mi          25%",
        "n2     <unknown>    <unknown>   <unknown>       <unknown>",
    ]


def test_documents_are_kubernetes_metrics() -> None:
    uses = pod_uses(scene(), PODS)
    fields = ("metadata.name", "containers[0].usage.cpu", "containers[0].usage.memory", "window")
    path = "jsonpath=" + " ".join(f"{{.items[0].{field}}}" for field in fields)
    assert pods_text(scene(), uses, path, containers=False, namespaces=False) == "a 100001u 7168Ki 15.000s"
    assert nodes_text(scene(), "", "jsonpath={.items[*].kind} {.items[0].usage.cpu}") == "NodeMetrics 1000000u"
    assert pods_text(scene(), uses, "name", containers=False, namespaces=False) == "pod/a\npod/b"


@pytest.mark.parametrize(("cpu_u", "text"), [(0, "0m"), (1, "1m"), (1000, "1m"), (1001, "2m"), (2_500_000, "2500m")])
def test_thousandths_round_up(cpu_u: int, text: str) -> None:
    assert cpu_text(cpu_u) == text


def test_memory_is_in_whole_mebibytes() -> None:
    assert memory_text(5 * MIB - 1) == "4Mi"
