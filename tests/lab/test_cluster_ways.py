"""Other ways to hosts, leaving them, and mistakes of users: sudo, sshd without forwarding, delete, forget, bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.lab.cluster import Cluster, config_map, deployment, ids, manifest, secret, single, wait_for
from tests.lab.test_bootstrap import LEFT_BEHIND

NO_FORWARDING = "/etc/ssh/sshd_config.d/zz-no-forwarding.conf"


@pytest.fixture
def fresh(cluster: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """A cluster of the test's own on hosts that know nothing of sshoal; the module's own gets them anew afterwards."""
    cluster.wipe()
    yield Cluster(cluster.lab, tmp_path)
    cluster.wipe()


def test_an_ordinary_user_with_sudo_is_enough(fresh: Cluster) -> None:
    sudo = Cluster(fresh.lab, fresh.directory, fresh.lab.inventory_sudo)
    assert "3 of 3 replicas are available" in sudo.apply("shop", deployment("web"))
    before = sudo.running("shop")
    assert sorted(one.host for one in before) == ["node1", "node2", "node3"]
    assert "everything is as declared" in sudo.run("reconcile", "--settle")
    assert "2 of 2 replicas" in sudo.run("scale", "deployment/web", "--replicas", "2", "-n", "shop")
    assert ids(sudo.wait_running("shop", 2)) < ids(before)
    # The socket is root's alone: the ordinary user cannot drive the agent past sudo.
    refused = sudo.host("node1").run("ls /run/sshoal 2>&1; true", user="ubuntu")
    assert "Permission denied" in refused


def test_an_sshd_that_forwards_nothing_is_enough(cluster: Cluster, ns: str) -> None:
    node = cluster.host("node1")
    node.run(
        f"printf 'AllowStreamLocalForwarding no\\nAllowTcpForwarding no\\n' >{NO_FORWARDING}; systemctl reload ssh"
    )
    try:
        cluster.apply(ns, single("web", node="node1"))
        assert [one.host for one in cluster.running(ns)] == ["node1"]
    finally:
        node.run(f"rm {NO_FORWARDING}; systemctl reload ssh")


def test_a_deleted_deployment_leaves_nothing_on_the_hosts_and_other_pods_alone(cluster: Cluster, ns: str) -> None:
    cluster.apply(ns, deployment("web"), single("other"))
    other = [one for one in cluster.running(ns) if one.pod == "other"]
    assert "deployment.apps/web deleted" in cluster.run("delete", "deployment/web", "-n", ns)
    assert cluster.running(ns) == other
    left = f"podman ps -a --noheading --filter label=sshoal.dev/namespace={ns} | grep web; podman pod ps --noheading | grep {ns[:20]}.*web"
    assert [host.run(left, check=False) for host in cluster.lab.hosts] == ["", "", ""]
    assert [pod["metadata"]["name"] for pod in cluster.pods(ns)] == ["other"]


def test_a_deleted_namespace_takes_all_with_it(cluster: Cluster) -> None:
    cluster.apply("doomed", deployment("web"), single("other"), config_map("settings", a="b"), secret("token", a="b"))
    uids = {one.uid for one in cluster.running("doomed")}
    cluster.run("delete", "namespace/doomed")
    assert not cluster.running("doomed")
    assert not any("doomed" in line for line in cluster.stored() if line.startswith('INSERT INTO "records"'))
    cluster.run("get", "deployment", "web", "-n", "doomed", expect=2)
    paths = " ".join(f"/var/lib/sshoal/*/*{uid}* /run/sshoal/*/*{uid}*" for uid in sorted(uids))
    look = f"ls -d {paths} 2>/dev/null; podman ps -a --noheading | grep doomed; podman pod ps --noheading | grep doomed"
    wait_for(lambda: [host.run(look, check=False) for host in cluster.lab.hosts] == ["", "", ""], "no trace of it")


def test_a_forgotten_host_keeps_nothing_and_the_rest_goes_on(fresh: Cluster) -> None:
    fresh.apply("shop", deployment("web"))
    before = fresh.running("shop", ["node1", "node2"])
    lines = fresh.inventory.read_text().splitlines()
    fresh.inventory = fresh.directory / "inventory.ini"
    fresh.inventory.write_text("\n".join(line for line in lines if not line.startswith("node3")) + "\n")
    said = fresh.run("node", "forget", "node3", "--yes")
    assert "node/node3 forgotten" in said
    assert fresh.host("node3").run(LEFT_BEHIND, check=False) == ""
    fresh.run("reconcile", "--settle")
    after = fresh.running("shop")
    assert len(after) == 3
    assert ids(before) < ids(after)
    assert "node3" not in fresh.run("get", "nodes")


# ---- mistakes -------------------------------------------------------------------------------------------------------

GOOD = manifest("shop", deployment("web"))

MISTAKES = {
    "a misspelt field": (["apply", "-f", "-"], GOOD.replace('"replicas"', '"replica"'), "did you mean 'replicas'"),
    "a field of the wrong type": (["apply", "-f", "-"], GOOD.replace('"replicas": 3', '"replicas": "many"'), "replicas"),
    "a kind that is not there": (["apply", "-f", "-"], GOOD.replace('"Deployment"', '"Deploymint"'), "Deploymint"),
    "a selector that does not match": (
        ["apply", "-f", "-"],
        GOOD.replace('"matchLabels": {\n    "app": "web"', '"matchLabels": {\n    "app": "wob"'),
        "selector",
    ),
    "no yaml": (["apply", "-f", "-"], "a: [b", "standard input"),
    "a namespace that does not exist": (["apply", "-f", "-", "-n", "nowhere"], json.dumps(single("web")), "nowhere"),
    "a file that does not exist": (["apply", "-f", "/nonexistent/web.yaml"], "", "/nonexistent/web.yaml"),
    "an inventory that does not exist": (["apply", "-f", "-", "-i", "/nonexistent/hosts.ini"], GOOD, "/nonexistent/hosts.ini"),
    "a broken inventory": (["apply", "-f", "-", "-i", "BROKEN"], GOOD, "broken.ini:1"),
    "an unknown option": (["apply", "-f", "-", "--replicas", "3"], GOOD, "--replicas"),
    "a timeout that is none": (["apply", "-f", "-", "--timeout", "soon"], GOOD, "soon"),
    "an object that does not exist": (["scale", "deployment/nothing", "--replicas", "3"], "", "nothing"),
    "a negative number of replicas": (["scale", "deployment/web", "-n", "mistakes", "--replicas", "-1"], "", "-1"),
    "a node that does not exist": (["node", "cordon", "node99"], "", "node99"),
}  # fmt: skip


@pytest.fixture(scope="module")
def something(cluster: Cluster) -> Iterator[None]:
    """A deployment whose store and containers nothing below may change."""
    cluster.apply("mistakes", deployment("web", 1))
    yield
    cluster.run("delete", "namespace/mistakes", "--grace-period", "0")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_error_with_exit_code_2_and_changes_nothing(
    cluster: Cluster, something: None, mistake: str
) -> None:
    arguments, text, said = MISTAKES[mistake]
    broken = cluster.directory / "broken.ini"
    broken.write_text("[web\nnode1\n")
    arguments = [str(broken) if argument == "BROKEN" else argument for argument in arguments]
    stored, containers = cluster.stored(), cluster.running("mistakes")
    done = cluster.call(*arguments, stdin=text)
    assert (done.exit_code, done.out) == (2, ""), done.err
    assert said in done.err
    assert done.err.lower().count("error") == 1
    assert "Traceback" not in done.err
    assert cluster.stored() == stored
    assert cluster.running("mistakes") == containers


def test_a_host_that_cannot_be_reached_at_all_is_named_and_the_others_serve(
    whole_lab3: Lab, cluster: Cluster, ns: str
) -> None:
    lines = cluster.inventory.read_text().replace("[lab]\n", "[lab]\nghost ansible_host=192.0.2.1\n")
    former, cluster.inventory = cluster.inventory, cluster.directory / "with-ghost.ini"
    cluster.inventory.write_text(lines)
    try:
        said = cluster.apply(ns, deployment("web"))
        assert "ghost gives no report" in said
        assert "3 of 3 replicas are available" in said
    finally:
        cluster.inventory = former
