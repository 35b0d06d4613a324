"""Linger switched on for the user of a rootless agent (loginctl(1)): his services then live without a login, and from boot on.

In: a Session. Effects: on the host, as little as is needed. What such a host lacks is judged by model/fitness/rootless.py.
"""

from __future__ import annotations

from controller.act.transport import Session
from controller.model.errors import HostNotReady
from controller.model.inventory import Host
from controller.model.text import printable

LINGER_TIMEOUT_S = 30.0

# Prints the user's id when linger is still off. A user may switch it on for himself where polkit lets him.
_SWITCH_ON = """user=$(id -un) uid=$(id -u)
[ -e "/var/lib/systemd/linger/$user" ] || loginctl --no-ask-password enable-linger >/dev/null
[ -e "/var/lib/systemd/linger/$user" ] || echo "$uid"
"""
# The user's own systemd comes up a moment later.
_WAIT = """uid=$(id -u) n=0
while [ ! -S "/run/user/$uid/systemd/private" ] && [ $n -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
[ -S "/run/user/$uid/systemd/private" ]
"""


async def ensure_linger(session: Session, host: Host) -> None:
    """Lets the user's services live without a login, from boot on. Uses sudo only where the inventory gives it and it is needed.

    Raises HostNotReady when that is not allowed, or the user's systemd does not come up; HostUnreachable.
    """
    timeout_s = LINGER_TIMEOUT_S * host.connection.patience
    asked = await session.run(_SWITCH_ON, become=False, timeout_s=timeout_s)
    uid = asked.stdout.decode("utf-8", "replace").strip()
    why = printable(asked.stderr, 200)
    if uid and uid.isascii() and uid.isdigit() and host.connection.become:
        done = await session.run(f"loginctl enable-linger {uid}", become=True, timeout_s=timeout_s)
        uid, why = ("", "") if done.exit_code == 0 else (uid, printable(done.stderr, 200))
    if uid:
        raise HostNotReady(
            session.host_name,
            f"linger is off, so that agent and pods would end with the last logout; loginctl enable-linger says: {why}",
            hint="as root on the host: loginctl enable-linger USER; or set ansible_become, which is then used for this alone",
        )
    waited = await session.run(_WAIT, become=False, timeout_s=timeout_s)
    if waited.exit_code != 0:
        raise HostNotReady(
            session.host_name,
            "the user's own systemd does not come up (no /run/user/UID/systemd/private)",
            hint="on the host, as root: systemctl status user@UID; libpam-systemd and dbus must be installed",
        )
