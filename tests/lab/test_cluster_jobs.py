"""Jobs on real hosts: run to their end, counted, failed, suspended, and gone after their time."""

from __future__ import annotations

import json
from typing import Any

from tests.lab.cluster import Cluster, Object, wait_for

IMAGE = "localhost/sshoal-test:v1"


def test_an_indexed_job_runs_each_index_once_and_its_results_can_be_read(cluster: Cluster, ns: str) -> None:
    cluster.apply(
        ns,
        job(
            "pi",
            "echo index $JOB_COMPLETION_INDEX on $(hostname)",
            completions=3,
            parallelism=2,
            completionMode="Indexed",
        ),
    )
    assert "Complete" in cluster.run("wait", "job/pi", "--for=condition=complete", "-n", ns, "--timeout", "60s")
    assert status(cluster, ns, "pi")["completedIndexes"] == "0-2"
    said = sorted(line.partition("] ")[2] for line in cluster.run("logs", "job/pi", "-n", ns).splitlines())
    assert said == ["index 0 on pi-0", "index 1 on pi-1", "index 2 on pi-2"]
    codes = [
        one["state"]["terminated"]["exitCode"] for pod in cluster.pods(ns) for one in pod["status"]["containerStatuses"]
    ]
    assert codes == [0, 0, 0]
    cluster.run("reconcile", "--settle")
    assert status(cluster, ns, "pi")["succeeded"] == 3, "a later pass counts nothing twice"


def test_a_failure_policy_ends_a_job_by_its_exit_code(cluster: Cluster, ns: str) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    cluster.apply(ns, job("bad", "echo oh no; exit 42", podFailurePolicy={"rules": [rule]}))
    assert "Failed" in cluster.run("wait", "job/bad", "--for=condition=failed", "-n", ns, "--timeout", "60s")
    assert "oh no" in cluster.run("logs", "job/bad", "-n", ns)
    told = cluster.run("describe", "job/bad", "-n", ns)
    assert "PodFailurePolicy" in told
    assert "main 42" in told
    cluster.run("wait", "job/bad", "--for=condition=complete", "-n", ns, expect=3)


def test_a_suspended_job_runs_nothing_until_it_is_resumed_and_goes_after_its_time_to_live(
    cluster: Cluster, ns: str
) -> None:
    cluster.apply(ns, job("later", "true", suspend=True, ttlSecondsAfterFinished=1))
    assert not cluster.pods(ns)
    assert "Suspended" in cluster.run("get", "jobs", "-n", ns)
    cluster.apply(ns, job("later", "true", suspend=False, ttlSecondsAfterFinished=1))

    def is_gone() -> bool:
        cluster.run("reconcile", "--settle", "--budget", "10s")
        return "no jobs" in cluster.run("get", "jobs", "-n", ns)

    wait_for(is_gone, "the job to be deleted after its time to live")
    assert not cluster.pods(ns)


def job(name: str, script: str, **spec: Any) -> Object:
    container = {"name": "main", "image": IMAGE, "command": ["sh", "-c", script]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def status(cluster: Cluster, ns: str, name: str) -> Any:
    return json.loads(cluster.call("get", "job", name, "-n", ns, "-o", "json").out)["status"]


def test_a_cron_job_runs_each_minute_once_and_keeps_so_many(cluster: Cluster, ns: str) -> None:
    work = job("unused", "echo tick")["spec"]
    spec = {
        "schedule": "* * * * *",
        "timeZone": "Europe/Berlin",
        "successfulJobsHistoryLimit": 1,
        "jobTemplate": {"spec": work},
    }
    cron = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": spec}
    assert "cronjob.batch/tick created" in cluster.apply(ns, cron)
    names: set[str] = set()
    with cluster.watching():

        def second_is_complete() -> bool:
            names.update(line.split()[0] for line in cluster.call("get", "jobs", "-n", ns).out.splitlines()[1:])
            return (
                len(names) >= 2 and cluster.call("wait", f"job/{max(names)}", "--for=complete", "-n", ns).exit_code == 0
            )

        wait_for(second_is_complete, "two minutes to be run", timeout_s=180.0)
    ticks = sorted(int(name.removeprefix("tick-")) for name in names)
    assert ticks[1] == ticks[0] + 1
    cluster.run("reconcile", "--settle")
    assert len(cluster.run("get", "jobs", "-n", ns).splitlines()) <= 3, "of completed ones, one is kept"
    assert "tick" in cluster.run("logs", f"job/{max(names)}", "-n", ns)
    assert "Europe/Berlin" in cluster.run("describe", "cronjob/tick", "-n", ns)
