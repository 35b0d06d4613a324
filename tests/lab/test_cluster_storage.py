"""Volumes on real hosts: data outlives whatever happens to pods, and goes when a person deletes the claim, and not before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from lab.lab import Lab
from tests.lab.cluster import Cluster, Object, Running, shell, single, wait_for
from tests.lab.test_cluster_sets import workload

CLAIM_SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}


@pytest.fixture(scope="module")
def cluster(lab3: Lab, test_images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """As everywhere, but node2 declares a directory for volumes."""
    directory = tmp_path_factory.mktemp("context")
    inventory = directory / "hosts" / lab3.inventory.name
    (directory / "hosts" / "host_vars").mkdir(parents=True)
    shutil.copy(lab3.inventory, inventory)
    (directory / "hosts" / "host_vars" / "node2.yml").write_text(
        "sshoal_volumes: {fast: {path: /srv/fast, size: 10Mi}}\n"
    )
    cluster = Cluster(lab3, directory, inventory)
    cluster.wipe()
    lab3.host("node2").run("mkdir -p /srv/fast")
    yield cluster
    cluster.wipe()
    lab3.host("node2").run("rm -rf /srv/fast")


def test_data_outlives_kills_rolls_scaling_reboots_and_the_set_itself(
    cluster: Cluster, whole_lab3: Lab, ns: str
) -> None:
    cluster.apply(ns, stateful())
    for one in cluster.wait_running(ns, 2):
        cluster.inside(one, "echo data-of-$(hostname) > /data/who; sync")
    places = _places(cluster, ns)
    assert _who(cluster, ns) == WHO

    cluster.run("delete", "pod/db-0", "-n", ns)
    cluster.run("reconcile", "--settle")
    assert _who(cluster, ns) == WHO, "after a pod was deleted"

    cluster.apply(ns, stateful(image="v2"))
    assert _who(cluster, ns) == WHO, "after a rolling update"

    cluster.run("scale", "statefulset/db", "--replicas", "1", "-n", ns)
    cluster.wait_running(ns, 1)
    cluster.run("scale", "statefulset/db", "--replicas", "2", "-n", ns)
    assert _who(cluster, ns) == WHO, "after scaling down and up"

    [last] = [one for one in cluster.running(ns) if one.pod == "db-1"]
    whole_lab3.kill(last.host)
    whole_lab3.start(last.host)
    cluster.wait_running(ns, 2)
    assert _who(cluster, ns) == WHO, "after a power cut"

    cluster.run("delete", "statefulset/db", "-n", ns)
    cluster.wait_running(ns, 0)
    cluster.apply(ns, stateful(image="v2"))
    assert _who(cluster, ns) == WHO, "after the set was deleted and declared again"
    assert _places(cluster, ns) == places


def test_deleting_a_claim_waits_for_its_pod_and_then_takes_the_volume(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, stateful(replicas=1))
    [one] = cluster.wait_running(ns, 1)
    volume = _claims(cluster, ns)[0]["spec"]["volumeName"]
    assert volume in _volumes(cluster, one.host)
    foreign = "their-data"
    cluster.host(one.host).run(f"podman volume create {foreign}")

    said = cluster.run("delete", "pvc/data-db-0", "-n", ns, "--timeout", "2s", expect=3)
    assert "a claim stays until its pods have ended" in said
    assert "Terminating" in cluster.run("get", "pvc", "-n", ns)
    assert "db-0" in cluster.run("describe", "pvc/data-db-0", "-n", ns)
    assert volume in _volumes(cluster, one.host)

    cluster.run("delete", "statefulset/db", "pvc/data-db-0", "-n", ns)
    assert _claims(cluster, ns) == []
    assert _volumes(cluster, one.host) == [foreign]
    cluster.host(one.host).run(f"podman volume rm {foreign}")


def test_a_declared_directory_is_a_storage_class_and_its_size_counts(cluster: Cluster, ns: str) -> None:
    fast = {**CLAIM_SPEC, "storageClassName": "fast"}
    big = {**fast, "resources": {"requests": {"storage": "10Mi"}}}
    mounted = {"volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "inner"}]}
    pod = single("one", container=shell("echo hello > /data/file; sleep 10000", **mounted), pod=_claiming("fast"))
    cluster.apply(ns, claim("fast", fast), pod)
    [one] = cluster.wait_running(ns, 1)
    assert one.host == "node2"
    host = cluster.host("node2")
    wait_for(lambda: host.run("cat /srv/fast/sshoal-*/_data/inner/file", check=False).strip() == "hello", "the file")
    assert "/srv/fast/sshoal-" in cluster.run("get", "pvc", "-n", ns, "-o", "wide")

    second = single("two", container=shell("sleep 10000"), pod=_claiming("big"))
    said = cluster.apply(ns, claim("big", big), second, expect=3)
    assert "storage class fast: needs 10Mi, free 9Mi" in said
    cluster.run("delete", "pod/two", "pvc/big", "-n", ns)

    cluster.run("delete", "pod/one", "pvc/fast", "-n", ns, "--grace-period", "0")
    assert host.run("ls -A /srv/fast").split() == [".sshoal"]


def test_claims_go_with_scaling_and_with_the_set_where_that_is_asked_for(cluster: Cluster, ns: str) -> None:
    made = stateful()
    made["spec"]["persistentVolumeClaimRetentionPolicy"] = {"whenScaled": "Delete", "whenDeleted": "Delete"}
    cluster.apply(ns, made)
    places = {one.pod: one.host for one in cluster.wait_running(ns, 2)}
    volumes = _places(cluster, ns)
    cluster.run("scale", "statefulset/db", "--replicas", "1", "-n", ns)
    cluster.run("reconcile", "--settle")
    assert list(_places(cluster, ns)) == ["data-db-0"]
    assert volumes["data-db-1"] not in _volumes(cluster, places["db-1"])
    assert volumes["data-db-0"] in _volumes(cluster, places["db-0"])
    cluster.run("delete", "statefulset/db", "-n", ns)
    cluster.run("reconcile", "--settle")
    assert _claims(cluster, ns) == []
    assert volumes["data-db-0"] not in _volumes(cluster, places["db-0"])


def test_a_claim_may_be_read_only_and_is_shared_on_its_node(cluster: Cluster, ns: str) -> None:
    mounted = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    writer = single(
        "writer", container=shell("echo hello > /data/file; sleep 10000", **mounted), pod=_claiming("shared")
    )
    reader = single("reader", container=shell("sleep 10000", **mounted), pod=_claiming("shared", readOnly=True))
    cluster.apply(ns, claim("shared", {**CLAIM_SPEC, "accessModes": ["ReadWriteMany"]}), writer, reader)
    pods = {one.pod: one for one in cluster.wait_running(ns, 2)}
    assert len({one.host for one in pods.values()}) == 1
    wait_for(lambda: cluster.inside(pods["reader"], "cat /data/file || true") == "hello", "the file")
    assert "Read-only" in cluster.inside(pods["reader"], "touch /data/other 2>&1 || true")


def test_an_address_is_kept_over_restarts_where_that_is_asked_for(cluster: Cluster, ns: str) -> None:
    sticky = workload("StatefulSet", "db", replicas=1, serviceName="db")
    sticky["metadata"]["annotations"] = {"sshoal.dev/sticky-address": "true", "sshoal.dev/sticky-node": "true"}
    cluster.apply(ns, sticky)
    [before] = cluster.wait_running(ns, 1)
    address = cluster.pod(ns, "db-0")["status"]["podIP"]
    assert int(address.rpartition(".")[2]) >= 128
    assert f"{address}\tdb-0.db.{ns}.svc.cluster.local\tdb-0" in cluster.inside(before, "cat /etc/hosts")
    cluster.run("delete", "pod/db-0", "-n", ns)
    cluster.run("reconcile", "--settle")
    [after] = cluster.wait_running(ns, 1)
    assert (after.host, cluster.pod(ns, "db-0")["status"]["podIP"]) == (before.host, address)
    assert after.uid != before.uid


def test_claims_have_the_metadata_of_their_template_and_are_made_where_their_set_is(cluster: Cluster, ns: str) -> None:
    made = stateful(replicas=1)
    labelled = {"namespace": "elsewhere", "labels": {"kind": "precious"}, "annotations": {"kept-by": "ops"}}
    made["spec"]["volumeClaimTemplates"][0]["metadata"] |= labelled
    asking = {**CLAIM_SPEC, "volumeName": "made-by-hand"}
    waiting = single("waiting", container=shell("sleep 1000"), pod=_claiming("unmade"))
    cluster.apply(ns, made, claim("unlike", CLAIM_SPEC), claim("unmade", asking), waiting, flags=["--no-wait"])
    with cluster.watching():
        [one] = cluster.wait_running(ns, 1)
        assert one.pod == "db-0"
        chosen = cluster.run("get", "pvc", "-n", ns, "-l", "kind=precious", "-o", "name").split()
        assert [name.rpartition("/")[2] for name in chosen] == ["data-db-0"]
        assert "kept-by: ops" in cluster.run("get", "pvc", "data-db-0", "-n", ns, "-o", "yaml")
        wait_for(lambda: "asks for the volume made-by-hand" in cluster.run("describe", "pod/waiting", "-n", ns), "why")
    assert cluster.pod(ns, "waiting")["status"]["phase"] == "Pending"


def test_a_volume_that_belongs_to_its_group_already_is_left_as_it_is_where_that_is_asked_for(
    cluster: Cluster, ns: str
) -> None:
    groups = {"securityContext": {"fsGroup": 2000, "fsGroupChangePolicy": "OnRootMismatch"}}
    sleeper = shell("sleep 10000", volumeMounts=[{"name": "data", "mountPath": "/data"}])
    user = single("user", container=sleeper, pod={**_claiming("shared"), **groups, "terminationGracePeriodSeconds": 0})
    cluster.apply(ns, claim("shared", CLAIM_SPEC), user)
    [one] = cluster.wait_running(ns, 1)
    look = "stat -c %g /data /data/file"
    assert cluster.inside(one, f"touch /data/file; chgrp 3000 /data/file; {look}").split() == ["2000", "3000"]
    cluster.run("delete", "pod/user", "-n", ns)
    cluster.apply(ns, user)
    [again] = cluster.wait_running(ns, 1)
    assert cluster.inside(again, look).split() == ["2000", "3000"]


def test_bad_claims_exit_2_and_change_nothing(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, stateful(replicas=1))
    before = cluster.stored()
    too_much = {"requests": {"storage": "2Mi"}, "limits": {"storage": "1Mi"}}
    for bad, words in (
        (claim("x", {"accessModes": ["ReadWriteOnce"]}), "spec.resources.requests.storage: is required"),
        (
            claim("x", {**CLAIM_SPEC, "resources": too_much}),
            "spec.resources.requests.storage: 2Mi is more than the limit",
        ),
        (claim("x", {**CLAIM_SPEC, "volumeMode": "Block"}), "spec.volumeMode: Block: Kubernetes has it"),
        (claim("data-db-0", {**CLAIM_SPEC, "storageClassName": "fast"}), "spec.storageClassName: cannot be changed"),
        (stateful(replicas=1, size="2Mi"), "spec.volumeClaimTemplates: cannot be changed"),
    ):
        assert words in cluster.apply(ns, bad, expect=2)
    assert cluster.stored() == before


# ---- helpers --------------------------------------------------------------------------------------------------------

WHO = {"db-0": "data-of-db-0", "db-1": "data-of-db-1"}


def stateful(*, replicas: int = 2, image: str = "v1", size: str = "1Mi") -> Object:
    spec = {**CLAIM_SPEC, "resources": {"requests": {"storage": size}}}
    made = workload(
        "StatefulSet",
        "db",
        image=image,
        replicas=replicas,
        serviceName="db",
        volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": spec}],
    )
    made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    return made


def claim(name: str, spec: Object) -> Object:
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _claiming(name: str, **more: Any) -> Object:
    return {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name, **more}}]}


def _who(cluster: Cluster, ns: str) -> dict[str, str]:
    """What each pod reads from its volume."""

    def read(one: Running) -> str:
        return cluster.inside(one, "cat /data/who")

    return {one.pod: read(one) for one in cluster.wait_running(ns, 2)}


def _claims(cluster: Cluster, ns: str) -> list[Any]:
    items: list[Any] = json.loads(cluster.call("get", "pvc", "-n", ns, "-o", "json").out)["items"]
    return items


def _places(cluster: Cluster, ns: str) -> dict[str, str]:
    return {item["metadata"]["name"]: item["spec"]["volumeName"] for item in _claims(cluster, ns)}


def _volumes(cluster: Cluster, host: str) -> list[str]:
    return cluster.host(host).run("podman volume ls --quiet").split()
