"""What a pod's last report says of its end. Pure."""

from __future__ import annotations

from controller.model.cluster import Pod
from nodeagent.protocol import FAILED, STOPPED, SUCCEEDED

FINISHED = (SUCCEEDED, FAILED, STOPPED)


def is_finished(pod: Pod) -> bool:
    """Its containers have ended for good."""
    return pod.report is not None and pod.report.phase in FINISHED
