"""Images over SSH, on real hosts with real Podmans: what travels, what a cut leaves, and that pods run what came."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import image
from lab.layered import configuration, digest, docker_archive, layer
from tests.lab.cluster import SSHOAL, Cluster, Running, single, wait_for

REPOSITORY = "localhost/sshoal-layers"
UPLOADS = "/var/lib/sshoal/uploads"
NODES = ("node1", "node2", "node3")


@pytest.fixture(scope="module", autouse=True)
def _removed(cluster: Cluster) -> Iterator[None]:
    yield
    for name in NODES:
        cluster.host(name).run(f"podman images --format '{{{{.ID}}}}' {REPOSITORY} | sort -u | xargs -r podman rmi -f")


def archive(tmp_path: Path, tag: str, *layers: bytes) -> tuple[Path, str]:
    """(file, id of the image in it)."""
    path = docker_archive(tmp_path / f"{tag}.tar", f"{REPOSITORY}:{tag}", layers)
    return path, digest(configuration(layers)).removeprefix("sha256:")


def image_id(cluster: Cluster, node: str, tag: str) -> str:
    return (
        cluster.host(node).run(f"podman image inspect --format '{{{{.Id}}}}' {REPOSITORY}:{tag}", check=False).strip()
    )


def sent_bytes(said: str) -> dict[str, float]:
    """Node → MiB, as `image push` tells it."""
    units = {"KiB": 1 / 1024, "MiB": 1.0}
    found = re.findall(r"✓ (\S+): ([\d.]+) (KiB|MiB) sent", said)
    return {node: float(number) * units[unit] for node, number, unit in found}


def test_an_image_is_pushed_to_hosts_that_lack_it_and_only_to_those(cluster: Cluster) -> None:
    file = image.build(f"{image.REPOSITORY}:pushed")
    first = cluster.run("image", "push", str(file), "--nodes", "node1,node2")
    assert set(sent_bytes(first)) == {"node1", "node2"}
    again = cluster.run("image", "push", str(file))
    assert again.count("has it already") == 2
    assert set(sent_bytes(again)) == {"node3"}
    listed = json.loads(cluster.run("image", "list", "-o", "json"))
    (found,) = [one for one in listed if f"{image.REPOSITORY}:pushed" in one["names"]]
    assert found["nodes"] == list(NODES)


def test_a_second_push_sends_the_changed_layer_only_and_leaves_no_file_behind(cluster: Cluster, tmp_path: Path) -> None:
    base, first, second = layer("base", 12_000_000, 1), layer("app", 2_000_000, 2), layer("app", 2_000_000, 3)
    one, one_id = archive(tmp_path, "one", base, first)
    two, two_id = archive(tmp_path, "two", base, second)
    assert all(13 < size < 14 for size in sent_bytes(cluster.run("image", "push", str(one))).values())
    sent = sent_bytes(cluster.run("image", "push", str(two)))
    assert set(sent) == set(NODES)
    assert all(1.8 < size < 2.0 for size in sent.values())
    for node in NODES:
        assert (image_id(cluster, node, "one"), image_id(cluster, node, "two")) == (one_id, two_id)
        # Podman itself reads every layer of it back
        listing = cluster.host(node).run(f"podman save {REPOSITORY}:two | tar -tf - | grep -c '^[0-9a-f]*.tar$'")
        assert listing.strip() == "2"
        assert cluster.host(node).run(f"ls {UPLOADS}").strip() == ""
        assert cluster.host(node).run("ls -d /var/tmp/libpod-images-load* /var/tmp/oci* 2>/dev/null", check=False) == ""


def test_a_tag_moves_to_the_image_that_was_pushed_last(cluster: Cluster, tmp_path: Path) -> None:
    for seed in (4, 5):
        file, pushed_id = archive(tmp_path, "moving", layer("app", 100_000, seed))
        cluster.run("image", "push", str(file), "--nodes", "node1")
        assert image_id(cluster, "node1", "moving") == pushed_id


def test_a_push_that_was_killed_goes_on_where_it_was_and_a_damaged_part_is_not_trusted(
    cluster: Cluster, tmp_path: Path
) -> None:
    file, pushed_id = archive(tmp_path, "cut", layer("large", 150_000_000, 6))
    host = cluster.host("node2")
    parts = f"stat --format %s {UPLOADS}/*.part 2>/dev/null || true"
    argv = [SSHOAL, "image", "push", str(file), "--nodes", "node2"]
    for damaged in (False, True):
        _killed_midway(argv, cluster, lambda: int(host.run(parts) or 0) > 4_000_000)
        assert image_id(cluster, "node2", "cut") == ""
        if damaged:
            host.run(
                f"for part in {UPLOADS}/*.part; do printf X | dd of=$part bs=1 seek=100000 conv=notrunc 2>&1; done"
            )
        said = cluster.run("image", "push", str(file), "--nodes", "node2")
        assert "of a push that broke off" in said
        assert image_id(cluster, "node2", "cut") == pushed_id
        if damaged:
            assert sent_bytes(said)["node2"] > 143  # all of it once more
        else:
            assert sent_bytes(said)["node2"] < 140
        host.run(f"podman rmi {REPOSITORY}:cut")


def _killed_midway(argv: list[str], cluster: Cluster, is_midway: Callable[[], bool]) -> None:
    process = subprocess.Popen(
        argv, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for(lambda: process.poll() is not None or is_midway(), "some megabytes to arrive")
    finally:
        process.kill()
        said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said


def test_a_host_that_cannot_be_reached_is_named_and_the_others_get_the_image(cluster: Cluster, tmp_path: Path) -> None:
    file, pushed_id = archive(tmp_path, "others", layer("app", 100_000, 7))
    more = tmp_path / "more.ini"
    more.write_text(f"[all]\ngone ansible_host={cluster.lab.subnet[200]}\n")
    said = cluster.run(
        "image", "push", str(file), "-i", str(cluster.inventory), "-i", str(more), "--nodes", "node1:gone", expect=4
    )
    assert "✗ gone: " in said
    assert "✓ node1: " in said
    assert image_id(cluster, "node1", "others") == pushed_id


def test_an_image_of_the_local_podman_is_pushed_by_its_name(cluster: Cluster, tmp_path: Path) -> None:
    file, pushed_id = archive(tmp_path, "local", layer("app", 100_000, 8))
    settings = tmp_path / "storage.conf"
    settings.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n')
    environment = {**cluster.environment, "CONTAINERS_STORAGE_CONF": str(settings)}
    subprocess.run(
        ["podman", "load", "--quiet", "--input", str(file)], env=environment, check=True, capture_output=True
    )
    done = subprocess.run(
        [SSHOAL, "image", "push", f"{REPOSITORY}:local", "--nodes", "node3"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert image_id(cluster, "node3", "local") == pushed_id
    missing = subprocess.run(
        [SSHOAL, "image", "push", f"{REPOSITORY}:none"], env=environment, capture_output=True, text=True, check=False
    )
    assert missing.returncode == 2
    assert "podman save" in missing.stderr


def test_a_pod_that_waits_for_an_image_runs_as_soon_as_it_is_pushed(cluster: Cluster, ns: str) -> None:
    tag = f"{image.REPOSITORY}:awaited"
    container = {"image": tag, "imagePullPolicy": "Never", "readinessProbe": None}
    said = cluster.apply(ns, single("waits", container=container, node="node1"), flags=["--timeout", "3s"], expect=3)
    said += cluster.run("describe", "pod/waits", "-n", ns)
    assert "ErrImageNeverPull" in said
    assert f"sshoal image push {tag}" in said
    cluster.run("image", "push", str(image.build(tag)), "--nodes", "node1")
    (pod,) = cluster.wait_running(ns, 1)
    assert isinstance(pod, Running)
    assert pod.image == tag


def test_pushes_say_one_line_a_host_when_nobody_watches(cluster: Cluster, tmp_path: Path) -> None:
    file, _ = archive(tmp_path, "quiet", layer("app", 100_000, 9))
    done = cluster.call("image", "push", str(file))
    assert (done.exit_code, done.err) == (0, "")
    assert sorted(line.split(":")[0] for line in done.out.splitlines()) == [f"✓ {node}" for node in NODES]
    assert os.linesep not in done.out.splitlines()[0]
