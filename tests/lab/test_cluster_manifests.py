"""Manifests of the range of Kubernetes' own documentation, unmodified, on real hosts: tests/cases/manifests/kubernetes.

Most of their containers look for themselves at what they were promised, and fail where it is not there. The comments of a file
say what must come of it: `# expect: NAME PHASE [COUNT]` (pods of that name, or that begin with it and a dash), `# message: POD
CONTAINER TEXT` (last words), `# restarted: POD`, `# steady: POD` (never restarted), `# ready: POD true|false`, `# apart: NAME` (each
pod on a node of its own) and `# job: NAME CONDITION REASON`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cluster import Cluster, Object, wait_for

FILES = sorted((Path(__file__).parents[1] / "cases" / "manifests" / "kubernetes").glob("*.yaml"))
SPACE = "docs"
PATIENCE_S = 240.0


def said(word: str) -> list[list[str]]:
    """The words behind `# WORD: ` in all files."""
    lines = [line for file in FILES for line in file.read_text().splitlines()]
    return [line.split()[2:] for line in lines if line.startswith(f"# {word}: ")]


@pytest.fixture(scope="module")
def applied(cluster: Cluster) -> Iterator[str]:
    """All files, declared at once, with a controller at work."""
    files = [word for file in FILES for word in ("-f", str(file))]
    space = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {SPACE}}}\n"
    with cluster.watching():
        cluster.run("apply", "-f", "-", *files, "-n", SPACE, "--no-wait", stdin=space)
        yield SPACE
        spaces = [f"namespace/{name}" for name in (SPACE, "manifold")]
        cluster.run("delete", *spaces, "priorityclass/high-priority-nonpreempting", "--grace-period", "0")


@pytest.mark.timeout(600)
def test_every_pod_comes_to_what_its_file_says(cluster: Cluster, applied: str) -> None:
    def differences() -> list[str]:
        pods = cluster.pods(SPACE)
        return [line for words in said("expect") if (line := difference(pods, *words))]

    try:
        wait_for(lambda: not differences(), "all pods", PATIENCE_S)
    except pytest.fail.Exception:
        pytest.fail("\n".join(differences()))


def test_last_words_come_from_where_the_manifest_says(cluster: Cluster, applied: str) -> None:
    pods = {pod["metadata"]["name"]: pod for pod in cluster.pods(SPACE)}
    for name, container, *words in said("message"):
        status = pods[name]["status"]
        found = {
            one["name"]: one for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
        }
        assert found[container]["state"]["terminated"].get("message", "").split() == words, (name, container)


def test_what_a_liveness_probe_finds_dead_is_started_again(cluster: Cluster, applied: str) -> None:
    def restarts(name: str) -> int:
        statuses = cluster.pod(SPACE, name)["status"].get("containerStatuses", ())
        return sum(int(one["restartCount"]) for one in statuses)

    wait_for(lambda: all(restarts(name) for (name,) in said("restarted")), "a restart")


def test_jobs_end_as_their_files_say(cluster: Cluster, applied: str) -> None:
    def differences() -> list[list[str]]:
        jobs = {
            one["metadata"]["name"]: one
            for one in json.loads(cluster.run("get", "jobs", "-n", SPACE, "-o", "json"))["items"]
        }
        return [words for words in said("job") if words[1:] not in conditions(jobs[words[0]])]

    try:
        wait_for(lambda: not differences(), "all jobs", PATIENCE_S)
    except pytest.fail.Exception:
        pytest.fail(str(differences()))


def test_probes_are_asked_when_and_as_long_as_the_manifest_says(cluster: Cluster, applied: str) -> None:
    def ready() -> dict[str, str]:
        return {pod["metadata"]["name"]: str(is_ready(pod)).lower() for pod in cluster.pods(SPACE)}

    wait_for(lambda: all(ready()[name] == "true" for name, word in said("ready") if word == "true"), "readiness")
    found = ready()
    assert [(name, found[name]) for name, _ in said("ready")] == [(name, word) for name, word in said("ready")]
    for (name,) in said("steady"):
        assert cluster.pod(SPACE, name)["status"]["containerStatuses"][0]["restartCount"] == 0


def test_pods_that_keep_apart_are_on_nodes_of_their_own(cluster: Cluster, applied: str) -> None:
    pods = cluster.pods(SPACE)
    for (name,) in said("apart"):
        nodes = [pod["spec"]["nodeName"] for pod in pods if pod["metadata"]["name"].startswith(f"{name}-")]
        assert len(nodes) > 1
        assert len(set(nodes)) == len(nodes), name


def conditions(thing: Object) -> list[list[str]]:
    """[type, reason] of those that are true."""
    return [[one["type"], one["reason"]] for one in thing["status"].get("conditions", ()) if one["status"] == "True"]


def is_ready(pod: Object) -> bool:
    return ["Ready"] in [[one["type"]] for one in pod["status"]["conditions"] if one["status"] == "True"]


def difference(pods: list[Object], name: str, phase: str, count: str = "1") -> str:
    """What is not as expected; "" when it is."""
    mine = [pod for pod in pods if f"{pod['metadata']['name']}-".startswith(f"{name}-")]
    if sum(pod["status"]["phase"] == phase for pod in mine) == int(count):
        return ""
    seen = [(pod["metadata"]["name"], pod["status"]["phase"], states(pod)) for pod in mine]
    return f"{count} of {name} {phase} expected, there are {seen}"


def states(pod: Object) -> list[Object]:
    status = pod["status"]
    every = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    return [{one["name"]: one["state"]} for one in every]
