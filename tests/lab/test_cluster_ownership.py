"""Whose a host is: taken over by another cluster and back, and wiped ones that come again."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.lab import Lab
from tests.lab.cluster import Cluster, deployment, ids, manifest, single, spread, wait_for


def test_a_host_that_is_taken_over_obeys_the_other_cluster_alone_and_can_be_taken_back(
    cluster: Cluster, ns: str, tmp_path: Path
) -> None:
    cluster.apply(ns, deployment("web"))
    before = cluster.running(ns)
    kept = [one for one in before if one.host != "node3"]
    other = Cluster(cluster.lab, tmp_path)
    assert "belongs to cluster" in other.run("reconcile", expect=4)
    assert "nobody can be asked" in other.run("node", "takeover", "node3", expect=2)
    assert cluster.running(ns) == before

    said = other.run("node", "takeover", "node3", "--yes")
    assert "node3 belongs to cluster" in said
    assert "pods there: 1" in said
    assert cluster.running(ns) == before, "until the next pass nothing is stopped"
    other.run("reconcile", expect=4)  # the two other hosts are not its own
    wait_for(lambda: cluster.running(ns) == kept, "the former cluster's pods there to stop")
    said = cluster.run("reconcile", expect=4)
    assert "node3" in said
    assert "belongs to cluster" in said
    assert cluster.running(ns) == kept, "its other hosts go on"
    applied = other.call("apply", "-f", "-", stdin=manifest(f"{ns}-o", single("theirs", node="node3")))
    assert applied.exit_code in (0, 4), applied.err
    other.wait_running(f"{ns}-o", 1, hosts=["node3"])

    cluster.run("node", "takeover", "node3", "--yes")
    cluster.run("reconcile", "--settle")
    assert spread(cluster.running(ns)) == {"node1": 1, "node2": 1, "node3": 1}
    assert ids(kept) <= ids(cluster.running(ns)), "nothing healthy was restarted"
    wait_for(lambda: not other.running(f"{ns}-o"), "the other cluster's pod to stop")
    assert "belongs to this cluster already" in cluster.run("node", "takeover", "node3", "--yes")


def test_a_wiped_host_is_replaced_at_once_and_comes_back_as_a_new_node(
    cluster: Cluster, whole_lab3: Lab, ns: str
) -> None:
    cluster.apply(ns, deployment("web"))
    before = cluster.running(ns)
    host = cluster.host("node3")
    whole_lab3.kill("node3")
    said = cluster.run("node", "confirm-dead", "node3", "--wiped", "--yes", expect=2)
    assert "it is not dead" in said, "what answered when it was last asked is not confirmed dead"
    cluster.run("reconcile", expect=4)
    [lost] = [one.pod for one in before if one.host == "node3"]
    said = cluster.run("node", "confirm-dead", "node3", "--wiped", "--yes")
    assert f"started elsewhere, without waiting: {ns}/{lost}" in said
    assert "starts none of them" in said
    cluster.call("reconcile", "--settle")
    assert len(cluster.running(ns, ["node1", "node2"])) == 3

    for part in (
        "var/lib/sshoal",
        "etc/systemd/system/sshoal-agent.service",
        "etc/systemd/system/sshoal-podman.service",
    ):
        path = host.upper / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (host.upper / "etc/systemd/system/multi-user.target.wants/sshoal-agent.service").unlink()
    whole_lab3.start("node3")
    assert not cluster.running(ns, ["node3"])
    cluster.run("reconcile", "--settle")
    assert [line for line in cluster.stored() if "the agent on node3 has a new identity" in line]
    cluster.apply(ns, deployment("web", 6))
    assert spread(cluster.running(ns))["node3"] >= 1
