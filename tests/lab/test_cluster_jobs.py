"""Jobs on real hosts: run to their end, counted, failed, suspended, and gone after their time."""

from __future__ import annotations

import json
import time
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


def cron(name: str, script: str, schedule: str = "* * * * *", **spec: Any) -> Object:
    work = {"metadata": {"labels": {"made-by": name}}, "spec": job("unused", script)["spec"]}
    fields = {"schedule": schedule, "jobTemplate": work, **spec}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name}, "spec": fields}


def test_cron_jobs_run_as_the_clock_and_their_fields_say_and_keep_so_many(cluster: Cluster, ns: str) -> None:
    """Through two minutes: no controller is there when the first begins, one watches the second."""
    here = time.gmtime()
    # In Kathmandu it is 5:45 later. Hours that it is there in these minutes, and never is by UTC.
    hours = {time.gmtime(time.time() + 5.75 * 3600 + minutes * 60).tm_hour for minutes in (0, 10)}
    assert not hours & {here.tm_hour, (here.tm_hour + 1) % 24}
    there = f"* {','.join(map(str, sorted(hours)))} * * *"
    endless = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
    crons = (
        cron("tick", "echo tick", timeZone="Europe/Berlin", successfulJobsHistoryLimit=1),
        cron("suspended", "true", suspend=True),
        cron("zoned", "true", there, timeZone="Asia/Kathmandu"),
        cron("unzoned", "true", there),
        cron("strict", "true", startingDeadlineSeconds=8),
        cron("allow", endless, concurrencyPolicy="Allow"),
        cron("forbid", endless, concurrencyPolicy="Forbid"),
        cron("replace", endless, concurrencyPolicy="Replace"),
        cron("forgets", "exit 1", failedJobsHistoryLimit=0),
        cron("remembers", "exit 1"),
    )
    for one in crons:
        one["spec"]["jobTemplate"]["spec"]["backoffLimit"] = 0

    wait_for(lambda: time.time() % 60 < 45, "a minute that is not about to end")
    first_s = time.time() // 60 * 60 + 60
    assert "cronjob.batch/tick created" in cluster.apply(ns, *crons)
    wait_for(lambda: time.time() > first_s + 9, "the next minute to have begun", timeout_s=90)
    cluster.run("reconcile", "--settle", "--budget", "20s")
    first = made(cluster, ns)
    for name in ("suspended", "unzoned", "strict"):
        assert name not in first
    assert len(first["zoned"]) == 1

    with cluster.watching():
        wait_for(lambda: len(made(cluster, ns).get("allow", ())) >= 2, "the next minute to be run", timeout_s=120)
        wait_for(lambda: made(cluster, ns).get("strict"), "the one that was not late")
        wait_for(lambda: set(made(cluster, ns)["replace"]).isdisjoint(first["replace"]), "one to be replaced")

        def one_is_kept() -> bool:
            ticks = made(cluster, ns).get("tick", [])
            done = len(ticks) == 1 and ticks != first["tick"]
            return done and cluster.call("wait", f"job/{ticks[0]}", "--for=complete", "-n", ns).exit_code == 0

        wait_for(one_is_kept, "the first to go: of completed ones, one is kept")
        wait_for(lambda: "forgets" not in made(cluster, ns), "the failed one to go")
        wait_for(lambda: len(made(cluster, ns).get("remembers", ())) == 1, "the other failed one to be kept")
    now = made(cluster, ns)
    ticks = sorted(int(name.rpartition("-")[2]) for name in now["allow"])
    assert ticks[1] == ticks[0] + 1, "each minute once"
    assert now["forbid"] == first["forbid"]
    assert not {"suspended", "unzoned"} & set(now)
    assert "tick" in cluster.run("logs", f"job/{now['tick'][0]}", "-n", ns)
    assert "Europe/Berlin" in cluster.run("describe", "cronjob/tick", "-n", ns)
    chosen = cluster.run("get", "jobs", "-n", ns, "-l", "made-by=forbid", "-o", "name").split()
    assert chosen == [f"job.batch/{first['forbid'][0]}"]
    assert "forgets" in cluster.run("events", "-n", ns), "it did run"


def made(cluster: Cluster, ns: str) -> dict[str, list[str]]:
    """The Jobs that there are, by the CronJob that made them."""
    found: dict[str, list[str]] = {}
    for name in cluster.run("get", "jobs", "-n", ns, "-o", "name").split():
        if "/" in name:
            found.setdefault(name.rpartition("/")[2].rpartition("-")[0], []).append(name.rpartition("/")[2])
    return found


def test_a_cron_job_is_run_once_more_by_hand_and_an_image_once(cluster: Cluster, ns: str) -> None:
    template = {"spec": {"template": job("unused", "echo by hand")["spec"]["template"]}}
    spec = {"schedule": "0 0 1 1 *", "jobTemplate": template}
    cluster.apply(ns, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "yearly"}, "spec": spec})
    cluster.run("create", "job", "now", "--from", "cronjob/yearly", "-n", ns)
    cluster.run("create", "job", "once", "--image", IMAGE, "-n", ns, "--", "echo", "of an image")
    for name, words in (("now", "by hand"), ("once", "of an image")):
        cluster.run("wait", f"job/{name}", "--for=condition=complete", "-n", ns, "--timeout", "60s")
        assert words in cluster.run("logs", f"job/{name}", "-n", ns)
    cluster.run("delete", "cronjob/yearly", "-n", ns)
    assert cluster.run("get", "jobs", "-n", ns, "-o", "name").split() == ["job.batch/once"]


def test_a_pod_that_still_ends_is_replaced_at_once_or_only_when_it_is_gone(cluster: Cluster, ns: str) -> None:
    stubborn = "trap '' TERM; while :; do sleep 0.2; done"
    policies = {"soon": "TerminatingOrFailed", "late": "Failed"}
    cluster.apply(ns, *(job(name, stubborn, podReplacementPolicy=policy) for name, policy in policies.items()))
    first = cluster.wait_running(ns, 2)
    with cluster.watching():
        victims = [f"pod/{one.pod}" for one in first]
        cluster.run("delete", *victims, "-n", ns, "--grace-period", "600", "--no-wait")
        cluster.wait_running(ns, 3)
        # Both have the same back-off: a pass that replaces the one would replace the other too.
        assert sorted(pod["metadata"]["name"].partition("-")[0] for pod in cluster.pods(ns)) == ["late", "soon", "soon"]
        cluster.run("delete", *victims, "-n", ns, "--grace-period", "0", "--no-wait")
        wait_for(
            lambda: (
                sorted(one.pod.partition("-")[0] for one in cluster.running(ns)) == ["late", "soon"]
                and not {one.id for one in cluster.running(ns)} & {one.id for one in first}
            ),
            "one new pod of each",
        )


def test_a_policy_that_looks_at_conditions_tells_an_eviction_from_a_failure(cluster: Cluster, ns: str) -> None:
    def policed(name: str, script: str, kind: str, status: str, *, node: str = "") -> Object:
        rule = {"action": "Ignore", "onPodConditions": [{"type": kind, "status": status}]}
        found = job(name, script, backoffLimit=0, podFailurePolicy={"rules": [rule]})
        found["spec"]["template"]["spec"] |= {
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"kubernetes.io/hostname": node} if node else {},
        }
        return found

    cluster.apply(
        ns,
        policed("ignored", "sleep 1000", "DisruptionTarget", "True", node="node2"),
        policed("other-status", "sleep 1000", "DisruptionTarget", "False", node="node2"),
        policed("other-type", "sleep 1000", "ConfigIssue", "True", node="node2"),
        policed("by-itself", "exit 3", "DisruptionTarget", "True"),
    )
    cluster.wait_running(ns, 3)
    try:
        cluster.run("node", "drain", "node2", "--grace-period", "0", "--timeout", "60s")
    finally:
        cluster.run("node", "uncordon", "node2")
    failed = ["job/other-status", "job/other-type", "job/by-itself"]
    with cluster.watching():
        cluster.run("wait", *failed, "--for=condition=failed", "-n", ns, "--timeout", "60s")
        wait_for(lambda: [one.pod.rpartition("-")[0] for one in cluster.running(ns)] == ["ignored"], "the replacement")
    assert status(cluster, ns, "ignored").get("failed", 0) == 0
