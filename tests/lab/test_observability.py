"""What an operator sees of a story on real hosts: the endpoint for Prometheus, the file for node_exporter, the log, the operations."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.cluster import SSHOAL, Cluster, deployment, secret, wait_for

CANARY = "canary-of-the-observability-test"


def read(text: str) -> dict[tuple[str, ...], float]:
    """{(name, labels' values in alphabetical order of their names): value}, as Prometheus' own parser reads it."""
    return {
        (one.name, *(one.labels[name] for name in sorted(one.labels))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


@pytest.mark.timeout(600)
def test_a_story_is_seen_in_metrics_log_and_operations(cluster: Cluster, ns: str, tmp_path: Path) -> None:
    names = [host.name for host in cluster.lab.hosts]
    log = tmp_path / "watch.log"
    with log.open("wb") as out:
        watch = subprocess.Popen(
            [SSHOAL, "watch", "--period", "1s", "--metrics-listen", "127.0.0.1:0", "--log-format", "json"],
            stdout=subprocess.DEVNULL,
            stderr=out,
            env=cluster.environment,
        )
    try:
        found: list[str] = []

        def listening() -> bool:
            found[:] = re.findall(r'"url": "(http://127\.0\.0\.1:\d+/metrics)"', log.read_text())
            return bool(found)

        wait_for(listening, "watch to listen")

        def scraped() -> dict[tuple[str, ...], float]:
            with urllib.request.urlopen(found[0], timeout=10) as answer:
                return read(answer.read().decode())

        # the story: declared, scaled by sudo's caller, looked into, deleted; meanwhile a host falls silent
        wait_for(lambda: all(scraped().get(("sshoal_node_state", name, "Ready")) == 1 for name in names), "three nodes")
        cluster.apply(ns, deployment("web", replicas=2), secret("keys", password=CANARY))
        metrics = scraped()
        assert metrics["sshoal_workload_replicas_desired", "Deployment", "web", ns] == 2
        wait_for(lambda: scraped()["sshoal_workload_replicas_available", "Deployment", "web", ns] == 2, "two replicas")
        wait_for(lambda: scraped()["sshoal_pods", ns, "Running"] == 2, "two pods in the metrics")
        assert metrics["sshoal_store_bytes", "file"] > metrics["sshoal_store_bytes", "unused"]
        versions = {key[-1] for key in metrics if key[0] == "sshoal_agent_info"}
        assert len(versions) == 1

        environment = {**cluster.environment, "SUDO_USER": "ada"}
        subprocess.run([SSHOAL, "scale", "deployment/web", "--replicas", "3", "-n", ns], env=environment, check=True)
        pod = cluster.pods(ns)[0]["metadata"]["name"]
        assert cluster.call("exec", "-n", ns, pod, "--", "sh", "-c", f"echo {CANARY}").exit_code == 0

        lost = names[-1]
        before = scraped()["sshoal_node_last_seen_timestamp_seconds", lost]
        cluster.lab.partition(lost)
        try:
            wait_for(lambda: scraped()["sshoal_node_state", lost, "Unknown"] == 1, f"{lost} to be unknown")
            silent = scraped()
            assert silent["sshoal_host_errors_total", lost, "unreachable"] >= 2
            assert silent["sshoal_node_last_seen_timestamp_seconds", lost] >= before
        finally:
            cluster.lab.heal(lost)
        wait_for(lambda: scraped()["sshoal_node_state", lost, "Ready"] == 1, f"{lost} to be back")
        assert watch.poll() is None
    finally:
        watch.send_signal(signal.SIGINT)
        watch.wait(timeout=30)

    # the log: an object a line, what was decided with its reason, and no value of a secret
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    binds = [line for line in lines if line.get("verb") == "bind" and line["namespace"] == ns]
    assert {line["node"] for line in binds} <= set(names) and len(binds) == 3
    assert all(line["message"] and line["pass"] and line["reason"] for line in binds)
    assert any(line["event"] == "Note" and lost in line["message"] for line in lines)
    assert CANARY not in text

    # the record of operations: who did what, and each order that an agent goes by
    done = json.loads(cluster.run("operations", "-o", "json", "--limit", "1000"))["items"]
    story = [one for one in done if f"Deployment {ns}/web" in one["objects"]]
    assert [(one["command"], one["sudoUser"], one["outcome"]) for one in story] == [
        ("apply", "", "done"),
        ("scale", "ada", "done"),
    ]
    (entered,) = [one for one in done if one["command"] == "exec"]
    assert (entered["objects"], entered["outcome"], entered["machine"]) == (
        [f"Pod {ns}/{pod}"],
        "exit code 0",
        os.uname().nodename,
    )
    orders = [one for one in done if one["verb"] == "order"]
    assert {one["command"] for one in orders} <= {"watch", "apply", "scale", "delete"}
    assert len({one["serial"] for one in orders}) == len(orders)
    for host in cluster.lab.hosts:
        # What this agent goes by; the line before it holds a checksum.
        document = host.run("cat /var/lib/sshoal/documents/wanted")
        owner = json.loads(document.partition("\n")[2])["owner"]
        (order,) = [one for one in orders if one["serial"] == owner["serial"]]
        assert (order["node"], order["outcome"]) == (host.name, "accepted")
        assert order["epoch"] <= owner["epoch"]["number"]
        said = host.run("journalctl -u sshoal-agent --no-pager -o cat")
        assert f"wanted set {owner['serial']} of epoch {owner['epoch']['number']}, " in said
    assert CANARY not in json.dumps(done)


def test_a_pass_by_cron_leaves_its_metrics_for_node_exporter(cluster: Cluster, ns: str, tmp_path: Path) -> None:
    file = tmp_path / "sshoal.prom"
    cluster.apply(ns, deployment("web", replicas=1))
    for _ in range(2):
        cluster.run("reconcile", "--settle", "--scheduled", "--metrics-file", str(file))
    metrics = read(file.read_text())
    assert metrics["sshoal_settled",] == 1
    assert metrics["sshoal_passes_total", "settled"] >= 2
    assert metrics["sshoal_workload_replicas_available", "Deployment", "web", ns] == 1
    assert all(metrics["sshoal_node_state", host.name, "Ready"] == 1 for host in cluster.lab.hosts)
    assert [one.name for one in tmp_path.iterdir()] == ["sshoal.prom"]
