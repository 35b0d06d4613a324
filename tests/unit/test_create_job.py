"""`create job`: of a cron job, and of an image; what is refused changes nothing."""

from __future__ import annotations

import pytest

from controller.model.cluster import Ref
from controller.model.workloads import Job
from tests.shell import Shell

CRON = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: report}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    metadata: {labels: {team: shop}}
    spec:
      backoffLimit: 2
      template: {spec: {restartPolicy: Never, containers: [{name: sum, image: "sum:1"}]}}
"""


@pytest.fixture
def reporting(shell: Shell) -> Shell:
    (shell.home / "hosts.ini").write_text("node1 ansible_host=127.0.0.1 ansible_port=1\n")
    (shell.home / "cron.yaml").write_text(CRON)
    code, _, told = shell("apply", "-f", "cron.yaml", "-i", "hosts.ini", "--no-wait")
    assert code == 0, told
    return shell


def jobs(shell: Shell) -> dict[str, Job]:
    store = shell.store()
    found = {item.meta.name: item for item in store.load().workloads.values() if isinstance(item, Job)}
    store.close()
    return found


def create(shell: Shell, *words: str) -> tuple[int, str, str]:
    return shell("create", "job", "now", "-i", "hosts.ini", "--no-wait", *words)


def test_one_more_run_of_a_cron_job_is_the_cron_jobs(reporting: Shell) -> None:
    assert create(reporting, "--from", "cronjob/report")[:2] == (0, "job.batch/now created\n")
    made = jobs(reporting)["now"]
    store = reporting.store()
    [cron] = [item for item in store.load().workloads.values() if item.meta.kind == "CronJob"]
    store.close()
    assert made.meta.owner == Ref("CronJob", "report", cron.meta.uid)
    assert made.meta.labels == {"team": "shop"}
    assert made.source["spec"]["backoffLimit"] == 2


def test_an_image_is_run_once_with_the_command_that_is_given(reporting: Shell) -> None:
    assert create(reporting, "--image", "shop:2.1", "--", "./manage.py", "migrate", "--fake")[0] == 0
    made = jobs(reporting)["now"]
    [container] = made.template["spec"]["containers"]
    assert made.meta.owner is None
    assert container == {"name": "now", "image": "shop:2.1", "command": ["./manage.py", "migrate", "--fake"]}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "--from cronjob/NAME, or --image IMAGE"),
        ("--from cronjob/report --image a:1", "--from cronjob/NAME, or --image IMAGE"),
        ("--from cronjob/report -- date", "has its command"),
        ("--from cronjob/other", "other"),
        ("--from report", "report"),
        ("--image A:1", "image"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(reporting: Shell, words: str, told: str) -> None:
    code, out, err = create(reporting, *words.split())
    assert (code, out, told in err, jobs(reporting)) == (2, "", True, {}), err


def test_a_job_that_is_there_is_not_changed(reporting: Shell) -> None:
    assert create(reporting, "--image", "shop:2.1")[0] == 0
    before = jobs(reporting)
    code, _, err = create(reporting, "--image", "shop:2.2")
    assert (code, "there is a job now already" in err, jobs(reporting)) == (2, True, before)
