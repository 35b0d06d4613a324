"""Controllers that die, overlap, repeat themselves, come twice, or remember less than their hosts do."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.lab.cluster import Cluster, deployment, ids, manifest, wait_for


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_next_pass_carries_out_what_a_killed_controller_had_begun(cluster: Cluster, ns: str, seed: int) -> None:
    moment_s = random.Random(seed).uniform(0.5, 3)
    with cluster.started("apply", "-f", "-", stdin=manifest(ns, deployment("web", 4))) as process:
        try:
            process.wait(timeout=moment_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    if not any(ns in line for line in cluster.stored()):  # killed before its transaction: nothing has happened
        assert not cluster.running(ns)
        cluster.apply(ns, deployment("web", 4))
    cluster.run("reconcile", "--settle", "--budget", "90s")
    containers = cluster.running(ns)
    assert len(containers) == 4
    assert len({one.pod for one in containers}) == 4


def test_of_two_overlapping_passes_the_second_says_so_and_a_scheduled_one_is_silent(cluster: Cluster) -> None:
    with cluster.watching():
        said = cluster.run("reconcile", expect=5)
        assert "another" in said
        done = cluster.call("reconcile", "--scheduled", "--settle")
    assert (done.exit_code, done.out, done.err) == (0, "", "")


def test_apply_beside_a_watch_leaves_the_work_to_it(cluster: Cluster, ns: str) -> None:
    with cluster.watching() as log:
        said = cluster.apply(ns, deployment("web"))
        assert "3 of 3 replicas are available" in said
        assert "web" in log.read_text()
    assert len(cluster.running(ns)) == 3


def test_a_pass_over_a_converged_cluster_writes_nothing_and_touches_nothing(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web", 6))
    cluster.run("reconcile", "--settle")
    stored, containers = cluster.stored(), cluster.running(ns)
    touched = [events_of_podman(cluster, host.name, ns) for host in cluster.lab.hosts]
    assert all(touched), "each host tells of its two pods"
    for _ in range(2):
        assert "everything is as declared" in cluster.run("reconcile")
    assert "unchanged" in cluster.apply(ns, deployment("web", 6))
    assert "nothing to do" in cluster.run("plan")
    assert cluster.stored() == stored
    assert cluster.running(ns) == containers
    assert [events_of_podman(cluster, host.name, ns) for host in cluster.lab.hosts] == touched


def test_another_cluster_does_not_get_hosts_that_have_an_owner(cluster: Cluster, ns: str, tmp_path: Path) -> None:
    cluster.apply(ns, deployment("web"))
    before = cluster.running(ns)
    other = Cluster(cluster.lab, tmp_path)
    said = other.apply("others", deployment("web"), flags=["--timeout", "5s"], expect=3)
    assert "belongs to cluster" in said
    assert not other.running("others")
    other.run("reconcile", expect=4)
    assert cluster.running(ns) == before
    assert "everything is as declared" in cluster.run("reconcile", "--settle")


def test_a_copied_store_that_went_on_by_itself_is_not_obeyed(cluster: Cluster, ns: str, tmp_path: Path) -> None:
    cluster.apply(ns, deployment("web"))
    copy = Cluster(cluster.lab, tmp_path / "copy")
    shutil.copytree(cluster.directory, copy.directory)
    cluster.run("scale", "deployment/web", "--replicas", "2", "-n", ns)
    containers = cluster.wait_running(ns, 2)
    for_the_copy = copy.call("scale", "deployment/web", "--replicas", "5", "-n", ns, "--timeout", "5s")
    assert for_the_copy.exit_code != 0
    assert "behind" in for_the_copy.err or "copied" in for_the_copy.err, for_the_copy.err
    cluster.run("reconcile", "--settle")
    assert ids(cluster.running(ns)) == ids(containers)


def test_a_store_from_an_old_backup_only_observes(cluster: Cluster, ns: str, tmp_path: Path) -> None:
    cluster.apply(ns, deployment("web", 2))
    old = Cluster(cluster.lab, tmp_path / "restored")
    old.directory.mkdir(mode=0o700)
    backup(cluster.directory / "store.db", old.directory / "store.db")
    shutil.copy(cluster.directory / "secrets.key", old.directory)
    cluster.run("scale", "deployment/web", "--replicas", "4", "-n", ns)
    containers = cluster.running(ns)
    stored = old.stored()
    said = old.run("reconcile", "--settle", expect=1)
    assert "behind its hosts" in said
    assert "nothing is done" in said
    assert old.stored() == stored
    assert ids(cluster.running(ns)) == ids(containers)
    wait_for(lambda: cluster.call("reconcile").exit_code == 0, "the true store to be obeyed as before")


def events_of_podman(cluster: Cluster, node: str, namespace: str) -> list[str]:
    """All that Podman did with containers of a namespace on a host, but for exec and the like."""
    kinds = " ".join(f"--filter event={kind}" for kind in ("create", "start", "stop", "kill", "died", "remove"))
    told = cluster.host(node).run(f"podman events --stream=false {kinds}").splitlines()
    # Without the labels in brackets, whose order is another each time.
    return sorted(line.partition(" (")[0] for line in told if f"sshoal.dev/namespace={namespace}" in line)


def backup(source: Path, target: Path) -> None:
    """As an operator's `sqlite3 store.db '.backup …'` does it."""
    with sqlite3.connect(source) as live, sqlite3.connect(target) as copy:
        live.backup(copy)
    live.close()
    copy.close()
