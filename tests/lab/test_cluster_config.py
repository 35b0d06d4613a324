"""ConfigMaps and Secrets reach containers, change in place, are waited for, and secrets are nowhere in clear."""

from __future__ import annotations

from tests.lab.cluster import Cluster, config_map, secret, single, wait_for

CANARY = "canary-7f3d5e0b91"

ENV = [
    {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "value"}}},
    {"name": "MY_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    {"name": "BOTH", "value": "$(LEVEL)-$(MY_NODE)"},
]
FILES = {"volumeMounts": [{"name": "settings", "mountPath": "/etc/app"}, {"name": "token", "mountPath": "/run/token"}]}
VOLUMES = {
    "volumes": [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "token", "secret": {"secretName": "token", "defaultMode": 0o400}},
    ]
}


def test_config_maps_and_secrets_arrive_as_variables_and_as_files(cluster: Cluster, ns: str) -> None:
    objects = [config_map("settings", level="info"), secret("token", value="abc")]
    cluster.apply(ns, *objects, single("reader", container={"env": ENV, **FILES}, pod=VOLUMES))
    (reader,) = cluster.running(ns)
    assert cluster.inside(reader, "echo $LEVEL $TOKEN $BOTH") == f"info abc info-{reader.host}"
    assert cluster.inside(reader, "cat /etc/app/level /run/token/value") == "infoabc"
    assert cluster.inside(reader, "stat -L -c %a /run/token/value") == "400"


def test_a_change_swaps_files_in_place_and_restarts_nothing(cluster: Cluster, ns: str) -> None:
    pod = single("reader", container=FILES, pod=VOLUMES)
    cluster.apply(ns, config_map("settings", level="info"), secret("token", value="abc"), pod)
    before = cluster.running(ns)
    said = cluster.apply(ns, config_map("settings", level="debug", extra="x"), secret("token", value="xyz"))
    assert "configmap/settings configured" in said
    assert "secret/token configured" in said
    shown = "cat /etc/app/level /run/token/value; ls /etc/app"
    wait_for(lambda: cluster.inside(before[0], shown).split() == ["debugxyzextra", "level"], "the files to change")
    assert cluster.running(ns) == before


def test_a_pod_waits_for_its_config_map_says_so_and_starts_once_it_is_there(cluster: Cluster, ns: str) -> None:
    pod = single("reader", container={"env": ENV[:1]})
    said = cluster.apply(ns, pod, flags=["--timeout", "20s"], expect=3)
    assert "CreateContainerConfigError" in said
    assert "settings" in said
    assert not cluster.running(ns)
    cluster.apply(ns, config_map("settings", level="info"))
    cluster.run("wait", "pod/reader", "-n", ns, "--timeout", "60s")
    (reader,) = cluster.running(ns)
    assert cluster.inside(reader, "echo $LEVEL") == "info"


def test_a_secret_is_nowhere_in_clear_but_in_the_pods_that_it_is_for(cluster: Cluster, ns: str) -> None:
    said = cluster.apply(
        ns, secret("token", value=CANARY), single("reader", container=FILES_OF_TOKEN, pod=VOLUME_OF_TOKEN, node="node1")
    )
    said += cluster.run("get", "secrets", "-n", ns, "-o", "yaml") + cluster.run("describe", "secret/token", "-n", ns)
    said += cluster.run("events", "-n", ns) + cluster.run("plan")
    assert CANARY not in said
    for file in cluster.directory.rglob("*"):
        assert not file.is_file() or CANARY.encode() not in file.read_bytes(), file
    (reader,) = cluster.running(ns)
    assert cluster.inside(reader, "cat /run/token/value") == CANARY
    node = cluster.host("node1")
    # The pattern is split so that the search does not find itself.
    pattern = f"{CANARY[:6]}[{CANARY[6]}]{CANARY[7:]}"
    sweep = (
        f"grep -lrs '{pattern}' /var/lib/sshoal /etc /var/log /tmp /var/lib/containers/storage/overlay-containers; "
        f"journalctl --no-pager -q | grep '{pattern}'; "
        f"grep -ls '{pattern}' /proc/[0-9]*/cmdline /proc/[0-9]*/environ; "
        f"podman inspect {reader.id} | grep '{pattern}'; podman pod inspect {reader.podman_pod} | grep '{pattern}'"
    )
    assert node.run(sweep, check=False) == ""
    where = node.run(f"grep -lrs '{pattern}' /run/sshoal | head -1 | xargs stat -f -c %T", check=False)
    assert where.strip() == "tmpfs"
    elsewhere = cluster.host("node2").run(f"grep -lrs '{pattern}' /run/sshoal /var/lib/sshoal", check=False)
    assert elsewhere == "", "only the node that runs the pod gets the secret"


def test_a_deleted_secret_leaves_no_trace_on_the_host(cluster: Cluster, ns: str) -> None:
    cluster.apply(
        ns, secret("token", value=CANARY), single("reader", container=FILES_OF_TOKEN, pod=VOLUME_OF_TOKEN, node="node1")
    )
    cluster.run("delete", "pod/reader", "secret/token", "-n", ns, "--grace-period", "0")
    pattern = f"{CANARY[:6]}[{CANARY[6]}]{CANARY[7:]}"
    look = f"grep -lrs '{pattern}' /run/sshoal /var/lib/sshoal; ls /run/sshoal/pods 2>/dev/null; grep -c '/run/sshoal/pods' /proc/mounts"
    wait_for(lambda: cluster.host("node1").run(look, check=False).strip() == "0", "nothing to be left on node1")


def test_pods_come_back_with_their_secret_after_a_power_cut_and_no_controller(
    cluster: Cluster, whole_lab3: object, ns: str
) -> None:
    cluster.apply(
        ns, secret("token", value=CANARY), single("reader", container=FILES_OF_TOKEN, pod=VOLUME_OF_TOKEN, node="node1")
    )
    cluster.lab.kill("node1")
    cluster.lab.start("node1")
    (reader,) = cluster.wait_running(ns, 1)
    assert cluster.inside(reader, "cat /run/token/value") == CANARY


FILES_OF_TOKEN = {"volumeMounts": FILES["volumeMounts"][1:]}
VOLUME_OF_TOKEN = {"volumes": VOLUMES["volumes"][1:]}
