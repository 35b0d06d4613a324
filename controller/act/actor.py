"""Who gives a command, for the record of operations."""

from __future__ import annotations

import os
import pwd

from controller.act.store import Actor
from controller.model.text import printable


def actor(command: str) -> Actor:
    """What the operating system and sudo say of who runs this process. `command`: what it was told to do, e.g. "rollout undo"."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    sudo_user = os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else ""
    return Actor(user, printable(sudo_user, 64), printable(os.uname().nodename, 64), command)
