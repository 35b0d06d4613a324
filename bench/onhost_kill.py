"""Runs on a lab host: SIGKILLs every container of the bench once, and prints for each when its successor ran and was Ready.

Nothing is polled while it happens: Podman tells afterwards when the successor was started, the agent since when the pod is Ready.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, "/var/lib/sshoal/agent/current")
from nodeagent import protocol

REST_S = 1.2


def podman(*arguments):
    return json.loads(subprocess.run(["podman", *arguments], capture_output=True, check=True).stdout)


def ready_since():
    """{pod uid: since when it is Ready, on the boot clock}, by the agent's report."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("/run/sshoal/agent.sock")
    connection.sendall(protocol.frame({"id": 1, "verb": protocol.REPORT, "body": {}}))
    frames = protocol.FrameReader()
    while True:
        for _, message in frames.feed(connection.recv(1 << 20)):
            return {pod["uid"]: pod.get("ready_since_s", 0.0) for pod in message["ok"]["pods"] if pod.get("ready")}


def boottime_s():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main():
    killed = {}
    for one in podman("ps", "--filter", "label=sshoal.dev/container=app", "--format", "json"):
        killed[one["Labels"]["sshoal.dev/pod-uid"]] = (one["Id"], time.time(), boottime_s())
        os.kill(one["Pid"], signal.SIGKILL)
        time.sleep(REST_S)
    time.sleep(5)
    ready = ready_since()
    ids = [one["Id"] for one in podman("ps", "--filter", "label=sshoal.dev/container=app", "--format", "json")]
    for one in podman("inspect", *ids):
        uid = one["Config"]["Labels"]["sshoal.dev/pod-uid"]
        former, wall_s, boot_s = killed[uid]
        if one["Id"] != former:
            print(_seconds(one["State"]["StartedAt"]) - wall_s, ready.get(uid, float("nan")) - boot_s)


def _seconds(text):
    """2026-11-23T13:00:00.123456789Z or with an offset → seconds since 1970."""
    from datetime import datetime

    head, _, tail = text.partition(".")
    digits = "".join(letter for letter in tail[:9] if letter.isdigit())
    offset = tail[len(digits) :] or "Z"
    return datetime.fromisoformat(head + ("+00:00" if offset == "Z" else offset)).timestamp() + float(
        f"0.{digits or 0}"
    )


main()
